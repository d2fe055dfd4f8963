"""Checks of the files and folders that a user names for results, before any work is done."""

import os
from collections.abc import Sequence
from pathlib import Path

from nestnet.storage.atomic import resolve_destination, resolve_new_folder
from nestnet.storage.opening import describe_file_type
from nestnet.text.escape import quoted


def check_output(path: Path, field: str = "output") -> None:
    """Check that a file can be written to a path that a user gives.

    Args:
        path: path of the file.
        field: name of the argument that gives the path, for the message.

    Raises:
        ValueError: If the path is not that of a file, or its folder is absent or cannot be written to.
    """
    try:
        folder = resolve_destination(path).parent
    except OSError as error:
        raise ValueError(f"{field} = {quoted(path)}: {error.strerror}; name a file") from error
    _check_writable(folder, path, field)


def check_new_folder(path: Path, field: str = "output") -> None:
    """Check that a folder can be written whole to a path that a user gives.

    Args:
        path: path of the folder, which must be absent or empty.
        field: name of the argument that gives the path, for the message.

    Raises:
        ValueError: If the path is that of something else, or its folder is absent or cannot be written to.
    """
    try:
        folder = resolve_new_folder(path).parent
    except OSError as error:
        raise ValueError(f"{field} = {quoted(path)}: {error.strerror}; name a new folder") from error
    _check_writable(folder, path, field)


def _check_writable(folder: Path, path: Path, field: str) -> None:
    """Raise ValueError unless a folder exists and can be written to."""
    if not folder.is_dir():
        raise ValueError(f"{field} = {quoted(path)}: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{field} = {quoted(path)}: nothing can be written in {folder}; name a file in another folder")


def check_output_folder(path: Path, field: str, files: Sequence[str] = ()) -> None:
    """Check that a folder that a user names exists or can be made.

    Args:
        path: path of the folder.
        field: name of the argument that gives the path, for the message.
        files: names of the files that will be written in it.

    Raises:
        ValueError: If something else has the name of the folder or of one of the files, or the folder cannot be
            written to.
    """
    # The part of the path that exists decides whether the remaining folders can be made.
    nearest = path
    while not os.path.lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    if not os.path.isdir(nearest):
        obstacle = "it" if nearest == path else nearest
        file_type = "a symbolic link to nothing"
        if os.path.exists(nearest):
            file_type = describe_file_type(os.stat(nearest).st_mode)
        raise ValueError(f"{field} = {quoted(path)}: {obstacle} is {file_type}; name a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"{field} = {quoted(path)}: nothing can be written in {nearest}; name another folder")
    # In a folder that does not exist yet, no name is taken.
    if nearest == path:
        for name in files:
            check_output(path / name, field)


def make_output_folder(path: Path, field: str) -> None:
    """Make a folder that a user names, with its parents, unless it exists.

    Args:
        path: path of the folder.
        field: name of the argument that gives the path, for the message.

    Raises:
        ValueError: If it cannot be made.
    """
    check_output_folder(path, field)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{field} = {quoted(path)}: this folder cannot be made: {error.strerror}") from error
