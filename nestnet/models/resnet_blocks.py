"""The blocks of the nested ResNets, with timm's names (He et al. 2016, arXiv 1512.03385).

A block is whole: both modes run it with the same convolutions, or base mode skips it. Only BatchNorm depends on the
mode. In the shapes, `C` is the number of input channels.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from nestnet.nn.batch_norm import BatchNorm2d
from nestnet.nn.layers import DropPath
from nestnet.nn.mode import Mode, Rate, Width
from nestnet.nn.residual import ResidualBlock


@dataclass(frozen=True)
class Norm:
    """A factory of the BatchNorm layers of a block.

    Attributes:
        statistics: what the modes share of BatchNorm: see `BatchNorm2d`.
        is_differential: whether only the motivated network has the block.
    """

    statistics: str
    is_differential: bool = False

    def __call__(self, channels: int) -> BatchNorm2d:
        # The convolutions before it are whole in both modes; only BatchNorm itself may be divided.
        width = Width(0, channels) if self.is_differential else Width(channels, channels)
        return BatchNorm2d(width, statistics=self.statistics)


class BasicBlock(ResidualBlock):
    """Two 3 x 3 convolutions: `[B, C, H, W]` to `[B, planes, H/stride, W/stride]`.

    Args:
        in_planes: number of input channels.
        planes: number of output channels before the expansion, which is 1 here.
        stride: stride of the first 3 x 3 convolution.
        norm: factory of the BatchNorm layers.
        drop_path: stochastic depth in each mode.
    """

    expansion = 1

    def __init__(self, in_planes: int, planes: int, stride: int, norm: Norm, drop_path: Rate) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride, padding=1, bias=False)
        self.bn1 = norm(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = norm(planes)
        self.downsample = create_downsample(in_planes, planes, stride, norm)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        shortcut = x
        if self.downsample is not None:
            shortcut = self.downsample(x, mode)
        x = F.relu(self.bn1(self.conv1(x), mode), inplace=True)
        x = self.drop_path(self.bn2(self.conv2(x), mode), mode)
        # In place as in timm, which saves memory.
        x += shortcut
        return F.relu(x, inplace=True)

    @property
    def last_layer(self) -> BatchNorm2d:
        return self.bn2

    @property
    def has_identity_shortcut(self) -> bool:
        # The ReLU after the addition changes nothing, because the block follows a ReLU.
        return self.downsample is None


class Bottleneck(ResidualBlock):
    """1 x 1, 3 x 3 and 1 x 1 convolutions: `[B, C, H, W]` to `[B, 4 planes, H/stride, W/stride]`.

    The arguments are those of `BasicBlock`, with an expansion of 4.
    """

    expansion = 4

    def __init__(self, in_planes: int, planes: int, stride: int, norm: Norm, drop_path: Rate) -> None:
        super().__init__()
        out_planes = planes * self.expansion
        self.conv1 = nn.Conv2d(in_planes, planes, 1, bias=False)
        self.bn1 = norm(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=1, bias=False)
        self.bn2 = norm(planes)
        self.conv3 = nn.Conv2d(planes, out_planes, 1, bias=False)
        self.bn3 = norm(out_planes)
        self.downsample = create_downsample(in_planes, out_planes, stride, norm)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        shortcut = x
        if self.downsample is not None:
            shortcut = self.downsample(x, mode)
        x = F.relu(self.bn1(self.conv1(x), mode), inplace=True)
        x = F.relu(self.bn2(self.conv2(x), mode), inplace=True)
        x = self.drop_path(self.bn3(self.conv3(x), mode), mode)
        x += shortcut
        return F.relu(x, inplace=True)

    @property
    def last_layer(self) -> BatchNorm2d:
        return self.bn3

    @property
    def has_identity_shortcut(self) -> bool:
        # As in `BasicBlock`.
        return self.downsample is None


class Downsample(nn.ModuleList):
    """The projection of a shortcut: a strided 1 x 1 convolution and BatchNorm, named 0 and 1 as in timm."""

    def __init__(self, in_planes: int, out_planes: int, stride: int, norm: Norm) -> None:
        super().__init__([nn.Conv2d(in_planes, out_planes, 1, stride, bias=False), norm(out_planes)])

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        # Children of a ModuleList, whose names are their positions.
        conv, norm = self
        return norm(conv(x), mode)


def create_downsample(in_planes: int, out_planes: int, stride: int, norm: Norm) -> Downsample | None:
    """Return the projection of a shortcut where the block changes the shape, and `None` where the shortcut is the identity."""
    if stride > 1 or in_planes != out_planes:
        return Downsample(in_planes, out_planes, stride, norm)
    return None
