"""The motivation condition of a run: built from the configuration, and checked against the length of an epoch."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from nestnet.conditions.base import WATCHED_ON_HELD_OUT_BATCH, Condition, can_motivate, watched_quantity
from nestnet.conditions.description import default_period, given_settings
from nestnet.conditions.registry import create_condition
from nestnet.config.schema import Config
from nestnet.training.earlier_runs import resolve_counts


def build_condition(config: Config, batches: int) -> Condition:
    """Build the condition that a configuration names.

    Args:
        config: configuration of a run.
        batches: number of batches per epoch, at least 1.

    Returns:
        The condition.

    Raises:
        ValueError: For a setting that the condition does not have, or if earlier runs cannot be read or are
            shorter.
    """
    motivation = config.motivation
    settings = _condition_settings(config)
    context = {"k": motivation.k, "batches": batches, "seed": config.seed, "period": default_period(motivation)}
    return create_condition(motivation.name, settings, **context)


def plan_condition(config: Config, images: int, given: Condition | None = None) -> tuple[Condition, int]:
    """Build the condition of a run, and determine the number of batches per epoch.

    Args:
        config: configuration of the run.
        images: number of training images.
        given: condition to use in place of the one that the configuration names.

    Returns:
        The condition, and the number of batches that are trained per epoch.

    Raises:
        ValueError: See `build_condition`; also if no batch of an epoch can be motivated although the
            condition is to motivate some.
    """
    condition, batches = _build_for_images(config, images, given)
    # Fewer images than one batch are refused when the loader is created. A run that only extends a finished base does
    # not ask its condition.
    if batches == 0 or config.extends_given_base or can_motivate(condition, batches):
        return condition, batches
    source = f"motivation.name = {config.motivation.name!r}" if given is None else "condition"
    remedies = list(_remedies(config, images, given))
    if not remedies:
        remedies.append("take more training images, or set motivation.name to always")
    raise ValueError(
        f"{source}: {condition!r} can motivate none of the {batches} batches of an epoch, and every epoch resets it; "
        + " or ".join(remedies)
    )


def _condition_settings(config: Config) -> dict[str, Any]:
    """Return the settings of the condition that the configuration sets, by name."""
    motivation = config.motivation
    settings = motivation.options | given_settings(motivation)
    if motivation.name == "random_like":
        return settings | {"counts": resolve_counts(config)}
    # Other conditions refuse them.
    for name in ("runs", "counts"):
        value = getattr(motivation, name)
        if value is not None:
            settings[name] = value
    return settings


def _build_for_images(config: Config, images: int, given: Condition | None) -> tuple[Condition, int]:
    """Build the condition as `plan_condition` does, without checking that a batch can be motivated."""
    batch_size = config.data.images_per_batch
    batches = images // batch_size
    # The condition must exist before it is known whether it needs a held-out batch.
    condition = given or build_condition(config, max(batches, 1))
    if watched_quantity(condition) in WATCHED_ON_HELD_OUT_BATCH:
        # One batch is held out of training. Build the condition again, because it may depend on the number of
        # batches that remain.
        batches = max(images - batch_size, 0) // batch_size
        condition = given or build_condition(config, max(batches, 1))
    return condition, batches


def _remedies(config: Config, images: int, given: Condition | None) -> Iterator[str]:
    """Yield changes of one field, each of which would allow a batch to be motivated."""
    motivation = config.motivation
    batch_size = largest_batch_size(config, images, given, most=config.data.images_per_batch - 1)
    if batch_size is not None:
        yield f"lower data.batch_size = {config.data.images_per_batch} to {batch_size}"
    if given is not None:
        return
    # Find the largest value of either field, below the present one, that works.
    for k in range(motivation.k - 1, 0, -1):
        if _can_motivate(replace(config, motivation=replace(motivation, k=k)), images, given):
            yield f"lower motivation.k = {motivation.k} to {k}"
            break
    # A period longer than an epoch motivates nothing, and there may be many of them.
    longest = min((motivation.period or 1) - 1, images)
    for period in range(longest, 0, -1):
        if _can_motivate(replace(config, motivation=replace(motivation, period=period)), images, given):
            yield f"lower motivation.period = {motivation.period} to {period}"
            break


def largest_batch_size(config: Config, images: int, given: Condition | None, *, most: int) -> int | None:
    """Return the largest batch size with which a batch can be motivated, if any has to be.

    Args:
        config: configuration of a run. Its own batch size does not matter.
        images: number of training images.
        given: condition to use in place of the one that the configuration names.
        most: largest size to consider.

    Returns:
        The size, which divides into the parts of the configuration; `None` if there is none.
    """
    data = config.data
    # BatchNorm needs at least two images in each part of a batch, and Mixup and CutMix need pairs.
    multiple = config.accumulate
    if data.mixup or data.cutmix:
        multiple *= 2
    smallest = max(2 * config.accumulate, data.repeats)
    for size in range(most, smallest - 1, -1):
        changed = replace(config, data=replace(data, batch_size=size))
        if size % multiple == 0 and _can_motivate(changed, images, given):
            return size
    return None


def _can_motivate(config: Config, images: int, given: Condition | None) -> bool:
    """Return whether any batch can be motivated with a configuration, or none has to be."""
    try:
        condition, batches = _build_for_images(config, images, given)
    except ValueError:
        return False
    return batches > 0 and (config.extends_given_base or can_motivate(condition, batches))
