"""Opening files for reading: only regular files are opened, also under names that are not UTF-8."""

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from nestnet.text.escape import is_utf8

# Errors of a system that has no more file handles or memory, which say nothing about the file.
SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file to read its bytes. Symbolic links are followed.

    Other files are refused: opening a FIFO would wait for a writer, and a device can be endless.

    Args:
        path: path of the file.

    Returns:
        The open file.

    Raises:
        OSError: If the file cannot be opened, or the path leads to something other than a file. `strerror`
            gives the reason.
    """
    # Without O_NONBLOCK, opening a FIFO waits before its type is known. The flag has no effect on a file.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    # The type of the open file is checked, because the path may have changed since an earlier check.
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"it is {describe_file_type(mode)}, not a file", str(path))
    return os.fdopen(descriptor, "rb")


def describe_file_type(mode: int) -> str:
    """Return the type of a file in words.

    Args:
        mode: `st_mode` of `os.stat` or `os.lstat`.

    Returns:
        The type with its article, such as `a folder`.
    """
    if stat.S_ISREG(mode):
        return "a file"
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    if stat.S_ISFIFO(mode):
        return "a FIFO"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a device"


@contextmanager
def utf8_name(path: str | os.PathLike[str]) -> Iterator[str]:
    """Give a file or folder a name in UTF-8, for libraries such as safetensors that require one.

    Args:
        path: path of the file or folder.

    Yields:
        The path itself if it is UTF-8; otherwise a symbolic link to it, which is removed afterwards. A file
        that was opened by that name stays open.
    """
    name = os.fspath(path)
    if is_utf8(name):
        yield name
        return
    with tempfile.TemporaryDirectory() as folder:
        # The suffix is kept, because timm recognises the format of a file by it.
        _, ending = os.path.splitext(name)
        if not is_utf8(ending):
            ending = ""
        link = os.path.join(folder, f"file{ending}")
        os.symlink(os.path.abspath(name), link)
        yield link
