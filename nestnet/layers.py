"""Layers over nested parameters: torch's own, with sizes per mode and `forward(x, mode)`.

Sizes are `PerMode` values: lower case for the base's (`i`, `o`, `c`, `d`), upper case for the motivated's. A size of 0 in
the base marks a layer, or a part of it, that only the motivated network has. Base mode uses the first entries of every
dimension. Weights are created uninitialised: `nestnet.create_model` fills them with timm's own initialisation.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import drop_path
from torch import Tensor, nn

from nestnet.blocks import NestedModule, in_mode, weight
from nestnet.mode import Mode, Rate, Size
from nestnet.sync_batch_norm import batch_norm_of_all
from nestnet.weights_map import Placement


class Layer(NestedModule):
    """A leaf of the module tree: it prints in one line, with both its sizes."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"


class Linear(Layer):
    """`[..., i]` to `[..., o]` in base mode, `[..., I]` to `[..., O]` in motivated mode, as `nn.Linear`.

    Args:
        groups: the outputs fall into this many equal parts, of each of which the base has the first entries. A packed
            query, key and value projection divided by heads has 3.
    """

    def __init__(self, in_features: Size, out_features: Size, *, bias: bool = True, groups: int = 1) -> None:
        super().__init__()
        self.in_features, self.out_features, self.groups = in_features, out_features, groups
        shape, base_shape = ((out_features.of(mode), in_features.of(mode)) for mode in (Mode.MOTIVATED, Mode.BASE))
        self.weight = weight(shape, base_shape, groups=groups)
        self.bias = weight(shape[:1], base_shape[:1], groups=groups) if bias else None

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        return F.linear(x, in_mode(self.weight, mode), in_mode(self.bias, mode))

    def extra_repr(self) -> str:
        groups = f", groups={self.groups}" if self.groups > 1 else ""
        bias = self.bias is not None
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={bias}{groups}"


class Conv2d(Layer):
    """`[B, i, H, W]` to `[B, o, H', W']` in base mode, `I` to `O` channels in motivated mode, as `nn.Conv2d`.

    Args:
        groups: per mode. Either the groups keep their width and the motivated network has more of them (a depthwise
            convolution, or one with more groups of 32 channels): the base has the first groups. Or both modes have the
            same number of groups, wider in the motivated network: the base has the first channels of each group.

    Raises:
        ValueError: where neither holds, or channels are no multiple of the groups.
    """

    def __init__(
        self,
        in_channels: Size,
        out_channels: Size,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        groups: Size | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.stride, self.padding, self.groups = stride, padding, groups or Size(1, 1)
        shape, base_shape = (self._weight_shape(mode) for mode in (Mode.MOTIVATED, Mode.BASE))
        row_groups = 1
        if self.groups.base == self.groups.motivated:
            row_groups = self.groups.base
        elif 0 not in base_shape and (
            shape[1] != base_shape[1] or shape[0] * self.groups.base != base_shape[0] * self.groups.motivated
        ):
            raise ValueError(
                f"groups = {self.groups} over {in_channels} input and {out_channels} output channels: more groups must be "
                "of the same width; give both modes the same number of groups to widen each"
            )
        self.weight = weight(shape, base_shape, groups=row_groups)
        self.bias = weight(shape[:1], base_shape[:1], groups=row_groups) if bias else None

    def _weight_shape(self, mode: Mode) -> tuple[int, ...]:
        o, i, groups = self.out_channels.of(mode), self.in_channels.of(mode), self.groups.of(mode)
        if o == 0:
            return (0, 0, self.kernel_size, self.kernel_size)
        if groups < 1 or i % groups or o % groups:
            raise ValueError(
                f"groups = {self.groups}: {self.in_channels} input and {self.out_channels} output channels must be multiples "
                "of it"
            )
        return (o, i // groups, self.kernel_size, self.kernel_size)

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        kernel, bias = in_mode(self.weight, mode), in_mode(self.bias, mode)
        return F.conv2d(x, kernel, bias, self.stride, self.padding, groups=self.groups.of(mode))

    def extra_repr(self) -> str:
        groups = f", groups={self.groups}" if self.groups != Size(1, 1) else ""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}{groups}, bias={self.bias is not None}"
        )


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
        self, num_features: Size, *, statistics: str = "private", eps: float = 1e-5, momentum: float = 0.1
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


class LayerNorm(Layer):
    """Normalises the last dimension, `d` in base and `D` in motivated mode, as `nn.LayerNorm`."""

    def __init__(self, width: Size, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.width, self.eps = width, eps
        self.weight = weight((width.motivated,), (width.base,))
        self.bias = weight((width.motivated,), (width.base,))

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        return F.layer_norm(x, (self.width.of(mode),), in_mode(self.weight, mode), in_mode(self.bias, mode), self.eps)

    def extra_repr(self) -> str:
        return f"{self.width}, eps={self.eps}"


class Dropout(Layer):
    """Zeroes entries with the mode's own probability, as `nn.Dropout`."""

    def __init__(self, rate: Rate) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        rate = self.rate.of(mode)
        return F.dropout(x, rate, self.training) if rate else x

    def extra_repr(self) -> str:
        return f"p={self.rate}"


class DropPath(Layer):
    """Drops whole samples of a residual branch (stochastic depth) with the mode's own probability, as timm's `DropPath`."""

    def __init__(self, rate: Rate) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        return drop_path(x, self.rate.of(mode), self.training)

    def extra_repr(self) -> str:
        return f"p={self.rate}"


class Stage(nn.ModuleList):
    """A sequence of blocks of which base mode runs some and skips the others.

    Args:
        blocks: all blocks of the motivated stage.
        base_positions: for each block its position in the base's stage, or `None` for a differential block.
    """

    def __init__(self, blocks: Iterable[nn.Module], base_positions: list[int | None]) -> None:
        super().__init__(blocks)
        self.base_positions = base_positions

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        for block, position in zip(self, self.base_positions, strict=True):
            if mode is Mode.MOTIVATED or position is not None:
                x = block(x, mode)
        return x


DEPTH_MAPS = ("last", "first")


def depth_map(depth: Size, kind: str) -> list[int | None]:
    """For each of `depth.motivated` blocks its position among the base's `depth.base`, or `None`.

    `"first"` takes the first blocks. `"last"` (section 3.3.1 of the paper) takes the first ones too, but for the base's
    last block, which is the motivated stage's last; a stage's first block changes the resolution, so a base stage of one
    block takes the first in either case.

    >>> depth_map(Size(3, 5), "last")
    [0, 1, None, None, 2]
    >>> depth_map(Size(3, 5), "first")
    [0, 1, 2, None, None]
    """
    positions: list[int | None] = [*range(depth.base), *[None] * (depth.motivated - depth.base)]
    if kind == "last" and 1 < depth.base < depth.motivated:
        positions[depth.base - 1], positions[-1] = None, depth.base - 1
    return positions


def drop_path_rates(rate: Rate, positions: list[list[int | None]], *, last: bool) -> list[list[Rate]]:
    """Each block's drop-path rate in each mode, growing linearly over the blocks of that mode's own network.

    Args:
        rate: of the last block, or, unless `last`, of the one that would follow it (timm's EfficientNet).
        positions: for each stage the blocks' positions in the base's stage, or `None`.
    """
    depth = Size(sum(p is not None for stage in positions for p in stage), sum(map(len, positions)))
    ends = Size(max(depth.base - last, 1), max(depth.motivated - last, 1))
    rates, before = [], Size(0, 0)
    for stage in positions:
        rates.append(
            [
                Rate(
                    0.0 if p is None else rate.base * (before.base + p) / ends.base,
                    rate.motivated * (before.motivated + i) / ends.motivated,
                )
                for i, p in enumerate(stage)
            ]
        )
        before = Size(before.base + sum(p is not None for p in stage), before.motivated + len(stage))
    return rates
