"""The two modes of a nested network, and values that differ between them."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

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


Size = PerMode[int]
"""A width in each mode. A base width of 0 marks what only the motivated network has."""

Rate = PerMode[float]
"""A drop probability in each mode."""
