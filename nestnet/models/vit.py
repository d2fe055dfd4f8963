"""Vision transformers of 12 blocks nested by width: timm's ViT-tiny, small and base with patches of 16 x 16 pixels.

In every dimension of a weight the base has the first entries of the motivated network. Heads have 64 entries
each, and the base's heads are the first heads of the motivated network. Dosovitskiy et al. 2021, arXiv
2010.11929; Touvron et al. 2021, arXiv 2012.12877. Shapes: `B` images, `N` tokens (the class token first), `d`
the width of the mode that runs, `h` heads of width `w`.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import to_2tuple
from torch import Tensor, nn

from nestnet.models.architecture import Architecture, TrainingDefaults
from nestnet.models.registration import register_architecture
from nestnet.nn.batch_norm import STATISTICS
from nestnet.nn.checkpointing import run_block
from nestnet.nn.layers import Conv2d, Dropout, DropPath, LayerNorm, Linear
from nestnet.nn.mode import Mode, PerMode, Rate, Width, parse_rates
from nestnet.nn.model import NestedModel
from nestnet.nn.parameter import create_weight, select_weight
from nestnet.text.arguments import check_choice, is_whole

PATCH = 16
"""Height and width of a patch in pixels."""

HEAD_WIDTH = 64
MLP_RATIO = 4
QKV_MAPS = ("heads", "prefix")


@dataclass(frozen=True)
class ViTArchitecture(Architecture):
    """A vision transformer.

    Attributes:
        width: width of the tokens, a multiple of 64. All other sizes are the same in all networks of the
            family, or depend on the width.
        depth: number of blocks. Networks of the same depth nest.
    """

    family = "ViT"
    has_batch_norm = False
    img_size_divisor = PATCH
    # DeiT: Touvron et al. 2021, arXiv 2012.12877, table 9.
    training_defaults = TrainingDefaults(
        "adamw", lr=5e-4, lr_batch=512, weight_decay=0.05, lr_scaling=0.5, channels_last=False
    )

    width: int
    depth: int = 12

    def contains(self, base: "ViTArchitecture") -> bool:
        return base.width <= self.width and base.depth == self.depth

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
        """Return the nested network of a pair, with uninitialised weights.

        Each rate is one number for both modes or a pair `[base, motivated]`.

        Args:
            names: timm's name of each mode's network.
            architectures: each mode's network.
            num_classes: number of outputs of the head.
            in_chans: number of channels of the images.
            img_size: side of the images in pixels, or their height and width; at least one patch.
            qkv_map: which rows of the packed queries, keys and values the base has: see `Attention`.
            batch_norm: ignored, because a ViT has no BatchNorm; all families accept it.
            drop_rate: dropout before the head.
            pos_drop_rate: dropout of the tokens after the position embedding.
            proj_drop_rate: dropout after the projections of attention and MLP.
            attn_drop_rate: dropout of the attention weights.
            drop_path_rate: stochastic depth of the last block; it grows linearly from 0 at the first block.

        Returns:
            The nested network.

        Raises:
            ValueError: If an option has a value that is not allowed.
        """
        check_choice("qkv_map", qkv_map, QKV_MAPS)
        check_choice("batch_norm", batch_norm, STATISTICS)
        size = _check_img_size(img_size)
        rates = {
            "drop_rate": parse_rates("drop_rate", drop_rate),
            "pos_drop_rate": parse_rates("pos_drop_rate", pos_drop_rate),
            "proj_drop_rate": parse_rates("proj_drop_rate", proj_drop_rate),
            "attn_drop_rate": parse_rates("attn_drop_rate", attn_drop_rate),
            "drop_path_rate": parse_rates("drop_path_rate", drop_path_rate),
        }
        return NestedViT(
            names,
            Width(architectures.base.width, architectures.motivated.width),
            architectures.motivated.depth,
            num_classes=num_classes,
            in_chans=in_chans,
            img_size=size,
            qkv_map=qkv_map,
            rates=rates,
        )


class Attention(nn.Module):
    """Multi-head self-attention, `[B, N, d]` to `[B, N, d]`.

    With the map `"heads"`, the base's queries are the first rows of the motivated network's queries, its keys
    the first rows of the keys, and its values the first rows of the values. With the map `"prefix"`, which the
    paper describes literally, they are the first rows of the packed matrix, so that the base's keys lie among
    the motivated network's queries.

    Args:
        width: width of the tokens in each mode.
        qkv_map: `"heads"` or `"prefix"`.
        attn_drop: dropout of the attention weights in each mode.
        proj_drop: dropout after the projection in each mode.
    """

    def __init__(self, width: Width, qkv_map: str, attn_drop: Rate, proj_drop: Rate) -> None:
        super().__init__()
        # One matrix for queries, keys and values, as in timm; with groups the base has the first rows of each third.
        packed = Width(3 * width.base, 3 * width.motivated)
        self.qkv = Linear(width, packed, groups=3 if qkv_map == "heads" else 1)
        self.attn_drop = attn_drop
        self.proj = Linear(width, width)
        self.proj_drop = Dropout(proj_drop)

    def forward(self, x: Tensor, mode: Mode) -> Tensor:
        # Queries, keys and values of each head: [B, h, N, w].
        q, k, v = rearrange(self.qkv(x, mode), "B N (qkv h w) -> qkv B h N w", qkv=3, w=HEAD_WIDTH)
        dropout = self.attn_drop.of(mode) if self.training else 0.0
        x = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        # The heads side by side: [B, N, d].
        x = rearrange(x, "B h N w -> B N (h w)")
        return self.proj_drop(self.proj(x, mode), mode)


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
        # [B, d, H/16, W/16] to [B, d, N - 1] to [B, N - 1, d]
        return self.proj(x, mode).flatten(2).transpose(1, 2)


class NestedViT(NestedModel):
    """A nested vision transformer: patch tokens and a class token pass the blocks, and the class token gives the logits.

    The arguments are those of `ViTArchitecture.nest`, with the width of the tokens and the rates of each mode, and the
    number of blocks.
    """

    def __init__(
        self,
        names: PerMode[str],
        width: Width,
        depth: int,
        *,
        num_classes: int,
        in_chans: int,
        img_size: tuple[int, int],
        qkv_map: str,
        rates: dict[str, Rate],
    ) -> None:
        def timm_options(mode: Mode) -> dict[str, Any]:
            options: dict[str, Any] = {"img_size": img_size}
            for name, rate in rates.items():
                options[name] = rate.of(mode)
            return options

        options = PerMode(timm_options(Mode.BASE), timm_options(Mode.MOTIVATED))
        super().__init__(names, num_classes=num_classes, in_chans=in_chans, timm_options=options)
        # The input: a token for each patch and the class token, and their positions.
        tokens = 1 + (img_size[0] // PATCH) * (img_size[1] // PATCH)
        self.cls_token = create_weight((1, 1, width.motivated), (1, 1, width.base))
        self.pos_embed = create_weight((1, tokens, width.motivated), (1, tokens, width.base))
        self.patch_embed = PatchEmbed(img_size, in_chans, width)
        self.pos_drop = Dropout(rates["pos_drop_rate"])

        # The blocks, each with its stochastic depth in each mode.
        last_drop_path = rates["drop_path_rate"]
        base_rates = _drop_path_rates(last_drop_path.base, depth)
        motivated_rates = _drop_path_rates(last_drop_path.motivated, depth)
        blocks = []
        for base_rate, motivated_rate in zip(base_rates, motivated_rates, strict=True):
            blocks.append(Block(width, qkv_map, rates, Rate(base_rate, motivated_rate)))
        self.blocks = nn.ModuleList(blocks)
        self.grad_checkpointing = False

        # The head
        self.norm = LayerNorm(width)
        self.head_drop = Dropout(rates["drop_rate"])
        self.head = Linear(width, Width(num_classes, num_classes))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.grad_checkpointing = enable

    def forward_features(self, x: Tensor, mode: Mode | str) -> Tensor:
        mode = Mode(mode)
        x = self.patch_embed(x, mode)
        # The class token goes before the patches' tokens; each token has a learned position.
        cls_token = select_weight(self.cls_token, mode).expand(x.shape[0], -1, -1)
        x = torch.cat([cls_token, x], dim=1) + select_weight(self.pos_embed, mode)
        x = self.pos_drop(x, mode)
        for block in self.blocks:
            x = run_block(block, x, mode, grad_checkpointing=self.grad_checkpointing)
        return self.norm(x, mode)

    def forward_head(self, x: Tensor, mode: Mode | str, pre_logits: bool = False) -> Tensor:
        mode = Mode(mode)
        # The class token alone: [B, N, d] to [B, d] to [B, K].
        x = self.head_drop(x[:, 0], mode)
        if pre_logits:
            return x
        return self.head(x, mode)


def _check_img_size(img_size: int | tuple[int, int]) -> tuple[int, int]:
    # An image smaller than a patch would have no tokens.
    height, width = to_2tuple(img_size)
    if not (is_whole(height, PATCH) and is_whole(width, PATCH)):
        raise ValueError(
            f"img_size = {img_size!r}: each side must be a whole number of pixels, at least one patch ({PATCH})"
        )
    return height, width


def _drop_path_rates(last: float, depth: int) -> list[float]:
    # Computed by torch in float32, as in timm, so that both agree bit for bit.
    return torch.linspace(0, last, depth, device="cpu").tolist()


@register_architecture("vit_tiny_patch16_224")
def vit_tiny_patch16_224() -> Architecture:
    return ViTArchitecture(width=192)


@register_architecture("vit_small_patch16_224")
def vit_small_patch16_224() -> Architecture:
    return ViTArchitecture(width=384)


@register_architecture("vit_base_patch16_224")
def vit_base_patch16_224() -> Architecture:
    return ViTArchitecture(width=768)
