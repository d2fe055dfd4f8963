"""Gradients averaged over the processes, for each mode apart."""

import warnings
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nestnet.nn.batch_norm import BatchNorm2d
from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel


def distributed_forward(net: NestedModel, mode: Mode) -> DistributedDataParallel:
    """A mode's forward pass `[B, C, H, W]` to `[B, K]` whose gradients, and no others, are averaged over the processes.

    Each mode has a wrapper of its own, over the very same parameters: in base mode only the base's gradients travel.
    """
    device = next(net.parameters()).device
    # a class token's gradient [1, 1, D] comes as a slice, whose strides of the first two dimensions nobody uses
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    return DistributedDataParallel(_Trained(net, mode), device_ids=[device.index] if device.type == "cuda" else None)


def synchronise_batch_norm(net: NestedModel) -> NestedModel:
    """Let BatchNorm normalise by the images of all processes together, as `nn.SyncBatchNorm`; returns the same network."""
    for module in net.modules():
        if isinstance(module, BatchNorm2d):
            module.synchronised = True
    return net


class _Trained(nn.Module):
    """A mode's forward pass, as a module that has the parameters which it trains and nothing else.

    Statistics are averaged when they are read, not sent around at every step: see `ProcessGroup.average_buffers`.
    """

    def __init__(self, net: NestedModel, mode: Mode) -> None:
        super().__init__()
        self._forward: Callable[[Tensor], Tensor] = net.subnet(mode).forward
        for name, parameter in net.subnet(mode).named_parameters():
            self.register_parameter(name.replace(".", "/"), parameter)

    def forward(self, images: Tensor) -> Tensor:
        return self._forward(images)
