"""Norms over channels, reduced to their scale and shift.

A LayerNorm divides by the spread of all channels of its network, so that no bigger network computes what a smaller one
does, wherever their weights lie. What a weights map can get wrong is which channel is scaled by what. The check of a
pair therefore runs with norms that scale and shift each channel, and do nothing else.
"""

import types
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class PerChannelNorms(TorchFunctionMode):
    """A context in which torch's norms over channels scale and shift each channel, and do nothing else."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        replacement = FUNCTIONS.get(func, func)
        return replacement(*args, **(kwargs or {}))


def reduce_norms(network: nn.Module) -> None:
    """Replace the forward pass of modules whose norm over channels is code of their own, in place.

    Args:
        network: network that is used for nothing else.
    """
    for module in network.modules():
        for kind in type(module).__mro__:
            forward = MODULES.get(kind.__name__)
            if forward is not None:
                module.forward = types.MethodType(forward, module)
                break
        if type(module).__name__ in ACROSS_CHANNELS:
            _keep_centre(module)


@torch.no_grad()
def _keep_centre(module: nn.Module) -> None:
    """Set a convolution over neighbouring channels to its central entry: the channels at the edge have other neighbours."""
    for parameter in module.parameters():
        centre = parameter.shape[-1] // 2
        kept = parameter[..., centre].clone()
        parameter.zero_()
        parameter[..., centre] = kept


# Functions of torch.


def _scale_last(
    x: Tensor, shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, *rest: Any, **options: Any
) -> Tensor:
    if weight is not None:
        x = x * weight
    return x if bias is None else x + bias


def _scale_channels(
    x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, *rest: Any, **options: Any
) -> Tensor:
    shape = (1, -1, *(1,) * (x.ndim - 2))
    if weight is not None:
        x = x * weight.view(shape)
    return x if bias is None else x + bias.view(shape)


def _batch_norm(x: Tensor, running_mean: Tensor | None, *args: Any, **options: Any) -> Tensor:
    # Weight standardisation is written as a BatchNorm without statistics, over the inputs of each output.
    if running_mean is None:
        return x
    return F.batch_norm(x, running_mean, *args, **options)


FUNCTIONS: Mapping[Any, Callable[..., Tensor]] = {
    F.layer_norm: _scale_last,
    torch.layer_norm: _scale_last,
    F.rms_norm: _scale_last,
    torch.rms_norm: _scale_last,
    F.group_norm: _scale_channels,
    torch.group_norm: _scale_channels,
    F.batch_norm: _batch_norm,
}
"""What takes the place of each function."""


# Modules of timm with norms of their own.


def _rms_norm(module: Any, x: Tensor) -> Tensor:
    return x if module.weight is None else x * module.weight


def _rms_norm_2d(module: Any, x: Tensor) -> Tensor:
    return x if module.weight is None else x * module.weight.view(1, -1, 1, 1)


def _response_norm(module: Any, x: Tensor) -> Tensor:
    return x + module.bias.view(module.wb_shape) + module.weight.view(module.wb_shape) * x


MODULES: Mapping[str, Callable[[Any, Tensor], Tensor]] = {
    "RmsNorm": _rms_norm,
    "SimpleNorm": _rms_norm,
    "RmsNorm2d": _rms_norm_2d,
    "SimpleNorm2d": _rms_norm_2d,
    "GlobalResponseNorm": _response_norm,
}
"""Forward pass that takes the place of that of a class, by the name of the class or of one that it derives from."""

ACROSS_CHANNELS = ("EcaModule", "CecaModule")
"""Classes with a convolution over neighbouring channels."""
