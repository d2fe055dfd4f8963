"""The two modes of a nested network, and values that differ between them."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Mode(StrEnum):
    """Which of the two subnets runs. A plain string of the same value is accepted wherever a mode is."""

    BASE = "base"
    MOTIVATED = "motivated"

    @classmethod
    def _missing_(cls, value: object) -> "Mode":
        raise ValueError(f"mode = {value!r}: it must be 'base' or 'motivated'")


@dataclass(frozen=True)
class PerMode(Generic[T]):
    """One value for each mode."""

    base: T
    motivated: T

    def of(self, mode: Mode) -> T:
        return self.base if mode is Mode.BASE else self.motivated

    def __str__(self) -> str:
        """`192 -> 384`: both values, or the one value that both modes have."""
        return str(self.base) if self.base == self.motivated else f"{self.base} -> {self.motivated}"


Width = PerMode[int]
"""A width in each mode. A base width of 0 marks what only the motivated network has."""

Rate = PerMode[float]
"""A drop probability in each mode."""


def per_mode(field: str, value: Any, *, below: float = 1.0) -> PerMode[float]:
    """A rate for each mode from one number for both or a pair `[base, motivated]`.

    Raises:
        ValueError: unless all numbers are at least 0 and less than `below`.
    """
    pair = value if isinstance(value, (list, tuple)) else (value, value)
    if len(pair) != 2 or not all(isinstance(rate, (int, float)) and 0 <= rate < below for rate in pair):
        raise ValueError(
            f"{field} = {value!r}: it must be a number from 0 to below {below:g}, or a pair [base, motivated]"
        )
    return PerMode(float(pair[0]), float(pair[1]))
