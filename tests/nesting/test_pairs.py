"""Pairs of timm's networks for each way in which weights are nested, and pairs that are refused with a reason.

`benchmarks/nesting_pairs.py` tries all pairs of its list."""

import pytest
import torch
from pairs import for_small_images
from torch import Tensor, nn

import nestnet
from nestnet.nesting.misfits import MisfitError

NESTED = {
    # name of the pair: (base, motivated, weight, its place)
    "depth": ("resnet18", "resnet34", "layer2.1.conv1.weight", "layer2.3.conv1.weight"),
    "width": ("lcnet_050", "lcnet_075", "conv_head.weight", "conv_head.weight[:1280, :256, :1, :1]"),
    "attention": ("vit_tiny_patch16_224", "vit_small_patch16_224", "blocks.1.attn.qkv.weight", "[:3 x 192, :192]"),
    "heads with queries, keys and values": (
        "levit_128s",
        "levit_128",
        "stages.0.blocks.0.attn.qkv.linear.weight",
        "stages.0.blocks.0.attn.qkv.linear.weight",
    ),
    "concatenated layers": (
        "densenet121",
        "densenet169",
        "features.denseblock3.denselayer2.conv1.weight",
        "denselayer2.conv1",
    ),
    "concatenation": ("hgnetv2_b0", "hgnetv2_b1", "stem.stem3.conv.weight", "[:16, :2 x 16, :3, :3]"),
    "halves that are multiplied": (
        "gmlp_ti16_224",
        "gmlp_s16_224",
        "blocks.0.mlp_channels.fc1.weight",
        "[:2 x 384, :128]",
    ),
    "a part of the channels": ("fasternet_t0", "fasternet_t1", "patch_embed.proj.weight", "[:4 x 10, :3, :4, :4]"),
    "a residual addition to a part of the channels": (
        "rexnet_100",
        "rexnet_130",
        "features.2.conv_pwl.conv.weight",
        "features.2.conv_pwl.conv.weight[:27 of 35 + :11 of 15, :162, :1, :1]",
    ),
    "a gate of a concatenation": ("ghostnet_050", "ghostnet_100", "blocks.1.0.shortcut.2.weight", "[:2 x 6"),
    "one row beside the parts": (
        "mobilevitv2_050",
        "mobilevitv2_075",
        "stages.2.1.transformer.0.attn.qkv_proj.weight",
        "[:65 of 97 + :64 of 96, :64",
    ),
    "factors in place of norms": ("nf_resnet26", "nf_resnet50", "stages.2.1.conv2.weight", "stages.2.5.conv2.weight"),
    "a norm over channels by a function": ("swiftformer_xs", "swiftformer_s", "head.weight", "[:10, :220]"),
}


@pytest.mark.parametrize(("base", "motivated", "weight", "place"), NESTED.values(), ids=NESTED)
def test_pairs_nest(base, motivated, weight, place):
    net = nestnet.nest(for_small_images(base), for_small_images(motivated))
    assert place in str(net.weights_map[weight])
    nestnet.verify_nesting(net)


REFUSED = {
    "deeper": ("resnet34", "resnet18", r"layer1: \*: 3 blocks in the base, and 2 in the motivated network"),
    "wider": ("shvit_s3", "shvit_s4", r"\[352, 768, 1, 1\] does not fit .* the base is bigger in a dimension"),
    "a module of one network": (
        "efficientformerv2_s1",
        "efficientformerv2_s2",
        r"stages.2.blocks.6: the motivated network has a token_mixer \(Attention2d\), and the base has none",
    ),
    "activation": (
        "fasternet_t1",
        "fasternet_t2",
        "stages.0.blocks.0.mlp.2 is a GELU, and stages.0.blocks.0.mlp.2 a ReLU",
    ),
    "convolution groups": ("regnetx_002", "regnetx_004", "the base must not have more or wider groups"),
    "heads": (
        "pvt_v2_b0",
        "pvt_v2_b1",
        "has heads of 32 entries, .* of 64: heads nest only if they have the same width",
    ),
    "single head": ("iformer_t", "iformer_s", "scale is 0.125 in the base, and 0.1066"),
    "setting": (
        "mobilenetv3_small_050",
        "mobilenetv3_small_100",
        "has_skip is True in the base, and False at blocks.3.0",
    ),
    "stride": ("coatnet_0_rw_224", "coatnet_1_rw_224", "stride is .1, 1. in the base, and .2, 2."),
    "other blocks": (
        "resnet34",
        "resnet50",
        "layer1.0.conv1.padding is .1, 1. in the base, and .0, 0. at layer1.0.conv1 of the motivated network",
    ),
}


@pytest.mark.parametrize(("base", "motivated", "reason"), REFUSED.values(), ids=REFUSED)
def test_pairs_are_refused(base, motivated, reason):
    with pytest.raises(MisfitError, match=reason) as caught:
        nestnet.nest(for_small_images(base), for_small_images(motivated))
    assert "\n" not in str(caught.value)


# Modules of which each shows one way.


class Halves(nn.Module):
    """A part of the channels passes by, and a gate multiplies the halves of the rest."""

    def __init__(self, width: int, kept: int, residual: bool = True) -> None:
        super().__init__()
        self.width = width
        self.parts = (kept, width - kept)
        self.stem = nn.Linear(4, width)
        self.norm = nn.LayerNorm(width)
        self.mixed = nn.Linear(width - kept, 2 * (width - kept))
        self.merge = nn.Linear(width, width)
        self.head = nn.Linear(width, 3)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        kept, rest = self.norm(x).split(self.parts, 1)
        value, gate = self.mixed(rest).chunk(2, 1)
        y = self.merge(torch.cat([kept, value * torch.sigmoid(gate)], 1))
        return self.head(x + y if self.residual else y)


def test_rows_are_found_where_the_channels_of_an_addition_lie():
    net = nestnet.nest(Halves(6, 2), Halves(10, 4))
    assert str(net.weights_map["stem.weight"]) == "stem.weight[:2 of 4 + :4 of 6, :4]"
    assert str(net.weights_map["mixed.weight"]) == "mixed.weight[:2 x 4, :4]"
    nestnet.verify_nesting(net)


class Reversed(nn.Module):
    """Channels in another order between two layers."""

    def __init__(self, width: int, shift: int) -> None:
        super().__init__()
        self.stem = nn.Linear(4, width)
        self.head = nn.Linear(width, 3)
        self.order = torch.arange(width).roll(shift).flip(0).tolist() if shift else list(range(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.stem(x))[:, self.order])


def test_another_order_is_refused():
    with pytest.raises(MisfitError, match="head gets something else in the motivated network than in the base"):
        nestnet.nest(Reversed(6, 0), Reversed(9, 2))


class Widening(nn.Module):
    """Layers one after the other, the last of which is wider."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        layers = []
        for width, following in zip((4, *widths), widths, strict=False):
            layers.append(nn.Sequential(nn.Linear(width, following), nn.ReLU()))
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x))


def test_a_layer_that_base_mode_skips_may_be_wider():
    net = nestnet.nest(Widening(5, 7), Widening(6, 8, 10))
    assert list(net.skipped_blocks()) == ["layers.2"]


def test_activations_must_be_the_same():
    base = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    motivated = nn.Sequential(nn.Linear(4, 9), nn.GELU(), nn.Linear(9, 3))
    with pytest.raises(MisfitError):
        nestnet.nest(base, motivated)


class Text(nn.Module):
    """A network of token numbers, whose mask is an input of a module."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, width)
        self.layer = nn.TransformerEncoderLayer(width, width // 4, 2 * width, dropout=0.0, batch_first=True)
        self.head = nn.Linear(width, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.layer(self.embedding(tokens)).mean(1))


def test_inputs_may_be_whole_numbers():
    tokens = torch.arange(10).view(2, 5)
    net = nestnet.nest(Text(8), Text(16), check=tokens)
    assert str(net.weights_map["layer.self_attn.in_proj_weight"]) == "layer.self_attn.in_proj_weight[:3 x 8, :8]"
    nestnet.verify_nesting(net, tokens)


class Heads(nn.Module):
    """Attention that does not tell how many heads it has."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.shape = (3, heads, width)
        self.packed = nn.Linear(6, 3 * heads * width)
        self.head = nn.Linear(heads * width, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.packed(x).unflatten(-1, self.shape).permute(2, 0, 3, 1, 4)
        return self.head(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2).mean(1))


def test_attention_needs_heads_of_the_same_width():
    x = torch.randn(2, 5, 6)
    net = nestnet.nest(Heads(2, 4), Heads(3, 4), check=x)
    assert str(net.weights_map["packed.weight"]) == "packed.weight[:3 x 8, :6]"
    with pytest.raises(MisfitError, match=r"head gets something else|the outputs differ"):
        nestnet.nest(Heads(2, 4), Heads(2, 6), check=x)
