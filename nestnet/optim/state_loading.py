"""Exact loading of a saved optimizer state, after checking that it belongs to the optimizer."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nestnet.optim.initial_state import group_settings, is_scalar, recreate_optimizer, without_side_effects
from nestnet.storage.state_codec import describe_tensor


def load_optimizer_state(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load the state of an optimizer bit for bit, if it belongs to this optimizer over these parameters.

    Each value is compared with that of a new optimizer after one step: entries, shapes and dtypes must be the
    same. torch casts state to the dtype of its parameter. Here it keeps its own dtype, and gets the device and
    the memory layout of the new optimizer's state.

    Args:
        optimizer: optimizer that gets the state.
        state: state that `optimizer.state_dict()` of the same optimizer returned.

    Raises:
        ValueError: If it is the state of another optimizer or of other parameters. Nothing is changed then.
    """
    try:
        state_by_parameter = _checked_state(optimizer, state)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        reason = str(error) if isinstance(error, ValueError) else repr(error)
        raise ValueError(f"the checkpoint is of another optimizer: {reason}") from error
    # torch loads settings and counts, but casts the state of the parameters, which exact copies replace.
    optimizer.load_state_dict(dict(state))
    for parameter, entry in state_by_parameter:
        optimizer.state[parameter] = entry


def _checked_state(optimizer: Optimizer, state: Mapping[str, Any]) -> list[tuple[nn.Parameter, dict[str, Any]]]:
    """Return a copy of the saved state of each parameter, if the optimizer can have such a state.

    Raises:
        ValueError: If it cannot. The message names the first wrong value.
    """
    current = optimizer.state_dict()
    saved_groups = state["param_groups"]
    current_groups = current["param_groups"]
    # torch numbers the parameters over all groups.
    if _parameter_indices(saved_groups) != _parameter_indices(current_groups):
        raise ValueError("it has other parameter groups")
    _check_kind(_global_state(state), _global_state(current), "of the optimizer")

    saved_entries = dict(state["state"])
    state_by_parameter: list[tuple[nn.Parameter, dict[str, Any]]] = []
    for group, current_group, saved_group in zip(optimizer.param_groups, current_groups, saved_groups, strict=True):
        # Parameters of the same shape, layout, dtype and device have state of the same form after a step.
        after_step: dict[Any, _AfterStep] = {}
        # A group may also count steps in which none of its parameters was trained.
        possible_settings = [current_group]
        for parameter, index in zip(group["params"], current_group["params"], strict=True):
            kind_of_parameter = (parameter.shape, parameter.stride(), parameter.dtype, parameter.device)
            if kind_of_parameter not in after_step:
                after_step[kind_of_parameter] = _AfterStep(optimizer, group, parameter)
                possible_settings.append(after_step[kind_of_parameter].settings)
            expected = after_step[kind_of_parameter]
            entry = saved_entries.pop(index, {})
            # A parameter that was never trained has no state.
            if entry or current["state"].get(index):
                _check_kind(entry, expected.state, f"of parameter {index}")
                state_by_parameter.append((parameter, _copy_like(entry, expected.state)))
                possible_settings[0] = expected.settings
        _check_settings(saved_group, possible_settings)
    if saved_entries:
        raise ValueError(f"it has state of parameter {min(saved_entries)}, which does not exist")
    return state_by_parameter


def _parameter_indices(groups: Sequence[Mapping[str, Any]]) -> list[Any]:
    return [group["params"] for group in groups]


class _AfterStep:
    """The state and the settings of a parameter in a new optimizer after one step.

    Attributes:
        state: state of the parameter.
        settings: group of the parameter, with its settings and counts.
    """

    def __init__(self, optimizer: Optimizer, group: Mapping[str, Any], parameter: nn.Parameter) -> None:
        twin = nn.Parameter(parameter.detach().clone())
        twin.grad = torch.ones_like(twin)
        fresh = recreate_optimizer(optimizer, [(group, [twin])])
        with without_side_effects(twin.device):
            fresh.step()
        self.state = dict(fresh.state[twin])
        self.settings = fresh.param_groups[0]


def _global_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state that belongs to no parameter or group, such as that of a random generator."""
    remaining = dict(state)
    for name in ("state", "param_groups"):
        remaining.pop(name, None)
    return remaining


def _check_settings(saved: Mapping[str, Any], possible_groups: Sequence[Mapping[str, Any]]) -> None:
    """Raise ValueError unless a saved group has the settings and the counts of one of the possible groups."""
    names = _setting_names(saved)
    expected = None
    for group in possible_groups:
        if _setting_names(group) == names:
            expected = group
            break
    if expected is None:
        differing_names = names ^ _setting_names(possible_groups[0])
        raise ValueError(f"its groups have other settings: {', '.join(sorted(differing_names))}")
    for name in names:
        if saved[name] is None or expected[name] is None:
            continue
        # A list may hold values that change during training, such as a buffer of AdaBelief.
        if isinstance(expected[name], list):
            continue
        _check_kind(saved[name], expected[name], f"{name} of a parameter group")


def _setting_names(group: Mapping[str, Any]) -> set[str]:
    return set(group_settings(group))


def _check_kind(saved: Any, expected: Any, place: str) -> None:
    """Raise ValueError unless both have the same entries, with tensors of the same shapes and types.

    Args:
        saved: value of the saved state.
        expected: value of the new optimizer.
        place: where the value is, for the message.
    """
    if isinstance(saved, Mapping) and isinstance(expected, Mapping):
        for name in dict.fromkeys((*expected, *saved)):
            _check_kind(saved.get(name), expected.get(name), f"{name} {place}")
        return
    if isinstance(saved, (list, tuple)) and isinstance(expected, (list, tuple)) and len(saved) == len(expected):
        for index, (saved_item, expected_item) in enumerate(zip(saved, expected, strict=True)):
            _check_kind(saved_item, expected_item, f"[{index}] {place}")
        return
    # Two plain numbers need not be of the same type: an integer may have become a float.
    if _is_plain_number(saved) and _is_plain_number(expected):
        return
    if describe_tensor(saved) != describe_tensor(expected):
        raise ValueError(f"{place} is {describe_tensor(saved)}, and must be {describe_tensor(expected)}")


def _is_plain_number(value: Any) -> bool:
    return is_scalar(value) and not isinstance(value, Tensor)


def _copy_like(value: Any, like: Any) -> Any:
    """Return a copy of a value whose tensors have the device and the layout of those in `like`."""
    if isinstance(value, Tensor):
        return torch.empty_like(like).copy_(value)
    if isinstance(value, Mapping):
        return {name: _copy_like(entry, like[name]) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        entries = []
        for entry, like_entry in zip(value, like, strict=True):
            entries.append(_copy_like(entry, like_entry))
        return type(value)(entries)
    return value
