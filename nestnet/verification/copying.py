"""The copies at a switch between two models: tensors through the weights map, and step counts."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nestnet.nn.mode import Mode
from nestnet.nn.placement import Placement
from nestnet.optim.initial_state import is_scalar


@torch.no_grad()
def copy_through_map(base: Tensor, motivated: Tensor, placement: Placement, *, to: Mode) -> None:
    """Copy a base tensor into the motivated tensor, or from it into the base tensor (section 3.3).

    Args:
        base: tensor of the base's shape.
        motivated: tensor of the motivated network's shape.
        placement: position of the base tensor within the motivated one.
        to: mode of the tensor to write.
    """
    # Copy in place, so that the model and the optimizer keep their tensors.
    if to is Mode.MOTIVATED:
        motivated[placement.index] = base
    else:
        base.copy_(motivated[placement.index])


def has_shape_of(parameter: Tensor, value: Any) -> bool:
    """Return whether a value of an optimizer's state is a tensor of the parameter's shape.

    Args:
        parameter: parameter that the state belongs to.
        value: value of its state.
    """
    return isinstance(value, Tensor) and value.shape == parameter.shape


def copy_scalars(state: dict[str, Any]) -> dict[str, Any]:
    """Copy the scalars of a parameter's optimizer state, such as Adam's `step`.

    Args:
        state: optimizer state of a parameter.

    Returns:
        The scalars by name.
    """
    return {key: copy_value(value) for key, value in state.items() if is_scalar(value)}


def copy_entries(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Copy the entries of a parameter's optimizer state, or of a parameter group.

    Args:
        entries: entries by name; no two share memory.
    """
    return {key: copy_value(value) for key, value in entries.items()}


def copy_value(value: Any) -> Any:
    """Copy a value of an optimizer's state.

    Args:
        value: tensor, number, or anything else that can be copied.
    """
    # `copy.deepcopy` takes many times as long for a tensor, and a comparison copies all of them at each step.
    if isinstance(value, Tensor):
        return value.detach().clone()
    return copy.deepcopy(value)
