"""Random small pairs: all of them nest, and train as two models between which weights are copied."""

import copy

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import nestnet
from nestnet import Mode
from nestnet.nn.batch_norm import STATISTICS
from nestnet.verification.comparison import check_against_reference

OPTIMIZERS = {
    "sgd": lambda module: torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9, weight_decay=0.01),
    "rmsprop": lambda module: torch.optim.RMSprop(module.parameters(), lr=1e-3, momentum=0.9),
    "adamw": lambda module: torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.05),
}


class Block(nn.Module):
    def __init__(self, width, hidden, groups, has_norm):
        super().__init__()
        self.expand = nn.Conv2d(width, hidden, 1, groups=groups, bias=not has_norm)
        self.norm = nn.BatchNorm2d(hidden) if has_norm else nn.Identity()
        self.spatial = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.project = nn.Conv2d(hidden, width, 1)

    def forward(self, x):
        return x + self.project(self.spatial(self.norm(self.expand(x)).relu()))


class Net(nn.Module):
    """A network of images: groups of channels, depthwise convolutions, norms and a head of two layers."""

    def __init__(self, width, hidden, depth, groups, has_norm, head):
        super().__init__()
        self.stem = nn.Conv2d(2, width, 2, stride=2)
        self.blocks = nn.Sequential(*[Block(width, hidden, groups, has_norm) for _ in range(depth)])
        self.norm = nn.BatchNorm2d(width, affine=has_norm) if has_norm else nn.Identity()
        self.head = nn.Sequential(nn.Linear(width, head), nn.ReLU(), nn.Linear(head, 3, bias=False))

    def forward(self, x):
        return self.head(self.norm(self.blocks(self.stem(x))).mean((2, 3)))


def smaller_and_bigger(most):
    return st.integers(1, most).flatmap(lambda big: st.tuples(st.integers(1, big), st.just(big)))


@st.composite
def pairs(draw):
    """The sizes of a base and of a motivated network."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    widths = [groups * size for size in draw(smaller_and_bigger(3))]
    hidden = [groups * size for size in draw(smaller_and_bigger(3))]
    depths = draw(smaller_and_bigger(3))
    heads = draw(smaller_and_bigger(4))
    has_norm = draw(st.booleans())
    return tuple((widths[i], hidden[i], depths[i], groups, has_norm, heads[i]) for i in range(2))


def batches(modes, *shape):
    return [(torch.randn(4, *shape), torch.randint(3, (4,))) for _ in modes]


@settings(max_examples=15)
@given(
    pairs(),
    st.sampled_from(STATISTICS),
    st.sampled_from(["last", "first"]),
    st.sampled_from(list(OPTIMIZERS)),
    st.lists(st.sampled_from(list(Mode)), min_size=2, max_size=5),
)
def test_random_networks_of_images_nest_and_train_as_two_models(sizes, batch_norm, depth_map, optimizer, modes):
    base, motivated = (Net(*of_one) for of_one in sizes)
    # The base's channels of each group are not the first ones of all, so that statistics cannot be shared.
    if sizes[0][3] > 1 and batch_norm == "shared":
        batch_norm = "private"
    net = nestnet.nest(base, motivated, batch_norm=batch_norm, depth_map=depth_map, check=torch.randn(2, 2, 8, 8))
    comparison = check_against_reference(net.train(), OPTIMIZERS[optimizer], batches(modes, 2, 8, 8), modes)
    assert comparison.identical, comparison
    other = copy.deepcopy(net)
    other.load_state_dict(net.state_dict())
    x = torch.randn(2, 2, 8, 8)
    for mode in Mode:
        assert torch.equal(net.eval()(x, mode), other.eval()(x, mode))
        assert torch.equal(net(x, mode), net.standalone(mode)(x))


@settings(max_examples=30)
@given(
    st.lists(smaller_and_bigger(5), min_size=1, max_size=3),
    st.sampled_from([nn.ReLU, nn.Tanh, nn.LayerNorm, nn.BatchNorm1d]),
    st.sampled_from(list(OPTIMIZERS)),
    st.lists(st.sampled_from(list(Mode)), min_size=2, max_size=5),
)
def test_random_networks_of_vectors_nest_and_train_as_two_models(widths, kind, optimizer, modes):
    networks = []
    for number in range(2):
        layers = []
        inputs = 3
        for of_both in widths:
            width = of_both[number]
            layers.append(nn.Linear(inputs, width))
            layers.append(kind(width) if "Norm" in kind.__name__ else kind())
            inputs = width
        networks.append(nn.Sequential(*layers, nn.Linear(inputs, 3)))
    net = nestnet.nest(*networks)
    comparison = check_against_reference(net.train(), OPTIMIZERS[optimizer], batches(modes, 3), modes)
    assert comparison.identical, comparison
    base = {id(parameter) for parameter in net.base.parameters()}
    count = sum(parameter.numel() for parameter in net.parameters())
    assert base <= {id(parameter) for parameter in net.parameters()}
    assert count == sum(parameter.numel() for parameter in net.standalone("motivated").parameters())
