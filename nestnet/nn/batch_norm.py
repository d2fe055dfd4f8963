"""BatchNorm with running statistics for each mode."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nestnet.nn.layers import Layer
from nestnet.nn.mode import Mode, Width
from nestnet.nn.parameter import in_mode, weight
from nestnet.nn.placement import Placement
from nestnet.nn.sync_batch_norm import batch_norm_of_all

STATISTICS = ("private", "shared")


class BatchNorm2d(Layer):
    """Normalises `[B, c, H, W]` in base mode, `[B, C, H, W]` in motivated mode, as `nn.BatchNorm2d`.

    Args:
        statistics: `"private"` keeps running statistics for each mode; those of the base are the buffers
            `base_running_mean`, `base_running_var` and `base_num_batches_tracked`. `"shared"` keeps one set, whose first
            entries are the base's, so that each mode is evaluated with a mixture of both modes' activations.

    Attributes:
        synchronised: whether training normalises by the images of all processes: see `nestnet.synchronise_batch_norm`.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    base_running_mean: Tensor
    base_running_var: Tensor
    base_num_batches_tracked: Tensor

    def __init__(
        self, num_features: Width, *, statistics: str = "private", eps: float = 1e-5, momentum: float = 0.1
    ) -> None:
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.statistics, self.private = statistics, statistics == "private" and num_features.base > 0
        self.synchronised = False
        shape, base_shape = (num_features.motivated,), (num_features.base,)
        self.weight = weight(shape, base_shape)
        self.bias = weight(shape, base_shape)
        for prefix, size in (("", shape), ("base_", base_shape))[: 2 if self.private else 1]:
            self.register_buffer(f"{prefix}running_mean", torch.zeros(size))
            self.register_buffer(f"{prefix}running_var", torch.ones(size))
            self.register_buffer(f"{prefix}num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        mean, variance, batches = self.running(mode)
        if self.training:
            batches.add_(1)
        scale, shift = in_mode(self.weight, mode), in_mode(self.bias, mode)
        if self.training and self.synchronised:
            return batch_norm_of_all(x, mean, variance, scale, shift, self.momentum, self.eps)
        return F.batch_norm(x, mean, variance, scale, shift, self.training, self.momentum, self.eps)

    def running(self, mode: Mode) -> tuple[Tensor, Tensor, Tensor]:
        """The running mean and variance of `mode`, and the number of batches they are of."""
        if mode is Mode.BASE and self.private:
            return self.base_running_mean, self.base_running_var, self.base_num_batches_tracked
        c = self.num_features.of(mode)
        return self.running_mean[:c], self.running_var[:c], self.num_batches_tracked

    def placements(self) -> Iterator[tuple[str, Placement]]:
        c = self.num_features.base
        for name, placement in super().placements():
            if name.startswith("base_"):
                continue
            if self.private and name in self._buffers:
                base_shape = (c,) if placement.shape else ()
                yield name, Placement(f"base_{name}", base_shape, base_shape, private=True)
            elif name in self._buffers and placement.shape:
                yield name, Placement(name, placement.shape, (c,))
            else:
                yield name, placement

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """A state of timm's motivated model has no private statistics: they start from its first entries."""
        own = [name for name in self._buffers if name.startswith("base_")]
        if own and not any(prefix + name in state_dict for name in own):
            state_dict = dict(state_dict)
            for name in own:
                if (whole := state_dict.get(prefix + name.removeprefix("base_"))) is not None:
                    state_dict[prefix + name] = whole[: self.num_features.base].clone() if whole.ndim else whole.clone()
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, statistics={self.statistics}"
