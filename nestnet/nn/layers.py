"""Layers with nested weights: those of torch, with a size for each mode and `forward(x, mode)`.

Sizes are `PerMode` values. In shapes, lower case stands for the base's (`i`, `o`, `c`, `d`) and upper case
for the motivated network's. A size of 0 in the base marks a layer, or a part of one, that only the motivated
network has. Base mode uses the first entries of every dimension. Weights are created uninitialised:
`nestnet.create_model` fills them with timm's initialisation.
"""

import torch.nn.functional as F
from timm.layers import drop_path
from torch import Tensor

from nestnet.nn.mode import Mode, Rate, Width
from nestnet.nn.module import NestedModule
from nestnet.nn.parameter import create_weight, select_weight


class Layer(NestedModule):
    """A leaf of the module tree, printed in one line with its sizes in both modes.

    Derive your own layers with weights from it: create the weights with `create_weight`, and select those of a
    mode with `select_weight`.
    """

    def __repr__(self) -> str:
        # torch would print the blocks of nested parameters as children.
        return f"{type(self).__name__}({self.extra_repr()})"


class Linear(Layer):
    """A linear layer, `nn.Linear` in each mode.

    It maps `[..., i]` to `[..., o]` in base mode, and `[..., I]` to `[..., O]` in motivated mode.

    Args:
        in_features: size of the input.
        out_features: size of the output.
        bias: whether the layer has a bias.
        groups: number of equal groups into which the outputs are divided; the base has the first outputs of
            each. A packed query, key and value projection that is divided by heads has 3.
    """

    def __init__(self, in_features: Width, out_features: Width, *, bias: bool = True, groups: int = 1) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.groups = groups
        # torch stores the weight of a linear layer as [O, I].
        shape = (out_features.motivated, in_features.motivated)
        base_shape = (out_features.base, in_features.base)
        self.weight = create_weight(shape, base_shape, groups=groups)
        self.bias = create_weight(shape[:1], base_shape[:1], groups=groups) if bias else None

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        return F.linear(x, select_weight(self.weight, mode), select_weight(self.bias, mode))

    def extra_repr(self) -> str:
        groups = f", groups={self.groups}" if self.groups > 1 else ""
        bias = self.bias is not None
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={bias}{groups}"


class Conv2d(Layer):
    """A convolution, `nn.Conv2d` in each mode.

    It maps `[B, i, H, W]` to `[B, o, H', W']` in base mode, and `[B, I, H, W]` to `[B, O, H', W']` in
    motivated mode.

    Args:
        in_channels: number of input channels.
        out_channels: number of output channels.
        kernel_size: height and width of the kernel.
        stride: stride in both directions.
        padding: zeros on each side of the input.
        groups: number of groups, 1 by default. Either the groups have the same width in both modes and the
            motivated network has more of them (a depthwise convolution, or one with more groups of 32
            channels): the base then has the first groups. Or both modes have the same number of groups, which
            are wider in the motivated network: the base then has the first channels of each group.
        bias: whether the layer has a bias.

    Raises:
        ValueError: If the groups are neither of these, or numbers of channels are not multiples of them.
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
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding
        self.groups = groups or Width(1, 1)
        shape = self._weight_shape(Mode.MOTIVATED)
        base_shape = self._weight_shape(Mode.BASE)
        # A convolution has its groups one after another in the rows of its weight [O, I / groups, k, k].
        row_groups = self._row_groups(shape, base_shape)
        self.weight = create_weight(shape, base_shape, groups=row_groups)
        self.bias = create_weight(shape[:1], base_shape[:1], groups=row_groups) if bias else None

    def _weight_shape(self, mode: Mode) -> tuple[int, ...]:
        """Return `[o, i / groups, kernel_size, kernel_size]` with the sizes of `mode`."""
        in_channels = self.in_channels.of(mode)
        out_channels = self.out_channels.of(mode)
        groups = self.groups.of(mode)
        # The base does not have the layer. A shape with a 0 says so to `create_weight`.
        if out_channels == 0:
            return (0, 0, self.kernel_size, self.kernel_size)
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"groups = {self.groups}: {self.in_channels} input and {self.out_channels} output channels must be multiples "
                "of it"
            )
        return (out_channels, in_channels // groups, self.kernel_size, self.kernel_size)

    def _row_groups(self, shape: tuple[int, ...], base_shape: tuple[int, ...]) -> int:
        """Return the number of groups of the weight's rows. The base has the first rows of each group."""
        # Equally many groups, wider in the motivated network: the base has the first rows of each.
        if self.groups.base == self.groups.motivated:
            return self.groups.base
        if 0 in base_shape:
            return 1
        # More groups of the same width: those of the base are the first rows of the weight.
        has_same_input_width = shape[1] == base_shape[1]
        has_same_output_width = shape[0] * self.groups.base == base_shape[0] * self.groups.motivated
        if not has_same_input_width or not has_same_output_width:
            raise ValueError(
                f"groups = {self.groups} over {self.in_channels} input and {self.out_channels} output channels: more groups "
                "must be of the same width; give both modes the same number of groups to widen each"
            )
        return 1

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        kernel = select_weight(self.weight, mode)
        bias = select_weight(self.bias, mode)
        return F.conv2d(x, kernel, bias, self.stride, self.padding, groups=self.groups.of(mode))

    def extra_repr(self) -> str:
        groups = f", groups={self.groups}" if self.groups != Width(1, 1) else ""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}{groups}, bias={self.bias is not None}"
        )


class LayerNorm(Layer):
    """`nn.LayerNorm` in each mode, over the last dimension, `d` in base mode and `D` in motivated mode.

    Args:
        width: size of the last dimension.
        eps: number that is added to the variance.
    """

    def __init__(self, width: Width, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.width = width
        self.eps = eps
        self.weight = create_weight((width.motivated,), (width.base,))
        self.bias = create_weight((width.motivated,), (width.base,))

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        scale = select_weight(self.weight, mode)
        shift = select_weight(self.bias, mode)
        return F.layer_norm(x, (self.width.of(mode),), scale, shift, self.eps)

    def extra_repr(self) -> str:
        return f"{self.width}, eps={self.eps}"


class Dropout(Layer):
    """A layer that zeroes entries with the probability of the mode, as `nn.Dropout` does.

    Args:
        rate: probability in each mode, at least 0 and less than 1.
    """

    def __init__(self, rate: Rate) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        rate = self.rate.of(mode)
        # At rate 0 no random numbers are drawn, as in timm's models, which have no such layer then.
        if rate == 0:
            return x
        return F.dropout(x, rate, self.training)

    def extra_repr(self) -> str:
        return f"p={self.rate}"


class DropPath(Layer):
    """A layer that zeroes whole samples of a residual branch (stochastic depth, Huang et al. 2016, arXiv 1603.09382).

    It does so with the probability of the mode, as timm's `DropPath`.

    Args:
        rate: probability in each mode, at least 0 and less than 1.
    """

    def __init__(self, rate: Rate) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        return drop_path(x, self.rate.of(mode), self.training)

    def extra_repr(self) -> str:
        return f"p={self.rate}"
