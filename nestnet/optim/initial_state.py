"""The initial state of a parameter in an optimizer.

Optimizers differ in this state: it may start at one, consist of a row and a column of sums, be a list, or be a
number of the parameter group. Nothing is assumed about it here. Instead, it is read from a new optimizer of the
same class with the same settings.
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

from nestnet.text.arguments import is_number

PARAMETER_FIELDS = ("params", "param_names")
"""Fields of a parameter group that hold its parameters. The remaining ones are settings and counts."""


def is_scalar(value: Any) -> bool:
    """Return whether a value of an optimizer's state is one number for a whole tensor, such as Adam's `step`.

    Args:
        value: value of the state of a parameter.

    Returns:
        Whether it is a number or a tensor without dimensions.
    """
    if isinstance(value, Tensor):
        return value.ndim == 0
    return is_number(value)


def group_settings(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings and counts of a parameter group by name, without its parameters.

    Args:
        group: group of an optimizer.
    """
    return {name: value for name, value in group.items() if name not in PARAMETER_FIELDS}


def recreate_optimizer(
    optimizer: Optimizer, groups: Sequence[tuple[Mapping[str, Any], Sequence[nn.Parameter]]]
) -> Optimizer:
    """Create a new optimizer of the same class with the same settings over other parameters.

    Args:
        optimizer: optimizer whose class and settings are used.
        groups: for each group of the new optimizer, the group of `optimizer` that gives its settings, and its
            parameters.

    Returns:
        The new optimizer, without state.

    Raises:
        ValueError: If the class cannot be created from its settings.
    """
    accepted = inspect.signature(type(optimizer)).parameters
    arguments = {}
    for name, value in optimizer.defaults.items():
        # Some optimizers keep defaults that their constructor does not take.
        if name in accepted:
            arguments[name] = copy.deepcopy(value)
    new_groups = []
    for group, parameters in groups:
        # A copy, because some optimizers change the counts of a group in place.
        new_group = copy.deepcopy(group_settings(group))
        new_group["params"] = list(parameters)
        new_groups.append(new_group)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the user has seen these warnings when the first one was created
            return type(optimizer)(new_groups, **arguments)
    except TypeError as error:
        raise ValueError(f"{type(optimizer).__name__} cannot be created from its settings: {error}") from error


def make_initial_state(optimizer: Optimizer, parameter: nn.Parameter) -> dict[str, Any]:
    """Return the initial state of a parameter in an optimizer.

    It is the state that a new optimizer sets before it first changes the parameter. State that is derived from
    the first gradient, such as the momentum buffer of torch's SGD, is not part of it.

    Args:
        optimizer: optimizer, which is not changed.
        parameter: one of its parameters, which is not changed.

    Returns:
        The state by name, as copies.

    Raises:
        ValueError: If the optimizer does not have the parameter, or its class cannot be created from its
            settings.
    """
    group = _find_group(optimizer, parameter)
    twin = nn.Parameter(parameter.detach().clone())
    fresh = recreate_optimizer(optimizer, [(group, [twin])])
    # Some optimizers, such as Adagrad, set the state in their constructor.
    if fresh.state.get(twin):
        return dict(fresh.state[twin])
    # The others set it in their first step.
    recorder = _InitialStateRecorder(twin)
    fresh.state[twin] = recorder
    twin.grad = torch.zeros_like(twin)
    with without_side_effects(twin.device):
        fresh.step()
    return recorder.initial_state


class _InitialStateRecorder(UserDict[str, Any]):
    """The state of a parameter, with a copy of each entry that is set before the parameter is first changed."""

    def __init__(self, parameter: nn.Parameter) -> None:
        super().__init__()
        self.parameter = parameter
        self.initial_version = parameter._version
        self.initial_state: dict[str, Any] = {}

    def __setitem__(self, key: str, value: Any) -> None:
        # The version of a parameter counts in-place changes.
        is_unmoved = self.parameter._version == self.initial_version
        if key not in self.data and is_unmoved:
            self.initial_state[key] = copy.deepcopy(value)
        super().__setitem__(key, value)


@contextmanager
def without_side_effects(device: torch.device) -> Iterator[None]:
    """Keep trial steps of an optimizer from changing random generators, from warning and from being compiled.

    Args:
        device: device of the tensors.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # timm's Kron compiles its step for each shape, which takes minutes.
        with torch.compiler.set_stance("force_eager"):
            yield


def _find_group(optimizer: Optimizer, parameter: nn.Parameter) -> dict[str, Any]:
    """Return the group of a parameter."""
    for group in optimizer.param_groups:
        # `in` would compare the values of tensors.
        if any(p is parameter for p in group["params"]):
            return group
    raise ValueError("the optimizer has no such parameter")
