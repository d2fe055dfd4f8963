"""Where a tensor of the base lies inside one of the motivated network, written so that a few lines of torch can read it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nestnet.nn.placement import Placement
from nestnet.text.arguments import is_whole

Span = tuple[int, int]
"""Consecutive entries of a dimension: the first one, and the one after the last."""


@dataclass(frozen=True)
class TensorPart:
    """Part of a tensor that is a tensor of another network.

    Attributes:
        name: name of the tensor in the motivated network.
        spans: entries of each dimension; no dimension for the whole tensor.
    """

    name: str
    spans: tuple[tuple[Span, ...], ...]

    @classmethod
    def of(cls, placement: Placement) -> "TensorPart":
        """Return the part that a placement describes.

        Args:
            placement: placement of a base tensor in the motivated network.
        """
        if placement.is_whole:
            return cls(placement.name, ())
        spans: list[tuple[Span, ...]] = []
        for size in placement.base_shape:
            spans.append(((0, size),))
        if placement.groups != 1:
            spans[0] = _spans_of(placement.rows.base_indices)
        if placement.column_groups != 1:
            spans[placement.column_dim] = _spans_of(placement.columns.base_indices)
        return cls(placement.name, tuple(spans))

    def take(self, whole: Tensor) -> Tensor:
        """Return the part of a tensor.

        Args:
            whole: tensor of the motivated network.

        Returns:
            The base's tensor, contiguous; `whole` itself if it is all of it.
        """
        part = whole
        for dim, spans in enumerate(self.spans):
            part = torch.cat([part.narrow(dim, start, stop - start) for start, stop in spans], dim)
        return part

    def to_json(self) -> list[Any]:
        """Return the part as JSON can store it: the name, then the spans of each dimension."""
        return [self.name, *self.spans]

    @classmethod
    def from_json(cls, stored: Any) -> "TensorPart":
        """Return the part that `to_json` stored.

        Args:
            stored: value of any type, from a file.

        Raises:
            ValueError: If it is no such part.
        """
        if not isinstance(stored, list) or not stored or not isinstance(stored[0], str):
            raise ValueError("it must be a list of a name and spans")
        name, *dims = stored
        spans: list[tuple[Span, ...]] = []
        for dim in dims:
            if not isinstance(dim, list) or not dim or not all(map(_is_span, dim)):
                raise ValueError("its spans must be pairs of whole numbers, the first below the second")
            spans.append(tuple((start, stop) for start, stop in dim))
        return cls(name, tuple(spans))

    def fits(self, shape: Sequence[int]) -> bool:
        """Return whether a tensor has these entries.

        Args:
            shape: shape of the tensor.
        """
        if not self.spans:
            return True
        if len(self.spans) != len(shape):
            return False
        return all(stop <= size for spans, size in zip(self.spans, shape, strict=True) for _, stop in spans)


def _is_span(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 2:
        return False
    start, stop = value
    return is_whole(start, 0) and is_whole(stop, 1) and start < stop


def _spans_of(indices: Tensor) -> tuple[Span, ...]:
    """Return rising indices as spans of consecutive ones."""
    spans: list[Span] = []
    for index in indices.tolist():
        if spans and spans[-1][1] == index:
            spans[-1] = (spans[-1][0], index + 1)
        else:
            spans.append((index, index + 1))
    return tuple(spans)
