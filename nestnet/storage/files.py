"""The one place where files are opened, written, put in their places, and left-over ones removed.

Only regular files are read or replaced. A file that is written here is either whole or not there: it is made under another
name in its own folder, `.NAME.PROCESS.tmp`, and then renamed.
"""

import errno
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from nestnet.text.escape import is_utf8, quoted

LONGEST_NAME = 255
"""Bytes that a name within a folder may have, on all common file systems."""
CHUNK = 1 << 24
"""Bytes that are written at a time."""
SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""Errors of a system that has no more file handles or memory, which say nothing about the file."""
UNFINISHED = re.compile(r"\..+\.(\d+)\.tmp")
"""The name of what is still being written, with the number of the process that writes it."""


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
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
    if stat.S_ISLNK(mode):
        return "a symbolic link"
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


# Writing


def write_atomically(path: Path, content: str | bytes | Sequence[bytes | memoryview]) -> None:
    """Write a file so that, whenever it is interrupted, `path` has all of it or what it had before.

    A symbolic link stays, and the file at its end is replaced. A file that is replaced leaves its permissions to the new one.

    Args:
        path: of a file, or of nothing.
        content: all of it, or its parts.

    Raises:
        OSError: with one line that names the file: on a full disk, where `path` is a folder, a device, a FIFO or a socket, and
            wherever else it cannot be written.
    """
    whole = content.encode() if isinstance(content, str) else content
    parts = [whole] if isinstance(whole, bytes) else whole
    unfinished = None
    try:
        target = destination(path)
        unfinished = unfinished_name(target)
        descriptor = _create(unfinished)
        try:
            for part in parts:
                write_all(descriptor, part)
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
    """Write all bytes to an open file; the system may take fewer of them at a time."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest[:CHUNK]) :]


@contextmanager
def workplace(path: Path) -> Iterator[Path]:
    """Make a folder beside the file that `path` stands for; it is gone in the end, with whatever is left in it.

    What is made there can be looked at before `move_into_place` gives it its name.
    """
    try:
        folder = unfinished_name(destination(path))
        if folder.exists():
            shutil.rmtree(folder)  # of a process that had the same number, and was killed
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def move_into_place(finished: Path, path: Path) -> None:
    """Give a file that was made in the `workplace` of `path` this name, as `write_atomically` does.

    Raises:
        OSError: with one line.
    """
    try:
        _put_in_place(finished, destination(path))
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror or error}") from error


def destination(path: Path) -> Path:
    """Return the file that writing to `path` replaces or makes: its own, or the one at the end of a symbolic link.

    Raises:
        OSError: if something else than a file has this name.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None and not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"it is {kind_of_file(mode)}", str(path))
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def check_output(path: Path) -> None:
    """See that a file can be written under the name that `--output` gives, before any work is done for it.

    Raises:
        ValueError: if it cannot.
    """
    try:
        folder = destination(path).parent
    except OSError as error:
        raise ValueError(f"--output {path}: {error.strerror}; name a file") from error
    if not folder.is_dir():
        raise ValueError(f"--output {path}: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"--output {path}: nothing can be written in {folder}; name a file in another folder")


def make_folder(path: Path) -> None:
    """Make a folder within one that is there, unless it is there itself.

    Raises:
        OSError: with one line, if it cannot be made.
    """
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise OSError(f"{path}: this folder cannot be made: {error.strerror}") from error


def check_output_folder(path: Path, field: str, files: Sequence[str] = ()) -> None:
    """See that a folder that a person named is there or can be made, before any work is done for what belongs into it.

    Args:
        field: names what `path` was given as, such as `"output"`.
        files: names of the files that will be written in it.

    Raises:
        ValueError: if something else has its name or that of one of the files, or nothing can be written there.
    """
    nearest = path
    while not os.path.lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    if not os.path.isdir(nearest):
        which = "it" if nearest == path else nearest
        kind = kind_of_file(os.stat(nearest).st_mode) if os.path.exists(nearest) else "a symbolic link to nothing"
        raise ValueError(f"{field} = {quoted(path)}: {which} is {kind}; name a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"{field} = {quoted(path)}: nothing can be written in {nearest}; name another folder")
    if nearest == path:
        for name in files:
            check_output(path / name)


def make_output_folder(path: Path, field: str) -> None:
    """Make a folder that a person named, and those above it, unless it is there.

    Args:
        field: names what `path` was given as, such as `"output"`.

    Raises:
        ValueError: if it cannot be made.
    """
    check_output_folder(path, field)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{field} = {quoted(path)}: this folder cannot be made: {error.strerror}") from error


def sync_folder(path: Path) -> None:
    """Make the names in a folder last through a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _create(unfinished: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL  # never through a link, and never into a file that is there
    try:
        return os.open(unfinished, flags, 0o666)
    except FileExistsError:
        unfinished.unlink()  # of a process that had the same number, and was killed
        return os.open(unfinished, flags, 0o666)


def _put_in_place(unfinished: Path, target: Path) -> None:
    """Rename a file that is on the disk, with the permissions and the owner of the one that it replaces."""
    with suppress(FileNotFoundError):
        replaced = os.stat(target)
        with suppress(OSError):  # only root can give a file away, and not every file system has owners
            os.chown(unfinished, replaced.st_uid, replaced.st_gid)
        with suppress(OSError):
            os.chmod(unfinished, stat.S_IMODE(replaced.st_mode) & 0o777)
    os.replace(unfinished, target)
    sync_folder(target.parent)


# What a killed process leaves


def unfinished_name(path: Path) -> Path:
    """Return the name under which this process makes what `path` is to hold; at most as long as names can be."""
    end = f".{os.getpid()}.tmp"
    name = os.fsencode(path.name)[: LONGEST_NAME - len(end) - 1]
    return path.with_name(f".{os.fsdecode(name)}{end}")


def is_unfinished(path: Path) -> bool:
    """Whether a process has been writing this, or was when it ended."""
    return UNFINISHED.fullmatch(path.name) is not None


def remove_unfinished(folder: Path, *, of_anyone: bool = False) -> None:
    """Remove what processes that are no more were writing in a folder. This process must not be writing there itself.

    Args:
        of_anyone: also what belongs to a process that runs, because nothing in the folder is to be kept. A process may have the
            number of the one that wrote it by chance.
    """
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        found = UNFINISHED.fullmatch(path.name)
        if found is None or (_runs(int(found[1])) and not of_anyone):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            remove(path)


def remove(path: Path) -> None:
    """Remove a file, or a link, that nestnet wrote.

    Raises:
        OSError: with one line, if it cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(f"{path} cannot be removed: {error.strerror}") from error


def remove_folder(path: Path) -> None:
    """Remove an empty folder.

    Raises:
        OSError: with one line, if it cannot be removed.
    """
    try:
        path.rmdir()
    except OSError as error:
        raise OSError(f"{path} cannot be removed: {error.strerror}") from error


def _runs(process: int) -> bool:
    """Whether there is another process of this number, on this machine."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return not _is_zombie(process)


def _is_zombie(process: int) -> bool:
    """Whether a process has ended, and nobody has asked for its exit code yet; only Linux tells."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    # the name of the program stands before the state, and may have anything in it
    return status.rpartition(")")[2].split()[0] == "Z"
