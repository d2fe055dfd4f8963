"""What an optimizer keeps beside the weights: the state that it starts a parameter with, and loading state that was saved.

Optimizers differ in this: state may start at one, be a row and a column of sums, a list, or a number of the group. So nothing
is assumed here. A new optimizer of the same class and settings is asked instead.
"""

import copy
import inspect
import warnings
from collections import UserDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nestnet.storage.state_codec import kind


def is_scalar(value: Any) -> bool:
    """Whether a value of an optimizer's state is one number for a whole tensor, such as Adam's `step`."""
    if isinstance(value, Tensor):
        return value.ndim == 0
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def fresh_optimizer(
    optimizer: Optimizer, groups: Sequence[tuple[Mapping[str, Any], Sequence[nn.Parameter]]]
) -> Optimizer:
    """Make a new optimizer of the same class and settings over other parameters.

    Args:
        optimizer: gives the class and its settings.
        groups: for each group of the new optimizer, a group of `optimizer` whose settings it gets, and its parameters.

    Raises:
        ValueError: if its class cannot be made from its settings.
    """
    accepted = inspect.signature(type(optimizer)).parameters
    arguments = {name: value for name, value in optimizer.defaults.items() if name in accepted}
    new_groups = []
    for group, parameters in groups:
        # a copy: what the group counts is changed in place by some optimizers
        settings = {
            name: copy.deepcopy(value) for name, value in group.items() if name not in ("params", "param_names")
        }
        new_groups.append({**settings, "params": list(parameters)})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it was said when the first one was made
            return type(optimizer)(new_groups, **copy.deepcopy(arguments))
    except TypeError as error:
        raise ValueError(f"{type(optimizer).__name__} cannot be made anew from its settings: {error}") from error


def initial_state(optimizer: Optimizer, parameter: nn.Parameter) -> dict[str, Any]:
    """The state that an optimizer starts a parameter with.

    It is what a new optimizer sets before it first moves the parameter. What an optimizer takes over from the first gradient,
    such as the momentum buffer of torch's SGD, is not in it.
    """
    group = _group_of(optimizer, parameter)
    twin = nn.Parameter(parameter.detach().clone())
    fresh = fresh_optimizer(optimizer, [(group, [twin])])
    if fresh.state.get(twin):  # Adagrad's is there from the beginning
        return dict(fresh.state[twin])
    first_values = _FirstValues(twin)
    fresh.state[twin] = first_values
    twin.grad = torch.zeros_like(twin)
    with aside(twin.device):
        fresh.step()
    return first_values.found


class _FirstValues(UserDict[str, Any]):
    """The state of a parameter, which keeps a copy of what each entry is set to until the parameter is moved."""

    def __init__(self, parameter: nn.Parameter) -> None:
        super().__init__()
        self.parameter = parameter
        self.version = parameter._version
        self.found: dict[str, Any] = {}

    def __setitem__(self, key: str, value: Any) -> None:
        if key not in self.data and self.parameter._version == self.version:
            self.found[key] = copy.deepcopy(value)
        super().__setitem__(key, value)


@contextmanager
def aside(device: torch.device) -> Iterator[None]:
    """Within, steps on tensors that are no network's leave random generators alone, warn of nothing and are not compiled."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # timm's Kron compiles its step for each shape, which takes minutes
        with torch.compiler.set_stance("force_eager"):
            yield


def load_optimizer(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load an optimizer's state, if it is of this optimizer over these parameters, to the last bit.

    Each value is held against what a new optimizer has for that parameter after one step: the same entries, shapes and types.
    torch casts state to the type of its parameter; here it keeps its own, and its place and layout in memory are those of
    the new optimizer's.

    Raises:
        ValueError: if it is of another optimizer, or of other parameters; nothing has changed then.
    """
    try:
        placed = _checked(optimizer, state)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        reason = str(error) if isinstance(error, ValueError) else repr(error)
        raise ValueError(f"the checkpoint is of another optimizer: {reason}") from error
    optimizer.load_state_dict(dict(state))
    for parameter, entry in placed:
        optimizer.state[parameter] = entry


def _checked(optimizer: Optimizer, state: Mapping[str, Any]) -> list[tuple[nn.Parameter, dict[str, Any]]]:
    """The saved state of each parameter, in memory of its own, if all of it is such as this optimizer has."""
    own = optimizer.state_dict()
    if [group["params"] for group in state["param_groups"]] != [group["params"] for group in own["param_groups"]]:
        raise ValueError("it has other groups of parameters")
    _check_kind(_besides(state), _besides(own), "its state")
    entries = dict(state["state"])
    placed: list[tuple[nn.Parameter, dict[str, Any]]] = []
    for group, own_group, saved_group in zip(
        optimizer.param_groups, own["param_groups"], state["param_groups"], strict=True
    ):
        after_step: dict[Any, _AfterStep] = {}
        # a group may count steps in which none of its parameters was trained
        possible_settings = [own_group]
        for parameter, index in zip(group["params"], own_group["params"], strict=True):
            like = (parameter.shape, parameter.stride(), parameter.dtype, parameter.device)
            if like not in after_step:
                after_step[like] = _AfterStep(optimizer, group, parameter)
                possible_settings.append(after_step[like].settings)
            entry = entries.pop(index, {})
            if entry or own["state"].get(index):
                _check_kind(entry, after_step[like].state, f"of parameter {index}")
                placed.append((parameter, _placed(entry, after_step[like].state)))
                possible_settings[0] = after_step[like].settings
        _check_settings(saved_group, possible_settings)
    if entries:
        raise ValueError(f"it has state of a parameter {min(entries)}, and there is none")
    return placed


class _AfterStep:
    """What a new optimizer has for a parameter after one step: its `state`, and the `settings` of its group."""

    def __init__(self, optimizer: Optimizer, group: Mapping[str, Any], parameter: nn.Parameter) -> None:
        twin = nn.Parameter(parameter.detach().clone())
        twin.grad = torch.ones_like(twin)
        fresh = fresh_optimizer(optimizer, [(group, [twin])])
        with aside(twin.device):
            fresh.step()
        self.state = dict(fresh.state[twin])
        self.settings = fresh.param_groups[0]


def _besides(state: Mapping[str, Any]) -> dict[str, Any]:
    """What an optimizer keeps beside the state of parameters and groups, such as a random generator's state."""
    return {name: value for name, value in state.items() if name not in ("state", "param_groups")}


def _check_settings(saved: Mapping[str, Any], possible: Sequence[Mapping[str, Any]]) -> None:
    """Raises ValueError unless a group has the settings and the counts of one of the `possible` groups."""
    names = set(saved) - {"params", "param_names"}
    expected = next((group for group in possible if set(group) - {"params", "param_names"} == names), None)
    if expected is None:
        other = names ^ (set(possible[0]) - {"params", "param_names"})
        raise ValueError(f"its groups have other settings: {', '.join(sorted(other))}")
    for name in names:
        # a list may be what an optimizer has computed up to now, such as a buffer of AdaBelief's
        if saved[name] is not None and expected[name] is not None and not isinstance(expected[name], list):
            _check_kind(saved[name], expected[name], f"{name} of a group of parameters")


def _check_kind(found: Any, expected: Any, where: str) -> None:
    """Raises ValueError unless both have the same entries, and tensors of the same shapes and types in them."""
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        for name in dict.fromkeys((*expected, *found)):
            _check_kind(found.get(name), expected.get(name), f"{name} {where}")
        return
    if isinstance(found, (list, tuple)) and isinstance(expected, (list, tuple)) and len(found) == len(expected):
        for index, pair in enumerate(zip(found, expected, strict=True)):
            _check_kind(*pair, f"[{index}] {where}")
        return
    if not isinstance(found, Tensor) and is_scalar(found) and not isinstance(expected, Tensor) and is_scalar(expected):
        return  # a whole number may have become another one
    if kind(found) != kind(expected):
        raise ValueError(f"{where} is {kind(found)}, and must be {kind(expected)}")


def _placed(value: Any, like: Any) -> Any:
    """A copy of a value, whose tensors have the place and the layout of those in `like`."""
    if isinstance(value, Tensor):
        return torch.empty_like(like).copy_(value)
    if isinstance(value, Mapping):
        return {name: _placed(entry, like[name]) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_placed(entry, model) for entry, model in zip(value, like, strict=True))
    return value


def _group_of(optimizer: Optimizer, parameter: nn.Parameter) -> dict[str, Any]:
    for group in optimizer.param_groups:
        if any(p is parameter for p in group["params"]):
            return group
    raise ValueError("the optimizer has no such parameter")
