"""Paths that lead to the same file, by symbolic or by hard links."""

import os
import stat
from collections.abc import Sequence
from contextlib import suppress


def find_same_files(paths: Sequence[str]) -> list[list[str]]:
    """Return the paths that lead to the same file.

    Args:
        paths: paths of files; links to nothing are ignored.

    Returns:
        A list of paths for each file that has more than one of them.
    """
    # Most folders have no links, and for a million images the table below would take much memory.
    if not any(_is_link(path) for path in paths):
        return []
    # The device and inode numbers identify a file, whatever its names.
    paths_of_file: dict[tuple[int, int], list[str]] = {}
    for path in paths:
        with suppress(OSError):  # a link to nothing
            status = os.stat(path)
            paths_of_file.setdefault((status.st_dev, status.st_ino), []).append(path)
    return [paths for paths in paths_of_file.values() if len(paths) > 1]


def _is_link(path: str) -> bool:
    """Return whether a path is a symbolic link, or one of several names of a file."""
    status = os.lstat(path)
    return stat.S_ISLNK(status.st_mode) or status.st_nlink > 1
