"""BatchNorm with nested weights, and with running statistics, or whole layers, that the modes share or do not."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nestnet.nn.checkpointing import is_recomputing
from nestnet.nn.layers import Layer
from nestnet.nn.mode import Mode, Width
from nestnet.nn.parameter import create_weight, select_weight
from nestnet.nn.placement import Placement
from nestnet.nn.sync_batch_norm import sync_batch_norm

STATISTICS = ("private", "shared", "separate")
"""Kinds of what the modes share: see `BatchNorm2d`."""

PRIVATE_PREFIX = "base_"
"""Start of the names of what the base alone uses: its private statistics, scale and shift."""


def counterpart_name(private_name: str) -> str:
    """Return the name in the motivated network of what the base has of its own under another name.

    Args:
        private_name: name in the state dict of the nested network.

    >>> counterpart_name("base_stage.bn1.base_running_mean"), counterpart_name("base_weight")
    ('base_stage.bn1.running_mean', 'weight')
    """
    path, dot, name = private_name.rpartition(".")
    return path + dot + name.removeprefix(PRIVATE_PREFIX)


class BatchNorm2d(Layer):
    """`nn.BatchNorm2d` in each mode, over `[B, c, H, W]` in base mode and `[B, C, H, W]` in motivated mode.

    Args:
        num_features: number of channels.
        statistics: `"private"` keeps running statistics for each mode; the base's are the buffers
            `base_running_mean`, `base_running_var` and `base_num_batches_tracked`. `"shared"` keeps one set,
            whose first entries are the base's, so that each mode is evaluated with statistics of the
            activations of both modes. `"separate"` is `"private"` with a scale and a shift for each mode too,
            as in slimmable networks (Yu et al. 2019, arXiv 1812.08928); the base's are the
            parameters `base_weight` and `base_bias`.
        eps: number that is added to the variance.
        momentum: weight of a batch's statistics in the running ones, from 0 to 1.

    Attributes:
        private: whether the layer has private statistics for the base. A layer that only the motivated
            network has needs none.
        separate: whether it has a scale and a shift for the base too.
        is_checkpointed: whether the backward pass may compute the layer again, which must not update the statistics.
        synchronised: whether training normalises by the images of all processes: see
            `nestnet.synchronise_batch_norm`.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    base_running_mean: Tensor
    base_running_var: Tensor
    base_num_batches_tracked: Tensor
    base_weight: nn.Parameter
    base_bias: nn.Parameter

    def __init__(
        self, num_features: Width, *, statistics: str = "private", eps: float = 1e-5, momentum: float = 0.1
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.statistics = statistics
        # A differential layer never runs in base mode.
        self.private = statistics != "shared" and num_features.base > 0
        self.separate = statistics == "separate" and num_features.base > 0
        # The number of processes is not known when a network is made.
        self.synchronised = False
        self.is_checkpointed = False
        # The size of the base's part: a separate layer shares none of it.
        part = 0 if self.separate else num_features.base
        self.weight = create_weight((num_features.motivated,), (part,))
        self.bias = create_weight((num_features.motivated,), (part,))
        if self.separate:
            self.base_weight = nn.Parameter(torch.empty(num_features.base))
            self.base_bias = nn.Parameter(torch.empty(num_features.base))
        self._register_statistics("", num_features.motivated)
        if self.private:
            self._register_statistics(PRIVATE_PREFIX, num_features.base)

    def _register_statistics(self, prefix: str, channels: int) -> None:
        self.register_buffer(f"{prefix}running_mean", torch.zeros(channels))
        self.register_buffer(f"{prefix}running_var", torch.ones(channels))
        self.register_buffer(f"{prefix}num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        mean, variance, num_batches = self.running_statistics(mode)
        # The first pass has updated the statistics. A copy of them takes the second update.
        if self.training and self.is_checkpointed and is_recomputing():
            mean = mean.clone()
            variance = variance.clone()
        # In place, so that a captured CUDA graph counts its replays too.
        elif self.training:
            num_batches.add_(1)
        if mode is Mode.BASE and self.separate:
            scale: Tensor = self.base_weight
            shift: Tensor = self.base_bias
        else:
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

    @torch.no_grad()
    def copy_private_to_motivated(self) -> None:
        """Set the motivated network's statistics, scale and shift to what the base has of its own, if anything.

        Entries that the base does not have keep their values.
        """
        for name in self._private_names():
            base = getattr(self, name)
            whole = getattr(self, name.removeprefix(PRIVATE_PREFIX))
            # The number of batches is a scalar.
            part = whole[: self.num_features.base] if whole.ndim > 0 else whole
            part.copy_(base)

    def placements(self) -> Iterator[tuple[str, Placement]]:
        """Yield the base name and the placement of each base tensor, including the running statistics."""
        channels = self.num_features.base
        private_names = self._private_names()
        for name, placement in super().placements():
            # Private tensors have their placement under the names of the base network, without the prefix: see
            # below.
            if name in private_names:
                continue
            is_channelwise = bool(placement.shape)  # all but the number of batches, which is a scalar
            if PRIVATE_PREFIX + name in private_names:
                base_shape = (channels,) if is_channelwise else ()
                yield name, Placement(PRIVATE_PREFIX + name, base_shape, base_shape, private=True)
            elif name in self._buffers and is_channelwise:
                yield name, Placement(name, placement.shape, (channels,))
            else:
                yield name, placement

    def _private_names(self) -> list[str]:
        """Return the names of the parameters and buffers that the base alone uses."""
        return [name for name in (*self._parameters, *self._buffers) if name.startswith(PRIVATE_PREFIX)]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Load a state. If it has nothing of the base's own, as in timm, that is set to the first entries of the rest."""
        private_names = self._private_names()
        if private_names and not any(prefix + name in state_dict for name in private_names):
            # The caller's dictionary must not be changed.
            state_dict = dict(state_dict)
            for name in private_names:
                whole = state_dict.get(prefix + name.removeprefix(PRIVATE_PREFIX))
                if whole is None:
                    continue
                base = whole[: self.num_features.base] if whole.ndim > 0 else whole
                # With `assign=True` the layer's tensors become these, which must not share memory.
                state_dict[prefix + name] = base.clone()
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, statistics={self.statistics}"
