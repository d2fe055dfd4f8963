import copy
import logging
from contextlib import contextmanager

import pytest
import torch
from helpers import make
from hypothesis import given, settings
from hypothesis import strategies as st
from nesting.pairs import PAIRS
from torch import nn

import nestnet
from nestnet import Mode
from nestnet.verification.comparison import check_against_reference

KINDS = st.sampled_from(["uniform", "norm"])


@torch.no_grad()
def trained(net):
    """The nested network with weights and statistics as of a trained one: all different, and none zero."""
    state = net.state_dict()
    for tensor in state.values():
        if tensor.ndim > 1:
            scale = (3 / tensor[0].numel()) ** 0.5
            tensor.uniform_(-scale, scale)
        elif tensor.ndim == 1:
            tensor.uniform_(0.5, 1.5)
    net.load_state_dict(state)
    return net.eval()


@contextmanager
def unchanged(net, images, tolerance=1e-12):
    """The motivated network's logits are the same afterwards, relative to the largest one."""
    with torch.no_grad():
        before = net(images, "motivated")
        yield
        after = net(images, "motivated")
    assert (after - before).abs().max() <= tolerance * before.abs().max()


def channels(net, name, dim=0):
    """The channels of a weight of the motivated network, in which every channel has a number of its own."""
    return net.state_dict()[name].movedim(dim, 0).flatten(1)[:, 0].tolist()


def mlp(width, inputs=2, outputs=2):
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, outputs))


# Which channels are chosen.


@torch.no_grad()
def numbered_mlp():
    """A network with 3 of 6 channels, whose motivated channel `i` begins with `i`, and its norms."""
    net = nestnet.nest(mlp(3), mlp(6))
    state = net.state_dict()
    state["0.weight"].copy_(torch.tensor([[0.0, 5.0], [1.0, 0.0], [2.0, 3.0], [3.0, 0.0], [4.0, 0.0], [5.0, 0.0]]))
    state["0.bias"].copy_(torch.arange(6.0))
    state["2.weight"].copy_(torch.tensor([[0.0, 7.0, 0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 2.0, 2.0, 0.0]]))
    norms = (25, 1 + 49, 4 + 9, 9 + 1 + 4, 16 + 1 + 4, 25)
    return net, norms


@pytest.mark.parametrize(("kind", "expected"), [("first", [0, 1, 2]), ("uniform", [0, 2, 4]), ("norm", [0, 1, 5])])
def test_the_base_gets_the_chosen_channels_of_an_mlp(kind, expected):
    net, norms = numbered_mlp()
    if kind == "norm":
        assert sorted(sorted(range(6), key=lambda channel: -norms[channel])[:3]) == expected
    with unchanged(net, torch.randn(4, 2), 1e-6):
        nestnet.select_base(net, kind)
    assert net.base[0].weight[:, 0].tolist() == expected
    assert net.base[0].bias.tolist() == expected
    rest = [channel for channel in range(6) if channel not in expected]
    assert channels(net, "0.weight") == expected + rest


class Residual(nn.Module):
    """A stem, a residual block with a hidden layer, and a head."""

    def __init__(self, width, hidden):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 1)
        self.norm = nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, hidden, 3, padding=1)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.conv2 = nn.Conv2d(hidden, width, 1)
        self.head = nn.Linear(width, 2)

    def forward(self, x):
        x = self.norm(self.stem(x))
        x = x + self.conv2(self.depthwise(self.conv1(x).relu()).relu())
        return self.head(x.mean((2, 3)))


def test_all_that_write_or_read_a_residual_channel_decide_and_move_together():
    net = trained(nestnet.nest(Residual(2, 3), Residual(4, 5)).double())
    state = net.state_dict()
    # Large norms of rows in the stem (channel 3), of columns in the head (channel 1), and of hidden channels 4, 2 and 0.
    state["stem.weight"][3] += 100
    state["head.weight"][:, 1] += 100
    for channel, size in ((4, 30), (2, 20), (0, 10)):
        state["conv1.weight"][channel] += size
    # What does not count.
    state["norm.weight"][0] += 1e4
    state["depthwise.weight"][1] += 1e4
    net.load_state_dict(state)
    before = {name: tensor.clone() for name, tensor in net.standalone("motivated").state_dict().items()}
    with unchanged(net, torch.randn(2, 3, 8, 8, dtype=torch.float64)):
        nestnet.select_base(net, "norm")
    width, hidden = [1, 3], [0, 2, 4]
    base = net.base.state_dict()
    for name in ("stem.weight", "stem.bias", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"):
        assert torch.equal(base[name], before[name][width]), name
    assert torch.equal(base["conv1.weight"], before["conv1.weight"][hidden][:, width])
    assert torch.equal(base["depthwise.weight"], before["depthwise.weight"][hidden])
    assert torch.equal(base["conv2.weight"], before["conv2.weight"][width][:, hidden])
    assert torch.equal(base["head.weight"], before["head.weight"][:, width])


def test_heads_change_places_as_a_whole():
    net = nestnet.create_model("vit_tiny_patch16_224", "vit_small_patch16_224", num_classes=5, img_size=32)
    net = trained(net.double())
    before = {name: tensor.clone() for name, tensor in net.standalone("motivated").state_dict().items()}
    with unchanged(net, torch.randn(2, 3, 32, 32, dtype=torch.float64)):
        nestnet.select_base(net, "uniform")
    # 3 of 6 heads of 64 entries, and 192 of 384 channels.
    heads = torch.cat([torch.arange(64) + 64 * head for head in (0, 2, 4)])
    width = torch.arange(192) * 2
    base = net.standalone("base").state_dict()
    packed = torch.cat([heads, heads + 384, heads + 768])
    assert torch.equal(base["blocks.0.attn.qkv.weight"], before["blocks.0.attn.qkv.weight"][packed][:, width])
    assert torch.equal(base["blocks.0.attn.proj.weight"], before["blocks.0.attn.proj.weight"][width][:, heads])
    assert torch.equal(base["pos_embed"], before["pos_embed"][..., width])


# Equality.


@pytest.mark.parametrize("name", PAIRS)
def test_the_motivated_network_computes_the_same(name, caplog):
    pair = PAIRS[name]
    net = trained(nestnet.nest(*pair.make(), check=pair.batch(1)[0]).double())
    images = pair.batch(2)[0].double()
    base_before = net(images, "base")
    with unchanged(net, images), caplog.at_level(logging.WARNING):
        nestnet.select_base(net, "norm", inputs=images[:1])
    assert not torch.allclose(net(images, "base"), base_before, rtol=1e-3), "the base has other channels"
    assert not caplog.records, "every channel can be chosen"


def test_an_elastic_network_with_depthwise_convolutions_computes_the_same():
    net = trained(make("efficientnet").double())
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    base_before = net(images, "base")
    with unchanged(net, images):
        nestnet.select_base(net, "uniform", inputs=images[:1])
    assert not torch.allclose(net(images, "base"), base_before, rtol=1e-3)


def test_packed_queries_keys_and_values_that_are_divided_as_one_stay(caplog):
    net = trained(make("vit", qkv_map="prefix").double())
    with unchanged(net, torch.randn(2, 3, 32, 32, dtype=torch.float64)), caplog.at_level(logging.WARNING):
        nestnet.select_base(net, "uniform")
    assert "1664 of 2432 can change places; the base has the first ones of blocks.0.attn.qkv.weight" in caplog.text


def test_networks_of_the_same_widths_stay_as_they_are():
    net = make("resnet")
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    nestnet.select_base(net, "norm")
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize("batch_norm", ["private", "shared", "separate"])
def test_what_the_base_has_of_its_own_in_batch_norm_follows(batch_norm):
    net = trained(nestnet.nest(*PAIRS["own cnn"].make(), batch_norm=batch_norm))
    nestnet.select_base(net, "uniform")
    base, motivated = (net.standalone(mode).state_dict() for mode in Mode)
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(base[f"norm.{name}"], motivated[f"norm.{name}"][:8])


@st.composite
def widths(draw, count):
    """Sizes of the base and of the motivated network."""
    motivated = draw(st.lists(st.integers(1, 7), min_size=count, max_size=count))
    return [draw(st.integers(1, size)) for size in motivated], motivated


def spaced(count, whole):
    return [index * whole // count for index in range(count)]


class Chain(nn.Module):
    """Convolutions of any width one after the other, with a concatenation, a flattening and a gate."""

    def __init__(self, sizes):
        super().__init__()
        one, two, three, four = sizes
        self.stem = nn.Conv2d(3, one, 2, stride=2)
        self.norm = nn.GroupNorm(1, one)
        self.branch = nn.Conv2d(one, two, 3, padding=1)
        self.both = nn.Conv2d(one + two, three, 1)
        self.gate = nn.Linear(three, three)
        self.flat = nn.Linear(4 * three, 2 * four)
        self.head = nn.Linear(four, 3)

    def forward(self, x):
        x = self.norm(self.stem(x))
        x = self.both(torch.cat([x, self.branch(x).relu()], 1)).relu()
        x = x * self.gate(x.mean((2, 3))).sigmoid()[:, :, None, None]
        value, gate = self.flat(x.flatten(1)).chunk(2, -1)
        return self.head(value * gate.relu())


@given(widths(4), KINDS)
@settings(max_examples=25)
def test_networks_of_any_size_compute_the_same(sizes, kind):
    base, motivated = sizes
    groups = {
        "both": (1, ((base[0], motivated[0]), (base[1], motivated[1]))),
        "flat": (2, 1),
    }
    nets = Chain(base), Chain(motivated)
    net = trained(nestnet.nest(*nets, groups=groups, check=False).double())
    images = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    before = copy.deepcopy(net.state_dict())
    with unchanged(net, images):
        nestnet.select_base(net, kind, inputs=images)
    if kind == "uniform":
        chosen = [spaced(*width) for width in zip(base, motivated, strict=True)]
        assert torch.equal(net.base.stem.weight, before["stem.weight"][chosen[0]])
        assert torch.equal(net.base.branch.weight, before["branch.weight"][chosen[1]][:, chosen[0]])
        assert torch.equal(net.base.gate.weight, before["gate.weight"][chosen[2]][:, chosen[2]])
        assert torch.equal(net.base.head.weight, before["head.weight"][:, chosen[3]])


class Encoder(nn.Module):
    """A transformer of torch's own layers."""

    def __init__(self, width, heads, batch_first):
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout=0.0, batch_first=batch_first)
        self.stem = nn.Linear(3, width)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 2)

    def forward(self, x):
        return self.head(self.encoder(self.stem(x)).mean(1))


@pytest.mark.parametrize("batch_first", [True, False])
def test_the_attention_of_torch_computes_the_same(batch_first, caplog):
    net = trained(nestnet.nest(Encoder(8, 2, batch_first), Encoder(12, 3, batch_first), check=False).double())
    before = copy.deepcopy(net.state_dict())
    tokens = torch.randn(4, 5, 3, dtype=torch.float64)
    with unchanged(net, tokens), caplog.at_level(logging.WARNING):
        nestnet.select_base(net, "uniform", inputs=tokens)
    assert not caplog.records
    assert torch.equal(net.base.stem.weight, before["stem.weight"][spaced(8, 12)])


# What stays.


class Ordered(nn.Module):
    """A network that reads the order of its channels."""

    def __init__(self, width):
        super().__init__()
        self.first = nn.Linear(4, width)
        self.second = nn.Linear(width, width)
        self.third = nn.Linear(width, 2)

    def forward(self, x):
        x = self.first(x).cumsum(-1)
        return self.third(self.second(x).relu())


def test_channels_whose_order_matters_stay_and_a_notice_says_so(caplog):
    net = trained(nestnet.nest(Ordered(3), Ordered(5), check=False).double())
    before = copy.deepcopy(net.state_dict())
    with unchanged(net, torch.randn(3, 4, dtype=torch.float64)), caplog.at_level(logging.WARNING):
        nestnet.select_base(net, "uniform")
    assert torch.equal(net.state_dict()["first.weight"], before["first.weight"])
    assert torch.equal(net.base.third.weight, before["third.weight"][:, [0, 1, 3]])
    assert "5 of 10 can change places; the base has the first ones of first.weight" in caplog.text


class Windowed(nn.Module):
    """A network in which the passes with NaN find channels, and the check with numbers finds that their order matters."""

    def __init__(self, width):
        super().__init__()
        self.first = nn.Linear(4, width)
        self.second = nn.Linear(width, 2)

    def forward(self, x):
        x = self.first(x)
        return self.second(x * torch.arange(x.shape[-1]).to(x))


def test_channels_with_constants_of_their_own_stay():
    net = trained(nestnet.nest(Windowed(3), Windowed(5), check=False).double())
    before = copy.deepcopy(net.state_dict())
    nestnet.select_base(net, "uniform")
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


class Grouped(nn.Module):
    """A network whose channels are mixed in groups."""

    def __init__(self, width, groups):
        super().__init__()
        self.first = nn.Conv2d(3, width, 1)
        self.second = nn.Conv2d(width, width, 1, groups=groups)
        self.norm = nn.GroupNorm(groups, width)
        self.third = nn.Conv2d(width, 2 * width, 1)
        self.last = nn.Conv2d(2 * width, 2, 1)

    def forward(self, x):
        return self.last(self.third(self.norm(self.second(self.first(x)))).relu()).mean((2, 3))


def test_channels_that_are_mixed_in_groups_change_places_by_whole_groups_or_stay():
    images = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    for base_groups, expected in ((2, [0, 1, 4, 5]), (4, [0, 1, 2, 3])):
        net = trained(nestnet.nest(Grouped(4, base_groups), Grouped(8, 4), check=False).double())
        before = copy.deepcopy(net.state_dict())
        with unchanged(net, images):
            nestnet.select_base(net, "uniform", inputs=images)
        assert torch.equal(net.base.first.weight, before["first.weight"][expected]), base_groups
        # The channels after them are mixed by no group.
        assert torch.equal(net.state_dict()["third.bias"][:8], before["third.bias"][::2])


class Tied(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.embedding = nn.Linear(6, width, bias=False)
        self.head = nn.Linear(width, 6, bias=False)
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.again = nn.Linear(6, width, bias=False)
        self.again.weight = self.embedding.weight

    def forward(self, x):
        x = self.embedding(x)
        x = self.again(x.relu() @ self.embedding.weight) + self.out(self.hidden(x).relu())
        return self.head(x)


def test_tied_weights_stay():
    net = trained(nestnet.nest(Tied(3), Tied(5), check=False).double())
    before = copy.deepcopy(net.state_dict())
    with unchanged(net, torch.randn(3, 6, dtype=torch.float64)):
        nestnet.select_base(net, "uniform")
    assert torch.equal(net.state_dict()["embedding.weight"], before["embedding.weight"])
    assert torch.equal(net.state_dict()["hidden.weight"], before["hidden.weight"][[0, 1, 3, 2, 4]])


# Use.


def test_training_after_the_selection_equals_the_reference():
    pair = PAIRS["own cnn"]
    net = trained(nestnet.nest(*pair.make())).train()
    nestnet.select_base(net, "uniform")
    modes = [Mode.BASE, Mode.MOTIVATED, Mode.BASE]
    batches = [pair.batch() for _ in modes]
    comparison = check_against_reference(
        net, lambda module: torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9), batches, modes
    )
    assert comparison.identical


def test_parameters_keep_their_memory_and_what_is_frozen():
    net = nestnet.nest(mlp(3), mlp(6))
    net.base[0].weight.requires_grad_(False)
    before = {name: (id(parameter), parameter.requires_grad) for name, parameter in net.named_parameters()}
    nestnet.select_base(net, "uniform")
    assert {name: (id(parameter), parameter.requires_grad) for name, parameter in net.named_parameters()} == before
    assert net.training


def test_an_unknown_kind_and_a_network_without_known_inputs_are_refused():
    net = nestnet.nest(mlp(3), mlp(6))
    with pytest.raises(ValueError, match="kind = 'last'"):
        nestnet.select_base(net, "last")

    class Bilinear(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.layer = nn.Bilinear(3, 3, width)

        def forward(self, x):
            return self.layer(x["left"], x["right"])

    with pytest.raises(ValueError, match="give inputs"):
        nestnet.select_base(nestnet.nest(Bilinear(2), Bilinear(3), check=False), "uniform")
