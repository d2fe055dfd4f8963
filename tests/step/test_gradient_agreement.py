"""The agreement of both networks' gradients against two separate backward passes, and the training beside it."""

import copy
import math

import pytest
import torch
from helpers import batch, make, randomised
from torch import nn

from nestnet import Mode, Policy, TrainStep, create_model
from nestnet.step.shared_gradients import SharedGradients

cross_entropy = nn.functional.cross_entropy


def small(family="resnet"):
    """A small network of random weights: with timm's first ones, both networks compute the same."""
    if family == "vit":
        return randomised(make(family))
    return randomised(create_model("resnet8", "resnet14", num_classes=5))


def images_and_labels(family="resnet"):
    return batch(8, pixels=32 if family == "vit" else 8)


def sgd(net):
    return torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)


def by_hand(net, images, labels, policy, parts):
    """The cosine of the mean gradients of the parts in float64, from a backward pass for each network alone."""
    gradients = {}
    shared = {id(p) for p in net.subnet("base").parameters()} & {id(p) for p in net.subnet("motivated").parameters()}
    for mode in Mode:
        net.zero_grad()
        for part, answers in zip(images.chunk(parts), labels.chunk(parts), strict=True):
            logits = net(part, mode)
            loss = cross_entropy(logits, answers)
            if mode is Mode.BASE and policy.distillation:
                soft = (net(part, "motivated").detach() / policy.temperature).softmax(1)
                distilled = policy.temperature**2 * cross_entropy(logits / policy.temperature, soft)
                loss = (1 - policy.distillation) * loss + policy.distillation * distilled
            (loss / parts).backward()
        gradients[mode] = torch.cat([p.grad.flatten() for p in net.parameters() if id(p) in shared]).double()
    base, motivated = gradients.values()
    return (base @ motivated / base.norm() / motivated.norm()).item()


PLAIN = Policy("both")
DISTILLED = Policy("both", distillation=0.5, temperature=2.0, motivated_loss_weight=0.3)


@pytest.mark.parametrize(
    ("family", "parts", "policy"),
    [
        ("resnet", 1, PLAIN),
        ("resnet", 1, DISTILLED),
        ("resnet", 4, DISTILLED),
        ("vit", 1, PLAIN),
        ("vit", 2, DISTILLED),
    ],
)
def test_the_agreement_is_that_of_two_backward_passes(family, parts, policy):
    net = small(family)
    step = TrainStep(
        net, sgd(net), cross_entropy, policy=policy, accumulate=parts, clip_grad=0.1, gradient_agreement=True
    )
    for _ in range(2):
        images, labels = images_and_labels(family)
        expected = by_hand(copy.deepcopy(net), images, labels, policy, parts)
        assert abs(expected) < 0.999, "networks that agree about everything would test nothing"
        assert step(images, labels, "motivated").gradient_agreement() == pytest.approx(expected, abs=1e-5)
        assert math.isnan(step(images, labels, "base").gradient_agreement())


@pytest.mark.parametrize(("family", "parts"), [("resnet", 1), ("resnet", 2), ("vit", 1)])
def test_measuring_does_not_change_the_training(family, parts):
    """The same bits for a whole batch. The gradients of several parts are added in another order."""
    net = small(family)
    policy = Policy("both", distillation=0.5)
    nets = [net, copy.deepcopy(net)]
    steps = [
        TrainStep(each, sgd(each), cross_entropy, policy=policy, accumulate=parts, clip_grad=1.0, gradient_agreement=on)
        for each, on in zip(nets, (True, False), strict=True)
    ]
    for mode in ("motivated", "base", "motivated"):
        images, labels = images_and_labels(family)
        measured, plain = (step(images, labels, mode) for step in steps)
        if parts == 1:
            assert measured.losses() == plain.losses()
            assert measured.gradient_norm() == plain.gradient_norm()
    tolerance = {"rtol": 0, "atol": 0} if parts == 1 else {"rtol": 1e-4, "atol": 1e-5}
    for ours, theirs in zip(*(each.state_dict().values() for each in nets), strict=True):
        torch.testing.assert_close(ours, theirs, **tolerance)


def test_a_skipped_batch_leaves_no_trace():
    net = small()
    step = TrainStep(net, sgd(net), cross_entropy, policy=Policy("both"), gradient_agreement=True, skip_non_finite=True)
    images, labels = images_and_labels()
    before = copy.deepcopy(net.state_dict())
    outcome = step(images * math.inf, labels, "motivated")
    assert outcome.skipped
    assert not math.isfinite(outcome.gradient_agreement())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    expected = by_hand(copy.deepcopy(net), images, labels, Policy("both"), 1)
    assert step(images, labels, "motivated").gradient_agreement() == pytest.approx(expected, abs=1e-5)


def test_frozen_weights_do_not_count():
    net = small()
    net.conv1.requires_grad_(False)
    step = TrainStep(net, sgd(net), cross_entropy, policy=Policy("both"), gradient_agreement=True)
    agreement = step(*images_and_labels(), "motivated").gradient_agreement()
    assert math.isfinite(agreement)
    assert all(p.grad is None for p in net.conv1.parameters())


def test_networks_that_share_no_weight_that_is_trained_have_no_agreement():
    net = create_model("resnet8", "resnet14", num_classes=5, batch_norm="separate")
    for parameter in SharedGradients(net).shared:
        parameter.requires_grad_(False)
    step = TrainStep(net, sgd(net), cross_entropy, policy=Policy("both"), gradient_agreement=True)
    assert math.isnan(step(*images_and_labels(), "motivated").gradient_agreement())


def test_weights_of_the_base_that_its_own_loss_does_not_reach_keep_the_gradient_of_the_motivated_network():
    net = small()
    shared = SharedGradients(net)
    shared.begin()
    for parameter in shared.shared:
        parameter.grad = torch.ones_like(parameter)
    shared.switch()
    for parameter in shared.shared[1:]:
        parameter.grad = torch.ones_like(parameter)
    assert shared.join().item() == pytest.approx(1)
    assert [parameter.grad.mean().item() for parameter in shared.shared] == [1] + [2] * (len(shared.shared) - 1)


def test_the_agreement_is_told_where_it_is_wanted():
    net = small()
    outcome = TrainStep(net, sgd(net), cross_entropy, policy=Policy("both"))(*images_and_labels(), "motivated")
    with pytest.raises(ValueError, match="gradient_agreement: this step does not compute it; create it with"):
        outcome.gradient_agreement()
    with pytest.raises(
        ValueError, match="gradient_agreement: it is between two networks that a batch trains; set trains to"
    ):
        TrainStep(net, sgd(net), cross_entropy, gradient_agreement=True)
