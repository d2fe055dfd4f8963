"""A family of your own: one convolution and a head, of any width. docs/guide/own-network.md explains it."""

from dataclasses import dataclass
from functools import partial

import torch.nn.functional as F
from timm.models import build_model_with_cfg, register_model
from torch import nn

import nestnet
from nestnet.nn.batch_norm import BatchNorm2d
from nestnet.nn.layers import Conv2d, Linear
from nestnet.nn.mode import Mode, PerMode, Width

WIDTHS = {"plain8": 8, "plain16": 16, "plain32": 32}
default_cfgs = {name: {"input_size": (3, 32, 32), "first_conv": "conv", "classifier": "head"} for name in WIDTHS}


class PlainNet(nn.Module):
    """The network alone, which timm builds and an export is loaded into."""

    def __init__(self, width, num_classes=1000, in_chans=3):
        super().__init__()
        self.conv = nn.Conv2d(in_chans, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        x = F.relu(self.norm(self.conv(x)))
        return self.head(x.mean((2, 3)))


class NestedPlainNet(nestnet.NestedModel):
    """The same names over nested layers."""

    def __init__(self, names, width, num_classes, in_chans):
        super().__init__(names, num_classes=num_classes, in_chans=in_chans, timm_options=PerMode({}, {}))
        self.conv = Conv2d(Width(in_chans, in_chans), width, 3, padding=1, bias=False)
        self.norm = BatchNorm2d(width)
        self.head = Linear(width, Width(num_classes, num_classes))

    def forward_features(self, x, mode):
        mode = Mode(mode)
        return F.relu(self.norm(self.conv(x, mode), mode))

    def forward_head(self, x, mode, pre_logits=False):
        mode = Mode(mode)
        x = x.mean((2, 3))
        if pre_logits:
            return x
        return self.head(x, mode)


@dataclass(frozen=True)
class Plain(nestnet.Architecture):
    """What tells the networks of the family apart, and how two of them nest."""

    family = "PlainNet"
    is_for_small_images = True

    width: int

    def contains(self, base):
        return base.width <= self.width

    @staticmethod
    def nest(names, architectures, *, num_classes, in_chans):
        width = Width(architectures.base.width, architectures.motivated.width)
        return NestedPlainNet(names, width, num_classes, in_chans)


# Each network is registered with timm and with nestnet.
for name, width in WIDTHS.items():

    def build(pretrained=False, name=name, width=width, **options):
        return build_model_with_cfg(PlainNet, name, pretrained, width=width, **options)

    build.__name__ = name
    register_model(build)
    nestnet.register_architecture(name)(partial(Plain, width))
