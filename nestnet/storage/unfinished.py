"""Temporary files that are being written, or that a killed process has left: `.NAME.PROCESS.tmp`."""

import os
import re
import shutil
from pathlib import Path

from nestnet.storage.folders import remove_file

# Largest number of bytes of a file name on all common file systems.
LONGEST_NAME = 255
# The name of a temporary file has the id of the process that writes it.
UNFINISHED = re.compile(r"\..+\.(\d+)\.tmp")


def unfinished_name(path: Path) -> Path:
    """Return the temporary path under which this process writes a file or folder.

    Args:
        path: final path of the file or folder.

    Returns:
        A path in the same folder, whose name is shortened if it would be too long for a file system.
    """
    end = f".{os.getpid()}.tmp"
    # The limit is in bytes, and a character can have four of them.
    name = os.fsencode(path.name)[: LONGEST_NAME - len(end) - 1]
    return path.with_name(f".{os.fsdecode(name)}{end}")


def is_unfinished(path: Path) -> bool:
    """Return whether a path has the name of something that a process is writing, or was writing when it ended.

    Args:
        path: path of a file or folder.

    Returns:
        Whether it is the name of a temporary file.
    """
    return UNFINISHED.fullmatch(path.name) is not None


def remove_unfinished(folder: Path, *, of_anyone: bool = False) -> None:
    """Remove temporary files of processes that have ended. This process must not be writing in the folder itself.

    Args:
        folder: folder to clean up; it may be absent.
        of_anyone: whether to remove temporary files of running processes as well. This is for a folder of which
            nothing is kept, because another process may by chance have the id of the one that wrote a file.

    Raises:
        OSError: If a file cannot be removed.
    """
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        match = UNFINISHED.fullmatch(path.name)
        if match is None:
            continue
        if not of_anyone and _is_running(int(match[1])):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            remove_file(path)


def _is_running(process: int) -> bool:
    """Return whether another process with this id runs on this machine."""
    # A file with the id of this process is left from an earlier one: this process is not writing in the folder.
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)  # signal 0 only asks whether the process exists
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    # Signals reach a zombie, although it will never write again.
    return not _is_zombie(process)


def _is_zombie(process: int) -> bool:
    """Return whether a process has ended without its parent having read its exit code. Only Linux can tell."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    # The state follows the program's name, which is in parentheses and may itself contain parentheses.
    _, _, after_name = status.rpartition(")")
    return after_name.split()[0] == "Z"
