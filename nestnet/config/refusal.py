"""The common form of messages about a field of a configuration."""

from typing import Any, NoReturn


def refuse(field: str, value: Any, reason: str) -> NoReturn:
    """Refuse the value of a field.

    Args:
        field: name of the field, as `section.key` or `key`.
        value: value of the field.
        reason: rule that the value breaks, and the remedy, without a final full stop.

    Raises:
        ValueError: Always. The message is one line with all three.
    """
    # `None` is written `null` in YAML and on a command line.
    shown = "null" if value is None else repr(value)
    raise ValueError(f"{field} = {shown}: {reason}")
