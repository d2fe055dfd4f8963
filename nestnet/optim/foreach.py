"""Operations on many tensors in a few kernels, as in torch's foreach optimizers."""

from collections.abc import Iterable

import torch
from torch import Tensor


def copy_all(sources: Iterable[Tensor], destinations: Iterable[Tensor]) -> None:
    """Copy each source into the destination at the same position, with about one kernel per dtype.

    Args:
        sources: tensors of any shapes and dtypes.
        destinations: tensors of the same shapes and dtypes, in the same order and on the same device.
    """
    # `torch._foreach_copy_` copies one by one if the tensors of a list differ in dtype, and BatchNorm has
    # floating-point statistics and integer counters: on a GPU that would be hundreds of launches.
    lists_by_type: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for source, destination in zip(sources, destinations, strict=True):
        typed_sources, typed_destinations = lists_by_type.setdefault(source.dtype, ([], []))
        typed_sources.append(source)
        typed_destinations.append(destination)
    for typed_sources, typed_destinations in lists_by_type.values():
        torch._foreach_copy_(typed_destinations, typed_sources)
