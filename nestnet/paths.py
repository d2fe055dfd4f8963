"""Paths as a person writes them."""

import os

from nestnet.escape import quoted


def expand_home(path: str, name: str) -> str:
    """Return a path with the home directory in place of a `~` or `~user` at its beginning.

    A shell does it for an argument of its own, but not in `--data.root=~/images`, and not in a file.

    Args:
        name: of the field or option, for the message.

    Raises:
        ValueError: if there is no such user.
    """
    expanded = os.path.expanduser(path)
    if expanded.startswith("~") and not os.path.lexists(path):
        user = expanded.partition("/")[0]
        raise ValueError(
            f"{name} = {quoted(path)}: there is no user {quoted(user[1:])} whose home directory it could be; for a "
            f"folder of that name write ./{path}"
        )
    return expanded
