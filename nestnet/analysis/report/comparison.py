"""The comparison of several runs in sentences: with networks trained alone, and by distinguishing fields."""

import statistics
from collections.abc import Sequence
from typing import Any

from nestnet.analysis.report.summary import RunSummary
from nestnet.conditions.description import describe_motivation, trained_alone
from nestnet.config.schema import Config
from nestnet.nn.mode import Mode
from nestnet.runs.grouping import training_differences

NO_COMPARISON = (
    "This does not show whether motivation paid: that takes runs of the same configuration with motivation.name set to never "
    "and to always, which train each network alone, in the same report."
)
"""Sentence in place of a comparison if no network was trained alone."""

RunGroup = Sequence[RunSummary]
"""Runs that differ in their seed alone."""


def compare_with_alone(groups: Sequence[RunGroup]) -> list[str]:
    """Compare the subnets of nested runs with the same networks trained alone.

    Args:
        groups: runs, grouped by what they train. Only finished runs are compared.

    Returns:
        A sentence for each group of nested runs that can be compared; a single one if there is none.
    """
    # Comparing an unfinished run with a finished one would be unfair.
    finished_groups = []
    for group in groups:
        finished = [run for run in group if run.is_finished]
        if finished:
            finished_groups.append(finished)

    sentences = []
    for group in finished_groups:
        is_classical = len(group[0].trained_modes) == 1
        if is_classical:
            continue
        parts = []
        for mode in Mode:
            alone = _find_group_alone(group[0], mode, finished_groups)
            if alone is not None:
                parts.append(_compare_mode(group, alone, mode))
        if parts:
            names = ", ".join(run.name for run in group)
            sentences.append(f"{names}: {'; '.join(parts)}.")
    return sentences or [NO_COMPARISON]


def _find_group_alone(run: RunSummary, mode: Mode, groups: Sequence[RunGroup]) -> RunGroup | None:
    """Return the group that trained the network of a mode alone, with an otherwise equal configuration."""
    for group in groups:
        config = group[0].config
        if trained_alone(config) is not mode:
            continue
        # If the condition is never or always, its other fields, such as k, have no effect. A network alone is not extended.
        differences = training_differences(run.config, config).keys() - {"finish_epochs", "finish_lr"}
        if all(field.startswith("motivation.") for field in differences):
            return group
    return None


def _compare_mode(group: RunGroup, alone: RunGroup, mode: Mode) -> str:
    """Compare a network of nested runs with the same network trained alone.

    Args:
        group: nested runs.
        alone: runs that trained the network alone.
        mode: mode of the network in the nested runs.

    Returns:
        A part of a sentence.
    """
    difference = _mean_top1(group, mode) - _mean_top1(alone, mode)
    relation = "better" if difference > 0 else "worse"
    multiple = _mean_cost(group) / _mean_cost(alone)
    network = group[0].network_names.of(mode)
    return f"{network} is {abs(difference):.2f} points {relation} than trained alone, for {multiple:.2f} times the cost"


def _mean_top1(group: RunGroup, mode: Mode) -> float:
    """Return the mean top-1 of finished runs, in percent."""
    return statistics.fmean(run.final_top1(mode) for run in group)


def _mean_cost(group: RunGroup) -> float:
    """Return the mean cost of finished runs, in multiply-accumulates per batch that trained the base."""
    return statistics.fmean(run.training_cost or 0.0 for run in group)


def describe_distinguishing_fields(groups: Sequence[RunGroup]) -> list[str]:
    """Describe how each group differs from the other groups with the same networks, data set and condition.

    Args:
        groups: runs, grouped by what they train.

    Returns:
        For each group its values of the fields in which it differs from such groups, for example
        `data.batch_size = 64`; empty if there are no such groups.
    """
    # The runs of a group train the same configuration: the first represents all.
    configs = [group[0].config for group in groups]
    shown_fields = [_shown_fields(config) for config in configs]
    texts = []
    for config, shown in zip(configs, shown_fields, strict=True):
        fields: dict[str, Any] = {}
        for other, other_shown in zip(configs, shown_fields, strict=True):
            # Groups that differ in a column of the table need no explanation, and finding no differences takes long.
            if other_shown == shown and other != config:
                fields |= training_differences(config, other)
        texts.append(_format_fields(fields))
    return texts


def _format_fields(fields: dict[str, Any]) -> str:
    """Return fields with their values, in which `None` is written as in YAML."""
    parts = []
    for name, value in fields.items():
        shown = "null" if value is None else value
        parts.append(f"{name} = {shown}")
    return ", ".join(parts)


def _shown_fields(config: Config) -> tuple[str, ...]:
    """Return the fields of a configuration that a row of the comparison shows."""
    return (config.model.base, config.model.motivated, config.data.name, describe_motivation(config.motivation))
