"""The start at which both networks are equal: exactly, in every pair for which the documentation says so."""

import copy

import pytest
import timm
import torch
from helpers import randomised
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import nestnet
from nestnet import Mode, zero_differential_branches
from nestnet.nn.batch_norm import STATISTICS, BatchNorm2d
from nestnet.nn.layers import Conv2d, Linear
from nestnet.nn.mode import PerMode, Width
from nestnet.nn.residual import ResidualBlock
from nestnet.nn.stage import Stage

DEPTH_ALONE = [
    ("resnet18", "resnet34", "last"),
    ("resnet50", "resnet101", "first"),  # bottlenecks
    ("efficientnet_b0", "efficientnet_b1", "last"),
    ("efficientnet_b0", "efficientnet_b1", "first"),
]


def logits(net, images):
    with torch.no_grad():
        return [net(images, mode) for mode in Mode]


@pytest.mark.parametrize(("base", "motivated", "depth_map"), DEPTH_ALONE)
def test_both_networks_start_equal(base, motivated, depth_map):
    net = randomised(nestnet.create_model(base, motivated, num_classes=5, depth_map=depth_map))
    images = torch.randn(2, 3, 32, 32)
    before, random = logits(net.eval(), images)
    assert not torch.equal(before, random)
    zero_differential_branches(net)
    ours, theirs = logits(net, images)
    assert torch.equal(ours, before), "the base is as it was"
    assert torch.equal(theirs, before), "the same bits, with running statistics"
    ours, theirs = logits(net.train(), images)
    assert torch.equal(ours, theirs), "and with those of the batch"


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 4).flatmap(lambda base: st.tuples(st.just(base), st.integers(base, 5))),
    st.sampled_from(STATISTICS),
    st.sampled_from(["last", "first"]),
    st.booleans(),
)
def test_any_two_cifar_resnets_start_equal(pair, statistics, depth_map, zero_init_last):
    names = [f"resnet{depth}" for depth in (8, 14, 20, 32, 44, 56)]
    net = nestnet.create_model(
        *(names[index] for index in pair),
        num_classes=5,
        batch_norm=statistics,
        depth_map=depth_map,
        zero_init_last=zero_init_last,
    )
    if not zero_init_last:
        randomised(net)
    zero_differential_branches(net)
    images = torch.randn(2, 3, 8, 8)
    for training in (True, False):
        ours, theirs = logits(net.train(training), images)
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("statistics", STATISTICS)
def test_a_trained_base_gives_the_motivated_network_its_logits(statistics):
    trained = randomised(timm.create_model("resnet14", num_classes=5, zero_init_last=False)).eval()
    net = nestnet.create_model("resnet14", "resnet20", num_classes=5, batch_norm=statistics)
    for module in trained.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.num_batches_tracked.fill_(7)
    net.subnet("base").load_state_dict(trained.state_dict())
    zero_differential_branches(net)
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(logits(net.eval(), images)[1], trained(images))
    assert net.bn1.num_batches_tracked == 7


def test_one_motivated_batch_moves_every_zero_and_the_next_what_is_before_them():
    net = nestnet.create_model("resnet8", "resnet14", num_classes=5, zero_init_last=False)
    zero_differential_branches(net)
    start = {name: p.detach().clone() for name, p in net.differential_parameters()}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for expected in ({"bn2"}, {"conv1", "bn1", "conv2", "bn2"}):
        loss = nn.functional.cross_entropy(net(torch.randn(4, 3, 8, 8), "motivated"), torch.arange(4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        moved = {name.split(".")[2] for name, p in net.differential_parameters() if not torch.equal(p, start[name])}
        assert moved == expected


@pytest.mark.parametrize(
    ("base", "motivated", "reason"),
    [
        ("vit_tiny_patch16_224", "vit_small_patch16_224", "has only a part of cls_token"),
        ("efficientnet_b1", "efficientnet_b2", "has only a part of"),
        ("efficientnet_b0", "efficientnet_b5", "has only a part of"),
    ],
)
def test_networks_that_differ_in_width_are_refused_and_left_as_they_are(base, motivated, reason):
    net = nestnet.create_model(base, motivated, num_classes=5)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(ValueError, match=f"{base} {reason}.* of {motivated}, and only networks that differ in their"):
        zero_differential_branches(net)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


class Block(ResidualBlock):
    def __init__(self, width):
        super().__init__()
        self.norm = BatchNorm2d(width)
        self.conv = Conv2d(width, width, 1)

    def forward(self, x, mode):
        return x + self.conv(self.norm(x, mode), mode)

    @property
    def last_layer(self):
        return self.conv

    @property
    def has_identity_shortcut(self):
        return True


class Plain(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = Conv2d(width, width, 1)

    def forward(self, x, mode):
        return self.conv(x, mode)


class Own(nestnet.NestedModel):
    """A family of one's own, with a last block that only the motivated network has."""

    def __init__(self, block):
        super().__init__(PerMode("small", "big"), num_classes=2, in_chans=3, timm_options=PerMode({}, {}))
        self.stage = Stage([Block(Width(3, 3)), block(Width(0, 3))], [0, None])
        self.head = Linear(Width(3, 3), Width(2, 2))
        for parameter in self.parameters():
            nn.init.normal_(parameter)

    def forward_features(self, x, mode):
        return self.stage(x, Mode(mode))

    def forward_head(self, x, mode, pre_logits=False):
        return self.head(x.mean((2, 3)), Mode(mode))


def test_a_family_of_one_s_own():
    net = Own(Block)
    base, random = logits(net, torch.ones(2, 3, 4, 4))
    assert not torch.equal(base, random)
    zero_differential_branches(net)
    ours, theirs = logits(net, torch.randn(2, 3, 4, 4))
    assert torch.equal(ours, theirs)


def test_a_block_that_cannot_be_the_identity_is_refused():
    net = Own(Plain)
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ValueError, match=r"stage\.1 of big cannot be the identity, and only networks"):
        zero_differential_branches(net)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize("statistics", STATISTICS)
@pytest.mark.parametrize("pair", [("resnet8", "resnet14"), ("efficientnet_b1", "efficientnet_b2")])
def test_differential_parameters_are_those_that_a_base_step_leaves(pair, statistics):
    net = nestnet.create_model(*pair, num_classes=2, batch_norm=statistics)
    net(torch.randn(2, 3, 32, 32), "base").sum().backward()
    of_base = {name for name, p in net.named_parameters() if p.grad is not None}
    differential = dict(net.differential_parameters())
    assert set(differential) == set(dict(net.named_parameters())) - of_base
    net.zero_grad()
    net(torch.randn(2, 3, 32, 32), "motivated").sum().backward()
    assert all(p.grad is not None for p in differential.values())
