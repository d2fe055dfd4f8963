"""BatchNorm statistics computed anew for one subnet, on training images."""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import update_bn

from nestnet.mode import Mode
from nestnet.nested import NestedModel


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
    model = net.standalone(mode)
    # dropout draws random numbers: the training that goes on after this must not see that
    with torch.random.fork_rng(devices=_devices(net)):
        update_bn(batches, model)
    recalibrated = copy.deepcopy(net)
    recalibrated.subnet(mode).load_state_dict(model.state_dict())
    return recalibrated


def _devices(net: NestedModel) -> list[torch.device]:
    device = next(net.parameters()).device
    return [device] if device.type == "cuda" else []
