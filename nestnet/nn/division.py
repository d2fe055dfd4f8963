"""How the rows or columns of a weight consist of parts, of each of which the base has the first entries.

Most weights have one part. A packed query, key and value projection has three equal ones. A layer that reads a
concatenation of several tensors has a part for each of them, and these may differ in size.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

Groups = int | tuple[tuple[int, int], ...]
"""Parts of a dimension: a number of equal parts, or the sizes (base's, whole) of each part, in order."""


@dataclass(frozen=True)
class Division:
    """Consecutive parts of one dimension of a weight.

    Attributes:
        parts: for each part the number of entries that the base has, from 0, and the number of all its entries.
    """

    parts: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, groups: Groups, base_size: int, size: int) -> "Division":
        """Return the division of a dimension.

        Args:
            groups: number of equal parts, or the sizes of each part.
            base_size: number of entries of the base.
            size: number of all entries.

        Returns:
            The division.

        Raises:
            ValueError: If such parts do not add up to these sizes.
        """
        if isinstance(groups, int):
            if groups < 1 or base_size % groups or size % groups:
                raise ValueError(f"{groups} equal parts of {base_size} in {size} entries")
            return cls(((base_size // groups, size // groups),) * groups)
        base_total = sum(base for base, _ in groups)
        total = sum(whole for _, whole in groups)
        fits = all(0 <= base <= whole for base, whole in groups)
        if not fits or base_total != base_size or total != size:
            raise ValueError(f"parts {groups} of {base_size} in {size} entries")
        return cls(_merge_whole_parts(groups))

    @property
    def count(self) -> int:
        """Number of parts."""
        return len(self.parts)

    @property
    def are_equal(self) -> bool:
        """Whether all parts have the same sizes."""
        return len(set(self.parts)) == 1

    @cached_property
    def base_indices(self) -> Tensor:
        """Indices of the base's entries `[o]`, in order."""
        ranges = []
        start = 0
        for base, whole in self.parts:
            ranges.append(torch.arange(start, start + base, device="cpu"))
            start += whole
        return torch.cat(ranges)

    def join(self, base: Tensor, rest: Tensor, dim: int) -> Tensor:
        """Assemble the whole dimension.

        Args:
            base: tensor with the base's entries of all parts along `dim`.
            rest: tensor with the remaining entries of all parts along `dim`.
            dim: dimension that is divided.

        Returns:
            The tensor in which each part has the base's entries first.
        """
        if self.count == 1:
            return torch.cat([base, rest], dim)
        if self.are_equal:
            # to [..., g, o, ...], in which the parts are joined at once
            base = base.unflatten(dim, (self.count, -1))
            rest = rest.unflatten(dim, (self.count, -1))
            return torch.cat([base, rest], dim + 1).flatten(dim, dim + 1)
        pieces = []
        base_start = 0
        rest_start = 0
        for base_size, size in self.parts:
            pieces.append(base.narrow(dim, base_start, base_size))
            pieces.append(rest.narrow(dim, rest_start, size - base_size))
            base_start += base_size
            rest_start += size - base_size
        return torch.cat(pieces, dim)

    def split(self, whole: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        """Divide a whole dimension: the inverse of `join`.

        Args:
            whole: tensor with all entries along `dim`.
            dim: dimension that is divided.

        Returns:
            The base's entries of all parts, and the remaining ones, as views of `whole` where its strides allow it.
        """
        if self.are_equal:
            base_size, size = self.parts[0]
            parts = whole.unflatten(dim, (self.count, -1))
            base = parts.narrow(dim + 1, 0, base_size)
            rest = parts.narrow(dim + 1, base_size, size - base_size)
            return base.flatten(dim, dim + 1), rest.flatten(dim, dim + 1)
        bases = []
        rests = []
        start = 0
        for base_size, size in self.parts:
            bases.append(whole.narrow(dim, start, base_size))
            rests.append(whole.narrow(dim, start + base_size, size - base_size))
            start += size
        return torch.cat(bases, dim), torch.cat(rests, dim)

    def __str__(self) -> str:
        """Return the base's entries as `:64`, `:3 x 64` for equal parts, and `:16 of 24 + :32 of 32` for others."""
        if self.count == 1:
            return f":{self.parts[0][0]}"
        if self.are_equal:
            return f":{self.count} x {self.parts[0][0]}"
        return " + ".join(f":{base} of {whole}" for base, whole in self.parts)


def _merge_whole_parts(parts: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """Return the same division with fewer parts: a part that the base has whole is joined with the one after it."""
    merged: list[tuple[int, int]] = []
    for base, whole in parts:
        if merged and merged[-1][0] == merged[-1][1]:
            earlier, _ = merged.pop()
            merged.append((earlier + base, earlier + whole))
        elif base == 0 and merged:
            # Entries that only the motivated network has continue those of the part before.
            earlier_base, earlier_whole = merged.pop()
            merged.append((earlier_base, earlier_whole + whole))
        else:
            merged.append((base, whole))
    return tuple(merged)
