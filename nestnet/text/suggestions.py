"""Suggestions for an unknown name, which is most likely misspelt."""

import difflib
from collections.abc import Iterable, Sequence

from nestnet.text.escape import quoted


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


def list_some(names: Sequence[object], most: int = 5) -> str:
    """Return names in quotes for a message: all of them, or the first ones and the number of the others.

    Args:
        names: names, which may hold any character.
        most: largest number of names that are listed.

    Returns:
        The list.

    Example:
        >>> list_some(["cat", "dog"]), list_some(["cat", "dog", "fox"], most=1)
        ("'cat', 'dog'", "'cat' and 2 more")
    """
    listed = ", ".join(map(quoted, names[:most]))
    if len(names) > most:
        listed += f" and {len(names) - most:,} more"
    return listed
