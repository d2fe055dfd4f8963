"""CSV files to which rows are appended one at a time, such as the tables of a run."""

import csv
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nestnet.runtime.log import log_notice
from nestnet.storage.atomic import write_all, write_atomically


class GrowingTable:
    """A CSV file to which rows are appended one at a time. A row is handed to the system when `add` returns.

    Args:
        path: path of the file.
        columns: names of the columns, in order.
        end: number of bytes of the file to keep; 0 to start a new file, whose first row has the names of the
            columns.

    Attributes:
        path: path of the file.
        columns: names of the columns.
        size: number of bytes in the table.
        descriptor: descriptor of the open file.
    """

    def __init__(self, path: Path, columns: Iterable[str], end: int = 0) -> None:
        self.path = path
        self.columns = tuple(columns)
        self.size = end
        self.descriptor = self._open()
        # Rows after `end` were written after the checkpoint from which the run is resumed, and will be written again.
        os.ftruncate(self.descriptor, end)
        if end == 0:
            self.add(dict(zip(self.columns, self.columns, strict=True)))

    def add(self, row: Mapping[str, Any]) -> None:
        """Write a row.

        Args:
            row: values of the columns, by name.

        Raises:
            OSError: If it cannot be written, such as on a full disk.
        """
        # The row is formatted in memory, so that one system call writes it with its line break. A process that is
        # killed leaves at most one incomplete row, which readers recognise by its missing line break.
        text = io.StringIO()
        csv.DictWriter(text, self.columns, lineterminator="\n").writerow(row)
        line = text.getvalue().encode()
        try:
            write_all(self.descriptor, line)
        except OSError as error:
            raise OSError(f"{self.path} cannot be written: {error.strerror}") from error
        self.size += len(line)

    def sync(self) -> None:
        """Make sure that all rows are on the disk, under the name of the file.

        A file that was removed or replaced since it was opened is written again: this process still has it open.

        Raises:
            OSError: If it cannot be written, or if another program wrote to it.
        """
        try:
            os.fsync(self.descriptor)  # a network file system may report a full disk only here
        except OSError as error:
            raise OSError(f"{self.path} cannot be written: {error.strerror}") from error
        # Only this process writes to the table, so that another size means that rows were lost or added.
        status = os.fstat(self.descriptor)
        if status.st_size != self.size:
            raise OSError(
                f"{self.path} was changed by another program: it has {status.st_size:,} bytes, and the run wrote "
                f"{self.size:,}; put back what the run wrote"
            )
        try:
            is_in_place = os.path.samestat(status, os.stat(self.path))
        except OSError:
            is_in_place = False
        if not is_in_place:
            self._write_again()

    def close(self) -> None:
        """Close the file."""
        os.close(self.descriptor)

    def _open(self) -> int:
        # With O_APPEND each row goes to the end of the file, also after it was cut.
        return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)

    def _write_again(self) -> None:
        """Write the open file's content under its name, and continue in the new file."""
        with open(self.descriptor, "rb", closefd=False) as file:
            file.seek(0)
            content = file.read()
        write_atomically(self.path, content)
        # The old descriptor is closed last, so that there is always an open file that has all rows.
        replaced = self.descriptor
        self.descriptor = self._open()
        os.close(replaced)
        log_notice(f"{self.path} was removed or replaced while the run wrote it; all its rows are written again")
