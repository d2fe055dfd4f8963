"""BatchNorm with nested weights, and with private or shared running statistics of the modes."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nestnet.nn.layers import Layer
from nestnet.nn.mode import Mode, Width
from nestnet.nn.parameter import create_weight, select_weight
from nestnet.nn.placement import Placement
from nestnet.nn.sync_batch_norm import sync_batch_norm

STATISTICS = ("private", "shared")
"""Kinds of running statistics: see `BatchNorm2d`."""

PRIVATE_PREFIX = "base_"
"""Start of the names of the base's private statistics."""


class BatchNorm2d(Layer):
    """`nn.BatchNorm2d` in each mode, over `[B, c, H, W]` in base mode and `[B, C, H, W]` in motivated mode.

    Args:
        num_features: number of channels.
        statistics: `"private"` keeps running statistics for each mode; the base's are the buffers
            `base_running_mean`, `base_running_var` and `base_num_batches_tracked`. `"shared"` keeps one set,
            whose first entries are the base's, so that each mode is evaluated with statistics of the
            activations of both modes.
        eps: number that is added to the variance.
        momentum: weight of a batch's statistics in the running ones, from 0 to 1.

    Attributes:
        private: whether the layer has private statistics for the base. A layer that only the motivated
            network has needs none.
        synchronised: whether training normalises by the images of all processes: see
            `nestnet.synchronise_batch_norm`.
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
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.statistics = statistics
        # A differential layer never runs in base mode.
        self.private = statistics == "private" and num_features.base > 0
        # The number of processes is not known when a network is made.
        self.synchronised = False
        self.weight = create_weight((num_features.motivated,), (num_features.base,))
        self.bias = create_weight((num_features.motivated,), (num_features.base,))
        self._register_statistics("", num_features.motivated)
        if self.private:
            self._register_statistics(PRIVATE_PREFIX, num_features.base)

    def _register_statistics(self, prefix: str, channels: int) -> None:
        self.register_buffer(f"{prefix}running_mean", torch.zeros(channels))
        self.register_buffer(f"{prefix}running_var", torch.ones(channels))
        self.register_buffer(f"{prefix}num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        mean, variance, num_batches = self.running_statistics(mode)
        # In place, so that a captured CUDA graph counts its replays too.
        if self.training:
            num_batches.add_(1)
        scale = select_weight(self.weight, mode)
        shift = select_weight(self.bias, mode)
        if self.training and self.synchronised:
            return sync_batch_norm(x, mean, variance, scale, shift, self.momentum, self.eps)
        return F.batch_norm(x, mean, variance, scale, shift, self.training, self.momentum, self.eps)

    def running_statistics(self, mode: Mode) -> tuple[Tensor, Tensor, Tensor]:
        """Return the running statistics of a mode, as the buffers themselves or views of them.

        Args:
            mode: mode that uses the statistics.

        Returns:
            The running mean `[c]` or `[C]`, the running variance of the same shape, and the number of batches
            that updated them, a scalar.
        """
        if mode is Mode.BASE and self.private:
            return self.base_running_mean, self.base_running_var, self.base_num_batches_tracked
        # Views, through which `F.batch_norm` updates the buffers in place.
        channels = self.num_features.of(mode)
        return self.running_mean[:channels], self.running_var[:channels], self.num_batches_tracked

    def placements(self) -> Iterator[tuple[str, Placement]]:
        """Yield the base name and the placement of each base tensor, including the running statistics."""
        channels = self.num_features.base
        for name, placement in super().placements():
            # Private statistics have their placement under the names of the base network, without the prefix:
            # see below.
            if name.startswith(PRIVATE_PREFIX):
                continue
            is_channelwise = bool(placement.shape)  # all but the number of batches, which is a scalar
            if name not in self._buffers:
                yield name, placement
            elif self.private:
                base_shape = (channels,) if is_channelwise else ()
                yield name, Placement(PRIVATE_PREFIX + name, base_shape, base_shape, private=True)
            elif is_channelwise:
                yield name, Placement(name, placement.shape, (channels,))
            else:
                yield name, placement

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Load a state. If it has no private statistics, as in timm, they are set to the first entries of the others."""
        private_names = [name for name in self._buffers if name.startswith(PRIVATE_PREFIX)]
        if private_names and not any(prefix + name in state_dict for name in private_names):
            # The caller's dictionary must not be changed.
            state_dict = dict(state_dict)
            for name in private_names:
                whole = state_dict.get(prefix + name.removeprefix(PRIVATE_PREFIX))
                if whole is None:
                    continue
                base = whole[: self.num_features.base] if whole.ndim > 0 else whole
                # With `assign=True` the buffers become these tensors, which must not share memory.
                state_dict[prefix + name] = base.clone()
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, statistics={self.statistics}"
