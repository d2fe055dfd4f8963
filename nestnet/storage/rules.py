"""Rules for the values of fields in files and of columns in tables."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from nestnet.text.arguments import is_number, is_whole

# Numbers in the cells of a table. Python's `float` and `int` accept more, such as digits of any script.
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|nan|-?inf", re.ASCII)
# Whole numbers of up to 18 digits fit into 64 bits.
WHOLE = re.compile(r"\d{1,18}", re.ASCII)


@dataclass(frozen=True)
class Rule:
    """A rule for the values of a field or a column.

    Attributes:
        description: rule in words, which follow "must be" in messages.
        fits: function that returns whether a value keeps to the rule.
        parse: function that converts the text in a cell of a table into a value, and raises ValueError if that
            is impossible.
        required: whether the field or column must be present.
    """

    description: str
    fits: Callable[[Any], bool]
    parse: Callable[[str], Any] = str
    required: bool = True


def whole(low: int = 0, high: int | None = None) -> Rule:
    """Return the rule for a whole number.

    Args:
        low: smallest value.
        high: largest value; `None` for no limit.

    Returns:
        The rule.
    """
    if high is None:
        return Rule(f"a whole number of at least {low}", lambda value: is_whole(value, low), _parse_whole)
    description = f"a whole number from {low} to {high}"
    return Rule(description, lambda value: is_whole(value, low) and value <= high, _parse_whole)


def number(low: float = -math.inf, high: float = math.inf) -> Rule:
    """Return the rule for a finite number.

    Args:
        low: smallest value.
        high: largest value.

    Returns:
        The rule.
    """
    if low == -math.inf:
        description = "a finite number"
    elif high == math.inf:
        description = f"a finite number of at least {low:g}"
    else:
        description = f"a number from {low:g} to {high:g}"

    def fits(value: Any) -> bool:
        return is_number(value) and abs(value) < math.inf and low <= value <= high

    return Rule(description, fits, _parse_number)


def any_number() -> Rule:
    """Return the rule for a number that may be infinite or NaN."""
    return Rule("a number", is_number, _parse_number)


def word(*words: str) -> Rule:
    """Return the rule for a text that is one of several words.

    Args:
        *words: words that are allowed.

    Returns:
        The rule.
    """
    return Rule(f"one of {', '.join(words)}", lambda value: isinstance(value, str) and value in words)


def of_type(kind: type, description: str) -> Rule:
    """Return the rule for a value of a type.

    Args:
        kind: type of the value, such as `bool`.
        description: the type in words, such as "true or false".

    Returns:
        The rule.
    """
    return Rule(description, lambda value: isinstance(value, kind))


def or_null(rule: Rule) -> Rule:
    """Return the rule for a value that keeps to another rule or is null.

    Args:
        rule: rule for values other than null.

    Returns:
        The rule.
    """
    description = f"{rule.description}, or null"
    return replace(rule, description=description, fits=lambda value: value is None or rule.fits(value))


def optional(rule: Rule) -> Rule:
    """Return the rule for a value that may be absent.

    Args:
        rule: rule for the value if it is present.

    Returns:
        The rule.
    """
    return replace(rule, required=False)


# Python counts `True` and `False` as integers. JSON and YAML do not, and neither does nestnet.
def _parse_whole(cell: str) -> int:
    if not WHOLE.fullmatch(cell):
        raise ValueError(cell)
    return int(cell)


def _parse_number(cell: str) -> float:
    if not NUMBER.fullmatch(cell):
        raise ValueError(cell)
    return float(cell)
