"""What a checkpoint must be for a run to go on from it. All of it is looked at before anything is changed."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from nestnet.checkpoints import State, kind
from nestnet.config import dotted
from nestnet.data import ImageData

FREE = {
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

LIKE_ITS_PARAMETER = {
    "momentum_buffer",
    "exp_avg",
    "exp_avg_sq",
    "max_exp_avg_sq",
    "square_avg",
    "grad_avg",
    "acc_delta",
    "sum",
}
"""Names of an optimizer's state that has a parameter's shape."""


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
    others = [f"{name} = {old!r} (now {new!r})" for name, old, new in differences(before, now) if name not in FREE]
    if others:
        raise ValueError(
            f"{what} is of another configuration: {', '.join(others)}; go back to that, or train anew in another folder; only "
            f"{', '.join(sorted(FREE - {'run_dir'}))} may change"
        )


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """The fields that two configurations have other values for: (name, before, now)."""
    before, now = dotted(before), dotted(now)
    for name in dict.fromkeys((*before, *now)):
        if before.get(name) != now.get(name):
            yield name, before.get(name), now.get(name)


def fingerprint(images: ImageData) -> str:
    """Of the training images' labels in order and the classes: other images seldom share it. Test images do not matter to
    what is trained, and damaged ones may be left out on resuming."""
    facts = json.dumps([list(map(int, images.train_labels)), list(images.class_names)])
    return f"{len(images.train)} training images, {hashlib.sha256(facts.encode()).hexdigest()}"


def load_optimizer(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load an optimizer's state, if it is of its parameters; each tensor gets its parameter's layout.

    Raises:
        ValueError: if it is not; the optimizer is as it was then.
    """
    try:
        groups, own = state["param_groups"], optimizer.state_dict()["param_groups"]
        if [group["params"] for group in groups] != [group["params"] for group in own]:
            raise ValueError("it has other groups of parameters")
        if [set(group) for group in groups] != [set(group) for group in own]:
            raise ValueError("its groups have other settings")
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        tensors = {index: dict(entry) for index, entry in state["state"].items()}
        for index, entry in tensors.items():
            for name, value in entry.items():
                if name in LIKE_ITS_PARAMETER and kind(value) != kind(parameters[index]):
                    raise ValueError(
                        f"{name} of parameter {index} is {kind(value)}, and must be {kind(parameters[index])}"
                    )
                if isinstance(value, Tensor) and value.shape == parameters[index].shape:
                    entry[name] = torch.empty_like(parameters[index], dtype=value.dtype).copy_(value)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        reason = str(error) if isinstance(error, ValueError) else repr(error)
        raise ValueError(f"the checkpoint is of another optimizer: {reason}") from error
    optimizer.load_state_dict({"state": tensors, "param_groups": groups})


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) < 100 else f"{text[:100]}..."
