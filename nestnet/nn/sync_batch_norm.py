"""BatchNorm over the images of several processes, on any device.

`nn.SyncBatchNorm` is for GPUs alone. This is the same arithmetic: one collective each in the forward and the backward pass.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

IMAGES = (0, 2, 3)
"""The dimensions that a channel's statistics are over."""


@torch.compiler.disable
def batch_norm_of_all(
    x: Tensor, running_mean: Tensor, running_var: Tensor, weight: Tensor, bias: Tensor, momentum: float, eps: float
) -> Tensor:
    """`F.batch_norm` in training of `[B, C, H, W]`, with the mean and variance of all processes' images.

    Every process has a `B` of the same size, so that the mean of the means is that of all.
    """
    y, mean, variance = _Normalise.apply(x, weight, bias, eps)
    with torch.no_grad():
        count = x.numel() // x.shape[1] * dist.get_world_size()
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(variance * (count / (count - 1)), momentum)
    return y


class _Normalise(torch.autograd.Function):
    """The normalised `[B, C, H, W]`, and the mean and variance `[C]` that it was normalised by."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        own_variance, own_mean = torch.var_mean(x.float(), IMAGES, correction=0)
        own = torch.stack([own_mean, own_variance])
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, own)
        means, variances = torch.stack(parts, dim=1)  # [P, C] of P processes
        mean = means.mean(0)
        variance = (variances + (means - mean).square()).mean(0)  # within and between: nothing cancels
        scale = (variance + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.mark_non_differentiable(mean, variance)
        y = (x.float() - _channel(mean)) * _channel(scale * weight) + _channel(bias)
        return y.to(x.dtype), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, scale = ctx.saved_tensors
        dy = gradients[0].float()
        normalised = (x.float() - _channel(mean)) * _channel(scale)
        own = torch.stack([dy.sum(IMAGES), (dy * normalised).sum(IMAGES)])  # those of bias and weight
        everyone_s = own.clone()
        dist.all_reduce(everyone_s)
        d_mean, d_scale = everyone_s / (x.numel() // x.shape[1] * dist.get_world_size())
        dx = (dy - _channel(d_mean) - normalised * _channel(d_scale)) * _channel(weight * scale)
        return dx.to(x.dtype), own[1], own[0], None


def _channel(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)
