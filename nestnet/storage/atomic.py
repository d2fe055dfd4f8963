"""Writing files and folders atomically: what is written here is either complete or absent.

It is written under another name in the same folder, `.NAME.PROCESS.tmp`, and then renamed. Only regular files and
empty folders are replaced.
"""

import errno
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from nestnet.storage.folders import sync_folder
from nestnet.storage.opening import describe_file_type
from nestnet.storage.unfinished import unfinished_name

# Bytes that are written with one system call. Linux writes at most 2 GiB, and Ctrl-C is handled between calls.
CHUNK = 1 << 24


def write_atomically(path: Path, content: str | bytes | Sequence[bytes | memoryview]) -> None:
    """Write a file so that it has its new content or its old one, whenever the process is interrupted.

    A symbolic link stays, and the file at its end is replaced. The new file gets the permissions of the one
    that it replaces.

    Args:
        path: path of the file, which need not exist.
        content: whole content: a text, which is written in UTF-8, bytes, or a sequence of bytes to write one
            after another.

    Raises:
        OSError: If the file cannot be written, such as on a full disk, or if `path` is a folder, a device, a
            FIFO or a socket. The message is one line that names the file.
    """
    if isinstance(content, str):
        content = content.encode()
    if isinstance(content, bytes):
        content = [content]
    unfinished = None
    # Errors and Ctrl-C leave neither a part of the file nor anything under its temporary name.
    try:
        target = resolve_destination(path)
        unfinished = unfinished_name(target)
        descriptor = _create(unfinished)
        try:
            for part in content:
                write_all(descriptor, part)
            # Without this, a loss of power after the renaming could leave an empty file under the name.
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        _put_in_place(unfinished, target)
    except (Exception, KeyboardInterrupt) as error:
        if unfinished is not None:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(f"{path} cannot be written: {error.strerror or error}") from error
        raise


def write_all(descriptor: int, content: bytes | memoryview) -> None:
    """Write all bytes to an open file.

    Args:
        descriptor: descriptor of the file.
        content: bytes to write.

    Raises:
        OSError: If they cannot be written.
    """
    remaining = memoryview(content)
    while remaining:
        # The system may take fewer bytes than it is given.
        written = os.write(descriptor, remaining[:CHUNK])
        remaining = remaining[written:]


@contextmanager
def staging_folder(path: Path) -> Iterator[Path]:
    """Make a folder beside a path, in which its content is written and checked before `move_into_place` moves it.

    Args:
        path: final path of a file or of a folder, as `resolve_destination` or `resolve_new_folder` returns it.

    Yields:
        The folder, which only this user can open. It is removed afterwards, with whatever is left in it.

    Raises:
        OSError: If the folder cannot be made.
    """
    try:
        folder = unfinished_name(path)
        if folder.exists():
            shutil.rmtree(folder)  # left by a killed process that had the same process id
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def move_into_place(finished: Path, path: Path) -> None:
    """Move a file or folder from the `staging_folder` of a path to that path, as `write_atomically` does.

    Args:
        finished: path of the file or folder in the staging folder.
        path: its final path, of which a file is replaced by a file, and an empty folder by a folder.

    Raises:
        OSError: If it cannot be moved there, such as onto a folder that is no longer empty.
    """
    try:
        _put_in_place(finished, path)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror or error}") from error


def resolve_destination(path: Path) -> Path:
    """Return the path of the file that writing to a path creates or replaces.

    Args:
        path: path of a file or of a symbolic link, which need not exist.

    Returns:
        The path itself, or the one at the end of a symbolic link.

    Raises:
        OSError: If the path leads to something other than a file.
    """
    # `os.stat` follows links: the type of the file at their end counts.
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None and not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"it is {describe_file_type(mode)}", str(path))
    if path.is_symlink():
        return Path(os.path.realpath(path))
    return path


def resolve_new_folder(path: Path) -> Path:
    """Return the absolute path of the folder that writing to a path creates.

    Args:
        path: path of a folder, or of a symbolic link to one, which is absent or empty.

    Returns:
        The path without symbolic links.

    Raises:
        OSError: If there is something other than an empty folder, or if it is the current folder, which must not be
            replaced by another.
    """
    target = Path(os.path.realpath(path))
    if not os.path.lexists(target):
        return target
    if not target.is_dir():
        raise OSError(errno.EEXIST, f"it is {describe_file_type(target.lstat().st_mode)}", str(path))
    if os.listdir(target):
        raise OSError(errno.ENOTEMPTY, "it is a folder that is not empty", str(path))
    if target.samefile(os.curdir):
        raise OSError(errno.EBUSY, "it is the current folder", str(path))
    return target


def _create(unfinished: Path) -> int:
    """Create a file and return its descriptor."""
    # O_EXCL never opens a file that exists, nor one through a link.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        return os.open(unfinished, flags, 0o666)
    except FileExistsError:
        unfinished.unlink()  # left by a killed process that had the same process id
        return os.open(unfinished, flags, 0o666)


def _put_in_place(unfinished: Path, target: Path) -> None:
    """Rename a file or folder that is on the disk, with the permissions and the owner of what it replaces."""
    with suppress(FileNotFoundError):
        replaced = os.stat(target)
        with suppress(OSError):  # only root can give a file away, and not every file system has owners
            os.chown(unfinished, replaced.st_uid, replaced.st_gid)
        with suppress(OSError):
            os.chmod(unfinished, stat.S_IMODE(replaced.st_mode) & 0o777)
    # On POSIX this is atomic: readers find the old file or the new one, and nothing else.
    os.replace(unfinished, target)
    sync_folder(target.parent)
