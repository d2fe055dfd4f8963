"""A pair of any two modules against Algorithm 1 with two models and copies: the same bits."""

import random

import pytest
import torch
from pairs import PAIRS, WITH_BATCH_NORM
from timm.optim import create_optimizer_v2

import nestnet
from nestnet import Mode, Policy
from nestnet.verification.comparison import check_against_reference

STEPS = 30

OPTIMIZERS = {
    "sgd": {"opt": "momentum", "lr": 0.02, "momentum": 0.9, "weight_decay": 5e-4},
    "rmsprop": {"opt": "rmsprop", "lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-4},
    "adamw": {"opt": "adamw", "lr": 1e-3, "weight_decay": 0.05},
}

NOISE = {
    "convnextv2": {"drop_path_rate": 0.2},
    "swin": {"drop_path_rate": 0.2, "proj_drop_rate": 0.1},
    "deit3": {"drop_path_rate": 0.2},
    "mobilenetv3": {"drop_rate": 0.2, "drop_path_rate": 0.1},
    "repvit": {"drop_rate": 0.1},
    "hiera": {"drop_path_rate": 0.2},
    "mixer": {"drop_path_rate": 0.1},
    "own cnn": {"drop_rate": 0.2},
}
"""Dropout and stochastic depth of the families that have them."""


def modes_with_switches():
    """A fixed sequence of modes with runs of different lengths, which begins with both."""
    draw = random.Random(0)
    return [Mode.BASE, Mode.MOTIVATED, *draw.choices(list(Mode), k=STEPS - 2)]


def step_count(family):
    """The paper's counting of steps for some families, and each block's own for the others, which takes longer."""
    return "literal" if family in ("swin", "hrnet", "repvit", "mobilenetv3") else "own"


def compare(family, optimizer, *, step_count="own", policy=None, options=None, **settings):
    pair = PAIRS[family]
    modes = modes_with_switches()
    net = nestnet.nest(*pair.make(**(options or {})), check=False, **settings).train()
    return check_against_reference(
        net,
        lambda module: create_optimizer_v2(module, **OPTIMIZERS[optimizer]),
        [pair.batch() for _ in modes],
        modes,
        step_count=step_count,
        policy=policy,
        epoch_ends=[STEPS // 2],
    )


def assert_identical(comparison):
    assert comparison.steps == STEPS
    assert comparison.switches >= 10
    assert comparison.identical, comparison


def cases(families, quick):
    """All families with all optimizers; those that take seconds, with other than their quick optimizer, are slow."""
    found = []
    for family in families:
        for optimizer in OPTIMIZERS:
            marks = [pytest.mark.slow] if optimizer != quick.get(family, optimizer) else []
            found.append(pytest.param(family, optimizer, marks=marks))
    return found


@pytest.mark.parametrize(
    ("family", "optimizer"), cases(PAIRS, {"hrnet": "sgd", "mobilenetv3": "rmsprop", "repvit": "adamw"})
)
def test_thirty_steps_with_ten_switches_are_bit_identical(family, optimizer):
    assert_identical(compare(family, optimizer, step_count=step_count(family), options=NOISE.get(family)))


SHARED = [
    ("hrnet", "adamw"),
    ("mobilenetv3", "sgd"),
    ("repvit", "rmsprop"),
    *(("own cnn", name) for name in OPTIMIZERS),
]
"""Each family with BatchNorm, and each optimizer. Statistics are buffers, of which optimizers know nothing."""


def test_every_family_with_statistics_shares_them():
    assert {family for family, _ in SHARED} == set(WITH_BATCH_NORM)


@pytest.mark.parametrize(("family", "optimizer"), SHARED)
def test_shared_statistics_are_bit_identical(family, optimizer):
    assert_identical(compare(family, optimizer, step_count=step_count(family), batch_norm="shared"))


@pytest.mark.parametrize("family", ["repvit", "own cnn"])
def test_separate_scales_and_shifts_are_bit_identical(family):
    assert_identical(compare(family, "adamw", batch_norm="separate", depth_map="first"))


@pytest.mark.parametrize("batch_norm", nestnet.nn.batch_norm.STATISTICS)
def test_both_networks_in_one_step_are_bit_identical(batch_norm):
    policy = Policy(trains="both", distillation=0.5, motivated_loss_weight=0.7)
    for family in ("own cnn", "swin"):
        comparison = compare(family, "sgd", policy=policy, batch_norm=batch_norm)
        assert comparison.identical, (family, comparison)


def test_the_comparison_can_fail():
    """A base whose parameters are not the base blocks trains on its own, which must show."""
    pair = PAIRS["own cnn"]
    net = nestnet.nest(*pair.make(), check=False).train()
    net.base.head.weight = torch.nn.Parameter(net.base.head.weight.detach().clone())
    modes = [Mode.BASE, Mode.MOTIVATED]
    comparison = check_against_reference(
        net,
        lambda module: torch.optim.SGD(module.parameters(), lr=0.1),
        [pair.batch() for _ in modes],
        modes,
    )
    assert comparison.differences["weights"] > 0
