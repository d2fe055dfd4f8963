"""The memory that a forward pass keeps for the backward pass."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode


def count_saved_bytes(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Return the number of bytes that a forward pass in training mode saves for the backward pass.

    The forward pass runs on fake tensors: it takes no memory and computes nothing.

    Args:
        network: network, which is put into training mode.
        shape: shape `[B, C, H, W]` of the images.

    Returns:
        Number of bytes. Memory that several tensors share is counted once.
    """
    # Fake tensors have the shapes and operations of real ones on a CPU, without their memory and arithmetic.
    with FakeTensorMode(allow_non_fake_inputs=True), torch.enable_grad(), collect_saved_storages() as storages:
        network.train()(torch.empty(shape))
    return sum(storage.nbytes() for storage in storages)


@contextmanager
def collect_saved_storages() -> Iterator[set[torch.UntypedStorage]]:
    """Collect the storages of all tensors that autograd saves within the context, which allows no backward pass.

    Yields:
        Set of storages, which grows as tensors are saved.
    """
    storages: set[torch.UntypedStorage] = set()

    def pack(tensor: torch.Tensor) -> None:
        # Store nothing in the graph: a tensor that is referenced by its own graph would never be freed.
        storages.add(tensor.untyped_storage())

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda nothing: nothing):
        yield storages
