"""EfficientNets nested by width and depth: timm's B0 to B5.

The base has the first input and output channels of every convolution, and the first blocks of every stage
(arXiv 2602.21064, section 3.3.3). The networks are those of Tan and Le 2019 (arXiv 1905.11946, table 1 and
section 4); names and shapes are timm's.
"""

import math
from dataclasses import dataclass

import torch.nn.functional as F
from timm.layers import make_divisible
from torch import Tensor, nn

from nestnet.models.architecture import Architecture, TrainingDefaults
from nestnet.models.efficientnet_blocks import DepthwiseSeparable, InvertedResidual, StageSpec
from nestnet.models.registration import register_architecture
from nestnet.nn.batch_norm import STATISTICS, BatchNorm2d
from nestnet.nn.layers import Conv2d, Dropout, Linear
from nestnet.nn.mode import Mode, PerMode, Rate, Width, parse_rates
from nestnet.nn.model import NestedModel
from nestnet.nn.stage import DEPTH_MAPS, Stage, depth_map, drop_path_rates
from nestnet.text.arguments import check_choice

STEM = 32
"""Channels of B0's stem."""

HEAD = 1280
"""Channels of B0's last convolution."""

# Kernel, stride, expansion, channels and depth of each stage.
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
    """An EfficientNet, by its multiples of B0.

    Attributes:
        width: factor of B0's channels.
        depth: factor of B0's blocks in each stage.
    """

    family = "EfficientNet"
    # timm's command for EfficientNet-B0, in its documentation of training scripts.
    training_defaults = TrainingDefaults("rmsproptf", lr=0.048, lr_batch=768, weight_decay=1e-5, options={"eps": 1e-3})

    width: float
    depth: float

    def contains(self, base: "EfficientNetArchitecture") -> bool:
        return base.width <= self.width and base.depth <= self.depth

    def channels(self, of_b0: int) -> int:
        """Return a number of B0's channels scaled by `width`.

        Args:
            of_b0: number of channels in B0.

        Returns:
            A multiple of 8 that is at least 90 % of the exact product.
        """
        return make_divisible(of_b0 * self.width, 8)

    def blocks(self, of_b0: int) -> int:
        """Return a number of B0's blocks scaled by `depth`.

        Args:
            of_b0: number of blocks in B0.

        Returns:
            The product, rounded up.
        """
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
        """Return the nested network of a pair, with uninitialised weights.

        Args:
            names: timm's name of each mode's network.
            architectures: each mode's network.
            num_classes: number of outputs of the head.
            in_chans: number of channels of the images.
            batch_norm: what the modes share of BatchNorm, `"private"`, `"shared"` or `"separate"`: see
                `nestnet.nn.batch_norm.BatchNorm2d`.
            depth_map: motivated blocks that hold a stage's base blocks, `"last"`, `"first"` or `"uniform"`: see
                `nestnet.nn.stage.depth_map`.
            drop_rate: dropout before the head, one number for both modes or a pair `[base, motivated]`.
            drop_path_rate: stochastic depth, in the same form; it grows linearly from 0 at the first block to
                this rate, which the block after the last one would have (timm's convention for EfficientNet).

        Returns:
            The nested network.

        Raises:
            ValueError: If an option has a value that is not allowed.
        """
        return NestedEfficientNet(
            names,
            architectures,
            num_classes=num_classes,
            in_chans=in_chans,
            statistics=check_choice("batch_norm", batch_norm, STATISTICS),
            depth_map_kind=check_choice("depth_map", depth_map, DEPTH_MAPS),
            drop_rate=parse_rates("drop_rate", drop_rate),
            drop_path_rate=parse_rates("drop_path_rate", drop_path_rate),
        )


class NestedEfficientNet(NestedModel):
    """A nested EfficientNet: a stem, seven stages of blocks of which base mode skips some, and a head.

    The arguments are those of `EfficientNetArchitecture.nest`, with the rates of each mode.
    """

    def __init__(
        self,
        names: PerMode[str],
        architectures: PerMode[EfficientNetArchitecture],
        *,
        num_classes: int,
        in_chans: int,
        statistics: str,
        depth_map_kind: str,
        drop_rate: Rate,
        drop_path_rate: Rate,
    ) -> None:
        options = PerMode(
            {"drop_rate": drop_rate.base, "drop_path_rate": drop_path_rate.base},
            {"drop_rate": drop_rate.motivated, "drop_path_rate": drop_path_rate.motivated},
        )
        super().__init__(names, num_classes=num_classes, in_chans=in_chans, timm_options=options)
        base = architectures.base
        motivated = architectures.motivated

        # The stem halves the resolution.
        in_chs = _channels(architectures, STEM)
        self.conv_stem = Conv2d(Width(in_chans, in_chans), in_chs, 3, stride=2, padding=1, bias=False)
        self.bn1 = BatchNorm2d(in_chs, statistics=statistics)

        # Each block's position in the base's stage, by which base mode runs it or not, and its stochastic depth.
        positions = []
        for spec in STAGES:
            depth = Width(base.blocks(spec.depth), motivated.blocks(spec.depth))
            positions.append(depth_map(depth, depth_map_kind))
        rates = drop_path_rates(drop_path_rate, positions, last=False)

        # Blocks by stages; the first block of a stage changes the channels, and by its stride the resolution.
        stages = []
        for spec, stage_positions, stage_rates in zip(STAGES, positions, rates, strict=True):
            out_chs = _channels(architectures, spec.channels)
            stride = spec.stride
            block = DepthwiseSeparable if spec.expansion == 1 else InvertedResidual
            blocks = []
            for position, rate in zip(stage_positions, stage_rates, strict=True):
                if position is None:
                    # A differential block, of which the base has no channels.
                    block_in = Width(0, in_chs.motivated)
                    block_out = Width(0, out_chs.motivated)
                else:
                    block_in = in_chs
                    block_out = out_chs
                blocks.append(block(block_in, block_out, spec, stride, statistics, rate))
                in_chs = out_chs
                stride = 1
            stages.append(Stage(blocks, stage_positions))
        self.blocks = nn.ModuleList(stages)

        # A 1 x 1 convolution to the features that the head classifies.
        features = _channels(architectures, HEAD)
        self.conv_head = Conv2d(in_chs, features, 1, bias=False)
        self.bn2 = BatchNorm2d(features, statistics=statistics)
        self.head_drop = Dropout(drop_rate)
        self.classifier = Linear(features, Width(num_classes, num_classes))

    def forward_features(self, x: Tensor, mode: Mode | str) -> Tensor:
        mode = Mode(mode)
        # [B, in_chans, H, W] to [B, features, H/32, W/32]
        x = F.silu(self.bn1(self.conv_stem(x, mode), mode), inplace=True)
        for stage in self.blocks:
            x = stage(x, mode)
        return F.silu(self.bn2(self.conv_head(x, mode), mode), inplace=True)

    def forward_head(self, x: Tensor, mode: Mode | str, pre_logits: bool = False) -> Tensor:
        mode = Mode(mode)
        # [B, features, H', W'] to [B, features] to [B, K]
        x = self.head_drop(F.adaptive_avg_pool2d(x, 1).flatten(1), mode)
        if pre_logits:
            return x
        return self.classifier(x, mode)


def _channels(architectures: PerMode[EfficientNetArchitecture], of_b0: int) -> Width:
    return Width(architectures.base.channels(of_b0), architectures.motivated.channels(of_b0))


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
