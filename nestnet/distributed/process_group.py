"""The processes that train one network together, as torchrun starts them.

Each process trains its part of every batch, and DistributedDataParallel averages the gradients. Values
that decide how training proceeds, such as the loss for a condition, are averaged over the processes first, so
that all processes make the same decision.
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
    """The rank of this process among those that train together, and the collective operations of a run.

    All processes must call the collective operations in the same order. Without an initialized process group,
    each operation returns its argument at once.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        is_initialized: whether torch's default process group is initialized, which a single process may have
            done too.

    Example:
        >>> from nestnet.distributed.process_group import ProcessGroup
        >>> ProcessGroup(rank=1, size=4).batch_slice(128)
        slice(32, 64, None)
    """

    rank: int = 0
    size: int = 1
    is_initialized: bool = False

    @property
    def is_first(self) -> bool:
        """Whether this is the process that prints and writes files."""
        return self.rank == 0

    def all_reduce_mean(self, tensor: Tensor) -> Tensor:
        """Return the mean over all processes.

        Args:
            tensor: tensor of the same shape in each process; it is left as it is.

        Returns:
            The mean, with the same bits in each process.
        """
        if not self.is_initialized:
            return tensor
        # Gloo does not have ReduceOp.AVG.
        return self.all_reduce_sum(tensor) / self.size

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over all processes.

        Args:
            tensor: tensor of the same shape in each process; it is left as it is.

        Returns:
            The sum, with the same bits in each process.
        """
        if not self.is_initialized:
            return tensor
        # all_reduce overwrites its argument.
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    def broadcast_object(self, value: T) -> T:
        """Return the value of the first process in all of them.

        Args:
            value: any picklable object; only that of the first process is used.

        Returns:
            The first process's value, with its tensors on the CPU.
        """
        if not self.is_initialized:
            return value
        # The broadcast fills the lists of the other processes.
        values: list[Any] = [None]
        if self.is_first:
            values[0] = _to_cpu(value)
        dist.broadcast_object_list(values)
        return cast(T, values[0])

    def all_gather_object(self, value: T) -> list[T]:
        """Return the values of all processes in all of them.

        Args:
            value: any picklable object.

        Returns:
            The value of each process, by rank, with their tensors on the CPU.
        """
        if not self.is_initialized:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, _to_cpu(value))
        return values

    def batch_slice(self, batch_size: int) -> slice:
        """Return this process's part of a batch.

        Args:
            batch_size: number of images in the whole batch, a multiple of the number of processes.

        Returns:
            A slice of consecutive images; those of all processes make up the batch.
        """
        part = batch_size // self.size
        return slice(self.rank * part, (self.rank + 1) * part)

    def sample_indices(self, count: int) -> range:
        """Return the indices of the samples that this process evaluates.

        Args:
            count: number of all samples; it need not be a multiple of the number of processes.

        Returns:
            Every `size`-th index. Each sample is in the range of exactly one process.
        """
        # The parts may differ by one sample, which summed counts allow.
        return range(self.rank, count, self.size)

    @torch.no_grad()
    def average_buffers(self, net: nn.Module) -> None:
        """Average the BatchNorm statistics over the processes, each of which has only those of its own images.

        Args:
            net: network whose floating-point buffers are averaged in place; counters of batches are left as
                they are.
        """
        if not self.is_initialized:
            return
        for buffer in net.buffers():
            if buffer.is_floating_point():
                buffer.copy_(self.all_reduce_mean(buffer))


def _to_cpu(value: T) -> T:
    """Return nested dictionaries, lists and tuples with their tensors on the CPU.

    A tensor is unpickled on the device that it was on. Sent from a GPU as it is, it would take memory there
    in the name of each receiving process, and fail in a process that cannot see that GPU.
    """
    return cast(T, tree_map_only(Tensor, lambda tensor: tensor.cpu(), value))
