"""The ResNets for 32 x 32 images of He et al. 2016, section 4.2, registered with timm.

ResNet-20, 32, 44 and 56: a 3 x 3 stem of 16 channels, three stages of 16, 32 and 64 channels at strides 1, 2 and 2 with
3, 5, 7 and 9 basic blocks each, and a linear head. Shortcuts between stages are 1 x 1 projections with BatchNorm (option
B of that paper). Importing nestnet makes `timm.create_model("resnet20")` build them. Tensor names are those of timm's ResNets.
"""

from typing import Any

import torch.nn.functional as F
from timm.layers import DropPath
from timm.models import build_model_with_cfg, register_model
from timm.models.resnet import BasicBlock, downsample_conv
from torch import Tensor, nn

CHANNELS = (16, 32, 64)

default_cfgs = {
    f"resnet{depth}": {
        "url": "",
        "num_classes": 10,
        "input_size": (3, 32, 32),
        "pool_size": (8, 8),
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        # the training images' channel means and standard deviations
        "mean": (0.4914, 0.4822, 0.4465),
        "std": (0.2470, 0.2435, 0.2616),
        "first_conv": "conv1",
        "classifier": "fc",
        "license": "apache-2.0",
    }
    for depth in (20, 32, 44, 56)
}


class CifarResNet(nn.Module):
    """A ResNet for small images, over timm's `BasicBlock`.

    Args:
        depth: blocks in each of the three stages.
        num_classes: outputs of the head; 0 leaves the head out.
        in_chans: channels of the images.
        drop_rate: dropout before the head.
        drop_path_rate: stochastic depth of the last block, growing linearly from 0 at the first.
        zero_init_last: start the last BatchNorm of each block at 0, as timm's ResNets do.
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
        self.num_classes, self.drop_rate = num_classes, drop_rate
        self.num_features = self.head_hidden_size = CHANNELS[-1]
        self.grad_checkpointing = False
        self.conv1 = nn.Conv2d(in_chans, CHANNELS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(CHANNELS[0])
        self.act1 = nn.ReLU(inplace=True)  # a module, because timm's features_only runs the children in order
        in_planes, rates = CHANNELS[0], [drop_path_rate * i / (3 * depth - 1) for i in range(3 * depth)]
        for stage, planes in enumerate(CHANNELS, start=1):
            stride = 1 if stage == 1 else 2
            blocks = []
            for index in range(depth):
                downsample = downsample_conv(in_planes, planes, 1, stride) if in_planes != planes else None
                rate = rates[(stage - 1) * depth + index]
                drop_path = DropPath(rate) if rate else None
                blocks.append(BasicBlock(in_planes, planes, stride, downsample, drop_path=drop_path))
                in_planes, stride = planes, 1
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.feature_info = [
            {"num_chs": planes, "reduction": 2**stage, "module": f"layer{stage + 1}"}
            for stage, planes in enumerate(CHANNELS)
        ]
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, BasicBlock) and zero_init_last:
                nn.init.zeros_(module.get_parameter("bn2.weight"))

    def forward_features(self, x: Tensor) -> Tensor:
        """`[B, in_chans, H, W]` to `[B, 64, H/4, W/4]`."""
        x = self.act1(self.bn1(self.conv1(x)))
        return self.layer3(self.layer2(self.layer1(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        x = F.dropout(x, self.drop_rate, self.training) if self.drop_rate else x
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        assert global_pool in (None, "avg"), "only average pooling"
        self.num_classes = num_classes
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {"stem": r"^conv1|bn1", "blocks": r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"}


def _create(name: str, depth: int, pretrained: bool, **kwargs: Any) -> CifarResNet:
    return build_model_with_cfg(
        CifarResNet, name, pretrained, depth=depth, feature_cfg={"out_indices": (0, 1, 2)}, **kwargs
    )


@register_model
def resnet20(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """0.27 M parameters."""
    return _create("resnet20", 3, pretrained, **kwargs)


@register_model
def resnet32(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """0.47 M parameters."""
    return _create("resnet32", 5, pretrained, **kwargs)


@register_model
def resnet44(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """0.66 M parameters."""
    return _create("resnet44", 7, pretrained, **kwargs)


@register_model
def resnet56(pretrained: bool = False, **kwargs: Any) -> CifarResNet:
    """0.86 M parameters."""
    return _create("resnet56", 9, pretrained, **kwargs)
