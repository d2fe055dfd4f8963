"""Checks that a run may be resumed from a checkpoint: both must train the same thing."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from nestnet.config.schema import dotted
from nestnet.storage.state_codec import State

# Every other field counts as changing what is trained, so that a new field is safe by default.
RESUMABLE_FIELDS = {
    "run_dir",
    "imports",
    "device",
    "data.root",
    "data.labels",
    "data.download",
    "data.workers",
    "data.eval_batch_size",
    "data.corrupt",
    "checkpoint_steps",
    "checkpoint_minutes",
    "snapshot_steps",
    "non_finite",
    "grad_checkpointing",
    "trackers",
    "exports",
    "max_hours",
    "early_stopping.patience",
    "early_stopping.min_delta",
}
"""Fields that may change when a run is resumed: where it runs and what it writes, but not what it trains."""

LONGER_RUN_FIELDS = {"epochs", "schedule.further_epochs"}
"""Fields that may change too when a run is resumed for more epochs."""

# Largest number of characters of a value in a message, because a record of images can be very long.
LONGEST_SHOWN = 100


def check_same_run(checkpoint: State, current: State) -> None:
    """Check that a checkpoint belongs to a run.

    Args:
        checkpoint: state that was read from the checkpoint.
        current: present state of the run.

    Raises:
        ValueError: If it belongs to another run. The message says what differs.
    """
    # An old checkpoint does not have fields that a newer version has added.
    for name in current:
        if name not in checkpoint:
            raise ValueError(f"the checkpoint is not of this version of nestnet: it has no {name}")
    check_same_config(checkpoint["config"], current["config"], "the checkpoint")
    # A run may also have been given a condition or images as Python objects, which are not in the configuration.
    for name, description in (("condition_name", "condition"), ("class_names", "classes"), ("images", "images")):
        if checkpoint[name] != current[name]:
            raise ValueError(
                f"the checkpoint is of other {description}: {_shorten(checkpoint[name])}, and there are "
                f"{_shorten(current[name])} now"
            )


def check_same_config(before: Mapping[str, Any], now: Mapping[str, Any], name: str) -> None:
    """Check that two configurations train the same thing.

    Args:
        before: earlier configuration, as nested dictionaries.
        now: present configuration, as nested dictionaries.
        name: owner of the earlier configuration, for the message, such as "the checkpoint".

    Raises:
        ValueError: If they differ in what is trained. The message names the fields.
    """
    ignored = RESUMABLE_FIELDS
    if now["epochs"] > before["epochs"]:
        ignored = RESUMABLE_FIELDS | LONGER_RUN_FIELDS
    changed_fields = describe_changes(before, now, ignored=ignored)
    if changed_fields:
        may_change = ", ".join(sorted(RESUMABLE_FIELDS - {"run_dir"}))
        raise ValueError(
            f"{name} is of another configuration: {', '.join(changed_fields)}; set these fields back, or train in another "
            f"folder; only {may_change} may change, and epochs may be raised"
        )


def describe_changes(before: Mapping[str, Any], now: Mapping[str, Any], *, ignored: Collection[str] = ()) -> list[str]:
    """Return the changes from one configuration to another in words.

    Args:
        before: earlier configuration, as nested dictionaries.
        now: present configuration, as nested dictionaries.
        ignored: dotted names of fields that are left out.

    Returns:
        A text for each field that changed, such as `epochs = 3 (now 5)`.
    """
    changed_fields = []
    for name, old, new in config_differences(before, now):
        if name not in ignored:
            changed_fields.append(f"{name} = {old!r} (now {new!r})")
    return changed_fields


def config_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield the fields in which two configurations differ.

    Args:
        before: earlier configuration, as nested dictionaries.
        now: present configuration, as nested dictionaries.

    Yields:
        The dotted name of a field, its earlier value and its present value; `None` for a field that a
        configuration does not have.
    """
    before_fields = dotted(before)
    now_fields = dotted(now)
    for name in dict.fromkeys((*before_fields, *now_fields)):
        old = before_fields.get(name)
        new = now_fields.get(name)
        if old != new:
            yield name, old, new


def _shorten(value: Any) -> str:
    text = str(value)
    if len(text) < LONGEST_SHOWN:
        return text
    return f"{text[:LONGEST_SHOWN]}..."
