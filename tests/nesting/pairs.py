"""Small pairs of networks of many families, which several test files use."""

import itertools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import timm
import torch
from timm.models._efficientnet_builder import decode_arch_def, round_channels
from timm.models.hrnet import Bottleneck, HighResolutionNet
from timm.models.mlp_mixer import MlpMixer
from timm.models.mobilenetv3 import MobileNetV3
from torch import Tensor, nn

CLASSES = 5


@dataclass(frozen=True)
class Pair:
    """A base and a motivated network, and the size of the images that they take."""

    base: Callable[..., nn.Module]
    motivated: Callable[..., nn.Module]
    size: int = 32

    def make(self, **options: Any) -> tuple[nn.Module, nn.Module]:
        return self.base(**options), self.motivated(**options)

    def batch(self, count: int = 4) -> tuple[Tensor, Tensor]:
        return torch.randn(count, 3, self.size, self.size), torch.randint(CLASSES, (count,))


class OwnBlock(nn.Module):
    """A residual block with a bottleneck, two branches and a gate."""

    def __init__(self, width: int, drop_rate: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width)
        self.wide = nn.Conv2d(width, 2 * width, 3, padding=1, groups=width)
        self.narrow = nn.Conv2d(2 * width, width, 1, bias=False)
        self.gate = nn.Linear(width, width)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        y = self.narrow(nn.functional.gelu(self.wide(self.norm(x))))
        gate = torch.sigmoid(self.gate(x.mean((2, 3))))
        return x + self.drop(y * gate[:, :, None, None])


class OwnCNN(nn.Module):
    """A network that no library knows."""

    def __init__(self, width: int, depth: int, drop_rate: float = 0.0, **options: Any) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 4, stride=4)
        self.scale = nn.Parameter(torch.rand(width, 1, 1))
        self.blocks = nn.Sequential(*[OwnBlock(width, drop_rate) for _ in range(depth)])
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x) * self.scale)
        return self.head(self.norm(x).relu().mean((2, 3)))


class MLP(nn.Module):
    """The smallest network of which the base has a part of every weight but the last bias."""

    def __init__(self, width: int, inputs: int = 8, classes: int = CLASSES) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, width)
        self.fc2 = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(x).relu())


class SmallHRNet(HighResolutionNet):
    """timm's HRNet of three branches in place of four, with a head of 20 to 36 channels in place of 128 to 2048."""

    HEAD = (20, 28, 36)

    def _make_head(self, channels: list[int], conv_bias: bool = True, **options: Any) -> Any:
        self.head_channels = [width // Bottleneck.expansion for width in self.HEAD]
        incre = [self._make_layer(Bottleneck, *pair, 1) for pair in zip(channels, self.head_channels, strict=True)]
        down = [_conv_norm(*widths, 3, stride=2, padding=1) for widths in itertools.pairwise(self.HEAD)]
        self.num_features = self.HEAD[-1]
        return nn.ModuleList(incre), nn.ModuleList(down), _conv_norm(self.HEAD[-1], self.num_features, 1)


def _conv_norm(*arguments: int, **options: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(*arguments, **options), nn.BatchNorm2d(arguments[1]), nn.ReLU(inplace=True))


def of_timm(name: str, **own: Any) -> Callable[..., nn.Module]:
    """A function that builds a model of timm with these and further keyword arguments."""
    return lambda **options: timm.create_model(name, num_classes=CLASSES, **{**own, **options})


def for_small_images(name: str) -> nn.Module:
    """Return a network of timm's for small images."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return timm.create_model(name, num_classes=10, img_size=64)
        except TypeError:  # a family whose networks take any size
            return timm.create_model(name, num_classes=10)


def hrnet(stem_width: int, width: int, blocks: int) -> Callable[..., nn.Module]:
    """A function that builds an HRNet with this many blocks in each branch of its second stage."""
    config: dict[str, Any] = {"stem_width": stem_width}
    for stage in range(1, 5):
        branches = min(stage, len(SmallHRNet.HEAD))
        config[f"stage{stage}"] = {
            "num_modules": 1,
            "num_branches": branches,
            "block_type": "BOTTLENECK" if stage == 1 else "BASIC",
            "num_blocks": (blocks if stage == 2 else 1,) * branches,
            "num_channels": tuple(width * 2**branch for branch in range(branches)),
            "fuse_method": "SUM",
        }
    return lambda **options: SmallHRNet(config, num_classes=CLASSES, **options)


def mixer(width: int, depth: int) -> Callable[..., nn.Module]:
    return lambda **options: MlpMixer(
        img_size=32, patch_size=16, embed_dim=width, num_blocks=depth, num_classes=CLASSES, **options
    )


def mobilenet(width: float, depth: int) -> Callable[..., nn.Module]:
    """A function that builds a MobileNetV3 of three stages, of which the second has this many blocks."""
    stages = [["ds_r1_k3_s2_e1_c16_se0.25_nre"], [f"ir_r{depth}_k5_s2_e3_c24_se0.25"], ["cn_r1_k1_s1_c48"]]
    return lambda **options: MobileNetV3(
        decode_arch_def(stages),
        num_classes=CLASSES,
        stem_size=round_channels(16, width),
        fix_stem=True,
        num_features=64,
        round_chs_fn=partial(round_channels, multiplier=width),
        act_layer=nn.Hardswish,
        **options,
    )


def own_cnn(width: int, depth: int) -> Callable[..., nn.Module]:
    return lambda **options: OwnCNN(width, depth, **options)


PAIRS = {
    "convnextv2": Pair(
        of_timm("convnextv2_atto", depths=(1, 1, 2, 1), dims=(8, 16, 24, 32)),
        of_timm("convnextv2_atto", depths=(1, 1, 3, 1), dims=(12, 24, 32, 40)),
    ),
    "swin": Pair(
        of_timm(
            "swin_tiny_patch4_window7_224", img_size=32, embed_dim=16, depths=(2, 2), num_heads=(2, 4), window_size=4
        ),
        of_timm(
            "swin_tiny_patch4_window7_224", img_size=32, embed_dim=24, depths=(2, 4), num_heads=(3, 6), window_size=4
        ),
    ),
    "deit3": Pair(
        of_timm("deit3_small_patch16_224", img_size=32, embed_dim=16, depth=2, num_heads=2),
        of_timm("deit3_small_patch16_224", img_size=32, embed_dim=24, depth=3, num_heads=3),
    ),
    "dinov2": Pair(
        of_timm("vit_small_patch14_dinov2", img_size=28, embed_dim=16, depth=2, num_heads=2),
        of_timm("vit_base_patch14_dinov2", img_size=28, embed_dim=24, depth=3, num_heads=3),
        size=28,
    ),
    "mobilenetv3": Pair(mobilenet(0.5, 1), mobilenet(1.0, 2)),
    "repvit": Pair(
        of_timm("repvit_m0_9", embed_dim=(8, 16, 16, 24), depth=(1, 1, 1, 1)),
        of_timm("repvit_m1_0", embed_dim=(16, 16, 24, 32), depth=(1, 1, 2, 1)),
    ),
    "hrnet": Pair(hrnet(8, 4, 1), hrnet(16, 6, 2)),
    "mixer": Pair(mixer(16, 2), mixer(24, 3)),
    "hiera": Pair(
        of_timm("hiera_tiny_224", img_size=(64, 64), embed_dim=8, num_heads=1, stages=(1, 1, 2, 1)),
        of_timm("hiera_small_224", img_size=(64, 64), embed_dim=16, num_heads=2, stages=(1, 1, 3, 1)),
        size=64,
    ),
    "own cnn": Pair(own_cnn(8, 2), own_cnn(12, 3)),
}
"""One small pair of each of ten families."""

WITH_BATCH_NORM = ("mobilenetv3", "repvit", "hrnet", "own cnn")
