"""Ways in which the rows of a module may consist of parts, of each of which the base has the first ones."""

from dataclasses import dataclass
from typing import Protocol

from nestnet.nn.division import Groups
from nestnet.nn.placement import Placement


class Rows(Protocol):
    """A rule that says where the rows of a module lie."""

    def groups(self, placement: Placement) -> Groups | None:
        """Return the groups of rows of a module; `None` if the rule does not fit.

        Args:
            placement: placement of the module's weight.
        """


@dataclass(frozen=True)
class EqualParts:
    """Rows in equal parts.

    Attributes:
        count: number of the parts.
    """

    count: int

    def groups(self, placement: Placement) -> Groups | None:
        is_divisible = placement.base_shape[0] % self.count == placement.shape[0] % self.count == 0
        return self.count if is_divisible else None


@dataclass(frozen=True)
class GroupParts:
    """Rows in the groups of a convolution that reads them, of which the base may have fewer.

    Attributes:
        base_count: number of groups of the base's convolution.
        count: number of groups of the motivated network's.
    """

    base_count: int
    count: int

    def groups(self, placement: Placement) -> Groups | None:
        return group_parts(self.base_count, self.count, placement.base_shape[0], placement.shape[0])


@dataclass(frozen=True)
class InputParts:
    """Rows in two or more parts as wide as the module's input, and the rest.

    Attributes:
        is_rest_first: whether the rest comes before the other parts.
    """

    is_rest_first: bool

    def groups(self, placement: Placement) -> Groups | None:
        base_columns = placement.base_shape[1]
        columns = placement.shape[1]
        count = placement.base_shape[0] // base_columns
        rest = (placement.base_shape[0] - count * base_columns, placement.shape[0] - count * columns)
        if count < 2 or not 0 < rest[0] <= rest[1]:
            return None
        parts = [(base_columns, columns)] * count
        return (rest, *parts) if self.is_rest_first else (*parts, rest)


@dataclass(frozen=True)
class ScaledParts:
    """Rows in parts of which the sizes have the same proportions in all modules.

    Attributes:
        parts: sizes (base's, whole) of the parts in one module.
    """

    parts: tuple[tuple[int, int], ...]

    def groups(self, placement: Placement) -> Groups | None:
        base_total = sum(base for base, _ in self.parts)
        total = sum(whole for _, whole in self.parts)
        scaled = []
        for base, whole in self.parts:
            base_product = base * placement.base_shape[0]
            product = whole * placement.shape[0]
            if base_product % base_total or product % total:
                return None
            if base_product // base_total > product // total:
                return None
            scaled.append((base_product // base_total, product // total))
        return tuple(scaled)


def group_parts(base_count: int, count: int, base_size: int, size: int) -> Groups | None:
    """Return the parts of the channels of a convolution in groups: the base has the first channels of the first groups.

    Args:
        base_count: number of groups of the base's convolution.
        count: number of groups of the motivated network's.
        base_size: number of channels of the base.
        size: number of channels of the motivated network.

    Returns:
        The parts; `None` if the base's groups do not fit in the motivated network's.
    """
    if base_size % base_count or size % count:
        return None
    part = (base_size // base_count, size // count)
    if base_count > count or part[0] > part[1]:
        return None
    if base_count == count:
        return count
    if base_count == 1 or part[0] == part[1]:
        # The first channels, as of a convolution of each channel by itself.
        return 1
    further = ((0, part[1]),) * (count - base_count)
    return ((part,) * base_count) + further
