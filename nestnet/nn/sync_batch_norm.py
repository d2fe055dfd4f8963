"""BatchNorm over the images of several processes, on any device.

`nn.SyncBatchNorm` supports GPUs only. This module has the same arithmetic, with one collective operation in the
forward pass and one in the backward pass.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

REDUCED_DIMS = (0, 2, 3)
"""Dimensions of `[B, C, H, W]` over which the statistics of a channel are computed."""


@torch.compiler.disable
def sync_batch_norm(
    x: Tensor, running_mean: Tensor, running_var: Tensor, weight: Tensor, bias: Tensor, momentum: float, eps: float
) -> Tensor:
    """Apply `F.batch_norm` in training, with the mean and the variance of the images of all processes.

    Args:
        x: activations `[B, C, H, W]` of this process. `B` is the same in all processes, so that the mean of
            their means is the mean of all images.
        running_mean: running mean `[C]`, updated in place.
        running_var: running variance `[C]`, updated in place.
        weight: scale `[C]`.
        bias: shift `[C]`.
        momentum: weight of the new statistics in the running ones, from 0 to 1.
        eps: number that is added to the variance.

    Returns:
        The normalised activations `[B, C, H, W]`.
    """
    y, mean, variance = _SyncNormalise.apply(x, weight, bias, eps)
    # The running variance is the unbiased one, as in `F.batch_norm`.
    with torch.no_grad():
        count = _values_per_channel(x)
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(variance * (count / (count - 1)), momentum)
    return y


@torch.compiler.disable
def run_synchronised(forward: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call the forward pass of a BatchNorm layer, such as torch's or one of timm's with an activation, with `sync_batch_norm`.

    Args:
        forward: forward pass of a layer in training, which calls `F.batch_norm`.
        args: its arguments.
        options: its keyword arguments.

    Returns:
        What it returns.
    """
    with _SynchronisedBatchNorm():
        return forward(*args, **options)


class _SynchronisedBatchNorm(TorchFunctionMode):
    """A context in which `F.batch_norm` normalises by the images of all processes."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.batch_norm:
            func = _batch_norm_of_all
        return func(*args, **(kwargs or {}))


def _batch_norm_of_all(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Apply `F.batch_norm` to `[B, C]` or `[B, C, ...]` of all processes; what a layer does not have is neutral."""
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    channels = x.shape[1]
    mean = x.new_zeros(channels) if running_mean is None else running_mean
    variance = x.new_ones(channels) if running_var is None else running_var
    scale = x.new_ones(channels) if weight is None else weight
    shift = x.new_zeros(channels) if bias is None else bias
    images = x.reshape(x.shape[0], channels, -1, 1)  # B C N 1
    return sync_batch_norm(images, mean, variance, scale, shift, momentum, eps).reshape(x.shape)


class _SyncNormalise(torch.autograd.Function):
    """Normalisation of `[B, C, H, W]`, which also returns the mean and the variance `[C]`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        wide = _widen(x)
        local_variance, local_mean = torch.var_mean(wide, REDUCED_DIMS, correction=0)
        local_statistics = torch.stack([local_mean, local_variance])  # [2, C]
        gathered = [torch.empty_like(local_statistics) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, local_statistics)
        means, variances = torch.stack(gathered, dim=1)  # [P, C] of P processes

        # Variance within processes plus variance between them: unlike a mean of squares, it loses nothing by
        # cancellation.
        mean = means.mean(0)
        variance = (variances + (means - mean).square()).mean(0)
        inverse_std = (variance + eps).rsqrt()

        ctx.save_for_backward(x, weight, mean, inverse_std)
        ctx.mark_non_differentiable(mean, variance)
        y = (wide - _per_channel(mean)) * _per_channel(inverse_std * weight) + _per_channel(bias)
        return y.to(x.dtype), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, inverse_std = ctx.saved_tensors
        dy = _widen(gradients[0])
        normalised = (_widen(x) - _per_channel(mean)) * _per_channel(inverse_std)

        # The gradients of bias and weight stay those of this process: DDP averages them with all others.
        local_sums = torch.stack([dy.sum(REDUCED_DIMS), (dy * normalised).sum(REDUCED_DIMS)])  # [2, C]
        d_bias, d_weight = local_sums
        total_sums = local_sums.clone()
        dist.all_reduce(total_sums)
        mean_dy, mean_dy_normalised = total_sums / _values_per_channel(x)

        # The gradient through mean and variance: Ioffe and Szegedy 2015, arXiv 1502.03167, section 3.
        centred = dy - _per_channel(mean_dy) - normalised * _per_channel(mean_dy_normalised)
        dx = centred * _per_channel(weight * inverse_std)
        return dx.to(x.dtype), d_weight, d_bias, None


def _widen(values: Tensor) -> Tensor:
    """Return values in at least float32, in which statistics are computed also under autocast, as by cuDNN."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _values_per_channel(x: Tensor) -> int:
    """Return the number of values per channel of `[B, C, H, W]`, over all processes."""
    return x.numel() // x.shape[1] * dist.get_world_size()


def _per_channel(values: Tensor) -> Tensor:
    """View `[C]` as `[1, C, 1, 1]`."""
    return values.view(1, -1, 1, 1)
