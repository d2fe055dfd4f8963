"""ResNets nested by depth: those for 32 x 32 images, and timm's, with the shapes and names of timm.

All networks of one kind have the same channels and differ only in the number of blocks per stage. So every
convolution is whole in both modes. Only BatchNorm, and the blocks that run, depend on the mode. The networks
are those of He et al. 2016 (arXiv 1512.03385); the weights map is that of arXiv 2602.21064, section 3.3.1.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from nestnet.models.architecture import Architecture, TrainingDefaults
from nestnet.models.registration import register_architecture
from nestnet.models.resnet_blocks import BasicBlock, Bottleneck, Norm
from nestnet.nn.batch_norm import STATISTICS
from nestnet.nn.layers import Dropout
from nestnet.nn.mode import Mode, PerMode, Rate, Width, parse_rates
from nestnet.nn.model import NestedModel
from nestnet.nn.stage import DEPTH_MAPS, Stage, depth_map, drop_path_rates
from nestnet.text.arguments import check_choice


@dataclass(frozen=True)
class ResNetArchitecture(Architecture):
    """A ResNet for large images: a stem that divides the resolution by 4, and four stages.

    Attributes:
        depths: number of blocks of each stage.
        bottleneck: whether the blocks are bottlenecks instead of basic blocks.
        channels: channels of each stage, before the expansion of bottlenecks.
    """

    family = "ResNet"
    # He et al. 2016 (arXiv 1512.03385, section 3.4), Goyal et al. 2017 (arXiv 1706.02677) and torchvision's
    # references/classification.
    training_defaults = TrainingDefaults("momentum", lr=0.1, lr_batch=256, weight_decay=1e-4)
    channels: ClassVar[tuple[int, ...]] = (64, 128, 256, 512)

    depths: tuple[int, ...]
    bottleneck: bool = False

    def contains(self, base: "ResNetArchitecture") -> bool:
        # A network of another kind has other channels or other blocks, and depth alone cannot nest it.
        if type(base) is not type(self) or base.bottleneck != self.bottleneck:
            return False
        return all(b <= m for b, m in zip(base.depths, self.depths, strict=True))

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
            drop_path_rate: stochastic depth of the last block, in the same form; it grows linearly from 0 at
                the first block.
            zero_init_last: whether each block's last BatchNorm starts at 0.

        Returns:
            The nested network.

        Raises:
            ValueError: If an option has a value that is not allowed.
        """
        return NestedResNet(
            names,
            architectures,
            num_classes=num_classes,
            in_chans=in_chans,
            statistics=check_choice("batch_norm", batch_norm, STATISTICS),
            depth_map_kind=check_choice("depth_map", depth_map, DEPTH_MAPS),
            drop_rate=parse_rates("drop_rate", drop_rate),
            drop_path_rate=parse_rates("drop_path_rate", drop_path_rate),
            zero_init_last=zero_init_last,
        )


@dataclass(frozen=True)
class CifarResNetArchitecture(ResNetArchitecture):
    """A ResNet for 32 x 32 images: three stages, and a stem that keeps the resolution.

    `nestnet.models.cifar_resnet` has the networks that are not nested.
    """

    is_for_small_images = True
    # He et al. 2016 (arXiv 1512.03385, section 4.2); the weight decay is that of arXiv 2602.21064, section 4.1.
    training_defaults = TrainingDefaults("momentum", lr=0.1, lr_batch=128, weight_decay=5e-4)
    registered_by = "nestnet"
    paper_counts_flops = True
    channels = (16, 32, 64)


class NestedResNet(NestedModel):
    """A nested ResNet: a stem, stages of blocks of which base mode skips some, and a linear head.

    The arguments are those of `ResNetArchitecture.nest`, with the rates of each mode.
    """

    def __init__(
        self,
        names: PerMode[str],
        architectures: PerMode[ResNetArchitecture],
        *,
        num_classes: int,
        in_chans: int,
        statistics: str,
        depth_map_kind: str,
        drop_rate: Rate,
        drop_path_rate: Rate,
        zero_init_last: bool,
    ) -> None:
        options = PerMode(
            {"drop_rate": drop_rate.base, "drop_path_rate": drop_path_rate.base, "zero_init_last": zero_init_last},
            {
                "drop_rate": drop_rate.motivated,
                "drop_path_rate": drop_path_rate.motivated,
                "zero_init_last": zero_init_last,
            },
        )
        super().__init__(names, num_classes=num_classes, in_chans=in_chans, timm_options=options)
        motivated = architectures.motivated
        channels = motivated.channels

        # The stem: it keeps the resolution of small images, and divides that of large ones by 4.
        if motivated.is_for_small_images:
            self.conv1 = nn.Conv2d(in_chans, channels[0], 3, padding=1, bias=False)
        else:
            self.conv1 = nn.Conv2d(in_chans, channels[0], 7, 2, padding=3, bias=False)
        self.bn1 = Norm(statistics)(channels[0])
        self.maxpool = nn.Identity() if motivated.is_for_small_images else nn.MaxPool2d(3, 2, padding=1)

        # Each block's position in the base's stage, by which base mode runs it or not, and its stochastic depth.
        positions = []
        for base_depth, motivated_depth in zip(architectures.base.depths, motivated.depths, strict=True):
            positions.append(depth_map(Width(base_depth, motivated_depth), depth_map_kind))
        rates = drop_path_rates(drop_path_rate, positions, last=True)

        # Blocks by stages, named layer1 and so on as in timm.
        block = Bottleneck if motivated.bottleneck else BasicBlock
        in_planes = channels[0]
        self.stage_names = []
        for stage, planes in enumerate(channels):
            # Every stage but the first halves the resolution in its first block, which both modes have.
            stride = 1 if stage == 0 else 2
            blocks = []
            for position, rate in zip(positions[stage], rates[stage], strict=True):
                norm = Norm(statistics, is_differential=position is None)
                blocks.append(block(in_planes, planes, stride, norm, rate))
                in_planes = planes * block.expansion
                stride = 1
            name = f"layer{stage + 1}"
            self.add_module(name, Stage(blocks, positions[stage]))
            self.stage_names.append(name)

        self.head_drop = Dropout(drop_rate)
        self.fc = nn.Linear(in_planes, num_classes)

    def forward_features(self, x: Tensor, mode: Mode | str) -> Tensor:
        mode = Mode(mode)
        # The stem; [B, C, H, W] or, of large images, [B, C, H/4, W/4].
        x = self.maxpool(F.relu(self.bn1(self.conv1(x), mode), inplace=True))
        for name in self.stage_names:
            x = self.get_submodule(name)(x, mode)
        return x

    def forward_head(self, x: Tensor, mode: Mode | str, pre_logits: bool = False) -> Tensor:
        mode = Mode(mode)
        # [B, C, H', W'] to [B, C] to [B, K]
        x = self.head_drop(F.adaptive_avg_pool2d(x, 1).flatten(1), mode)
        if pre_logits:
            return x
        return self.fc(x)


@register_architecture("resnet8")
def resnet8() -> Architecture:
    return CifarResNetArchitecture((1, 1, 1))


@register_architecture("resnet14")
def resnet14() -> Architecture:
    return CifarResNetArchitecture((2, 2, 2))


@register_architecture("resnet20")
def resnet20() -> Architecture:
    return CifarResNetArchitecture((3, 3, 3))


@register_architecture("resnet32")
def resnet32() -> Architecture:
    return CifarResNetArchitecture((5, 5, 5))


@register_architecture("resnet44")
def resnet44() -> Architecture:
    return CifarResNetArchitecture((7, 7, 7))


@register_architecture("resnet56")
def resnet56() -> Architecture:
    return CifarResNetArchitecture((9, 9, 9))


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
