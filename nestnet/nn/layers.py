"""Layers over nested parameters: torch's own, with sizes per mode and `forward(x, mode)`.

Sizes are `PerMode` values: lower case for the base's (`i`, `o`, `c`, `d`), upper case for the motivated's. A size of 0 in
the base marks a layer, or a part of it, that only the motivated network has. Base mode uses the first entries of every
dimension. Weights are created uninitialised: `nestnet.create_model` fills them with timm's own initialisation.
"""

import torch.nn.functional as F
from timm.layers import drop_path
from torch import Tensor

from nestnet.nn.mode import Mode, Rate, Width
from nestnet.nn.parameter import NestedModule, in_mode, weight


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

    def __init__(self, in_features: Width, out_features: Width, *, bias: bool = True, groups: int = 1) -> None:
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
        in_channels: Width,
        out_channels: Width,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        groups: Width | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.stride, self.padding, self.groups = stride, padding, groups or Width(1, 1)
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
        groups = f", groups={self.groups}" if self.groups != Width(1, 1) else ""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}{groups}, bias={self.bias is not None}"
        )


class LayerNorm(Layer):
    """Normalises the last dimension, `d` in base and `D` in motivated mode, as `nn.LayerNorm`."""

    def __init__(self, width: Width, *, eps: float = 1e-6) -> None:
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
