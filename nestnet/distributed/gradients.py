"""Averaging of gradients and synchronised BatchNorm for training in several processes."""

import warnings
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel


def distributed_forward(net: NestedModel, mode: Mode) -> DistributedDataParallel:
    """Return a mode's forward pass whose gradients are averaged over the processes.

    Each mode has its own wrapper over the same parameters, so that only the base's gradients are sent in base
    mode. Parameters that are frozen when this function is called are left out: they must be frozen in each
    forward pass too. The default process group must be initialized.

    Args:
        net: nested network, on the device of this process.
        mode: mode of the forward pass.

    Returns:
        A module that maps images `[B, C, H, W]` to logits `[B, K]`.
    """
    device = next(net.parameters()).device
    # The gradient of a class token [1, 1, D] comes as a slice. The strides of its first two dimensions, which
    # have one element each, differ from the bucket's, and nothing reads them.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    device_ids = None
    if device.type == "cuda":
        device_ids = [device.index]
    return DistributedDataParallel(_ModeForward(net, mode), device_ids=device_ids)


def synchronise_batch_norm(net: NestedModel) -> NestedModel:
    """Make BatchNorm normalise by the images of all processes together, as `torch.nn.SyncBatchNorm` does.

    Without it each process normalises by the images of its own part of a batch. The layers of a pair of plain modules
    (`nestnet.nest`) keep their own forward pass, in which `F.batch_norm` is replaced; torch.compile leaves them out.

    Args:
        net: nested network; its BatchNorm layers are changed in place.

    Returns:
        The same network.

    Example:
        >>> import nestnet
        >>> net = nestnet.create_model("resnet20", "resnet32", num_classes=10)
        >>> net = nestnet.synchronise_batch_norm(net)
    """
    net.synchronise_batch_norm()
    return net


class _ModeForward(nn.Module):
    """The forward pass of a mode, as a module with exactly the parameters that it trains.

    It has no buffers, so that DistributedDataParallel does not broadcast the statistics at every step. They
    are averaged when they are used: see `ProcessGroup.average_buffers`.
    """

    def __init__(self, net: NestedModel, mode: Mode) -> None:
        super().__init__()
        subnet = net.subnet(mode)
        self._forward: Callable[[Tensor], Tensor] = subnet.forward
        for name, parameter in subnet.named_parameters():
            if parameter.requires_grad:
                # A parameter's name must not contain a dot.
                self.register_parameter(name.replace(".", "/"), parameter)

    def forward(self, images: Tensor) -> Tensor:
        return self._forward(images)
