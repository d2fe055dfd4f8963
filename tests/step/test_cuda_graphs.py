"""Captured steps, with a recorder that repeats the work itself in place of CUDA's."""

import copy
from contextlib import contextmanager

import pytest
import timm.optim
import torch
from helpers import batch, make, randomised
from torch import nn

from nestnet import Mode, PerMode, create_model
from nestnet.nn.mode import FINISH
from nestnet.optim.momentum import fill_momentum
from nestnet.step.capturable import make_capturable
from nestnet.step.cuda_graphs import WARM_UP, GraphedPhases
from nestnet.step.phases import BufferSnapshot, EagerPhases, Forward, GradientNumbers
from nestnet.step.policy import Policy
from nestnet.step.shared_gradients import SharedGradients

B, M = Mode.BASE, Mode.MOTIVATED
SEQUENCE = [B, B, B, M, B, B, M, M, M, B, M, M, M, B, M, FINISH, FINISH, FINISH, B, FINISH, FINISH, M, FINISH]


class Repeating:
    """What a capture promises, without a GPU: the work is not done when it is captured, and each repetition reads the
    inputs, and fills the results, of the capture."""

    def __init__(self, net, optimizer):
        self.net, self.optimizer, self.captures = net, optimizer, 0

    @contextmanager
    def side_stream(self):
        yield

    def capture(self, work):
        tensors = [*self.net.parameters(), *self.net.buffers()]
        values = [tensor.detach().clone() for tensor in tensors]
        state = copy.deepcopy(self.optimizer.state_dict()["state"])
        result = work()
        for tensor, value in zip(tensors, values, strict=True):
            tensor.data = value  # not in place: a backward pass that is captured later still finds what it saved
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.optimizer.state.clear()
        for index, entry in state.items():
            self.optimizer.state[parameters[index]] = entry
        self.captures += 1

        static = [None if tensor is None else tensor.clone() for tensor in self.tensors(result)]

        def repeat():
            for kept, tensor in zip(static, self.tensors(work()), strict=True):
                if kept is not None:
                    kept.copy_(tensor)

        return repeat, GradientNumbers(*static) if isinstance(result, GradientNumbers) else static[0]

    @staticmethod
    def tensors(result):
        """What a phase returned, as a list of tensors."""
        if isinstance(result, GradientNumbers):
            return [result.norm, result.agreement]
        return [result]


def phases(net, optimizer, **settings):
    forward = {mode: Forward(net, mode, None, parallel=False) for mode in Mode}
    own = {"accumulate": 1, "clip_grad": None, "gradient_norm": False, "shared_gradients": None} | settings
    own = {"policy": Policy(), "snapshot": None} | own
    base = list(net.subnet(B).parameters())
    return EagerPhases(
        forward,
        optimizer,
        nn.functional.cross_entropy,
        autocast=torch.autocast("cpu", enabled=False),
        finish=Forward(net, M, None, parallel=False, frozen_parameters=base),
        **own,
    )


def trained(make_steps, schedule):
    torch.manual_seed(0)
    net = make("resnet")
    # Differential weights have their own group, without a gradient in base mode and with another learning rate.
    groups = [{"params": list(net.subnet(B).parameters())}, {"params": [p for _, p in net.differential_parameters()]}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=1e-3)
    steps, losses = make_steps(net, optimizer), []
    for number, mode in enumerate(SEQUENCE):
        for group, scale in zip(optimizer.param_groups, (1, 3), strict=True):
            group["lr"] = scale * schedule(number)
        finishes = mode == FINISH
        losses.append(steps.compute_loss(*batch(), (M if finishes else mode,), freeze_base=finishes).item())
        losses.append(float(steps.compute_gradients().norm))
        steps.skip() if number % 4 == 3 else steps.update()
        assert isinstance(optimizer.param_groups[0]["lr"], float), "a schedule finds and puts numbers"
    return net.state_dict(), losses


@pytest.mark.parametrize("schedule", [lambda step: 0.05, lambda step: 0.1 / (1 + step)], ids=["constant", "falling"])
def test_replayed_steps_are_the_eager_ones(schedule):
    recorders = []

    def graphs(net, optimizer):
        recorders.append(Repeating(net, optimizer))
        return GraphedPhases(
            phases(net, optimizer, clip_grad=1.0, snapshot=BufferSnapshot(net)), optimizer, recorders[0]
        )

    def eager(net, optimizer):
        make_capturable(optimizer)
        fill_momentum(optimizer)
        return phases(net, optimizer, clip_grad=1.0, snapshot=BufferSnapshot(net))

    (ours, our_losses), (theirs, their_losses) = trained(graphs, schedule), trained(eager, schedule)
    assert our_losses == pytest.approx(their_losses, rel=1e-5)
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-4, atol=1e-6, msg=name)
    assert recorders[0].captures == 3 * 3, "three phases of two modes and of a frozen base, once each"


def test_the_agreement_of_replayed_steps_is_the_eager_one():
    found = {}
    for captured in (False, True):
        torch.manual_seed(0)
        net = randomised(create_model("resnet8", "resnet14", num_classes=5))
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        make_capturable(optimizer)
        fill_momentum(optimizer)
        steps = phases(net, optimizer, shared_gradients=SharedGradients(net), policy=Policy("both"))
        if captured:
            steps = GraphedPhases(steps, optimizer, Repeating(net, optimizer))
        found[captured] = []
        for _ in range(WARM_UP + 2):
            for modes in ((B,), (M, B)):
                steps.compute_loss(*batch(pixels=8), modes)
                agreement = steps.compute_gradients().agreement
                steps.update()
                assert (agreement is None) == (modes == (B,))
            found[captured].append(agreement.item())
    assert found[True] == pytest.approx(found[False], abs=1e-4)
    assert len(set(found[True])) == WARM_UP + 2


def test_a_mode_is_captured_after_its_ordinary_steps():
    net = make("resnet")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    graphs = GraphedPhases(phases(net, optimizer), optimizer, Repeating(net, optimizer))
    for number in range(WARM_UP + 1):
        assert not graphs.captured
        graphs.compute_loss(*batch(), (Mode.BASE,))
        assert bool(graphs.captured) == (number == WARM_UP)
        graphs.compute_gradients()
        graphs.update()
    assert [kind.modes for kind in graphs.captured] == [(Mode.BASE,)]


def steps(graphs, number, *, skip=False):
    for _ in range(number):
        graphs.compute_loss(*batch(), (B,))
        graphs.compute_gradients()
        graphs.skip() if skip else graphs.update()


def test_only_steps_with_an_update_count_as_ordinary_ones():
    """The first update makes the optimizer's state: within a capture, each replay would make it anew."""
    net = make("resnet")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    graphs = GraphedPhases(phases(net, optimizer), optimizer, Repeating(net, optimizer))
    steps(graphs, WARM_UP + 2, skip=True)
    assert not graphs.captured
    steps(graphs, WARM_UP)
    assert not graphs.captured
    base = list(net.subnet(B).parameters())
    assert all(optimizer.state[p]["momentum_buffer"] is not None for p in base)
    steps(graphs, 1)
    assert [kind.modes for kind in graphs.captured] == [(B,)]


@pytest.mark.parametrize("change", ["load_state_dict", "weight_decay", "lr"])
def test_what_was_captured_is_forgotten_after_a_change_that_it_cannot_see(change):
    net = make("resnet")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    graphs = GraphedPhases(phases(net, optimizer), optimizer, Repeating(net, optimizer))
    steps(graphs, WARM_UP + 1)
    ((kind, before),) = graphs.captured.items()
    if change == "load_state_dict":
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    else:
        optimizer.param_groups[0][change] = 0.01
    steps(graphs, 1)
    if change == "lr":
        assert graphs.captured[kind] is before, "the captured steps read it from a tensor"
        return
    assert not graphs.captured
    steps(graphs, WARM_UP)
    assert graphs.captured[kind] is not before
    assert optimizer.param_groups[0]["fused"]


def test_a_batch_of_another_shape_is_refused():
    net = make("resnet")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    graphs = GraphedPhases(phases(net, optimizer), optimizer, Repeating(net, optimizer))
    for _ in range(WARM_UP + 1):
        graphs.compute_loss(*batch(4), (Mode.BASE,))
        graphs.compute_gradients()
        graphs.update()
    with pytest.raises(ValueError, match=r"a batch of shape \(2, 3, 32, 32\) after one of \(4, 3, 32, 32\)"):
        graphs.compute_loss(*batch(2), (Mode.BASE,))


@pytest.mark.parametrize("own", ["images", "targets", "both", "neither"])
def test_a_batch_that_each_network_sees_differently_is_captured_with_inputs_of_each(own):
    """In turns with batches that both see alike, and with base batches: no capture reads another's inputs."""
    found, nets = [], []
    for is_graphed in (True, False):
        torch.manual_seed(0)
        net = create_model("resnet8", "resnet14", num_classes=5)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        make_capturable(optimizer)
        fill_momentum(optimizer)
        steps = phases(net, optimizer, policy=Policy("both"))
        if is_graphed:
            steps = graphs = GraphedPhases(steps, optimizer, Repeating(net, optimizer))
        losses = []
        for number in range(3 * (WARM_UP + 2)):
            images, targets = batch(pixels=8)
            modes = (B,) if number % 3 == 0 else (M, B)
            if number % 3 == 1:
                others, other_targets = batch(pixels=8)
                images = PerMode(images, others) if own in ("images", "both") else images
                targets = PerMode(targets, other_targets) if own in ("targets", "both") else targets
            losses.append(steps.compute_loss(images, targets, modes).tolist())
            steps.compute_gradients()
            steps.update()
        found.append(losses)
        nets.append(net.state_dict())
    for ours, theirs in zip(*found, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    for name, tensor in nets[0].items():
        torch.testing.assert_close(tensor, nets[1][name], rtol=1e-3, atol=1e-5, msg=name)
    assert len(graphs.captured) == (2 if own == "neither" else 3)
    assert len(graphs.inputs) == {"neither": 2, "images": 3, "targets": 3, "both": 4}[own], "no tensor is copied twice"


def test_which_optimizers_can_be_captured():
    parameters = [nn.Parameter(torch.zeros(2))]
    sgd = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    make_capturable(sgd)
    assert sgd.param_groups[0]["fused"]
    adamw = torch.optim.AdamW(parameters, lr=0.1, foreach=False)
    make_capturable(adamw)
    assert adamw.param_groups[0]["capturable"]
    assert adamw.param_groups[0]["foreach"], "other loops may read the learning rate as a number"
    fused = torch.optim.AdamW(parameters, lr=0.1, fused=True)
    make_capturable(fused)
    assert not fused.param_groups[0]["foreach"]
    with pytest.raises(ValueError, match="cuda_graphs: Adagrad cannot be captured; torch's SGD, Adam"):
        make_capturable(torch.optim.Adagrad(parameters))
    legacy = timm.optim.create_optimizer_v2(parameters, opt="nadamw", lr=0.1)
    assert "capturable" in legacy.param_groups[0]
    with pytest.raises(ValueError, match="cuda_graphs: NAdamW cannot be captured"):  # untried there
        make_capturable(legacy)
