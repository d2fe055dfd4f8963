"""Where the channels of a base activation are among those of the motivated network's, found by their values."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nestnet.nn.division import Division, Groups

TOLERANCE = 1e-8
"""Largest relative difference of values that count as equal. Both networks compute in float64."""


@dataclass(frozen=True)
class Layout:
    """The positions of a base's channels among those of the motivated network.

    Attributes:
        positions: position of each base channel, in ascending order.
        size: number of all channels.
    """

    positions: tuple[int, ...]
    size: int

    @classmethod
    def of(cls, groups: Groups, base_size: int, size: int) -> "Layout":
        """Return the layout of channels in groups, of which the base has the first ones of each.

        Args:
            groups: number of equal groups, or the sizes (base's, whole) of each.
            base_size: number of channels of the base.
            size: number of all channels.
        """
        indices = Division.of(groups, base_size, size).base_indices
        return cls(tuple(indices.tolist()), size)

    @property
    def base_size(self) -> int:
        """Number of channels of the base."""
        return len(self.positions)

    def extended(self, base_size: int, size: int) -> "Layout | None":
        """Return the layout of more channels, of which these are the first ones and the others form one more group.

        Args:
            base_size: number of channels of the base.
            size: number of all channels.

        Returns:
            The layout; `None` if there are fewer channels than these.
        """
        further = base_size - self.base_size
        if not 0 <= further <= size - self.size:
            return None
        return Layout((*self.positions, *range(self.size, self.size + further)), size)

    @property
    def groups(self) -> Groups:
        """The groups of which the base has the first channels."""
        positions = self.positions
        parts: list[tuple[int, int]] = []
        start = positions[0]
        if start > 0:
            parts.append((0, start))
        run_start = 0
        for index in range(1, len(positions) + 1):
            is_end = index == len(positions)
            if is_end or positions[index] != positions[index - 1] + 1:
                end = self.size if is_end else positions[index]
                parts.append((index - run_start, end - start))
                run_start = index
                start = end
        if len(set(parts)) == 1:
            return len(parts)
        return tuple(parts)


@dataclass(frozen=True)
class Location:
    """What was found out about a base activation in the motivated network.

    Attributes:
        dim: dimension of the channels: the one in which the activations differ. 0 if they differ in none.
        base_size: number of channels of the base.
        size: number of channels of the motivated network.
        layout: where the base's channels are; `None` if one of them was not found.
        is_same: whether both activations are the same.
    """

    dim: int
    base_size: int
    size: int
    layout: Layout | None
    is_same: bool = False

    @property
    def is_found(self) -> bool:
        """Whether all of the base's channels were found."""
        return self.is_same or self.layout is not None


def locate_channels(base: Tensor, whole: Tensor, likely: Iterable[Layout] = ()) -> Location | None:
    """Find the channels of a base activation in that of the motivated network, by their values.

    Args:
        base: activation of the base.
        whole: activation of the motivated network.
        likely: layouts that are tried before all positions are searched. Channels may have equal values, so that there
            are several layouts.

    Returns:
        What was found; `None` if the shapes differ in more than one dimension, so that there is no dimension of channels.
    """
    base = _as_numbers(base)
    whole = _as_numbers(whole)
    if base.ndim != whole.ndim or not base.numel():
        return None
    scale = base.abs().max().clamp_min(1e-300)
    differing = [dim for dim in range(base.ndim) if base.shape[dim] != whole.shape[dim]]
    if not differing:
        is_same = bool((base - whole).abs().max() <= TOLERANCE * scale)
        return Location(0, base.shape[0], base.shape[0], None, is_same)
    if len(differing) > 1:
        return None
    dim = differing[0]
    base_size, size = base.shape[dim], whole.shape[dim]
    if base_size > size:
        return Location(dim, base_size, size, None)
    for layout in likely:
        if (layout.base_size, layout.size) == (base_size, size):
            part = whole.index_select(dim, torch.tensor(layout.positions))
            if (base - part).abs().max() <= TOLERANCE * scale:
                return Location(dim, base_size, size, layout)
    return Location(dim, base_size, size, _find_layout(base, whole, dim, scale))


def _as_numbers(x: Tensor) -> Tensor:
    """Return token numbers, masks and complex values as real numbers."""
    return torch.view_as_real(x) if x.is_complex() else x.double()


def _find_layout(base: Tensor, whole: Tensor, dim: int, scale: Tensor) -> Layout | None:
    """Return where the base's channels are, or `None` if one of them was not found."""
    # Each channel as one number: its product with random numbers.
    flat_base = base.movedim(dim, 0).flatten(1)
    flat = whole.movedim(dim, 0).flatten(1)
    generator = torch.Generator().manual_seed(1)
    mixture = torch.randn(flat.shape[1], generator=generator, dtype=torch.float64) / flat.shape[1] ** 0.5
    distances = (flat_base @ mixture).unsqueeze(1) - (flat @ mixture).unsqueeze(0)  # [c, C]
    matches = distances.abs() <= TOLERANCE * scale
    if not matches.any(1).all():
        return None
    # Equal channels, such as those that a ReLU sets to zero, are taken in order.
    positions: list[int] = []
    for row in matches:
        candidates = row.nonzero().flatten().tolist()
        later = [position for position in candidates if not positions or position > positions[-1]]
        if not later:
            return None
        # The next position, if it is possible.
        following = positions[-1] + 1 if positions else 0
        positions.append(following if following in later else later[0])
    return Layout(tuple(positions), whole.shape[dim])


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in a tensor, a list, a tuple or a dictionary."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from tensors_in(entry)
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from tensors_in(entry)
