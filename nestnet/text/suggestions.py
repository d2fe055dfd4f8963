"""Suggestions for an unknown name, which is most likely misspelt."""

import difflib
from collections.abc import Iterable


def suggest_known(name: object, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the closest known name, if any is close, and all known names.

    Args:
        name: unknown name.
        known: all known names.

    Returns:
        A clause that follows a semicolon.

    Example:
        >>> suggest_known("alway", ["always", "never"])
        'did you mean always? Known are always, never'
        >>> suggest_known("luck", ["always", "never"])
        'known are always, never'
    """
    names = list(known)
    listed = ", ".join(names)
    close = difflib.get_close_matches(str(name), names, n=1)
    if close:
        return f"did you mean {close[0]}? Known are {listed}"
    return f"known are {listed}"
