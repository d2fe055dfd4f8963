"""Checks of arguments that users give, with one-line messages."""

from typing import Any


def is_whole(value: Any, least: int) -> bool:
    """Whether this is a whole number of at least `least`; `True` is none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def check_whole_number(name: str, value: Any, least: int, meaning: str) -> int:
    """Return a whole number, if it is one.

    Args:
        name: name of the argument.
        value: value of the argument.
        least: smallest value that is allowed.
        meaning: what the number is, for the message.

    Returns:
        The value.

    Raises:
        ValueError: if the value is no whole number of at least `least`.
    """
    if not is_whole(value, least):
        raise ValueError(f"{name} = {value!r}: it must be a whole number of at least {least}, {meaning}")
    return value


def choice(field: str, value: Any, choices: tuple[str, ...]) -> str:
    """`value`, if it is one of `choices`.

    Raises:
        ValueError: if not.
    """
    if value not in choices:
        raise ValueError(f"{field} = {value!r}: it must be one of {', '.join(choices)}")
    return value
