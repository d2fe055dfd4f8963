"""Paths as users write them."""

import os
from pathlib import Path

from nestnet.text.escape import quoted


def expand_home(path: str, name: str) -> str:
    """Return a path with the home directory in place of a leading `~` or `~user`.

    A shell expands these at the start of an argument, but neither after the `=` of an option nor in a file.

    Args:
        path: path as the user wrote it.
        name: name of the field or option, for the message.

    Returns:
        The expanded path.

    Raises:
        ValueError: If there is no such user, or the text cannot be a path.
    """
    if "\0" in path:
        raise ValueError(f"{name} = {path!r}: a path cannot contain a NUL; write the name as the folder shows it")
    expanded = os.path.expanduser(path)
    # Python does not expand the name of an unknown user. A folder with such a name may exist.
    if expanded.startswith("~") and not os.path.lexists(path):
        user, _, _ = path.partition("/")
        raise ValueError(
            f"{name} = {quoted(path)}: there is no user {quoted(user[1:])} whose home directory it could be; for a "
            f"folder of that name write ./{path}"
        )
    return expanded


def real_path(path: Path) -> Path:
    """Return the absolute path without symbolic links, as far as they can be followed.

    Args:
        path: path, which need not exist.

    Returns:
        The absolute path. Unlike `Path.resolve`, this raises no RuntimeError if links form a circle.
    """
    return Path(os.path.realpath(path))
