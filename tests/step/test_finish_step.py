"""Training what only the motivated network has, against loops written out with a frozen base."""

import copy

import pytest
import torch
from helpers import FAMILIES, batch, make, randomised
from timm.optim import create_optimizer_v2
from torch import nn

import nestnet
from nestnet import Mode, TrainStep
from nestnet.nn.differential import differential_tensors, has_own_statistics
from nestnet.nn.mode import PerMode
from nestnet.optim.step_counts import share_step_counts

cross_entropy = nn.functional.cross_entropy
OPTIMIZERS = {
    "momentum": {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-2},
    "adamw": {"lr": 1e-3, "weight_decay": 0.1},
    "lamb": {"lr": 1e-2, "weight_decay": 0.1},
}


def everything_of_the_base(net, step, optimizer):
    """Copies of all that must stand still: weights, statistics, the optimizer's state, and the moving average."""
    base = net.subnet("base")
    state = {}
    for name, parameter in base.named_parameters():
        for key, value in optimizer.state[parameter].items():
            state[f"{name}.{key}"] = value
    found = {"net": base.state_dict(), "optimizer": state, "average": step.averaged.subnet("base").state_dict()}
    return copy.deepcopy(found)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in found.items():
        if isinstance(value, dict):
            assert_same(value, expected[name])
        elif isinstance(value, torch.Tensor):
            assert torch.equal(value, expected[name]), name
        else:
            assert value == expected[name], name


CASES = [(family, name) for family in FAMILIES for name in ("momentum", "adamw")]


@pytest.mark.parametrize(("family", "name"), [*CASES, ("resnet", "lamb")])
def test_the_base_stands_still_and_everything_else_is_a_hand_written_loop(family, name):
    net = make(family, drop_rate=0.1)
    plain = copy.deepcopy(net)
    optimizer = create_optimizer_v2(net, opt=name, **OPTIMIZERS[name])
    own = create_optimizer_v2(plain, opt=name, **OPTIMIZERS[name])
    step = TrainStep(net, optimizer, cross_entropy, accumulate=2, clip_grad=0.5, ema_decay=0.5)
    for mode in ("base", "motivated"):
        images, labels = batch()
        state = torch.get_rng_state()
        step(images, labels, mode)
        torch.set_rng_state(state)
        TrainStep(plain, own, cross_entropy, accumulate=2, clip_grad=0.5)(images, labels, mode)
    before = everything_of_the_base(net, step, optimizer)

    # By hand: only what the base does not have requires gradients.
    trained = {id(parameter) for _, parameter in plain.differential_parameters()}
    for parameter in plain.parameters():
        parameter.requires_grad_(id(parameter) in trained)
    for _ in range(3):
        images, labels = batch()
        state = torch.get_rng_state()
        outcome = step.finish_step(images, labels)
        torch.set_rng_state(state)
        own.zero_grad()
        losses = []
        for part, answers in zip(images.chunk(2), labels.chunk(2), strict=True):
            losses.append(cross_entropy(plain(part, "motivated"), answers))
            (losses[-1] / 2).backward()
        # In the optimizer's order, so that the norm is the same to the last bit.
        in_order = [parameter for group in own.param_groups for parameter in group["params"]]
        norm = nn.utils.clip_grad_norm_(in_order, 0.5)
        own.step()
        assert outcome.losses() == {"motivated": torch.stack(losses).mean().item()}
        assert outcome.gradient_norm() == norm.item()
    assert_same(net.state_dict(), plain.state_dict())
    assert_same(everything_of_the_base(net, step, optimizer), before)
    assert all(parameter.requires_grad for parameter in net.parameters()), "frozen for the forward passes only"
    assert all(parameter.grad is None for parameter in net.subnet("base").parameters())
    moved = [not torch.equal(ours, theirs) for ours, theirs in zip(
        differential_tensors(step.averaged), differential_tensors(net), strict=True)]  # fmt: skip
    assert any(moved), "the average of the rest lags behind it"
    # The base can be trained again afterwards.
    step(*batch(), "base")
    assert not torch.equal(next(net.subnet("base").parameters()), before["net"][next(iter(before["net"]))])


def test_the_average_of_the_differential_weights_is_an_ordinary_one():
    net = randomised(make("resnet"))
    step = TrainStep(net, torch.optim.SGD(net.parameters(), lr=0.1), cross_entropy, ema_decay=0.6)
    expected = [tensor.clone() for tensor in differential_tensors(net)]
    for number in range(4):
        decay = min(1 - (1 + number) ** (-2 / 3), 0.6)
        step.finish_step(*batch())
        for mean, tensor in zip(expected, differential_tensors(net), strict=True):
            mean.copy_(tensor if not mean.is_floating_point() else mean.lerp(tensor, 1 - decay))
    for mean, tensor in zip(expected, differential_tensors(step.averaged), strict=True):
        torch.testing.assert_close(tensor, mean)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_rest_is_trained_beside_the_averaged_base(family):
    """The averages of a finished base and of the rest are those of a run that began with the averaged base."""
    net = randomised(make(family))
    step = TrainStep(net, torch.optim.SGD(net.parameters(), lr=0.1), cross_entropy, ema_decay=0.6)
    for mode in ("base", "motivated", "base"):
        step(*batch(), mode)
    rest = [tensor.clone() for tensor in differential_tensors(net)]
    averaged_base = copy.deepcopy(step.averaged.subnet("base").state_dict())
    step.average.finish_base()
    assert_same(net.subnet("base").state_dict(), averaged_base)
    assert all(map(torch.equal, differential_tensors(net), rest)), "the rest stays as it was trained"

    fresh = copy.deepcopy(net)
    later = TrainStep(fresh, torch.optim.SGD(fresh.parameters(), lr=0.1), cross_entropy, ema_decay=0.6)
    for _ in range(3):
        images, labels = batch()
        step.finish_step(images, labels)
        later.finish_step(images, labels)
    assert_same(step.averaged.state_dict(), later.averaged.state_dict())


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_batch_that_is_not_finite_leaves_no_trace(poison):
    net = make("resnet", drop_rate=0.2)
    whole = copy.deepcopy(net)
    ours, theirs = (
        TrainStep(module, torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9), cross_entropy,
                  ema_decay=0.5, skip_non_finite=True) for module in (net, whole)
    )  # fmt: skip
    for _ in range(2):
        images, labels = batch()
        state = torch.get_rng_state()
        outcome = theirs.finish_step(images, labels)
        torch.set_rng_state(state)
        assert ours.finish_step(images * poison, labels).skipped
        assert ours.finish_step(images, labels).loss() == outcome.loss()
    assert_same(net.state_dict(), whole.state_dict())
    assert_same(ours.averaged.state_dict(), theirs.averaged.state_dict())


def test_step_counts_of_the_paper_stand_still_too():
    net = make("vit")
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    share_step_counts(optimizer, net)
    step = TrainStep(net, optimizer, cross_entropy)
    weight = net.head.weight
    for _ in range(3):
        step(*batch(), "base")
    step(*batch(), "motivated")
    for _ in range(2):
        step.finish_step(*batch())
    assert [int(optimizer.state[block]["step"]) for block in weight.blocks()] == [4, 6]


def test_frozen_layers_below_all_differential_ones_save_no_activations():
    """The stem and the blocks that both networks have first get no backward pass at all."""
    net = nestnet.create_model("resnet20", "resnet32", num_classes=5)
    gradients = []
    net.layer1[0].register_forward_hook(lambda module, inputs, output: gradients.append(output.requires_grad))
    step = TrainStep(net, torch.optim.SGD(net.parameters(), lr=0.1), cross_entropy)
    images, labels = batch()
    step(images, labels, "motivated")
    step.finish_step(images, labels)
    assert gradients == [True, False]


def test_it_compiles_once_and_computes_the_same():
    torch._dynamo.reset()
    net = nestnet.create_model("resnet8", "resnet14", num_classes=5)
    plain = copy.deepcopy(net)
    images, labels = batch(2, pixels=8)
    ours, eager = (
        TrainStep(model, torch.optim.SGD(model.parameters(), lr=1e-3), cross_entropy, compile=backend)
        for model, backend in ((net, "aot_eager"), (plain, None))
    )
    for mode in Mode:
        assert ours(images, labels, mode).loss() == pytest.approx(eager(images, labels, mode).loss(), abs=1e-4)
    before = copy.deepcopy(net.subnet("base").state_dict())
    counts = torch._dynamo.utils.counters["stats"]
    graphs = counts["unique_graphs"]
    for _ in range(2):
        found, expected = ours.finish_step(images, labels), eager.finish_step(images, labels)
        assert found.loss() == pytest.approx(expected.loss(), abs=1e-4)
    assert counts["unique_graphs"] == graphs + 1
    assert_same(dict(net.subnet("base").state_dict()), dict(before))
    with torch.compiler.set_stance("fail_on_recompile"):
        ours(images, labels, "motivated")
        ours.finish_step(images, labels)
    torch._dynamo.reset()


def test_networks_that_cannot_be_extended_without_moving_the_base():
    shared = make("resnet", batch_norm="shared")
    assert not has_own_statistics(shared)
    step = TrainStep(shared, torch.optim.SGD(shared.parameters(), lr=0.1), cross_entropy)
    with pytest.raises(ValueError, match="finish_step: the base shares the running statistics of the motivated"):
        step.finish_step(*batch())
    same = nestnet.create_model("resnet20", "resnet20", num_classes=5)
    step = TrainStep(same, torch.optim.SGD(same.parameters(), lr=0.1), cross_entropy)
    with pytest.raises(ValueError, match="finish_step: base and motivated are the same network"):
        step.finish_step(*batch())
    assert has_own_statistics(make("vit"))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_differential_parameters_are_the_rest(family):
    net = make(family)
    sizes = PerMode(*(sum(p.numel() for p in net.subnet(mode).parameters()) for mode in Mode))
    assert sum(p.numel() for _, p in net.differential_parameters()) == sizes.motivated - sizes.base
