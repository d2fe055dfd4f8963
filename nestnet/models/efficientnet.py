"""EfficientNets nested by width and depth: timm's B0 to B5.

Of every convolution the base has the first input and output channels, of every stage the first blocks (arXiv 2602.21064,
section 3.3.3). Tan and Le 2019, arXiv 1905.11946, table 1 and section 4; names and shapes are timm's.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch.nn.functional as F
from timm.layers import make_divisible
from torch import Tensor, nn

from nestnet.models.registry import Architecture, register_architecture
from nestnet.nn.batch_norm import STATISTICS, BatchNorm2d
from nestnet.nn.layers import Conv2d, Dropout, DropPath, Linear
from nestnet.nn.mode import Mode, PerMode, Rate, Width, per_mode
from nestnet.nn.model import NestedModel
from nestnet.nn.stage import DEPTH_MAPS, Stage, depth_map, drop_path_rates
from nestnet.text.arguments import choice


class StageSpec(NamedTuple):
    """A row of table 1: kernel size, stride of the first block, expansion of the blocks, output channels and blocks of B0."""

    kernel: int
    stride: int
    expansion: int
    channels: int
    depth: int


STEM, HEAD = 32, 1280
STAGES = (
    StageSpec(3, 1, 1, 16, 1),
    StageSpec(3, 2, 6, 24, 2),
    StageSpec(5, 2, 6, 40, 2),
    StageSpec(3, 2, 6, 80, 3),
    StageSpec(5, 1, 6, 112, 3),
    StageSpec(5, 2, 6, 192, 4),
    StageSpec(3, 1, 6, 320, 1),
)


@dataclass(frozen=True)
class EfficientNetArchitecture(Architecture):
    """What B0's channels and blocks are multiplied by."""

    family = "EfficientNet"
    width: float
    depth: float

    def contains(self, base: "EfficientNetArchitecture") -> bool:
        return base.width <= self.width and base.depth <= self.depth

    def channels(self, of_b0: int) -> int:
        """B0's channels scaled to a multiple of 8, at most 10 % less than asked for."""
        return make_divisible(of_b0 * self.width, 8)

    def blocks(self, of_b0: int) -> int:
        return math.ceil(of_b0 * self.depth)

    @staticmethod
    def nest(
        names: PerMode[str],
        architectures: PerMode["EfficientNetArchitecture"],
        *,
        num_classes: int,
        in_chans: int,
        batch_norm: str = "private",
        depth_map: str = "first",
        drop_rate: float | list[float] = 0.0,
        drop_path_rate: float | list[float] = 0.0,
    ) -> NestedModel:
        choice("batch_norm", batch_norm, STATISTICS)
        choice("depth_map", depth_map, DEPTH_MAPS)
        drop, drop_path = per_mode("drop_rate", drop_rate), per_mode("drop_path_rate", drop_path_rate)
        return NestedEfficientNet(names, architectures, num_classes, in_chans, batch_norm, depth_map, drop, drop_path)


class SqueezeExcite(nn.Module):
    """Scales each channel of `[B, c, H, W]` by a gate computed from all channels' means."""

    def __init__(self, channels: Width, reduced: Width) -> None:
        super().__init__()
        self.conv_reduce = Conv2d(channels, reduced, 1)
        self.conv_expand = Conv2d(reduced, channels, 1)

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        gate = x.mean((2, 3), keepdim=True)
        gate = self.conv_expand(F.silu(self.conv_reduce(gate, mode), inplace=True), mode)
        return x * gate.sigmoid()


class DepthwiseSeparable(nn.Module):
    """The first stage's block: depthwise convolution, gate, projection. `[B, i, H, W]` to `[B, o, H/stride, W/stride]`."""

    def __init__(
        self, in_chs: Width, out_chs: Width, spec: StageSpec, stride: int, statistics: str, drop_path: Rate
    ) -> None:
        super().__init__()
        padding = (spec.kernel - 1) // 2
        self.has_skip = PerMode(*(stride == 1 and in_chs.of(mode) == out_chs.of(mode) for mode in Mode))
        self.conv_dw = Conv2d(in_chs, in_chs, spec.kernel, stride=stride, padding=padding, groups=in_chs, bias=False)
        self.bn1 = BatchNorm2d(in_chs, statistics=statistics)
        self.se = SqueezeExcite(in_chs, PerMode(*(round(in_chs.of(mode) / 4) for mode in Mode)))
        self.conv_pw = Conv2d(in_chs, out_chs, 1, bias=False)
        self.bn2 = BatchNorm2d(out_chs, statistics=statistics)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        shortcut = x
        x = F.silu(self.bn1(self.conv_dw(x, mode), mode), inplace=True)
        x = self.bn2(self.conv_pw(self.se(x, mode), mode), mode)
        return self.drop_path(x, mode) + shortcut if self.has_skip.of(mode) else x


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, gate, projection (MBConv). `[B, i, H, W]` to `[B, o, H/stride, W/stride]`."""

    def __init__(
        self, in_chs: Width, out_chs: Width, spec: StageSpec, stride: int, statistics: str, drop_path: Rate
    ) -> None:
        super().__init__()
        padding = (spec.kernel - 1) // 2
        self.has_skip = PerMode(*(stride == 1 and in_chs.of(mode) == out_chs.of(mode) for mode in Mode))
        mid_chs = PerMode(*(in_chs.of(mode) * spec.expansion for mode in Mode))
        self.conv_pw = Conv2d(in_chs, mid_chs, 1, bias=False)
        self.bn1 = BatchNorm2d(mid_chs, statistics=statistics)
        self.conv_dw = Conv2d(mid_chs, mid_chs, spec.kernel, stride=stride, padding=padding, groups=mid_chs, bias=False)
        self.bn2 = BatchNorm2d(mid_chs, statistics=statistics)
        # the gate is reduced to a quarter of the block's input, not of the expanded channels
        self.se = SqueezeExcite(mid_chs, PerMode(*(round(in_chs.of(mode) / 4) for mode in Mode)))
        self.conv_pwl = Conv2d(mid_chs, out_chs, 1, bias=False)
        self.bn3 = BatchNorm2d(out_chs, statistics=statistics)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        shortcut = x
        x = F.silu(self.bn1(self.conv_pw(x, mode), mode), inplace=True)
        x = F.silu(self.bn2(self.conv_dw(x, mode), mode), inplace=True)
        x = self.bn3(self.conv_pwl(self.se(x, mode), mode), mode)
        return self.drop_path(x, mode) + shortcut if self.has_skip.of(mode) else x


class NestedEfficientNet(NestedModel):
    """Stem, seven stages of blocks of which base mode skips some, a 1 x 1 convolution and a linear head."""

    def __init__(
        self,
        names: PerMode[str],
        architectures: PerMode[EfficientNetArchitecture],
        num_classes: int,
        in_chans: int,
        batch_norm: str,
        depth_map_kind: str,
        drop_rate: Rate,
        drop_path_rate: Rate,
    ) -> None:
        options = PerMode(*({"drop_rate": drop_rate.of(m), "drop_path_rate": drop_path_rate.of(m)} for m in Mode))
        super().__init__(names, num_classes=num_classes, in_chans=in_chans, timm_options=options)

        def channels(of_b0: int) -> Width:
            return Width(architectures.base.channels(of_b0), architectures.motivated.channels(of_b0))

        in_chs, images = channels(STEM), Width(in_chans, in_chans)
        self.conv_stem = Conv2d(images, in_chs, 3, stride=2, padding=1, bias=False)
        self.bn1 = BatchNorm2d(in_chs, statistics=batch_norm)
        depths = [Width(architectures.base.blocks(s.depth), architectures.motivated.blocks(s.depth)) for s in STAGES]
        positions = [depth_map(depth, depth_map_kind) for depth in depths]
        rates = drop_path_rates(drop_path_rate, positions, last=False)
        stages = []
        for spec, stage_positions, stage_rates in zip(STAGES, positions, rates, strict=True):
            out_chs, stride, blocks = channels(spec.channels), spec.stride, []
            block = DepthwiseSeparable if spec.expansion == 1 else InvertedResidual
            for position, rate in zip(stage_positions, stage_rates, strict=True):
                sizes = (
                    (in_chs, out_chs)
                    if position is not None
                    else (Width(0, in_chs.motivated), Width(0, out_chs.motivated))
                )
                blocks.append(block(*sizes, spec, stride, batch_norm, rate))
                in_chs, stride = out_chs, 1
            stages.append(Stage(blocks, stage_positions))
        self.blocks = nn.ModuleList(stages)
        features = channels(HEAD)
        self.conv_head = Conv2d(in_chs, features, 1, bias=False)
        self.bn2 = BatchNorm2d(features, statistics=batch_norm)
        self.head_drop = Dropout(drop_rate)
        self.classifier = Linear(features, Width(num_classes, num_classes))

    def forward_features(self, x: Tensor, mode: Mode | str) -> Tensor:
        mode = Mode(mode)
        x = F.silu(self.bn1(self.conv_stem(x, mode), mode), inplace=True)
        for stage in self.blocks:
            x = stage(x, mode)
        return F.silu(self.bn2(self.conv_head(x, mode), mode), inplace=True)

    def forward_head(self, x: Tensor, mode: Mode | str, pre_logits: bool = False) -> Tensor:
        mode = Mode(mode)
        x = self.head_drop(F.adaptive_avg_pool2d(x, 1).flatten(1), mode)
        return x if pre_logits else self.classifier(x, mode)


@register_architecture("efficientnet_b0")
def efficientnet_b0() -> Architecture:
    return EfficientNetArchitecture(width=1.0, depth=1.0)


@register_architecture("efficientnet_b1")
def efficientnet_b1() -> Architecture:
    return EfficientNetArchitecture(width=1.0, depth=1.1)


@register_architecture("efficientnet_b2")
def efficientnet_b2() -> Architecture:
    return EfficientNetArchitecture(width=1.1, depth=1.2)


@register_architecture("efficientnet_b3")
def efficientnet_b3() -> Architecture:
    return EfficientNetArchitecture(width=1.2, depth=1.4)


@register_architecture("efficientnet_b4")
def efficientnet_b4() -> Architecture:
    return EfficientNetArchitecture(width=1.4, depth=1.8)


@register_architecture("efficientnet_b5")
def efficientnet_b5() -> Architecture:
    return EfficientNetArchitecture(width=1.6, depth=2.2)
