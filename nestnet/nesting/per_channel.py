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
        if type(module).__name__ in ACROSS_BLOCKS:
            module.beta = 1.0  # type: ignore[assignment]  # torch declares all attributes as tensors or modules


def reduce_weights(network: nn.Module) -> None:
    """Set convolutions over neighbouring channels to their central entry, in place.

    Args:
        network: network that is used for nothing else.
    """
    for module in network.modules():
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


def _normalize(x: Tensor, p: float = 2.0, dim: int = 1, *rest: Any, **options: Any) -> Tensor:
    # Channels are last where a function of tokens is normalised over them. Over tokens both networks do the same.
    return x if dim in (-1, x.ndim - 1) else F.normalize(x, p, dim, *rest, **options)


def _leaky(slope: float) -> Callable[..., Tensor]:
    """Return a function in place of an activation that sets negative values to zero."""

    def activation(x: Tensor, *rest: Any, inplace: bool = False, **options: Any) -> Tensor:
        # As in `relu(x, True)`.
        inplace = inplace or (bool(rest) and rest[0] is True)
        return F.leaky_relu(x, slope, inplace)

    return activation


def _leaky_relu_in_place(x: Tensor) -> Tensor:
    return F.leaky_relu(x, RELU_SLOPE, inplace=True)


def _leaky_hardtanh(x: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    if min_val != 0:
        return F.hardtanh(x, min_val, max_val, inplace)
    # An `nn.ReLU6` is such a function.
    return F.leaky_relu(x, RELU_SLOPE, inplace).clamp_(max=max_val)


def _leaky_relu6(x: Tensor, inplace: bool = False) -> Tensor:
    return _leaky_hardtanh(x, 0.0, 6.0, inplace)


RELU_SLOPE = 0.37
"""Slope of a ReLU for negative values. The channels that it sets to zero could not be told apart by their values."""

FUNCTIONS: Mapping[Any, Callable[..., Tensor]] = {
    F.relu: _leaky(RELU_SLOPE),
    torch.relu: _leaky(RELU_SLOPE),
    torch.relu_: _leaky_relu_in_place,
    Tensor.relu: _leaky(RELU_SLOPE),
    Tensor.relu_: _leaky_relu_in_place,
    F.relu6: _leaky_relu6,
    F.hardtanh: _leaky_hardtanh,
    # Slopes of their own, so that networks with different activations do not agree.
    F.gelu: _leaky(0.41),
    F.silu: _leaky(0.43),
    F.hardswish: _leaky(0.47),
    F.layer_norm: _scale_last,
    torch.layer_norm: _scale_last,
    F.rms_norm: _scale_last,
    torch.rms_norm: _scale_last,
    F.group_norm: _scale_channels,
    torch.group_norm: _scale_channels,
    F.batch_norm: _batch_norm,
    F.normalize: _normalize,
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

ACROSS_BLOCKS = ("NormFreeBlock",)
"""Classes with a factor `beta` in place of a norm: the inverse of the spread that is expected after so many blocks (Brock et
al. 2021, arXiv 2102.06171, section 2)."""
