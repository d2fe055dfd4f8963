"""The nested network against Algorithm 1 with two models and copies: the same bits."""

import random

import pytest
import torch
from helpers import batch, make
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.optim import create_optimizer_v2

from nestnet import Mode, Policy
from nestnet.nn.batch_norm import STATISTICS
from nestnet.verification.comparison import check_against_reference
from nestnet.verification.reference import CopyReference

OPTIMIZERS = {
    "sgd": {"opt": "momentum", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4},
    "rmsprop": {"opt": "rmsprop", "lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-4},
    "adamw": {"opt": "adamw", "lr": 1e-3, "weight_decay": 0.05},
    "lamb": {"opt": "lamb", "lr": 5e-3, "weight_decay": 0.02},
    "nadam": {"opt": "nadam", "lr": 1e-3, "weight_decay": 1e-4},
}


POLICIES = {
    "replace": Policy(),
    "both": Policy(trains="both"),
    "half distilled": Policy(trains="both", distillation=0.5, temperature=2.0),
    "distilled": Policy(trains="both", distillation=1.0),
    "weighted": Policy(trains="both", motivated_loss_weight=0.3),
}


def compare(family, optimizer, step_count="own", steps=32, **options):
    draw = random.Random(0)
    modes = [Mode.BASE, Mode.MOTIVATED, *draw.choices(list(Mode), k=steps - 2)]
    net = make(family, **options).train()
    return check_against_reference(
        net,
        lambda module: create_optimizer_v2(module, **OPTIMIZERS[optimizer]),
        [batch() for _ in modes],
        modes,
        step_count=step_count,
        epoch_ends=[steps // 2],
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "optimizer", "options"),
    [
        *(
            ("resnet", optimizer, options)
            for optimizer in ("sgd", "rmsprop", "adamw")
            for options in (
                {"batch_norm": "private"},
                {"batch_norm": "shared", "depth_map": "first"},
                {"batch_norm": "separate"},
            )
        ),
        ("vit", "sgd", {"qkv_map": "heads"}),
        ("vit", "rmsprop", {"qkv_map": "prefix", "drop_path_rate": 0.1}),
        ("vit", "adamw", {"qkv_map": "heads", "drop_path_rate": 0.1}),
        ("efficientnet", "sgd", {"batch_norm": "shared"}),
        ("efficientnet", "rmsprop", {"batch_norm": "private", "drop_rate": [0.2, 0.3], "drop_path_rate": 0.2}),
        ("efficientnet", "adamw", {"batch_norm": "shared", "drop_rate": [0.2, 0.3], "drop_path_rate": 0.2}),
        ("efficientnet", "sgd", {"batch_norm": "separate"}),
    ],
)
def test_bit_identical(family, optimizer, options):
    steps = 32 if family == "resnet" else 16  # the others take longer
    comparison = compare(family, optimizer, "literal" if optimizer == "adamw" else "own", steps, **options)
    assert comparison.steps == steps
    assert comparison.switches >= 10
    assert comparison.identical, comparison


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "optimizer"),
    [("resnet", "adamw"), ("vit", "adamw"), ("efficientnet", "adamw"), ("resnet", "nadam"), ("vit", "nadam")],
)
def test_bit_identical_when_each_part_counts_its_own_steps(family, optimizer):
    comparison = compare(family, optimizer, "own", steps=10)
    assert comparison.switches >= 6
    assert comparison.identical, comparison


@settings(max_examples=3)
@given(
    st.sampled_from(["sgd", "rmsprop", "adamw", "nadam"]),
    st.sampled_from(["own", "literal"]),
    st.sampled_from(STATISTICS),
    st.lists(st.sampled_from(list(Mode)), min_size=3, max_size=8),
    st.integers(0, 8),
)
@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_is_bit_identical(page, policy, optimizer, step_count, statistics, modes, epoch_end):
    comparison = check_against_reference(
        page.NestedNet(statistics).train(),
        lambda module: create_optimizer_v2(module, **OPTIMIZERS[optimizer]),
        page.draw_batches(len(modes)),
        modes,
        step_count=step_count,
        policy=POLICIES[policy],
        epoch_ends=[epoch_end],
    )
    assert comparison.steps == len(modes)
    assert comparison.motivated_steps == modes.count(Mode.MOTIVATED)
    assert comparison.identical, comparison


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "policy", "optimizer", "step_count", "options"),
    [
        ("resnet", "both", "sgd", "own", {"batch_norm": "shared"}),
        ("resnet", "half distilled", "adamw", "literal", {"drop_rate": [0.1, 0.2]}),
        ("resnet", "weighted", "rmsprop", "own", {"batch_norm": "shared", "depth_map": "first"}),
        ("vit", "distilled", "sgd", "own", {"qkv_map": "heads", "drop_path_rate": 0.1}),
        ("efficientnet", "half distilled", "sgd", "own", {"batch_norm": "shared", "drop_path_rate": 0.2}),
    ],
)
def test_both_networks_of_a_family_in_one_step_are_bit_identical(family, policy, optimizer, step_count, options):
    modes = [Mode.MOTIVATED, Mode.BASE, Mode.MOTIVATED, Mode.MOTIVATED]
    comparison = check_against_reference(
        make(family, **options).train(),
        lambda module: create_optimizer_v2(module, **OPTIMIZERS[optimizer]),
        [batch() for _ in modes],
        modes,
        step_count=step_count,
        policy=POLICIES[policy],
    )
    assert comparison.switches == 4
    assert comparison.identical, comparison


@pytest.mark.parametrize("family", ["resnet", "vit"])
def test_fused_sgd(family):
    modes = [Mode.BASE, Mode.MOTIVATED, Mode.BASE, Mode.MOTIVATED]
    comparison = check_against_reference(
        make(family),
        lambda module: torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9, fused=True),
        [batch() for _ in modes],
        modes,
    )
    assert max(comparison.differences.values()) < 1e-6, comparison


@pytest.mark.parametrize("options", [{"batch_norm": kind} for kind in STATISTICS])
def test_lamb_on_resnets(options):
    comparison = compare("resnet", "lamb", **options)
    assert comparison.switches >= 10
    assert max(comparison.differences.values()) < 1e-6, comparison


class TestTheCheckCanFail:
    """Each of these is wrong on purpose, and must show."""

    def differences(self, prepare=None, step_count="own", optimizer="sgd", **options):
        modes = [Mode.BASE, Mode.MOTIVATED, Mode.BASE, Mode.MOTIVATED, Mode.BASE]
        return check_against_reference(
            make("resnet", **options),
            lambda module: create_optimizer_v2(module, **OPTIMIZERS[optimizer]),
            [batch() for _ in modes],
            modes,
            step_count=step_count,
            prepare=prepare,
        )

    def test_the_right_one_passes(self):
        assert self.differences().identical

    def test_another_learning_rate(self):
        def faster(optimizer):
            optimizer.param_groups[0]["lr"] *= 1.001

        assert self.differences(faster).differences["weights"] > 0

    def test_zero_gradients_in_place_of_none(self):
        """What `zero_grad(set_to_none=False)` would do: momentum and weight decay move the differential weights."""

        def zeros(optimizer):
            def fill(optimizer, *_):
                for group in optimizer.param_groups:
                    for parameter in group["params"]:
                        if parameter.grad is None and optimizer.state.get(parameter):
                            parameter.grad = torch.zeros_like(parameter)

            optimizer.register_step_pre_hook(fill)

        found = self.differences(zeros).differences
        assert found["weights"] > 0
        assert found["optimizer state"] > 0

    @pytest.mark.parametrize(
        ("method", "kind"), [("_add_base_gradients", "weights"), ("_copy_weights_and_buffers", "buffers")]
    )
    def test_both_networks_without_a_part_of_their_step(self, method, kind, page, monkeypatch):
        """Without the base's gradients, and without copies between the two passes, to shared statistics."""
        monkeypatch.setattr(CopyReference, method, lambda *_: None)
        found = check_against_reference(
            page.NestedNet("shared"),
            lambda module: create_optimizer_v2(module, **OPTIMIZERS["sgd"]),
            page.draw_batches(1),
            [Mode.MOTIVATED],
            policy=POLICIES["both"],
        ).differences
        assert found[kind] > 0

    def test_step_counts_of_the_other_kind(self):
        def own_after_all(optimizer):
            optimizer._optimizer_step_pre_hooks.clear()

        modes = [Mode.BASE, Mode.MOTIVATED, Mode.BASE]
        found = check_against_reference(
            make("vit"),
            lambda module: create_optimizer_v2(module, **OPTIMIZERS["adamw"]),
            [batch() for _ in modes],
            modes,
            step_count="literal",
            prepare=own_after_all,
        ).differences
        assert found["weights"] > 0
        assert found["optimizer state"] >= 1

    def test_the_state_of_a_weight_that_only_the_base_has(self):
        def lost(optimizer):
            weight = net.bn1.base_weight
            optimizer.register_step_post_hook(lambda optimizer, *_: optimizer.state[weight].clear())

        net = make("resnet", batch_norm="separate")
        found = check_against_reference(
            net,
            lambda module: create_optimizer_v2(module, **OPTIMIZERS["sgd"]),
            [batch()],
            [Mode.BASE],
            prepare=lost,
        ).differences
        assert found["optimizer state"] > 0

    def test_an_unknown_step_count(self):
        with pytest.raises(ValueError, match="step_count = 'both': it must be one of own, literal"):
            self.differences(step_count="both")


def test_a_switch_copies_only_the_base_s_part():
    net = make("efficientnet")
    reference = CopyReference(net, lambda module: torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9))
    with torch.no_grad():
        for parameter in reference.models[Mode.BASE].parameters():
            parameter.fill_(7.0)
    before = {name: t.clone() for name, t in reference.models[Mode.MOTIVATED].state_dict().items()}
    reference.switch(Mode.MOTIVATED)
    after = reference.models[Mode.MOTIVATED].state_dict()
    for name, p in net.weights_map.items():
        if name in reference.parameters[Mode.BASE]:
            assert (after[p.name][p.index] == 7).all()
            before[p.name][p.index] = 7.0
    assert all(torch.equal(after[name], t) for name, t in before.items())
    reference.switch(Mode.MOTIVATED)
    assert reference.switches == 1
