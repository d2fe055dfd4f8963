"""The CSV files of a run, which gain a row at a time."""

import csv
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nestnet.runtime.notices import log_notice
from nestnet.storage.files import write_all, write_atomically


class GrowingTable:
    """A CSV file that gains a row at a time; a row is on its way to the disk when `add` returns.

    Args:
        path: of the file.
        columns: their names.
        end: bytes of it that are kept; 0 for a new one.
    """

    def __init__(self, path: Path, columns: Iterable[str], end: int = 0) -> None:
        self.path = path
        self.columns = tuple(columns)
        self.size = end
        self.descriptor = self._open()
        os.ftruncate(self.descriptor, end)
        if end == 0:
            self.add({name: name for name in self.columns})

    def add(self, row: Mapping[str, Any]) -> None:
        """Write a row.

        Raises:
            OSError: with one line, such as on a full disk.
        """
        text = io.StringIO()
        csv.DictWriter(text, self.columns, lineterminator="\n").writerow(row)
        line = text.getvalue().encode()
        try:
            write_all(self.descriptor, line)
        except OSError as error:
            raise OSError(f"{self.path} cannot be written: {error.strerror}") from error
        self.size += len(line)

    def sync(self) -> None:
        """See that all rows are on the disk, under the file's name.

        A file that was removed or replaced since it was opened is written again: it is still there for this process.

        Raises:
            OSError: with one line, if it cannot be, or rows are gone because another program wrote to it.
        """
        try:
            os.fsync(self.descriptor)  # a file system over a network may tell of a full disk only here
        except OSError as error:
            raise OSError(f"{self.path} cannot be written: {error.strerror}") from error
        held = os.fstat(self.descriptor)
        if held.st_size != self.size:
            raise OSError(
                f"{self.path} was changed by another program: it has {held.st_size:,} bytes, and the run wrote {self.size:,}; "
                "put back what the run wrote"
            )
        try:
            in_place = os.path.samestat(held, os.stat(self.path))
        except OSError:
            in_place = False
        if not in_place:
            self._write_again()

    def close(self) -> None:
        os.close(self.descriptor)

    def _open(self) -> int:
        return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)

    def _write_again(self) -> None:
        with open(self.descriptor, "rb", closefd=False) as file:
            file.seek(0)
            content = file.read()
        write_atomically(self.path, content)
        replaced = self.descriptor
        self.descriptor = self._open()
        os.close(replaced)
        log_notice(f"{self.path} was removed or replaced while the run wrote it; all its rows are written again")
