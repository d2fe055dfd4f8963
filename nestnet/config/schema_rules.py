"""Rules for single values of a configuration, which are declared with their fields."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ValueRule:
    """A rule for a value of a field. It does not apply to null, and a list obeys it if each of its values does.

    Attributes:
        holds: function that returns whether a value obeys the rule.
        text: rule in words, which follow "it must be" in messages.
    """

    holds: Callable[[Any], bool]
    text: str


def limited(default: Any, *rules: ValueRule) -> Any:
    """Return a field of a dataclass whose value must obey rules.

    Args:
        default: default value of the field.
        rules: rules; the message names the first one that is broken.

    Returns:
        The field, with the rules in its metadata.
    """
    # jsonargparse and pdoc see an ordinary field; only `nestnet.config.validation` reads the metadata.
    return field(default=default, metadata={"rules": rules})


def as_pair(value: float | list[float]) -> tuple[float, float]:
    """Return the numbers of the base and of the motivated network from a field that holds one for both, or a pair.

    Args:
        value: value of the field: a number, or a list `[base, motivated]`.

    Returns:
        The two numbers.
    """
    if isinstance(value, list):
        base, motivated = value
        return base, motivated
    return value, value


def at_least(limit: float, more: str = "") -> ValueRule:
    """Return the rule for values of at least a limit.

    Args:
        limit: smallest value.
        more: text that follows the limit in the message, such as its unit or the reason.

    Returns:
        The rule.
    """
    return ValueRule(lambda value: value >= limit, f"at least {limit:g}{more}")


def at_most(limit: float, more: str = "") -> ValueRule:
    """Return the rule for values of at most a limit.

    Args:
        limit: greatest value.
        more: text that follows the limit in the message.

    Returns:
        The rule.
    """
    return ValueRule(lambda value: value <= limit, f"at most {limit:g}{more}")


def above(limit: float, more: str = "") -> ValueRule:
    """Return the rule for values greater than a limit.

    Args:
        limit: limit, which is excluded.
        more: text that follows the limit in the message.

    Returns:
        The rule.
    """
    return ValueRule(lambda value: value > limit, f"above {limit:g}{more}")


def as_size(img_size: int | Sequence[int]) -> tuple[int, int]:
    """Return height and width in pixels.

    Args:
        img_size: one number for square images, or a pair `[height, width]`.
    """
    if isinstance(img_size, int):
        return img_size, img_size
    height, width = img_size
    return height, width


def as_img_size(size: Sequence[int]) -> int | list[int]:
    """Return a size as a configuration has it: one number for square images, otherwise `[height, width]`.

    Args:
        size: height and width in pixels.
    """
    height, width = size
    if height == width:
        return height
    return [height, width]


def between(low: float, high: float, more: str = "") -> ValueRule:
    """Return the rule for values from one limit to another, both included.

    Args:
        low: smallest value.
        high: greatest value.
        more: text that follows the limits in the message.

    Returns:
        The rule.
    """
    return ValueRule(lambda value: low <= value <= high, f"from {low} to {high}{more}")


def from_to_below(low: float, high: float) -> ValueRule:
    """Return the rule for values from one limit to below another.

    Args:
        low: smallest value.
        high: upper limit, which is excluded.

    Returns:
        The rule.
    """
    return ValueRule(lambda value: low <= value < high, f"from {low} to below {high}")
