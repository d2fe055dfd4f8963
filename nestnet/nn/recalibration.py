"""BatchNorm statistics computed anew for one subnet, on training images."""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import update_bn

from nestnet.nn.batch_norm import BatchNorm2d
from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel

LEFT_OVER = 0.01
"""Share of a running statistic that may be its initial value still."""


def recalibrate(
    net: NestedModel, mode: Mode | str, batches: Iterable[Tensor] | Iterable[tuple[Tensor, Any]]
) -> NestedModel:
    """A copy of `net` whose subnet of `mode` has BatchNorm statistics of `batches`; nothing else changes.

    Shared running statistics are a mixture of both modes' activations, and running ones lag behind the weights. Here
    mean and variance are averaged over the batches alone, with the weights as they are (torch's `update_bn`). With
    shared statistics the copy is for this one mode: its other subnet reads the same numbers.

    Args:
        batches: training images `[B, C, H, W]`, or tuples that start with them.

    >>> import nestnet, torch
    >>> net = nestnet.create_model("resnet20", "resnet32", num_classes=10)
    >>> ready = nestnet.recalibrate(net, "base", [torch.randn(8, 3, 32, 32)])
    >>> ready.subnet("base").state_dict()["bn1.num_batches_tracked"]
    tensor(1)
    """
    return with_statistics(net, mode, statistics_of(net, mode, batches))


def statistics_of(
    net: NestedModel, mode: Mode | str, batches: Iterable[Tensor] | Iterable[tuple[Tensor, Any]]
) -> dict[str, Tensor]:
    """Return the BatchNorm statistics that `recalibrate` computes, under timm's names of the network of `mode`."""
    model = net.standalone(mode)
    # dropout draws random numbers: the training that goes on after this must not see that
    with torch.random.fork_rng(devices=_devices(net)):
        update_bn(batches, model)
    return dict(model.named_buffers())


def with_statistics(net: NestedModel, mode: Mode | str, statistics: Mapping[str, Tensor]) -> NestedModel:
    """Return a copy of `net` whose subnet of `mode` has these BatchNorm statistics."""
    recalibrated = copy.deepcopy(net)
    recalibrated.subnet(mode).load_state_dict(statistics, strict=False)
    return recalibrated


def has_statistics(net: NestedModel) -> bool:
    """Return whether a network has BatchNorm layers, whose statistics can be computed anew."""
    return any(name.endswith("running_mean") for name, _ in net.named_buffers())


def too_few_updates(net: NestedModel, mode: Mode | str) -> int | None:
    """Return how many batches the running statistics of `mode` are of, where they are too few to be relied on.

    After n updates a share of (1 - momentum)^n of a running statistic is still its initial value; more than a hundredth is
    too much. With the usual momentum of 0.1 that takes 44 batches. A subnet that is trained seldom also has statistics of
    weights that have moved on since.

    Returns:
        The number of batches; `None` where there are enough, or where the network has no such statistics.
    """
    for module in net.modules():
        if isinstance(module, BatchNorm2d):
            updates = int(module.running(Mode(mode))[2])
            return updates if (1 - module.momentum) ** updates > LEFT_OVER else None
    return None


def _devices(net: NestedModel) -> list[torch.device]:
    device = next(net.parameters()).device
    return [device] if device.type == "cuda" else []
