"""Some steps of training, the same whichever way they are taken."""

import copy
from dataclasses import dataclass

import torch
from helpers import batch, make, randomised
from torch import nn

from nestnet import Mode, PerMode, TrainStep

B, M = Mode.BASE, Mode.MOTIVATED
SEQUENCE = (B, B, B, B, M, M, M, M, B, M, B, B)
"""Three ordinary steps of each mode, a captured one of each, and then switches."""


@dataclass
class Trained:
    """What some steps came to: losses and gradient norms as numbers, the network, and its averaged one."""

    losses: list[float]
    norms: list[float]
    net: nn.Module
    averaged: nn.Module


def network(family, **options):
    """A small nested network in which a rounding error stays as small as it is: timm's first weights of an EfficientNet grow
    it by a factor of 100,000 in twelve steps on such small images."""
    return randomised(make(family, **options))


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, weight_decay=1e-2)


def train(
    net,
    device,
    create_optimizer=sgd,
    *,
    sequence=SEQUENCE,
    schedule=None,
    channels_last=False,
    own_views=False,
    **settings,
):
    """Train a copy of the network, each step on a batch of its own; with `own_views` the base sees it mirrored."""
    memory_format = torch.channels_last if channels_last else torch.preserve_format
    net = copy.deepcopy(net).to(device).to(memory_format=memory_format)
    optimizer = create_optimizer(net.parameters())
    step = TrainStep(net, optimizer, nn.functional.cross_entropy, **settings)
    generator_state = torch.get_rng_state()
    torch.manual_seed(1)
    losses, norms = [], []
    for number, mode in enumerate(sequence):
        images, labels = batch(16)
        if schedule is not None:
            for group in optimizer.param_groups:
                group["lr"] = schedule(number)
        images = images.to(device, memory_format=memory_format)
        if own_views:
            images = PerMode(images.flip(3), images)
        outcome = step(images, labels.to(device), mode)
        losses.append(outcome.loss())
        if outcome.norm_on_host is not None:
            norms.append(outcome.gradient_norm())
    torch.set_rng_state(generator_state)
    return Trained(losses, norms, net, step.averaged)


def assert_same_weights(ours, theirs, **tolerance):
    """Hold two networks' weights and statistics together; bit for bit where no tolerance is given."""
    tolerance = tolerance or {"rtol": 0, "atol": 0}
    expected = theirs.state_dict()
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], msg=lambda text, name=name: f"{name}: {text}", **tolerance)
