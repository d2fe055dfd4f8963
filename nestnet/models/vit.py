"""Vision transformers of 12 layers nested by width: timm's ViT-tiny, small and base at patch 16.

Every width of the base is the first part of the motivated's; heads have 64 entries each, and the base's heads are the
motivated's first ones. Dosovitskiy et al. 2021, arXiv 2010.11929; Touvron et al. 2021, arXiv 2012.12877.
Shapes: `B` images, `N` tokens (the class token first), `d`/`D` the width of the base/motivated, `h` heads.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import to_2tuple
from torch import Tensor, nn

from nestnet.models.registry import Architecture, register_architecture
from nestnet.nn.batch_norm import STATISTICS
from nestnet.nn.layers import Conv2d, Dropout, DropPath, LayerNorm, Linear
from nestnet.nn.mode import Mode, PerMode, Rate, Width, per_mode
from nestnet.nn.model import NestedModel
from nestnet.nn.parameter import in_mode, weight
from nestnet.text.arguments import choice

PATCH, DEPTH, HEAD_WIDTH, MLP_RATIO = 16, 12, 64, 4
QKV_MAPS = ("heads", "prefix")


@dataclass(frozen=True)
class ViTArchitecture(Architecture):
    """The width of the tokens; all else is the same or follows."""

    family = "ViT"
    width: int

    def contains(self, base: "ViTArchitecture") -> bool:
        return base.width <= self.width

    @staticmethod
    def nest(
        names: PerMode[str],
        architectures: PerMode["ViTArchitecture"],
        *,
        num_classes: int,
        in_chans: int,
        img_size: int | tuple[int, int] = 224,
        qkv_map: str = "heads",
        batch_norm: str = "private",
        drop_rate: float | list[float] = 0.0,
        pos_drop_rate: float | list[float] = 0.0,
        proj_drop_rate: float | list[float] = 0.0,
        attn_drop_rate: float | list[float] = 0.0,
        drop_path_rate: float | list[float] = 0.0,
    ) -> NestedModel:
        choice("qkv_map", qkv_map, QKV_MAPS)
        choice("batch_norm", batch_norm, STATISTICS)  # there is none in a ViT, so that either value is true of it
        height, width = to_2tuple(img_size)
        if not all(isinstance(side, int) and side >= PATCH for side in (height, width)):
            raise ValueError(
                f"img_size = {img_size!r}: each side must be a whole number of pixels, at least one patch ({PATCH})"
            )
        rates = {
            "drop_rate": per_mode("drop_rate", drop_rate),
            "pos_drop_rate": per_mode("pos_drop_rate", pos_drop_rate),
            "proj_drop_rate": per_mode("proj_drop_rate", proj_drop_rate),
            "attn_drop_rate": per_mode("attn_drop_rate", attn_drop_rate),
            "drop_path_rate": per_mode("drop_path_rate", drop_path_rate),
        }
        widths = Width(architectures.base.width, architectures.motivated.width)
        return NestedViT(names, widths, num_classes, in_chans, (height, width), qkv_map, rates)


class Attention(nn.Module):
    """Multi-head self-attention, `[B, N, d]` to `[B, N, d]`.

    With the head-aware map the base's queries, keys and values are the first part of the motivated's queries, keys and
    values. With the `"prefix"` map, the paper's literal reading, they are the first rows of the packed matrix, so that the
    base's keys lie among the motivated's queries.
    """

    def __init__(self, width: Width, qkv_map: str, attn_drop: Rate, proj_drop: Rate) -> None:
        super().__init__()
        packed = Width(3 * width.base, 3 * width.motivated)
        self.qkv = Linear(width, packed, groups=3 if qkv_map == "heads" else 1)
        self.attn_drop = attn_drop
        self.proj = Linear(width, width)
        self.proj_drop = Dropout(proj_drop)

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        q, k, v = rearrange(self.qkv(x, mode), "B N (qkv h w) -> qkv B h N w", qkv=3, w=HEAD_WIDTH)
        x = F.scaled_dot_product_attention(q, k, v, dropout_p=self.attn_drop.of(mode) if self.training else 0.0)
        return self.proj_drop(self.proj(rearrange(x, "B h N w -> B N (h w)"), mode), mode)


class Mlp(nn.Module):
    """Two linear layers around a GELU, `[B, N, d]` to `[B, N, d]`."""

    def __init__(self, width: Width, drop: Rate) -> None:
        super().__init__()
        hidden = Width(MLP_RATIO * width.base, MLP_RATIO * width.motivated)
        self.fc1 = Linear(width, hidden)
        self.drop1 = Dropout(drop)
        self.fc2 = Linear(hidden, width)
        self.drop2 = Dropout(drop)

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        x = self.drop1(F.gelu(self.fc1(x, mode)), mode)
        return self.drop2(self.fc2(x, mode), mode)


class Block(nn.Module):
    """Attention and MLP, each after a norm and around a shortcut, `[B, N, d]` to `[B, N, d]`."""

    def __init__(self, width: Width, qkv_map: str, rates: dict[str, Rate], drop_path: Rate) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width)
        self.attn = Attention(width, qkv_map, rates["attn_drop_rate"], rates["proj_drop_rate"])
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = LayerNorm(width)
        self.mlp = Mlp(width, rates["proj_drop_rate"])
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        x = x + self.drop_path1(self.attn(self.norm1(x, mode), mode), mode)
        return x + self.drop_path2(self.mlp(self.norm2(x, mode), mode), mode)


class PatchEmbed(nn.Module):
    """Images `[B, in_chans, H, W]` to patch tokens `[B, N - 1, d]`."""

    def __init__(self, img_size: tuple[int, int], in_chans: int, width: Width) -> None:
        super().__init__()
        self.img_size = img_size
        self.proj = Conv2d(Width(in_chans, in_chans), width, PATCH, stride=PATCH)

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        if tuple(x.shape[-2:]) != self.img_size:
            raise ValueError(
                f"images of {tuple(x.shape[-2:])} pixels: the network was made for img_size = {self.img_size}"
            )
        return self.proj(x, mode).flatten(2).transpose(1, 2)


class NestedViT(NestedModel):
    """Patch tokens and a class token through 12 blocks; the class token gives the logits."""

    def __init__(
        self,
        names: PerMode[str],
        width: Width,
        num_classes: int,
        in_chans: int,
        img_size: tuple[int, int],
        qkv_map: str,
        rates: dict[str, Rate],
    ) -> None:
        options = PerMode(*({"img_size": img_size, **{k: rate.of(mode) for k, rate in rates.items()}} for mode in Mode))
        super().__init__(names, num_classes=num_classes, in_chans=in_chans, timm_options=options)
        tokens = 1 + (img_size[0] // PATCH) * (img_size[1] // PATCH)
        self.cls_token = weight((1, 1, width.motivated), (1, 1, width.base))
        self.pos_embed = weight((1, tokens, width.motivated), (1, tokens, width.base))
        self.patch_embed = PatchEmbed(img_size, in_chans, width)
        self.pos_drop = Dropout(rates["pos_drop_rate"])
        ends = rates["drop_path_rate"]
        drop_path = [
            torch.linspace(0, ends.of(mode), DEPTH, device="cpu").tolist() for mode in Mode
        ]  # timm's to the bit
        self.blocks = nn.ModuleList(Block(width, qkv_map, rates, Rate(*pair)) for pair in zip(*drop_path, strict=True))
        self.norm = LayerNorm(width)
        self.head_drop = Dropout(rates["drop_rate"])
        self.head = Linear(width, Width(num_classes, num_classes))

    def forward_features(self, x: Tensor, mode: Mode | str) -> Tensor:
        mode = Mode(mode)
        x = self.patch_embed(x, mode)
        cls_token = in_mode(self.cls_token, mode).expand(x.shape[0], -1, -1)
        x = torch.cat([cls_token, x], dim=1) + in_mode(self.pos_embed, mode)
        x = self.pos_drop(x, mode)
        for block in self.blocks:
            x = block(x, mode)
        return self.norm(x, mode)

    def forward_head(self, x: Tensor, mode: Mode | str, pre_logits: bool = False) -> Tensor:
        mode = Mode(mode)
        x = self.head_drop(x[:, 0], mode)
        return x if pre_logits else self.head(x, mode)


@register_architecture("vit_tiny_patch16_224")
def vit_tiny_patch16_224() -> Architecture:
    return ViTArchitecture(width=192)


@register_architecture("vit_small_patch16_224")
def vit_small_patch16_224() -> Architecture:
    return ViTArchitecture(width=384)


@register_architecture("vit_base_patch16_224")
def vit_base_patch16_224() -> Architecture:
    return ViTArchitecture(width=768)
