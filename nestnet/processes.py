"""Several processes that train one network together, as `torchrun` starts them.

Each process trains its share of every batch; DistributedDataParallel averages the gradients. What decides something, such
as the loss, is averaged over the processes before, so that all of them decide alike. With one process nothing is done.
"""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_map_only

from nestnet.layers import BatchNorm2d
from nestnet.mode import Mode
from nestnet.nested import NestedModel

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """Which of the processes this one is, and what they tell one another. Each method is called in all of them alike.

    Attributes:
        rank: this one's number, from 0.
        size: how many there are.
        joined: whether they are a process group, which one process may be too. Without one nothing is sent.
    """

    rank: int = 0
    size: int = 1
    joined: bool = False

    @property
    def first(self) -> bool:
        """Whether this is the one that prints and writes."""
        return self.rank == 0

    def average(self, tensor: Tensor) -> Tensor:
        """The mean over all processes, the same bits in each."""
        return self.total(tensor) / self.size if self.joined else tensor

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, the same bits in each."""
        if not self.joined:
            return tensor
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    def from_first(self, value: T) -> T:
        """What the first process has, in all of them. Its tensors arrive on the CPU."""
        if not self.joined:
            return value
        values = [_on_cpu(value) if self.first else None]
        dist.broadcast_object_list(values)
        return cast(T, values[0])

    def from_all(self, value: T) -> list[T]:
        """What each of the processes has, by rank, in all of them. Their tensors arrive on the CPU."""
        if not self.joined:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, _on_cpu(value))
        return values

    def share(self, batch: int) -> slice:
        """This process's part of a batch of so many, a multiple of their number."""
        part = batch // self.size
        return slice(self.rank * part, (self.rank + 1) * part)

    def every(self, count: int) -> range:
        """This process's part of so many items, all of which come once: every so many-th."""
        return range(self.rank, count, self.size)

    @torch.no_grad()
    def average_statistics(self, net: nn.Module) -> None:
        """Average the BatchNorm statistics, which each process has of its own images alone."""
        if self.joined:
            for buffer in net.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.average(buffer))


def _on_cpu(value: T) -> T:
    """A nest of dictionaries, lists and tuples with its tensors on the CPU.

    A tensor is unpickled on the device that it was on. What a process sends from its own GPU would take memory there in the
    name of each other process, and fail where that GPU cannot be seen.
    """
    return cast(T, tree_map_only(Tensor, lambda tensor: tensor.cpu(), value))


def launched_here() -> tuple[int, int]:
    """Which of the processes that `torchrun` started on this machine this one is, and how many they are."""
    return int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def join(device: torch.device) -> Processes:
    """Meet the other processes; a process group that is there already is used as it is."""
    if not met() and os.environ.get("WORLD_SIZE", "1") == "1":
        return Processes()
    if device.type == "cuda" and device.index is not None:
        # NCCL sends objects by way of the current device, which must not be the same one in two processes
        torch.cuda.set_device(device)
    if not met():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Processes(dist.get_rank(), dist.get_world_size(), joined=True)


def met() -> bool:
    """Whether the processes have met."""
    return dist.is_available() and dist.is_initialized()


def is_loss_of_another(error: RuntimeError) -> bool:
    """Whether this is what a process sees of the others when one of them is gone."""
    return met() and (isinstance(error, dist.DistError) or "gloo" in str(error))


def leave() -> None:
    """End the process group, where there still is one."""
    if met():
        dist.destroy_process_group()


def distributed(net: NestedModel, mode: Mode) -> DistributedDataParallel:
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

    Statistics are averaged when they are read, not sent around at every step: see `Processes.average_statistics`.
    """

    def __init__(self, net: NestedModel, mode: Mode) -> None:
        super().__init__()
        self._forward: Callable[[Tensor], Tensor] = net.subnet(mode).forward
        for name, parameter in net.subnet(mode).named_parameters():
            self.register_parameter(name.replace(".", "/"), parameter)

    def forward(self, images: Tensor) -> Tensor:
        return self._forward(images)
