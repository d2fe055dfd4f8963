"""Files that are either whole or not there: written beside their place, synced to the disk, and renamed."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path


class Output:
    """What writes to a file, takes its SHA-256 meanwhile, and keeps an error of the disk for `raise_error`.

    torch's writer of checkpoints ends the process when a write below it fails, so that it is not told.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.hash, self.error = descriptor, hashlib.sha256(), None

    def write(self, data: bytes) -> int:
        rest = memoryview(data).cast("B")
        length = len(rest)
        self.hash.update(rest)
        try:
            while rest and self.error is None:
                rest = rest[os.write(self.descriptor, rest) :]
        except OSError as error:
            self.error: OSError | None = error
        return length

    def raise_error(self) -> None:
        if self.error is not None:
            raise self.error


def write_atomically(
    path: Path, content: bytes | str | Callable[[Output], object], *, seal: Path | None = None
) -> None:
    """Write a file so that, whenever it is interrupted, `path` has all of it or what it had before.

    Args:
        content: of the file, or what writes it.
        seal: gets the file's SHA-256, as `sha256sum` writes it, before the file takes its name.

    Raises:
        OSError: with one line that names the file, on a full disk and wherever else it cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            output = Output(descriptor)
            if callable(content):
                content(output)
            else:
                output.write(content.encode() if isinstance(content, str) else content)
            output.raise_error()
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if seal is not None:
            write_atomically(seal, f"{output.hash.hexdigest()}  {path.name}\n")
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


def sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
