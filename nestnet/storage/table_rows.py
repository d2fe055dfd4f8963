"""Reading the rows of a table of a run, which may still be writing it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from nestnet.runtime.log import log_notice
from nestnet.storage.read_back import damaged, decode_text, open_limited, shorten
from nestnet.storage.rules import Rule

# Largest number of bytes of a table, for some 20 million batches.
LARGEST_TABLE = 1 << 30
# Largest number of bytes of a row, so that a file without line breaks is not read to its end.
LONGEST_ROW = 10_000


def read_rows(
    path: Path, columns: Mapping[str, Rule], remedy: str, *, at_least: int = 0
) -> Iterator[tuple[dict[str, str], int]]:
    """Yield the rows of a table, each with the number of bytes up to its end.

    The first row has the names of the columns. The first column counts the other rows from 1. A row ends with a
    line break: text after the last line break belongs to a row that was being written, and is left out with a
    notice.

    Args:
        path: path of the table.
        columns: rule of each column, by its name. The file may have the columns in any order.
        remedy: what the user can do if the table is damaged.
        at_least: number of rows that must be present, because a checkpoint was written after them.

    Yields:
        The cells of a row, by the name of the column, and the number of bytes from the start of the file to
        the row's end.

    Raises:
        ValueError: If the table cannot be read or does not keep to the rules. The message names the row.
    """
    with open_limited(path, LARGEST_TABLE, remedy) as file:
        names = _read_header(path, file, columns, remedy)
        end = file.tell()
        yield dict(zip(names, names, strict=True)), end
        row = 0
        is_incomplete = False
        while line := _read_line(path, file, remedy):
            is_incomplete = not line.endswith("\n")
            if is_incomplete:
                break
            row += 1
            end += len(line)  # all characters are ASCII in a row that keeps to the rules
            yield _read_cells(path, line, row, names, columns, remedy), end
        # A run writes its rows to the disk before the checkpoint that counts them, so that fewer rows mean damage.
        if row < at_least:
            raise damaged(path, f"it has {row} complete rows, and the run has a checkpoint of row {at_least}", remedy)
        if is_incomplete:
            log_notice(f"{path}: its last row is incomplete, and is left out")


def _read_header(path: Path, file: BinaryIO, columns: Mapping[str, Rule], remedy: str) -> list[str]:
    """Return the names of the columns, which the first line of a table holds."""
    line = _read_line(path, file, remedy)
    if not line:
        raise damaged(path, "it is empty", remedy)
    if not line.endswith("\n"):
        raise damaged(path, "it ends within the names of its columns", remedy)
    names = line.rstrip("\r\n").split(",")
    for name, rule in columns.items():
        if rule.required and name not in names:
            raise damaged(path, f"it has no column {name}", remedy)
    for name in names:
        if name not in columns:
            raise damaged(path, f"it has a column {shorten(name)}, which nestnet does not write", remedy)
        if names.count(name) > 1:
            raise damaged(path, f"it has the column {name} twice", remedy)
    return names


def _read_cells(
    path: Path, line: str, row: int, names: list[str], columns: Mapping[str, Rule], remedy: str
) -> dict[str, str]:
    """Return the cells of a line by the names of their columns, after checking them."""
    texts = line.rstrip("\r\n").split(",")
    if len(texts) != len(names):
        raise damaged(path, f"row {row} has {len(texts)} cells, and must have {len(names)}", remedy)
    cells = dict(zip(names, texts, strict=True))
    for name, cell in cells.items():
        rule = columns[name]
        if not _cell_fits(rule, cell):
            raise damaged(path, f"{name} is {shorten(cell)} in row {row}, and must be {rule.description}", remedy)
    # The counter in the first column reveals rows that were removed, repeated or reordered.
    counter = next(iter(columns))
    if int(cells[counter]) != row:
        raise damaged(path, f"{counter} is {cells[counter]} in row {row}: rows are missing or repeated", remedy)
    return cells


def _read_line(path: Path, file: BinaryIO, remedy: str) -> str:
    """Return the next line with its line break; at the end of the file it is empty."""
    line = file.readline(LONGEST_ROW)
    if len(line) == LONGEST_ROW:
        raise damaged(path, f"it has a row of more than {LONGEST_ROW:,} bytes", remedy)
    return decode_text(path, line, remedy)


def _cell_fits(rule: Rule, cell: str) -> bool:
    try:
        return rule.fits(rule.parse(cell))
    except ValueError:
        return False
