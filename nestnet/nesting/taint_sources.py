"""Where NaN is put to find the channels of a network: rows of its matrices, and entries of its other parameters."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nestnet.nesting.base_share import BaseShare, Segment
from nestnet.nesting.taints import TaintedNetwork


@dataclass(frozen=True)
class Source:
    """Entries that get NaN together.

    Attributes:
        segments: segments of the same length, of which the same entries get NaN.
    """

    segments: tuple[Segment, ...]

    @property
    def size(self) -> int:
        """Number of entries of each segment."""
        return self.segments[0].size


def list_sources(network: TaintedNetwork, share: BaseShare) -> Iterator[list[Source]]:
    """Yield the sources of a network that may have channels of which the base has a part.

    Args:
        network: motivated network.
        share: what the base has of it.

    Yields:
        Sources, of which one has the channels: where the base has nothing of a parameter, it does not show which of the
        dimensions are channels.
    """
    for name, bias in network.matrices.items():
        names = [name]
        if bias is not None and network.shape(bias)[0] == network.shape(name)[0]:
            names.append(bias)
        yield from _list_entries(names, network, share)
    known = {*network.matrices, *network.matrices.values()}
    for path, module in network.module.named_modules():
        prefix = f"{path}." if path else ""
        vectors: dict[int, list[str]] = {}
        for local_name, parameter in module._parameters.items():
            name = prefix + local_name
            if parameter is None or name in known or name not in network.tensors:
                continue
            if parameter.ndim == 1:
                vectors.setdefault(len(parameter), []).append(name)
            else:
                yield from _list_entries([name], network, share)
        _add_statistics(module, prefix, vectors)
        # The scale, the shift and the statistics of a norm belong to the same channels.
        for names in vectors.values():
            yield from _list_entries(names, network, share)


def _add_statistics(module: nn.Module, prefix: str, vectors: dict[int, list[str]]) -> None:
    """Add the running statistics of a BatchNorm to its vectors, by their length."""
    if isinstance(module, _BatchNorm) and module.running_mean is not None:
        names = [f"{prefix}running_mean", f"{prefix}running_var"]
        vectors.setdefault(module.num_features, []).extend(names)


def _list_entries(names: list[str], network: TaintedNetwork, share: BaseShare) -> Iterator[list[Source]]:
    """Yield the sources of tensors that are as long in their first dimension, if there are several."""
    shared = [name for name in names if share.has(name)]
    if not shared:
        shape = network.shape(names[0])
        # A matrix writes its rows.
        dims = [0] if names[0] in network.matrices else range(len(shape))
        sources = []
        for dim in dims:
            if shape[dim] > 1:
                sources.append(Source(tuple(Segment(name, dim, 0, shape[dim]) for name in names)))
        yield sources
        return
    dims = share.divided_dims(shared[0])
    if names[0] in network.matrices:
        dims = [dim for dim in dims if dim == 0]
    for dim in dims:
        for part in share.divided_parts(shared[0], dim):
            yield [Source(tuple(Segment(name, dim, part.start, part.size) for name in names))]
