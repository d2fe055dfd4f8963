"""A family of one's own: one convolution and a head, of any width. docs/guide/own-family.md goes through it."""

from dataclasses import dataclass

import torch.nn.functional as F
from timm.models import build_model_with_cfg, register_model
from torch import nn

import nestnet
from nestnet.layers import BatchNorm2d, Conv2d, Linear
from nestnet.mode import PerMode, Size
from nestnet.models.registry import ARCHITECTURES, Architecture

WIDTHS = {"plain8": 8, "plain16": 16, "plain32": 32}
default_cfgs = {name: {"input_size": (3, 32, 32), "first_conv": "conv", "classifier": "head"} for name in WIDTHS}


class PlainNet(nn.Module):  # the network alone: what timm builds and an export loads into
    def __init__(self, width, num_classes=1000, in_chans=3):
        super().__init__()
        self.conv = nn.Conv2d(in_chans, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.head(F.relu(self.norm(self.conv(x))).mean((2, 3)))


class NestedPlainNet(nestnet.NestedModel):  # the same names over nested layers
    def __init__(self, names, width, num_classes, in_chans):
        super().__init__(names, num_classes=num_classes, in_chans=in_chans, timm_options=PerMode({}, {}))
        self.conv = Conv2d(Size(in_chans, in_chans), width, 3, padding=1, bias=False)
        self.norm = BatchNorm2d(width)
        self.head = Linear(width, Size(num_classes, num_classes))

    def _features(self, x, mode):
        return F.relu(self.norm(self.conv(x, mode), mode))

    def _head(self, x, mode, pre_logits):
        return x.mean((2, 3)) if pre_logits else self.head(x.mean((2, 3)), mode)


@dataclass(frozen=True)
class Plain(Architecture):  # what tells the variants apart, and how two of them nest
    family = "PlainNet"
    width: int

    def contains(self, base):
        return base.width <= self.width

    @staticmethod
    def nest(names, architectures, *, num_classes, in_chans):
        width = Size(architectures.base.width, architectures.motivated.width)
        return NestedPlainNet(names, width, num_classes, in_chans)


for name, width in WIDTHS.items():  # known to timm, and to nestnet

    def build(pretrained=False, name=name, width=width, **options):
        return build_model_with_cfg(PlainNet, name, pretrained, width=width, **options)

    build.__name__ = name
    register_model(build)
    ARCHITECTURES[name] = Plain(width)
