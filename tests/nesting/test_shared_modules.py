"""Modules with several places: handed to several others in both networks they nest, and otherwise they are refused by name."""

import pytest
import torch
from torch import nn

import nestnet
from nestnet import Mode
from nestnet.verification.comparison import check_against_reference


class Reader(nn.Module):
    def __init__(self, shared):
        super().__init__()
        self.shared = shared

    def forward(self, x):
        return x + self.shared(x)


class Handed(nn.Module):
    """One encoding that several blocks use, or one of its own for each."""

    def __init__(self, width, *, is_shared=True):
        super().__init__()
        self.stem = nn.Linear(6, width)
        encoding = nn.Linear(width, width)
        self.first = Reader(encoding)
        self.second = Reader(encoding if is_shared else nn.Linear(width, width))
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        return self.head(self.second(self.first(self.stem(x))))


def test_a_module_that_both_networks_hand_to_several_blocks_nests():
    net = nestnet.nest(Handed(4), Handed(6))
    before = net.standalone("motivated")
    assert before.first.shared is before.second.shared
    batches = [(torch.randn(4, 6), torch.randint(3, (4,))) for _ in range(8)]
    comparison = check_against_reference(
        net,
        lambda module: torch.optim.AdamW(module.parameters(), lr=0.01),
        batches,
        map(Mode, ["base", "motivated"] * 4),
    )
    assert comparison.identical
    alone = Handed(6)
    alone.load_state_dict(net.subnet("motivated").state_dict())
    inputs = torch.randn(2, 6)
    assert torch.equal(alone(inputs), net(inputs, "motivated"))


@pytest.mark.parametrize(("base", "motivated", "which"), [(True, False, "base"), (False, True, "motivated network")])
def test_a_module_that_one_network_shares_is_refused_by_name(base, motivated, which):
    with pytest.raises(
        ValueError, match=rf"second\.shared\.weight is tied to first\.shared\.weight in the {which} alone"
    ):
        nestnet.nest(Handed(4, is_shared=base), Handed(6, is_shared=motivated))


class Upsampling(nn.Module):
    """A transposed convolution, whose rows are its inputs."""

    def __init__(self, width):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 4, stride=4)
        self.up = nn.ConvTranspose2d(width, 2 * width, 2, stride=2)
        self.head = nn.Linear(2 * width, 3)

    def forward(self, x):
        return self.head(self.up(self.stem(x)).relu().mean((2, 3)))


def test_transposed_convolutions_nest():
    net = nestnet.nest(Upsampling(4), Upsampling(6))
    nestnet.verify_nesting(net)
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(net.standalone("base")(images), net(images, "base"))


class Gate(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.expand = nn.Linear(8, 2 * width)
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        values, gate = self.expand(x).chunk(2, dim=-1)
        return self.head(values * gate.sigmoid())


def test_halves_that_do_not_line_up_are_named_with_the_groups_to_try():
    net = nestnet.nest(Gate(4), Gate(6), check=False)
    message = (
        r"Gate in Gate: head gets something else in the motivated network than in the base: not all of the 4 channels are "
        r"among the 6; the base's weights of expand\.weight belong at expand\.weight\[:2 x 4, :8\], not at "
        r"expand\.weight\[:8, :8\]: nest with check=True, which places them there, or with "
        r"groups=\{'expand\\\\.weight': \(2, 1\)\}"
    )
    with pytest.raises(ValueError, match=message):
        nestnet.verify_nesting(net, torch.randn(16, 8))
    nestnet.verify_nesting(nestnet.nest(Gate(4), Gate(6)))
    nestnet.verify_nesting(nestnet.nest(Gate(4), Gate(6), groups={r"expand\.": (2, 1)}, check=False))


class OwnPrefix(nn.Module):
    """A module whose name begins as what the base has of its own does."""

    def __init__(self, width):
        super().__init__()
        self.base_stem = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width))
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        return self.head(self.base_stem(x).mean((2, 3)))


def test_names_that_begin_like_the_base_s_own_are_told_apart():
    net = nestnet.nest(nn.Sequential(OwnPrefix(4)), nn.Sequential(OwnPrefix(6)), batch_norm="separate")
    nestnet.verify_nesting(net)
    assert "0.base_stem.1.base_weight" in net.state_dict()
    assert net.no_weight_decay() == set()
