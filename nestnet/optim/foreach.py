"""Operations on many tensors in a few kernels, as torch's optimizers take their steps."""

from collections.abc import Iterable

import torch
from torch import Tensor


def copy_all(sources: Iterable[Tensor], destinations: Iterable[Tensor]) -> None:
    """Copy each source into the destination at its place, in about one kernel for each type of tensor.

    `torch._foreach_copy_` copies one by one where the tensors of a list differ in type, and BatchNorm has float statistics
    and whole-number counters: on a GPU that would be hundreds of launches.

    Args:
        sources: tensors of any shapes and types.
        destinations: as many tensors of the same shapes and types, on the same device.
    """
    by_type: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for source, destination in zip(sources, destinations, strict=True):
        from_list, to_list = by_type.setdefault(source.dtype, ([], []))
        from_list.append(source)
        to_list.append(destination)
    for from_list, to_list in by_type.values():
        torch._foreach_copy_(to_list, from_list)
