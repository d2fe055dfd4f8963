"""The motivation condition of a run: built from the configuration, and checked against the length of an epoch."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from nestnet.conditions.base import JOINT, Condition, can_motivate, watched_quantity
from nestnet.conditions.by_position import Always
from nestnet.conditions.registry import create_condition
from nestnet.config.schema import Config
from nestnet.runs.history import motivated_counts
from nestnet.runs.reading import read_table


def condition_from_config(config: Config, batches: int) -> Condition:
    """The condition of a configuration, for epochs of so many batches; in joint training it has no effect.

    Raises:
        ValueError: for a setting that the condition does not have, and for earlier runs that cannot be read or are shorter.
    """
    m = config.motivation
    settings: dict[str, Any] = {**m.options}
    for name in ("decay", "min_drop", "period", "distillation"):
        if getattr(m, name) is not None:
            settings[name] = getattr(m, name)
    if m.name == "random_like":
        settings["counts"] = counts_of_earlier_runs(config)
    else:
        for name in ("runs", "counts"):
            if getattr(m, name) is not None:
                settings[name] = getattr(m, name)
    if m.name == JOINT:
        settings.pop("distillation", None)
        if settings:
            name, value = next(iter(settings.items()))
            raise ValueError(f"motivation.{name} = {value!r}: joint has no such setting; it has distillation")
        return Always()
    return create_condition(m.name, settings, k=m.k, batches=batches, seed=config.seed, period=math.factorial(m.k + 1))


def counts_of_earlier_runs(config: Config) -> list[int]:
    """How many motivated batches each epoch of a `random_like` run is to have: as it records them, or those of earlier runs.

    Raises:
        ValueError: as `mean_motivated_counts`.
    """
    if config.motivation.counts is not None:
        return config.motivation.counts
    return mean_motivated_counts(config.motivation.runs or [], config.epochs)


def plan_condition(config: Config, images: int, given: Condition | None = None) -> tuple[Condition, int]:
    """Return the condition of a run on so many training images, and the number of batches of its epochs.

    Args:
        given: condition in place of the one that the configuration names.

    Raises:
        ValueError: as `motivation`, and if no batch of an epoch can be motivated although the condition is to motivate some.
    """
    condition, batches = _plan(config, images, given)
    # fewer images than a batch takes are refused where the batches are made
    if batches and not can_motivate(condition, batches):
        name = f"motivation.name = {config.motivation.name!r}" if given is None else "condition"
        remedies = _ways_to_motivate(config, images, given)
        raise ValueError(
            f"{name}: {condition!r} can motivate none of the {batches} batches of an epoch, with which it starts anew; "
            + (" or ".join(remedies) or "take more training images, or train with --motivation.name joint")
        )
    return condition, batches


def _plan(config: Config, images: int, given: Condition | None) -> tuple[Condition, int]:
    """As `plan_condition`, whether or not any batch can be motivated."""
    size = config.data.batch_size
    batches = images // size
    condition = given or condition_from_config(config, max(batches, 1))
    if watched_quantity(condition) == "held_out_loss":
        # the batch that is held out is not trained, and a condition may go by the number of those that are
        batches = max(images - size, 0) // size
        condition = given or condition_from_config(config, max(batches, 1))
    return condition, batches


def _ways_to_motivate(config: Config, images: int, given: Condition | None) -> list[str]:
    """Return changes of one field each, with any of which a batch can be motivated."""
    data, motivation = config.data, config.motivation
    # each part of a batch has at least two images, and mixing takes pairs
    unit = config.accumulate * (2 if data.mixup or data.cutmix else 1)
    least = max(2 * config.accumulate, data.repeats)
    ways: list[str] = []
    for size in range(data.batch_size - 1, least - 1, -1):
        changed = replace(config, data=replace(data, batch_size=size))
        if size % unit == 0 and _motivates(changed, images, given):
            ways.append(f"lower data.batch_size = {data.batch_size} to {size}")
            break
    if given is not None:
        return ways
    for k in range(motivation.k - 1, 0, -1):
        if _motivates(replace(config, motivation=replace(motivation, k=k)), images, given):
            ways.append(f"lower motivation.k = {motivation.k} to {k}")
            break
    for period in range((motivation.period or 1) - 1, 0, -1):
        if _motivates(replace(config, motivation=replace(motivation, period=period)), images, given):
            ways.append(f"lower motivation.period = {motivation.period} to {period}")
            break
    return ways


def _motivates(config: Config, images: int, given: Condition | None) -> bool:
    """Return whether a batch can be motivated by a configuration."""
    try:
        condition, batches = _plan(config, images, given)
    except ValueError:
        return False
    return batches > 0 and can_motivate(condition, batches)


def mean_motivated_counts(runs: list[str], epochs: int) -> list[int]:
    """How many motivated batches earlier runs had in each of the first `epochs` epochs, on average.

    Raises:
        ValueError: if a folder is no run directory or its tables are damaged, or if the run was joint or did not finish so
            many epochs.
    """
    counts = [_motivated_counts(run, epochs) for run in runs]
    return [round(sum(epoch) / len(epoch)) for epoch in zip(*counts, strict=True)]


def _motivated_counts(run: str, epochs: int) -> list[int]:
    """The motivated batches of each of the first `epochs` epochs of a run."""
    batches = [(int(row["epoch"]), row["mode"]) for row in read_table(Path(run) / "steps.csv")]
    finished = len(read_table(Path(run) / "metrics.csv"))
    if any(mode == JOINT for _, mode in batches):
        raise ValueError(
            f"motivation.runs: {run} trained both networks at every batch (joint), so that none was motivated; name runs of "
            "another condition"
        )
    if finished < epochs:
        raise ValueError(
            f"motivation.runs: {run} has finished {finished} epochs, and this run is to have {epochs}; name a run of as many, "
            "or give fewer --epochs"
        )
    numbers = [epoch for epoch, _ in batches]
    if numbers != sorted(numbers) or numbers[-1] < finished:
        raise ValueError(
            f"motivation.runs: {run} is damaged: its steps.csv does not have the batches of epochs 1 to {finished} in order"
        )
    return motivated_counts(batches)[:epochs]
