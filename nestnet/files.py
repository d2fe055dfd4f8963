"""Files as the product opens them: regular files alone are read, and what is written is either whole or not there."""

import errno
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from nestnet.escape import is_utf8


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file to read its bytes; symbolic links are followed.

    To open a FIFO would wait for somebody to write to it, and a device can be endless.

    Raises:
        OSError: if it cannot be opened. Its `strerror` says why, also where the name stands for something else than a file.
    """
    # Without O_NONBLOCK a FIFO would be waited for before its kind could be seen; of a file it has no effect.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"it is {kind_of_file(mode)}, not a file", str(path))
    return os.fdopen(descriptor, "rb")


def kind_of_file(mode: int) -> str:
    """Name what a mode of `os.stat` stands for, with its article."""
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a FIFO"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a file" if stat.S_ISREG(mode) else "a device"


@contextmanager
def utf8_name(path: str | os.PathLike[str]) -> Iterator[str]:
    """Name a file or a folder for libraries that open only names in UTF-8, as safetensors does: others by a link to them.

    Within, it can be opened by that name; what is open then stays so.
    """
    name = os.fspath(path)
    if is_utf8(name):
        yield name
        return
    with tempfile.TemporaryDirectory() as folder:
        ending = os.path.splitext(name)[1]  # by which timm tells kinds of file
        link = os.path.join(folder, f"file{ending if is_utf8(ending) else ''}")
        os.symlink(os.path.abspath(name), link)
        yield link


def write_atomically(path: Path, content: str | bytes | Sequence[bytes | memoryview]) -> None:
    """Write a file so that, whenever it is interrupted, `path` has all of it or what it had before.

    Args:
        content: all of it, or its parts.

    Raises:
        OSError: with one line that names the file, on a full disk and wherever else it cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    whole = content.encode() if isinstance(content, str) else content
    parts = [whole] if isinstance(whole, bytes) else whole
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            for part in parts:
                rest = memoryview(part)
                while rest:
                    rest = rest[os.write(descriptor, rest[: 1 << 24]) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(unfinished, path)
        sync_folder(path.parent)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise OSError(f"{path} cannot be written: {error.strerror or error}") from error


def sync_folder(path: Path) -> None:
    """Make the names in a folder last through a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
