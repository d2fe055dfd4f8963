"""BatchNorm statistics of one subnet, recomputed on training images."""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from nestnet.nn.batch_norm import BatchNorm2d
from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel

Batches = Iterable[Tensor] | Iterable[tuple[Tensor, Any]]

TOLERATED_INITIAL_SHARE = 0.01
"""Largest share of the initial value in a running statistic that still counts as reliable."""


def recalibrate(net: NestedModel, mode: Mode | str, batches: Batches) -> NestedModel:
    """Return a copy of a network whose subnet of `mode` has BatchNorm statistics of the given batches.

    Shared running statistics mix the activations of both modes, and running statistics lag behind the weights.
    Here mean and variance are averaged over the given batches alone, with the current weights (torch's
    `update_bn`). Slimmable networks are evaluated in the same way (Yu and Huang 2019, arXiv 1903.05134). With
    shared statistics the copy is for this one mode, because its other subnet uses the same numbers.

    Args:
        net: network that is copied.
        mode: subnet whose statistics are computed, `"base"` or `"motivated"`.
        batches: training images `[B, C, H, W]`, or tuples that start with them.

    Returns:
        The copy. It differs from `net` in these statistics only.

    Example:
        >>> import nestnet, torch
        >>> net = nestnet.create_model("resnet20", "resnet32", num_classes=10)
        >>> recalibrated = nestnet.recalibrate(net, "base", [torch.randn(8, 3, 32, 32)])
        >>> recalibrated.subnet("base").state_dict()["bn1.num_batches_tracked"]
        tensor(1)
    """
    return copy_with_statistics(net, mode, compute_statistics(net, mode, batches))


def compute_statistics(net: NestedModel, mode: Mode | str, batches: Batches) -> dict[str, Tensor]:
    """Return the BatchNorm statistics that `recalibrate` computes.

    Args:
        net: network, which is not changed.
        mode: subnet whose statistics are computed.
        batches: training images `[B, C, H, W]`, or tuples that start with them.

    Returns:
        Buffers under timm's names in the network of `mode`.
    """
    # A copy, because `update_bn` resets the statistics of the model that it is given.
    model = net.standalone(mode)
    # Dropout draws random numbers, which must not change those of the training that continues after this.
    with torch.random.fork_rng(devices=_cuda_devices(net)):
        update_bn(batches, model)
    return dict(model.named_buffers())


def copy_with_statistics(net: NestedModel, mode: Mode | str, statistics: Mapping[str, Tensor]) -> NestedModel:
    """Return a copy of a network whose subnet of `mode` has the given BatchNorm statistics.

    Args:
        net: network that is copied.
        mode: subnet that gets the statistics.
        statistics: buffers, as `compute_statistics` returns them.

    Returns:
        The copy. It differs from `net` in these statistics only.
    """
    # Not strict: the statistics are a part of the subnet's state.
    recalibrated = copy.deepcopy(net)
    recalibrated.subnet(mode).load_state_dict(statistics, strict=False)
    return recalibrated


def has_running_statistics(net: NestedModel) -> bool:
    """Return whether a network has BatchNorm layers, whose statistics can be recomputed.

    Args:
        net: network.

    Returns:
        Whether one of its buffers is a running mean.
    """
    return any(name.endswith("running_mean") for name, _ in net.named_buffers())


def count_insufficient_updates(net: NestedModel, mode: Mode | str) -> int | None:
    """Return the number of batches that updated the running statistics of a mode, if they are too few.

    After n updates, a share of (1 - momentum)^n of a running statistic is still its initial value, and more
    than a hundredth is too much. With the usual momentum of 0.1, 44 batches suffice. The statistics of a subnet
    that is seldom trained also reflect earlier weights.

    Args:
        net: network.
        mode: mode whose statistics are checked.

    Returns:
        The number of batches; `None` if they suffice or the network has no such statistics.
    """
    # All layers of a mode are updated by the same batches, so that checking the first layer suffices.
    counts = [buffer for name, buffer in net.subnet(mode).named_buffers() if name.endswith("num_batches_tracked")]
    layers = [module for module in net.modules() if isinstance(module, (BatchNorm2d, _BatchNorm))]
    if not counts or not layers:
        return None
    updates = int(counts[0])
    momentum = layers[0].momentum
    # Without a momentum torch averages all batches, so that the first one replaces the initial value.
    initial_share = float(updates == 0) if momentum is None else (1 - momentum) ** updates
    return updates if initial_share > TOLERATED_INITIAL_SHARE else None


def _cuda_devices(net: NestedModel) -> list[torch.device]:
    """Return the GPU that the network is on, if it is on one."""
    device = next(net.parameters()).device
    return [device] if device.type == "cuda" else []
