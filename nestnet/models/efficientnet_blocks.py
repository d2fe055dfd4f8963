"""The blocks of the nested EfficientNets, with timm's names (Tan and Le 2019, arXiv 1905.11946, section 4)."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from nestnet.nn.batch_norm import BatchNorm2d
from nestnet.nn.layers import Conv2d, DropPath
from nestnet.nn.mode import Mode, PerMode, Rate, Width
from nestnet.nn.residual import ResidualBlock


class StageSpec(NamedTuple):
    """A stage of B0: a row of table 1.

    Attributes:
        kernel: side of the depthwise kernels.
        stride: stride of the first block.
        expansion: factor by which the blocks expand their channels.
        channels: number of output channels.
        depth: number of blocks.
    """

    kernel: int
    stride: int
    expansion: int
    channels: int
    depth: int


class SqueezeExcite(nn.Module):
    """Scales each channel of `[B, C, H, W]` by a gate that is computed from the means of all channels.

    Args:
        channels: number of channels in each mode.
        reduced: number of channels to which the means are reduced, in each mode.
    """

    def __init__(self, channels: Width, reduced: Width) -> None:
        super().__init__()
        self.conv_reduce = Conv2d(channels, reduced, 1)
        self.conv_expand = Conv2d(reduced, channels, 1)

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        # [B, C, 1, 1]: a gate of each channel, from 0 to 1
        gate = x.mean((2, 3), keepdim=True)
        gate = self.conv_expand(F.silu(self.conv_reduce(gate, mode), inplace=True), mode)
        return x * gate.sigmoid()


class DepthwiseSeparable(ResidualBlock):
    """The block of the first stage: depthwise convolution, gate and projection.

    `[B, in_chs, H, W]` to `[B, out_chs, H/stride, W/stride]`. The arguments are those of `InvertedResidual`.
    """

    def __init__(
        self, in_chs: Width, out_chs: Width, spec: StageSpec, stride: int, statistics: str, drop_path: Rate
    ) -> None:
        super().__init__()
        padding = (spec.kernel - 1) // 2
        self.has_skip = _has_skip(in_chs, out_chs, stride)
        self.conv_dw = Conv2d(in_chs, in_chs, spec.kernel, stride=stride, padding=padding, groups=in_chs, bias=False)
        self.bn1 = BatchNorm2d(in_chs, statistics=statistics)
        self.se = SqueezeExcite(in_chs, _quarter(in_chs))
        self.conv_pw = Conv2d(in_chs, out_chs, 1, bias=False)
        self.bn2 = BatchNorm2d(out_chs, statistics=statistics)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        shortcut = x
        # Depthwise
        x = F.silu(self.bn1(self.conv_dw(x, mode), mode), inplace=True)
        # Gate, and projection to the output channels, after which there is no activation.
        x = self.bn2(self.conv_pw(self.se(x, mode), mode), mode)
        if not self.has_skip.of(mode):
            return x
        return self.drop_path(x, mode) + shortcut

    @property
    def last_layer(self) -> BatchNorm2d:
        return self.bn2

    @property
    def has_identity_shortcut(self) -> bool:
        return self.has_skip.motivated


class InvertedResidual(ResidualBlock):
    """The block of the other stages (MBConv): expansion, depthwise convolution, gate and projection.

    `[B, in_chs, H, W]` to `[B, out_chs, H/stride, W/stride]`.

    Args:
        in_chs: number of input channels in each mode.
        out_chs: number of output channels in each mode.
        spec: stage to which the block belongs.
        stride: stride of the depthwise convolution.
        statistics: what the modes share of BatchNorm: see `nestnet.nn.batch_norm.BatchNorm2d`.
        drop_path: stochastic depth in each mode.
    """

    def __init__(
        self, in_chs: Width, out_chs: Width, spec: StageSpec, stride: int, statistics: str, drop_path: Rate
    ) -> None:
        super().__init__()
        padding = (spec.kernel - 1) // 2
        self.has_skip = _has_skip(in_chs, out_chs, stride)
        mid_chs = Width(in_chs.base * spec.expansion, in_chs.motivated * spec.expansion)
        self.conv_pw = Conv2d(in_chs, mid_chs, 1, bias=False)
        self.bn1 = BatchNorm2d(mid_chs, statistics=statistics)
        self.conv_dw = Conv2d(mid_chs, mid_chs, spec.kernel, stride=stride, padding=padding, groups=mid_chs, bias=False)
        self.bn2 = BatchNorm2d(mid_chs, statistics=statistics)
        # The gate is reduced to a quarter of the block's input, not of the expanded channels.
        self.se = SqueezeExcite(mid_chs, _quarter(in_chs))
        self.conv_pwl = Conv2d(mid_chs, out_chs, 1, bias=False)
        self.bn3 = BatchNorm2d(out_chs, statistics=statistics)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        shortcut = x
        # Expansion to mid_chs.
        x = F.silu(self.bn1(self.conv_pw(x, mode), mode), inplace=True)
        # Depthwise
        x = F.silu(self.bn2(self.conv_dw(x, mode), mode), inplace=True)
        # Gate, and projection to the output channels, after which there is no activation.
        x = self.bn3(self.conv_pwl(self.se(x, mode), mode), mode)
        if not self.has_skip.of(mode):
            return x
        return self.drop_path(x, mode) + shortcut

    @property
    def last_layer(self) -> BatchNorm2d:
        return self.bn3

    @property
    def has_identity_shortcut(self) -> bool:
        return self.has_skip.motivated


def _has_skip(in_chs: Width, out_chs: Width, stride: int) -> PerMode[bool]:
    # A mode can add its input to its output only where both have the same shape in that mode.
    keeps_size = stride == 1
    return PerMode(
        keeps_size and in_chs.base == out_chs.base,
        keeps_size and in_chs.motivated == out_chs.motivated,
    )


def _quarter(channels: Width) -> Width:
    # The ratio 0.25 of the EfficientNet paper, rounded as timm rounds it.
    return Width(round(channels.base / 4), round(channels.motivated / 4))
