"""Trials of an optimizer on small tensors, which show whether a run with it trains correctly and can be resumed."""

import json

from torch import Tensor, nn
from torch.optim import Optimizer

from nestnet.optim.initial_state import group_settings
from nestnet.optim.trial_run import ROUNDING, SHAPES, TrialRun, device_of, largest_relative_difference
from nestnet.optim.whole_tensor_updates import updates_whole_tensors
from nestnet.storage.state_codec import encode
from nestnet.text.messages import first_line

Settings = tuple[type[Optimizer], str, str]
"""Class of an optimizer, device of its parameters, and its settings as JSON: all that the trials depend on."""

_trainable: set[Settings] = set()
"""Settings that have passed the trials in this process, in which a study trains many runs."""


def check_trainable(optimizer: Optimizer) -> None:
    """Check that a run of a nested network with an optimizer trains correctly, and can be resumed.

    Settings that have passed are not tried again in this process.

    Args:
        optimizer: optimizer, which is tried on small tensors and is not changed.

    Raises:
        ValueError: If a step fails, if the steps of one tensor change those of another that is trained at other
            times, or if the optimizer does not continue exactly from the state that it saves. The message gives
            the reason.
    """
    settings = _settings_of(optimizer)
    if settings in _trainable:
        return
    _try(optimizer)
    if settings is not None:
        _trainable.add(settings)


def _settings_of(optimizer: Optimizer) -> Settings | None:
    """Return what the trials of an optimizer depend on; `None` if it has a setting that is no plain value."""
    groups = [group_settings(group) for group in optimizer.param_groups]
    tensors: dict[str, Tensor] = {}
    try:
        text = json.dumps(encode([optimizer.defaults, groups], "", tensors))
    except ValueError:
        return None
    if tensors:
        return None
    return type(optimizer), str(device_of(optimizer)), text


def _try(optimizer: Optimizer) -> None:
    """Try an optimizer as `check_trainable` says."""
    name = type(optimizer).__name__
    try:
        # Some optimizers that compute with whole tensors mix tensors by design: Lamb uses the norm of all
        # gradients of a step.
        mixes_tensors = not updates_whole_tensors(optimizer) and _mixes_tensors(optimizer)
    except Exception as error:  # an optimizer may raise anything
        raise ValueError(f"{name} cannot take a step: {first_line(error)}") from error
    if mixes_tensors:
        raise ValueError(
            f"{name} uses for one tensor what it computed for another at an earlier step, and in a nested network these are "
            "trained at different steps; take another optimizer, or a newer timm"
        )
    try:
        resumes_exactly = _resumes_exactly(optimizer)
    except Exception as error:  # as above
        raise ValueError(f"the state of {name} cannot be saved and loaded: {first_line(error)}") from error
    if not resumes_exactly:
        raise ValueError(
            f"{name} does not continue exactly from the state that it saves, so that no run can be resumed"
        )


def _mixes_tensors(optimizer: Optimizer) -> bool:
    """Return whether a tensor that is trained at some steps changes differently if others are trained in between."""
    trained_apart, start = _train_last_tensor(optimizer, train_others_between=False)
    trained_between, _ = _train_last_tensor(optimizer, train_others_between=True)
    return largest_relative_difference(trained_between, trained_apart, start) > ROUNDING


def _train_last_tensor(optimizer: Optimizer, *, train_others_between: bool) -> tuple[list[nn.Parameter], list[Tensor]]:
    """Train the last tensor of each group at three of eight steps, with another learning rate at each step.

    Args:
        optimizer: optimizer under test.
        train_others_between: whether the other tensors are trained at all steps instead of these three.

    Returns:
        The last tensors after and before training.
    """
    # Steps 2, 3 and 6 leave gaps of different lengths, and the learning rate shows when a value was computed.
    trial = TrialRun(optimizer, SHAPES)
    groups = trial.optimizer.param_groups
    initial_rates = [group["lr"] for group in groups]
    last_tensors = [group["params"][-1] for group in groups]
    start = [parameter.detach().clone() for parameter in last_tensors]
    for step in range(8):
        trial.draw_gradients(seed=step)
        if step not in (2, 3, 6):
            for group in groups:
                # All tensors of the group, or only its last one, are not trained at this step.
                untrained = group["params"][-1:] if train_others_between else group["params"]
                for parameter in untrained:
                    parameter.grad = None
        for group, initial_rate in zip(groups, initial_rates, strict=True):
            group["lr"] = initial_rate / (1 + step)
        trial.step()
    return last_tensors, start


def _resumes_exactly(optimizer: Optimizer) -> bool:
    """Return whether another optimizer continues from the state that is saved after some steps as the first one does.

    On a CPU this means bit for bit. On other devices, rounding may differ from one time to the next.
    """
    first = TrialRun(optimizer, SHAPES)
    second = TrialRun(optimizer, SHAPES)
    start = [parameter.detach().clone() for parameter in first.parameters()]
    first.train(steps=2, seed=0)
    second.resume_from(first)
    first.train(steps=2, seed=1)
    second.train(steps=2, seed=1)
    tolerance = 0.0 if first.device.type == "cpu" else ROUNDING
    return largest_relative_difference(second.parameters(), first.parameters(), start) <= tolerance
