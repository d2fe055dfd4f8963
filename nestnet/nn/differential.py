"""The part of a nested network that only the motivated network has, and training it while the base stands still."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel


def differential_tensors(net: NestedModel) -> list[Tensor]:
    """Return the parameters and buffers that only the motivated network has.

    Args:
        net: nested network.

    Returns:
        The tensors. Shared running statistics, of which the base uses a part, are among them.
    """
    base = set(map(id, _tensors(net.subnet(Mode.BASE))))
    return [tensor for tensor in _tensors(net.subnet(Mode.MOTIVATED)) if id(tensor) not in base]


def has_own_statistics(net: NestedModel) -> bool:
    """Return whether a motivated forward pass in training leaves all statistics of the base as they are.

    Args:
        net: nested network.

    Returns:
        `True` for private running statistics, and for networks without any; `False` for shared ones.
    """
    # The base has views of shared statistics, which lie in the memory of the motivated network's.
    return _memory_of_buffers(net, Mode.BASE).isdisjoint(_memory_of_buffers(net, Mode.MOTIVATED))


@contextmanager
def frozen(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Freeze parameters within this context: forward passes in it compute no gradients for them.

    Args:
        parameters: parameters to freeze. Those that are frozen already stay so.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def _memory_of_buffers(net: NestedModel, mode: Mode) -> set[int]:
    """Return the addresses of the buffers of a mode. Those without elements have no memory, and the address 0."""
    return {buffer.untyped_storage().data_ptr() for buffer in net.subnet(mode).buffers() if buffer.numel()}


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    return itertools.chain(module.parameters(), module.buffers())
