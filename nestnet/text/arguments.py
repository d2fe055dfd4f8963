"""Checks of arguments given by users, with messages of one line."""

from typing import Any


def is_whole(value: Any, minimum: int) -> bool:
    """Return whether a value is a whole number of at least `minimum`.

    Args:
        value: value of any type. `True` and `False` do not count as numbers, although they are integers in
            Python.
        minimum: smallest number that is allowed.

    Returns:
        Whether it is such a number.
    """
    return isinstance(value, int) and not isinstance(value, bool) and value >= minimum


def is_number(value: Any) -> bool:
    """Return whether a value is a number of Python's, which may be infinite or NaN; `True` and `False` are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_whole_number(name: str, value: Any, minimum: int, meaning: str) -> int:
    """Return a value if it is a whole number of at least `minimum`.

    Args:
        name: name of the argument.
        value: value of the argument.
        minimum: smallest number that is allowed.
        meaning: meaning of the number, for the message.

    Returns:
        The value.

    Raises:
        ValueError: If the value is not a whole number of at least `minimum`.
    """
    if not is_whole(value, minimum):
        raise ValueError(f"{name} = {value!r}: it must be a whole number of at least {minimum}, {meaning}")
    return value


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """Return a value if it is one of several words.

    Args:
        name: name of the argument.
        value: value of the argument.
        choices: values that are allowed.

    Returns:
        The value.

    Raises:
        ValueError: If the value is not one of `choices`.
    """
    if value not in choices:
        raise ValueError(f"{name} = {value!r}: it must be one of {', '.join(choices)}")
    return value
