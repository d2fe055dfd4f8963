"""Several processes that train one network together, as `torchrun` starts them.

Each process trains its share of every batch; DistributedDataParallel averages the gradients. What decides something, such
as the loss, is averaged over the processes before, so that all of them decide alike. With one process nothing is done.
"""

from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

T = TypeVar("T")


@dataclass(frozen=True)
class ProcessGroup:
    """Which of the processes this one is, and what they tell one another. Each method is called in all of them alike.

    Attributes:
        rank: this one's number, from 0.
        size: how many there are.
        is_initialized: whether they are a process group, which one process may be too. Without one nothing is sent.
    """

    rank: int = 0
    size: int = 1
    is_initialized: bool = False

    @property
    def is_first(self) -> bool:
        """Whether this is the one that prints and writes."""
        return self.rank == 0

    def all_reduce_mean(self, tensor: Tensor) -> Tensor:
        """The mean over all processes, the same bits in each."""
        return self.all_reduce_sum(tensor) / self.size if self.is_initialized else tensor

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, the same bits in each."""
        if not self.is_initialized:
            return tensor
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    def broadcast_object(self, value: T) -> T:
        """What the first process has, in all of them. Its tensors arrive on the CPU."""
        if not self.is_initialized:
            return value
        values = [_to_cpu(value) if self.is_first else None]
        dist.broadcast_object_list(values)
        return cast(T, values[0])

    def all_gather_object(self, value: T) -> list[T]:
        """What each of the processes has, by rank, in all of them. Their tensors arrive on the CPU."""
        if not self.is_initialized:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, _to_cpu(value))
        return values

    def batch_slice(self, batch: int) -> slice:
        """This process's part of a batch of so many, a multiple of their number."""
        part = batch // self.size
        return slice(self.rank * part, (self.rank + 1) * part)

    def sample_indices(self, count: int) -> range:
        """This process's part of so many items, all of which come once: every so many-th."""
        return range(self.rank, count, self.size)

    @torch.no_grad()
    def average_buffers(self, net: nn.Module) -> None:
        """Average the BatchNorm statistics, which each process has of its own images alone."""
        if self.is_initialized:
            for buffer in net.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.all_reduce_mean(buffer))


def _to_cpu(value: T) -> T:
    """A nest of dictionaries, lists and tuples with its tensors on the CPU.

    A tensor is unpickled on the device that it was on. What a process sends from its own GPU would take memory there in the
    name of each other process, and fail where that GPU cannot be seen.
    """
    return cast(T, tree_map_only(Tensor, lambda tensor: tensor.cpu(), value))
