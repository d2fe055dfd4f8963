"""ResNets nested by depth: those for 32 x 32 images and timm's, whose shapes and names they have.

All networks of one kind have the same channels and differ in the number of blocks a stage, so every convolution is whole
in both modes; only BatchNorm's running statistics, and which blocks run, depend on the mode.
He et al. 2016, arXiv 1512.03385; the weights map is that of arXiv 2602.21064, section 3.3.1.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from nestnet.models.registry import Architecture, register_architecture
from nestnet.nn.batch_norm import STATISTICS, BatchNorm2d
from nestnet.nn.layers import Dropout, DropPath
from nestnet.nn.mode import Mode, PerMode, Rate, Width, per_mode
from nestnet.nn.model import NestedModel
from nestnet.nn.stage import DEPTH_MAPS, Stage, depth_map, drop_path_rates
from nestnet.text.arguments import choice


@dataclass(frozen=True)
class ResNetArchitecture(Architecture):
    """The blocks a stage; whether they are bottlenecks; whether the stem and stages are those for 32 x 32 images."""

    family = "ResNet"
    depths: tuple[int, ...]
    bottleneck: bool = False
    cifar: bool = False

    def contains(self, base: "ResNetArchitecture") -> bool:
        same_kind = (base.bottleneck, base.cifar) == (self.bottleneck, self.cifar)
        return same_kind and all(b <= m for b, m in zip(base.depths, self.depths, strict=True))

    @staticmethod
    def nest(
        names: PerMode[str],
        architectures: PerMode["ResNetArchitecture"],
        *,
        num_classes: int,
        in_chans: int,
        batch_norm: str = "private",
        depth_map: str = "last",
        drop_rate: float | list[float] = 0.0,
        drop_path_rate: float | list[float] = 0.0,
        zero_init_last: bool = True,
    ) -> NestedModel:
        choice("batch_norm", batch_norm, STATISTICS)
        choice("depth_map", depth_map, DEPTH_MAPS)
        drop, drop_path = per_mode("drop_rate", drop_rate), per_mode("drop_path_rate", drop_path_rate)
        return NestedResNet(
            names, architectures, num_classes, in_chans, batch_norm, depth_map, drop, drop_path, zero_init_last
        )


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions: `[B, C, H, W]` to `[B, planes, H/stride, W/stride]`."""

    expansion = 1

    def __init__(self, in_planes: int, planes: int, stride: int, norm: "Norm", drop_path: Rate) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride, padding=1, bias=False)
        self.bn1 = norm(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = norm(planes)
        self.downsample = Downsample(in_planes, planes, stride, norm) if stride > 1 or in_planes != planes else None
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x, mode)
        x = F.relu(self.bn1(self.conv1(x), mode), inplace=True)
        x = self.drop_path(self.bn2(self.conv2(x), mode), mode)
        x += shortcut
        return F.relu(x, inplace=True)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions: `[B, C, H, W]` to `[B, 4 planes, H/stride, W/stride]`."""

    expansion = 4

    def __init__(self, in_planes: int, planes: int, stride: int, norm: "Norm", drop_path: Rate) -> None:
        super().__init__()
        out_planes = planes * self.expansion
        self.conv1 = nn.Conv2d(in_planes, planes, 1, bias=False)
        self.bn1 = norm(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=1, bias=False)
        self.bn2 = norm(planes)
        self.conv3 = nn.Conv2d(planes, out_planes, 1, bias=False)
        self.bn3 = norm(out_planes)
        self.downsample = (
            Downsample(in_planes, out_planes, stride, norm) if stride > 1 or in_planes != out_planes else None
        )
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x, mode)
        x = F.relu(self.bn1(self.conv1(x), mode), inplace=True)
        x = F.relu(self.bn2(self.conv2(x), mode), inplace=True)
        x = self.drop_path(self.bn3(self.conv3(x), mode), mode)
        x += shortcut
        return F.relu(x, inplace=True)


class Downsample(nn.ModuleList):
    """The projection of a shortcut: a strided 1 x 1 convolution and BatchNorm, named 0 and 1 as in timm."""

    def __init__(self, in_planes: int, out_planes: int, stride: int, norm: "Norm") -> None:
        super().__init__([nn.Conv2d(in_planes, out_planes, 1, stride, bias=False), norm(out_planes)])

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        conv, norm = self
        return norm(conv(x), mode)


@dataclass(frozen=True)
class Norm:
    """Makes a BatchNorm over channels that both modes have, or, in a differential block, only the motivated one."""

    statistics: str
    differential: bool = False

    def __call__(self, channels: int) -> BatchNorm2d:
        return BatchNorm2d(Width(0 if self.differential else channels, channels), statistics=self.statistics)


class NestedResNet(NestedModel):
    """Stem, stages of blocks of which base mode skips some, and a linear head."""

    def __init__(
        self,
        names: PerMode[str],
        architectures: PerMode[ResNetArchitecture],
        num_classes: int,
        in_chans: int,
        batch_norm: str,
        depth_map_kind: str,
        drop_rate: Rate,
        drop_path_rate: Rate,
        zero_init_last: bool,
    ) -> None:
        options = PerMode(
            *(
                {
                    "drop_rate": drop_rate.of(mode),
                    "drop_path_rate": drop_path_rate.of(mode),
                    "zero_init_last": zero_init_last,
                }
                for mode in Mode
            )
        )
        super().__init__(names, num_classes=num_classes, in_chans=in_chans, timm_options=options)
        shape, norm = architectures.motivated, Norm(batch_norm)
        channels = (16, 32, 64) if shape.cifar else (64, 128, 256, 512)
        block = Bottleneck if shape.bottleneck else BasicBlock
        if shape.cifar:
            self.conv1 = nn.Conv2d(in_chans, channels[0], 3, padding=1, bias=False)
        else:
            self.conv1 = nn.Conv2d(in_chans, channels[0], 7, 2, padding=3, bias=False)
        self.bn1 = norm(channels[0])
        self.maxpool = nn.Identity() if shape.cifar else nn.MaxPool2d(3, 2, padding=1)

        depths = map(Width, architectures.base.depths, shape.depths)
        positions = [depth_map(depth, depth_map_kind) for depth in depths]
        rates = drop_path_rates(drop_path_rate, positions, last=True)
        in_planes = channels[0]
        self.stage_names = [f"layer{stage}" for stage in range(1, len(channels) + 1)]
        for name, planes, stage_positions, stage_rates in zip(
            self.stage_names, channels, positions, rates, strict=True
        ):
            blocks, stride = [], 1 if name == "layer1" else 2
            for position, rate in zip(stage_positions, stage_rates, strict=True):
                blocks.append(block(in_planes, planes, stride, Norm(batch_norm, differential=position is None), rate))
                in_planes, stride = planes * block.expansion, 1
            self.add_module(name, Stage(blocks, stage_positions))
        self.head_drop = Dropout(drop_rate)
        self.fc = nn.Linear(in_planes, num_classes)

    def forward_features(self, x: Tensor, mode: Mode | str) -> Tensor:
        mode = Mode(mode)
        x = self.maxpool(F.relu(self.bn1(self.conv1(x), mode), inplace=True))
        for name in self.stage_names:
            x = self.get_submodule(name)(x, mode)
        return x

    def forward_head(self, x: Tensor, mode: Mode | str, pre_logits: bool = False) -> Tensor:
        mode = Mode(mode)
        x = self.head_drop(F.adaptive_avg_pool2d(x, 1).flatten(1), mode)
        return x if pre_logits else self.fc(x)


@register_architecture("resnet20")
def resnet20() -> Architecture:
    return ResNetArchitecture((3, 3, 3), cifar=True)


@register_architecture("resnet32")
def resnet32() -> Architecture:
    return ResNetArchitecture((5, 5, 5), cifar=True)


@register_architecture("resnet44")
def resnet44() -> Architecture:
    return ResNetArchitecture((7, 7, 7), cifar=True)


@register_architecture("resnet56")
def resnet56() -> Architecture:
    return ResNetArchitecture((9, 9, 9), cifar=True)


@register_architecture("resnet18")
def resnet18() -> Architecture:
    return ResNetArchitecture((2, 2, 2, 2))


@register_architecture("resnet34")
def resnet34() -> Architecture:
    return ResNetArchitecture((3, 4, 6, 3))


@register_architecture("resnet50")
def resnet50() -> Architecture:
    return ResNetArchitecture((3, 4, 6, 3), bottleneck=True)


@register_architecture("resnet101")
def resnet101() -> Architecture:
    return ResNetArchitecture((3, 4, 23, 3), bottleneck=True)


@register_architecture("resnet152")
def resnet152() -> Architecture:
    return ResNetArchitecture((3, 8, 36, 3), bottleneck=True)
