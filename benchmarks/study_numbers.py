"""Numbers with a spread or a bound, and the cost of an accuracy by interpolation."""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Estimate:
    """Values of several seeds."""

    values: tuple[float, ...]

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float:
        return statistics.mean(self.values)

    @property
    def sd(self) -> float | None:
        """Standard deviation over seeds; `None` for a single seed."""
        if self.n < 2:
            return None
        return statistics.stdev(self.values)

    @property
    def standard_error(self) -> float | None:
        """Standard error of the mean; `None` for a single seed."""
        if self.sd is None:
            return None
        return self.sd / math.sqrt(self.n)


@dataclass(frozen=True)
class Bounded:
    """Number that is known exactly, or within a bound.

    Attributes:
        value: the number, or its bound.
        bound: `""` if it is exact, `">"` if it is larger, `"<"` if it is smaller, `"?"` if nothing is known.
    """

    value: float
    bound: str = ""

    def __add__(self, other: "Bounded") -> "Bounded":
        bounds = {self.bound, other.bound} - {""}
        bound = "".join(bounds)
        # The sum of a number above and one below their values can be anything.
        if len(bounds) > 1:
            bound = "?"
        return Bounded(self.value + other.value, bound)

    def __truediv__(self, other: float) -> "Bounded":
        return Bounded(self.value / other, self.bound)

    def reaches(self, aim: float) -> bool | None:
        """Return whether it is at least the aim; `None` if its bound does not tell."""
        is_above = self.value >= aim
        if self.bound == "" or self.bound == (">" if is_above else "<"):
            return is_above
        return None


@dataclass(frozen=True)
class Curve:
    """Cost and accuracy of a network alone, by length.

    Attributes:
        points: cost in epochs of the base, and top-1 in percent, the shortest first.
    """

    points: tuple[tuple[float, float], ...]

    def cost_of(self, top1: float) -> Bounded:
        """Return the cost of an accuracy.

        A longer run that is less accurate than a shorter one counts as equally accurate: nobody would use it.

        >>> curve = Curve(((10, 60), (40, 70)))
        >>> curve.cost_of(65)
        Bounded(value=20.0, bound='')
        >>> curve.cost_of(71)
        Bounded(value=40, bound='>')
        >>> curve.cost_of(59)
        Bounded(value=10, bound='<')
        """
        cost, reached = self.points[0]
        if top1 <= reached:
            return Bounded(cost, "" if top1 == reached else "<")
        for next_cost, next_top1 in self.points[1:]:
            if next_top1 < reached:
                next_top1 = reached
            if top1 <= next_top1:
                part = (top1 - reached) / (next_top1 - reached)
                return Bounded(cost * (next_cost / cost) ** part)
            cost, reached = next_cost, next_top1
        return Bounded(cost, ">")


def estimate(values: Iterable[float]) -> Any:
    """Return the estimate of some values; `None` without any."""
    found = tuple(values)
    if not found:
        return None
    return Estimate(found)


def estimate_ratio(numerators: list[float], denominators: list[float]) -> Estimate | None:
    """Return the ratio of the means of two lists, with its spread; `None` unless the mean of the denominators is above 0.

    The values of the estimate are those of the ratio's linear approximation, one for each seed. Their mean is the ratio
    itself, and their standard error that of the delta method.

    >>> estimate_ratio([1.0, 2.0], [2.0, 2.0])
    Estimate(values=(0.5, 1.0))
    >>> estimate_ratio([1.0, 3.0], [2.0, 6.0]).standard_error
    0.0
    """
    if not denominators or statistics.mean(denominators) <= 0:
        return None
    scale = statistics.mean(denominators)
    ratio = statistics.mean(numerators) / scale
    pairs = zip(numerators, denominators, strict=True)
    return estimate(ratio + (numerator - ratio * denominator) / scale for numerator, denominator in pairs)
