"""The part of a report that compares several runs side by side."""

import statistics
from collections.abc import Sequence

from nestnet.analysis.report.comparison import RunGroup, compare_with_alone, describe_distinguishing_fields
from nestnet.analysis.report.html import Html, element, figure, table, wrapping_cell
from nestnet.analysis.report.rendering import RenderedFigure
from nestnet.analysis.report.summary import RunSummary
from nestnet.conditions.description import describe_motivation
from nestnet.nn.mode import Mode
from nestnet.text.units import format_duration, format_values

COLUMNS = (
    "runs",
    "networks, data",
    "condition",
    "epochs",
    "base: top-1, %",
    "motivated: top-1, %",
    "motivated batches (forecast), %",
    "cost / base alone",
    "training time",
)
NOTE = (
    "Top-1 on the test images after the last epoch. Runs that differ in their seed alone make one row, with mean ± sample "
    "standard deviation; a single run does not show how much another seed would change. Cost: multiply-accumulates of an "
    "average forward pass in training. Time: mean of a run, without evaluation."
)
NO_VALUE = "-"
"""Text of a cell whose value does not exist."""


def build_comparison(groups: Sequence[RunGroup], comparison: RenderedFigure | None) -> Html:
    """Build the part of a report that compares several runs side by side.

    Args:
        groups: runs, grouped by what they train.
        comparison: figure of all runs; `None` if no epoch is finished.

    Returns:
        A `<section>`.
    """
    parts = [element("h2", "Side by side")]
    for sentence in compare_with_alone(groups):
        parts.append(element("p", sentence, class_="lead"))
    rows = []
    for group, distinguishing_fields in zip(groups, describe_distinguishing_fields(groups), strict=True):
        rows.append(_build_row(group, distinguishing_fields))
    parts.append(table(COLUMNS, rows, class_="numbers compared"))
    parts.append(element("p", NOTE, class_="note"))
    if comparison is not None:
        caption = "Top-1 over the epochs; the runs of a row share a colour."
        parts.append(figure(comparison, caption, class_="wide"))
    return element("section", *parts)


def _build_row(group: RunGroup, distinguishing_fields: str) -> list[object]:
    """Return the cells of a group's row, in the order of `COLUMNS`."""
    # The runs of a group differ only in their seed, so the first one's configuration represents all.
    run = group[0]
    condition = describe_motivation(run.config.motivation)
    if distinguishing_fields:
        condition += f"; {distinguishing_fields}"
    names = [f"{each.name} (seed {each.config.seed})" for each in group]
    epochs = {_format_epochs(each) for each in group}
    mean_seconds = statistics.fmean(each.training_seconds for each in group)
    return [
        ", ".join(names),
        wrapping_cell(f"{run.network_names.base} in {run.network_names.motivated}, {run.config.data.name}"),
        wrapping_cell(condition),
        ", ".join(sorted(epochs)),
        _format_top1(group, Mode.BASE),
        _format_top1(group, Mode.MOTIVATED),
        wrapping_cell(_format_motivated_batches(group)),
        _format_cost(group),
        format_duration(mean_seconds),
    ]


def _format_epochs(run: RunSummary) -> str:
    """Return the number of finished epochs, and for an unfinished run also the total number."""
    if run.is_finished:
        return f"{run.finished_epochs}"
    return f"{run.finished_epochs} of {run.config.total_epochs}"


def _format_top1(group: RunGroup, mode: Mode) -> str:
    """Return the top-1 of those runs of a group that have finished an epoch, in percent."""
    # Runs of a group may be at different epochs, and one may not have finished its first.
    values = [run.final_top1(mode) for run in group if run.finished_epochs]
    if not values or mode not in group[0].trained_modes:
        return NO_VALUE
    return format_values(values)


def _format_motivated_batches(group: RunGroup) -> str:
    """Return the share of motivated batches and its forecast, both in percent."""
    # A run has no share before its first batch.
    percents = []
    for run in group:
        if run.motivated_fraction is not None:
            percents.append(100 * run.motivated_fraction)
    text = format_values(percents) if percents else NO_VALUE
    # The forecast depends on the configuration, and is the same for all runs of the group.
    expected_fraction = group[0].expected_fraction
    if expected_fraction is not None:
        text += f" ({100 * expected_fraction:.2f})"
    return text


def _format_cost(group: RunGroup) -> str:
    """Return the cost of training as a multiple of that of the base alone."""
    multiples = []
    for run in group:
        if run.training_cost is not None:
            multiples.append(run.training_cost / run.network_costs.base.macs)
    if not multiples:
        return NO_VALUE
    return format_values(multiples, 3)
