"""Making and removing files and folders, with errors of one line."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def make_folder(path: Path) -> None:
    """Make a folder within an existing folder, unless it exists already.

    Args:
        path: path of the folder.

    Raises:
        OSError: If it cannot be made.
    """
    with _one_line_error(f"{path}: this folder cannot be made"):
        path.mkdir(exist_ok=True)


def remove_file(path: Path) -> None:
    """Remove a file or a symbolic link, if it exists.

    Args:
        path: path of the file.

    Raises:
        OSError: If it cannot be removed.
    """
    with _one_line_error(f"{path} cannot be removed"):
        path.unlink(missing_ok=True)


def remove_folder(path: Path) -> None:
    """Remove an empty folder.

    Args:
        path: path of the folder.

    Raises:
        OSError: If it cannot be removed.
    """
    with _one_line_error(f"{path} cannot be removed"):
        path.rmdir()


def sync_folder(path: Path) -> None:
    """Write the names in a folder to the disk, so that they survive a loss of power.

    Args:
        path: path of the folder.

    Raises:
        OSError: If the system reports a failure.
    """
    # On POSIX, syncing a file does not sync its name: that is data of the folder.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _one_line_error(failure: str) -> Iterator[None]:
    """Turn an OSError within the block into one whose message is one line: what failed, and the system's reason."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{failure}: {error.strerror}") from error
