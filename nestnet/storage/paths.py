"""Paths as a person writes them."""

import os
from pathlib import Path

from nestnet.text.escape import quoted


def expand_home(path: str, name: str) -> str:
    """Return a path with the home directory in place of a `~` or `~user` at its beginning.

    A shell does it for an argument of its own, but not in `--data.root=~/images`, and not in a file.

    Args:
        name: of the field or option, for the message.

    Raises:
        ValueError: if there is no such user, or the text cannot be a path.
    """
    if "\0" in path:
        raise ValueError(f"{name} = {path!r}: no path can hold a NUL; write its name as the folder shows it")
    expanded = os.path.expanduser(path)
    if expanded.startswith("~") and not os.path.lexists(path):
        user = expanded.partition("/")[0]
        raise ValueError(
            f"{name} = {quoted(path)}: there is no user {quoted(user[1:])} whose home directory it could be; for a "
            f"folder of that name write ./{path}"
        )
    return expanded


def real_path(path: Path) -> Path:
    """Return the absolute path without symbolic links, as far as they lead anywhere.

    `Path.resolve` ends with an error that is no OSError where links go round in a circle.
    """
    return Path(os.path.realpath(path))
