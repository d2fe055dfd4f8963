"""What a checkpoint must be for a run to go on from it. All of it is looked at before anything is changed."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from nestnet.config.schema import dotted
from nestnet.storage.state_codec import State

RESUMABLE_FIELDS = {
    "run_dir",
    "device",
    "data.root",
    "data.download",
    "data.workers",
    "data.eval_batch_size",
    "data.corrupt",
    "checkpoint_steps",
    "checkpoint_minutes",
    "snapshot_steps",
    "non_finite",
    "tensorboard",
}
"""Fields that may be others when a run goes on: where it runs and what it leaves, but not what it trains."""


def check_same_run(state: State, own: State) -> None:
    """Raises ValueError unless `state` is of the run whose state now is `own`, saying what differs."""
    missing = [name for name in own if name not in state]
    if missing:
        raise ValueError(f"the checkpoint is not of this version of nestnet: it has no {missing[0]}")
    check_config(state["config"], own["config"], "the checkpoint")
    for name, what in (("condition_name", "condition"), ("class_names", "classes"), ("images", "images")):
        if state[name] != own[name]:
            raise ValueError(
                f"the checkpoint is of other {what}: {_short(state[name])}, and there are {_short(own[name])} now"
            )


def check_config(before: Mapping[str, Any], now: Mapping[str, Any], what: str) -> None:
    """Raises ValueError if two configurations, as dictionaries, differ in what is trained."""
    others = changes(before, now, free=RESUMABLE_FIELDS)
    if others:
        raise ValueError(
            f"{what} is of another configuration: {', '.join(others)}; go back to that, or train anew in another folder; only "
            f"{', '.join(sorted(RESUMABLE_FIELDS - {'run_dir'}))} may change"
        )


def changes(before: Mapping[str, Any], now: Mapping[str, Any], *, free: Collection[str] = ()) -> list[str]:
    """The fields that two configurations have other values for, but for the `free` ones, in words."""
    return [f"{name} = {old!r} (now {new!r})" for name, old, new in differences(before, now) if name not in free]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """The fields that two configurations have other values for: (name, before, now)."""
    before, now = dotted(before), dotted(now)
    for name in dict.fromkeys((*before, *now)):
        if before.get(name) != now.get(name):
            yield name, before.get(name), now.get(name)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) < 100 else f"{text[:100]}..."
