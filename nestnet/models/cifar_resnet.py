"""The ResNets for 32 x 32 images of He et al. 2016, section 4.2, registered with timm.

ResNet-8, 14, 20, 32, 44 and 56: a 3 x 3 stem of 16 channels, three stages of 16, 32 and 64 channels at
strides 1, 2 and 2 with 1, 2, 3, 5, 7 and 9 basic blocks each, and a linear head. Shortcuts between stages are
1 x 1 projections with BatchNorm (option B of that paper). Importing nestnet makes
`timm.create_model("resnet20")` build one. Tensor names are those of timm's ResNets.
"""

from typing import Any

import torch.nn.functional as F
from timm.layers import DropPath
from timm.models import build_model_with_cfg, register_model
from timm.models.resnet import BasicBlock, downsample_conv
from torch import Tensor, nn

CHANNELS = (16, 32, 64)

# timm looks this name up in the module of a registered function.
default_cfgs = {
    f"resnet{depth}": {
        "url": "",
        "num_classes": 10,
        "input_size": (3, 32, 32),
        "pool_size": (8, 8),
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        # Means and standard deviations of the channels of CIFAR-10's training images.
        "mean": (0.4914, 0.4822, 0.4465),
        "std": (0.2470, 0.2435, 0.2616),
        "first_conv": "conv1",
        "classifier": "fc",
        "license": "apache-2.0",
    }
    for depth in (8, 14, 20, 32, 44, 56)
}


class CifarResNet(nn.Module):
    """A ResNet for small images, made of timm's `BasicBlock`.

    Args:
        depth: number of blocks in each of the three stages.
        num_classes: number of outputs of the head; 0 leaves the head out.
        in_chans: number of channels of the images.
        drop_rate: dropout before the head.
        drop_path_rate: stochastic depth of the last block; it grows linearly from 0 at the first block.
        zero_init_last: whether the last BatchNorm of each block starts at 0, as in timm's ResNets.
        global_pool: `"avg"`, the only pooling that is supported; timm passes it.
    """

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential

    def __init__(
        self,
        depth: int,
        num_classes: int = 10,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        zero_init_last: bool = True,
        global_pool: str = "avg",
    ) -> None:
        super().__init__()
        assert global_pool == "avg", "only average pooling"
        self.num_classes = num_classes
        self.drop_rate = drop_rate
        # Attributes that timm's functions read of every network.
        self.num_features = CHANNELS[-1]
        self.head_hidden_size = CHANNELS[-1]
        self.grad_checkpointing = False

        # The stem keeps the resolution.
        self.conv1 = nn.Conv2d(in_chans, CHANNELS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(CHANNELS[0])
        self.act1 = nn.ReLU(inplace=True)  # a module, because timm's features_only runs the children in order

        # Three stages, of which the second and the third halve the resolution in their first block.
        in_planes = CHANNELS[0]
        block_index = 0
        last_index = 3 * depth - 1
        self.feature_info = []
        for stage, planes in enumerate(CHANNELS):
            stride = 1 if stage == 0 else 2
            blocks = []
            for _ in range(depth):
                # Where the number of channels grows, the shortcut is a projection, and elsewhere the identity.
                downsample = None
                if in_planes != planes:
                    downsample = downsample_conv(in_planes, planes, 1, stride)
                drop_path = None
                if drop_path_rate and block_index:
                    drop_path = DropPath(drop_path_rate * block_index / last_index)
                blocks.append(BasicBlock(in_planes, planes, stride, downsample, drop_path=drop_path))
                block_index += 1
                in_planes = planes
                stride = 1
            name = f"layer{stage + 1}"
            self.add_module(name, nn.Sequential(*blocks))
            self.feature_info.append({"num_chs": planes, "reduction": 2**stage, "module": name})

        self.fc = _create_head(self.num_features, num_classes)
        # He et al. 2015 (arXiv 1502.01852), as in timm's ResNets.
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, BasicBlock) and zero_init_last:
                nn.init.zeros_(module.get_parameter("bn2.weight"))

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the output of the last block.

        Args:
            x: images `[B, in_chans, H, W]`.

        Returns:
            Features `[B, 64, H/4, W/4]`.
        """
        # [B, 16, H, W] after the stem and the first stage
        x = self.act1(self.bn1(self.conv1(x)))
        return self.layer3(self.layer2(self.layer1(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        if self.drop_rate:
            x = F.dropout(x, self.drop_rate, self.training)
        if pre_logits:
            return x
        return self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        assert global_pool in (None, "avg"), "only average pooling"
        self.num_classes = num_classes
        self.fc = _create_head(self.num_features, num_classes)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        blocks = r"^layer(\d+)"
        if not coarse:
            blocks += r"\.(\d+)"
        return {"stem": r"^conv1|bn1", "blocks": blocks}


def _create_head(num_features: int, num_classes: int) -> nn.Module:
    # timm's convention: without classes, the network returns the features.
    if not num_classes:
        return nn.Identity()
    return nn.Linear(num_features, num_classes)


def _create(name: str, depth: int, pretrained: bool, **kwargs: Any) -> CifarResNet:
    # features_only returns the output of each stage.
    return build_model_with_cfg(
        CifarResNet, name, pretrained, depth=depth, feature_cfg={"out_indices": (0, 1, 2)}, **kwargs
    )


@register_model
def resnet8(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """Return ResNet-8, which has 0.08 M parameters."""
    return _create("resnet8", 1, pretrained, **kwargs)


@register_model
def resnet14(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """Return ResNet-14, which has 0.17 M parameters."""
    return _create("resnet14", 2, pretrained, **kwargs)


@register_model
def resnet20(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """Return ResNet-20, which has 0.27 M parameters."""
    return _create("resnet20", 3, pretrained, **kwargs)


@register_model
def resnet32(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """Return ResNet-32, which has 0.47 M parameters."""
    return _create("resnet32", 5, pretrained, **kwargs)


@register_model
def resnet44(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """Return ResNet-44, which has 0.66 M parameters."""
    return _create("resnet44", 7, pretrained, **kwargs)


@register_model
def resnet56(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """Return ResNet-56, which has 0.86 M parameters."""
    return _create("resnet56", 9, pretrained, **kwargs)
