"""What the base has of each dimension of the motivated network's parameters."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from nestnet.nn.division import Division
from nestnet.nn.placement import Placement


@dataclass(frozen=True)
class Segment:
    """Consecutive entries of one dimension of a parameter or buffer.

    Attributes:
        name: name of the tensor.
        dim: dimension, 0 for rows.
        start: first entry.
        size: number of entries.
    """

    name: str
    dim: int
    start: int
    size: int

    def overlaps(self, other: "Segment") -> bool:
        """Return whether another segment of the same dimension has some of the entries, but is not the same."""
        return self != other and self.start < other.start + other.size and other.start < self.start + self.size


class BaseShare:
    """What the base has of each dimension of the motivated network's parameters.

    Args:
        weights_map: placement of each base tensor.
    """

    def __init__(self, weights_map: Mapping[str, Placement]) -> None:
        self._placements = {p.name: p for p in weights_map.values() if not p.private}

    def has(self, name: str) -> bool:
        """Return whether the base has a part of a tensor.

        Args:
            name: name of the tensor in the motivated network.
        """
        return name in self._placements

    @property
    def is_divided(self) -> bool:
        """Whether the base has a part of some tensor."""
        return any(not placement.is_whole for placement in self._placements.values())

    def divided_dims(self, name: str) -> list[int]:
        """Return the dimensions of a tensor of which the base has a part.

        Args:
            name: name of a tensor that the base has.
        """
        placement = self._placements[name]
        return [dim for dim, size in enumerate(placement.shape) if size != placement.base_shape[dim]]

    def divided_parts(self, name: str, dim: int) -> list[Segment]:
        """Return the parts of a dimension of which the base has some entries, but not all.

        Args:
            name: name of a tensor that the base has.
            dim: dimension of it.
        """
        segments = []
        start = 0
        for base_size, size in self._division(name, dim).parts:
            if base_size < size:
                segments.append(Segment(name, dim, start, size))
            start += size
        return segments

    def entries(self, segment: Segment) -> int | None:
        """Return the number of entries of a segment that the base has, which are its first ones; `None` if they are not.

        Args:
            segment: segment of a tensor that the base has.
        """
        indices = self._division(segment.name, segment.dim).base_indices - segment.start
        inside = indices[(indices >= 0) & (indices < segment.size)]
        are_first = torch.equal(inside, torch.arange(len(inside)))
        return len(inside) if are_first else None

    def _division(self, name: str, dim: int) -> Division:
        placement = self._placements[name]
        if dim == 0:
            return placement.rows
        if dim == placement.column_dim:
            return placement.columns
        size = placement.shape[dim]
        return Division(((size, size),))
