"""Small networks of nestnet's own kinds, which train in a fraction of the time of timm's smallest ones.

They are of the same classes, by the same names of layers: what holds for them holds for timm's, of which
tests/models/test_models.py compares every pair with timm. They are families of their own, so that no list has more names.
"""

from dataclasses import dataclass
from typing import Any

from timm.models import register_model
from timm.models.efficientnet import EfficientNet, _gen_efficientnet
from timm.models.efficientnet import default_cfgs as efficientnet_cfgs
from timm.models.vision_transformer import VisionTransformer, _create_vision_transformer
from timm.models.vision_transformer import default_cfgs as vit_cfgs

import nestnet
from nestnet.models.efficientnet import EfficientNetArchitecture
from nestnet.models.vit import HEAD_WIDTH, ViTArchitecture

default_cfgs = {
    "vit_one_head": vit_cfgs["vit_tiny_patch16_224"],
    "vit_two_heads": vit_cfgs["vit_small_patch16_224"],
    "efficientnet_thin": efficientnet_cfgs["efficientnet_b1"],
    "efficientnet_wide": efficientnet_cfgs["efficientnet_b2"],
}
"""How timm prepares images for the networks, where it looks for that."""

VIT_DEPTH = 2


@dataclass(frozen=True)
class SmallViTArchitecture(ViTArchitecture):
    family = "small ViT"


@dataclass(frozen=True)
class SmallEfficientNetArchitecture(EfficientNetArchitecture):
    family = "small EfficientNet"


def create_vit(name: str, heads: int, options: dict[str, Any]) -> VisionTransformer:
    sizes = {"patch_size": 16, "embed_dim": HEAD_WIDTH * heads, "depth": VIT_DEPTH, "num_heads": heads}
    return _create_vision_transformer(name, **(sizes | options))


@register_model
def vit_one_head(**options: Any) -> VisionTransformer:
    return create_vit("vit_one_head", 1, options)


@register_model
def vit_two_heads(**options: Any) -> VisionTransformer:
    return create_vit("vit_two_heads", 2, options)


# The second block of a stage is residual. One stage of the thin network has two blocks, and three of the wide one.
@register_model
def efficientnet_thin(**options: Any) -> EfficientNet:
    return _gen_efficientnet("efficientnet_thin", 0.5, 0.3, **options)


@register_model
def efficientnet_wide(**options: Any) -> EfficientNet:
    return _gen_efficientnet("efficientnet_wide", 0.75, 0.5, **options)


nestnet.register_architecture("vit_one_head")(lambda: SmallViTArchitecture(HEAD_WIDTH, VIT_DEPTH))
nestnet.register_architecture("vit_two_heads")(lambda: SmallViTArchitecture(2 * HEAD_WIDTH, VIT_DEPTH))
nestnet.register_architecture("efficientnet_thin")(lambda: SmallEfficientNetArchitecture(0.5, 0.3))
nestnet.register_architecture("efficientnet_wide")(lambda: SmallEfficientNetArchitecture(0.75, 0.5))
