"""The two modes of a nested network, and values that differ between them."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Mode(StrEnum):
    """The subnet that runs: `Mode.BASE` or `Mode.MOTIVATED`.

    Public functions that take a mode also accept its value, the string `"base"` or `"motivated"`.

    >>> Mode("base") is Mode.BASE
    True
    """

    BASE = "base"
    MOTIVATED = "motivated"

    @classmethod
    def _missing_(cls, value: object) -> "Mode":
        # Without this, the message of `enum` would say neither the name of the argument nor its valid values.
        raise ValueError(f"mode = {value!r}: it must be 'base' or 'motivated'")


BOTH = "both"
"""Mode of a batch that trains both networks, in tables such as `steps.csv`."""

FINISH = "finish"
"""Mode of a batch that trains only what the motivated network has beside the base, in tables such as `steps.csv`."""


@dataclass(frozen=True)
class PerMode(Generic[T_co]):
    """A pair of values, one for each mode.

    Attributes:
        base: value in base mode.
        motivated: value in motivated mode.
    """

    base: T_co
    motivated: T_co

    def of(self, mode: Mode) -> T_co:
        """Return the value for a mode.

        Args:
            mode: `Mode.BASE` or `Mode.MOTIVATED`.

        Returns:
            The value of that mode.
        """
        # Every layer calls this in every forward pass. `torch.compile` traces it to a constant.
        if mode is Mode.BASE:
            return self.base
        return self.motivated

    def __str__(self) -> str:
        """Return both values as `192 -> 384`, or the one value that both modes have."""
        if self.base == self.motivated:
            return str(self.base)
        return f"{self.base} -> {self.motivated}"


def for_mode(value: T | PerMode[T], mode: Mode) -> T:
    """Return the value for a mode of what may be one value for both modes, or a `PerMode`.

    Args:
        value: the one value, or a value for each mode.
        mode: `Mode.BASE` or `Mode.MOTIVATED`.

    Returns:
        The value of that mode.

    Example:
        >>> for_mode(3, Mode.BASE), for_mode(PerMode(3, 4), Mode.MOTIVATED)
        (3, 4)
    """
    if isinstance(value, PerMode):
        return value.of(mode)
    return value


Width = PerMode[int]
"""A number of channels, features or blocks in each mode. It is 0 in the base for what only the motivated network has."""

Rate = PerMode[float]
"""A drop probability in each mode."""


def parse_rates(field: str, value: Any, *, below: float = 1.0) -> Rate:
    """Return the rate of each mode from a setting that holds one number for both modes or a pair.

    Args:
        field: name of the setting, for the error message.
        value: a number, or a pair `[base, motivated]` of numbers.
        below: exclusive upper bound of a rate.

    Returns:
        The two rates.

    Raises:
        ValueError: Unless each number is at least 0 and less than `below`.

    Example:
        >>> parse_rates("drop_rate", [0.0, 0.2])
        PerMode(base=0.0, motivated=0.2)
    """
    pair = value if isinstance(value, (list, tuple)) else (value, value)
    # `True`, which is an int in Python, is refused by the default bound of 1.
    are_rates = len(pair) == 2 and all(isinstance(rate, (int, float)) and 0 <= rate < below for rate in pair)
    if not are_rates:
        raise ValueError(
            f"{field} = {value!r}: it must be a number from 0 to below {below:g}, or a pair [base, motivated]"
        )
    return PerMode(float(pair[0]), float(pair[1]))
