"""Labels from a CSV file: a row for each image, with its path, its label and perhaps its split."""

import csv
import io
import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nestnet.config.schema_sections import DataConfig
from nestnet.data.folder.file_links import find_same_files
from nestnet.data.folder.split_names import SPLIT_NAMES, match_split
from nestnet.data.image_store import FILES
from nestnet.data.sources.labelled_images import LabelledImage, LabelledImages
from nestnet.storage.opening import open_regular
from nestnet.text.escape import quoted

MAX_BYTES = 1 << 30
"""Largest size of the file, that of some 20 million rows."""

DEFAULT_PATH_COLUMN = "path"
DEFAULT_LABEL_COLUMN = "label"
DEFAULT_SPLIT_COLUMN = "split"


@dataclass
class _Row:
    """What the rows of one image say.

    Attributes:
        line: number of the first row's line.
        path: path of the image.
        classes: names of its classes.
        split: split of the image; `None` if the file has no column for it.
    """

    line: int
    path: str
    classes: list[str] = field(default_factory=list)
    split: str | None = None


def read_csv(data: DataConfig) -> LabelledImages:
    """Read the paths and labels of images from a CSV file.

    Args:
        data: configuration of the images; `labels`, `root`, the columns, `multi_label` and `label_separator` matter
            here, and `corrupt`: with `skip`, an absent image counts as unreadable.

    Returns:
        The images in the order of the file.

    Raises:
        ValueError: Naming the file, its line and a remedy, if the file is no CSV file in UTF-8, has no such column,
            or a row has no path or label, or the path of an image that is absent, comes twice or lies outside of
            `root`.
    """
    assert data.labels is not None
    assert data.root is not None
    reader = _LabelReader(data, data.labels, os.path.normpath(data.root))
    rows = reader.read()
    images = [LabelledImage(row.path, tuple(row.classes), row.split) for row in rows]
    return LabelledImages(reader.root, FILES, images, has_one_label=not data.multi_label)


class _LabelReader:
    """Reader of one CSV file.

    Args:
        data: configuration of the images.
        path: path of the file.
        root: folder of the images.
    """

    def __init__(self, data: DataConfig, path: str, root: str) -> None:
        self.data = data
        self.field = f"data.labels = {quoted(path)}"
        self.path = path
        self.root = root

    def read(self) -> list[_Row]:
        """Return what the file says about each image, in the order in which the images first occur."""
        if not Path(self.root).is_dir():
            raise ValueError(f"data.root = {quoted(self.root)}: there is no such folder; name the folder of the images")
        rows = self._rows()
        _, header = next(rows, (1, []))
        path_column, label_column, split_column = self._find_columns(header)
        row_of_path: dict[str, _Row] = {}
        for line, cells in rows:
            if len(cells) != len(header):
                raise self._error(line, f"it has {len(cells)} cells, and the first line {len(header)}; mend it")
            row = _Row(line, self._locate(line, cells[path_column]))
            row.classes = self._split_label(line, cells[label_column])
            if split_column is not None:
                row.split = self._match_split(line, cells[split_column])
            self._add(row, row_of_path)
        if not row_of_path:
            raise ValueError(f"{self.field}: it has no rows below the names of its columns; add some")
        found = list(row_of_path.values())
        self._check_present(found)
        self._check_disjoint(found)
        return found

    def _error(self, line: int, reason: str) -> ValueError:
        return ValueError(f"{self.field}: line {line}: {reason}")

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the number of the line at which each row ends, and its cells; empty lines are left out."""
        reader = csv.reader(io.StringIO(self._read_text(), newline=""), strict=True, skipinitialspace=True)
        try:
            for cells in reader:
                if any(cells):
                    yield reader.line_num, cells
        except csv.Error as error:
            raise self._error(reader.line_num, f"it is not CSV ({error}); save the table as CSV again") from error

    def _read_text(self) -> str:
        try:
            with open_regular(self.path) as file:
                content = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise ValueError(f"{self.field}: it cannot be read: {error.strerror}; name a CSV file") from error
        if len(content) > MAX_BYTES:
            raise ValueError(f"{self.field}: it has more than {MAX_BYTES >> 30} GiB; name a CSV file of labels")
        try:
            # Excel writes a byte order mark.
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise self._error(line, "it is not UTF-8; save the table as CSV in UTF-8") from error

    def _find_columns(self, header: Sequence[str]) -> tuple[int, int, int | None]:
        """Return the positions of the columns with the paths, the labels and the splits."""
        if not header:
            raise self._error(1, "it is empty; give it the columns path and label, with a row for each image")
        # Excel separates by semicolons where the comma is the decimal point.
        for separator, name in ((";", "semicolons"), ("\t", "tabs")):
            if len(header) == 1 and separator in header[0]:
                raise self._error(1, f"its columns are separated by {name}; save the table with commas")
        for name in header:
            if header.count(name) > 1:
                raise self._error(1, f"there are two columns {quoted(name)}; rename one of them")
        path_column = self._find_column(header, "image_column", self.data.image_column or DEFAULT_PATH_COLUMN)
        label_column = self._find_column(header, "label_column", self.data.label_column or DEFAULT_LABEL_COLUMN)
        split_column = None
        if self.data.split_column is not None or DEFAULT_SPLIT_COLUMN in header:
            split_column = self._find_column(header, "split_column", self.data.split_column or DEFAULT_SPLIT_COLUMN)
        return path_column, label_column, split_column

    def _find_column(self, header: Sequence[str], name: str, column: str) -> int:
        if column in header:
            return header.index(column)
        # The first image of a table without names of its columns.
        if any(os.path.isfile(os.path.join(self.root, cell)) for cell in header):
            raise self._error(1, "it is a row for an image; name the columns in a line above, such as path,label")
        present = ", ".join(map(quoted, header[:8]))
        raise self._error(
            1, f"there is no column {quoted(column)}; its columns are {present}: set data.{name} to one of them"
        )

    def _locate(self, line: int, cell: str) -> str:
        """Return the path of the image that a cell names."""
        if not cell.strip():
            raise self._error(line, "it has no path; give one, or remove the line")
        path = os.path.normpath(os.path.join(self.root, cell))
        if os.path.commonpath([os.path.abspath(path), os.path.abspath(self.root)]) != os.path.abspath(self.root):
            raise self._error(
                line, f"{quoted(cell)} lies outside of data.root = {quoted(self.root)}; set data.root above it"
            )
        return path

    def _split_label(self, line: int, cell: str) -> list[str]:
        """Return the names of the classes in a cell."""
        # Accents may be composed or decomposed, and a class has one name.
        cell = unicodedata.normalize("NFC", cell)
        names = [cell.strip()]
        if self.data.label_separator is not None:
            names = [name.strip() for name in cell.split(self.data.label_separator)]
        names = [name for name in names if name]
        # Of several labels there may be none.
        if not names and not self.data.multi_label:
            raise self._error(line, "it has no label; give one, or remove the line")
        return names

    def _match_split(self, line: int, cell: str) -> str:
        split = match_split(cell.strip())
        if split is None:
            raise self._error(line, f"{quoted(cell)} is not the name of a split; name it {', '.join(SPLIT_NAMES)}")
        return split

    def _add(self, row: _Row, row_of_path: dict[str, _Row]) -> None:
        """Add a row; of images with several labels each row adds some."""
        first = row_of_path.setdefault(row.path, row)
        if first is row:
            row.classes = list(dict.fromkeys(row.classes))
            return
        if first.split != row.split:
            raise self._error(
                row.line, f"{row.path} is for {row.split}, and for {first.split} on line {first.line}; choose one"
            )
        if not self.data.multi_label:
            remedy = "remove one of the lines"
            if first.classes != row.classes:
                remedy += ", or set data.multi_label to true if images have several labels"
            raise self._error(row.line, f"{row.path} is on line {first.line} too; {remedy}")
        first.classes += [name for name in row.classes if name not in first.classes]

    def _check_present(self, rows: Sequence[_Row]) -> None:
        if self.data.corrupt == "skip":
            return
        absent = [row for row in rows if not os.path.lexists(row.path)]
        if absent:
            raise self._error(
                absent[0].line,
                f"there is no file {absent[0].path} ({len(absent):,} of {len(rows):,} images are absent); correct data.root or "
                "the path, or set data.corrupt to skip",
            )

    def _check_disjoint(self, rows: Sequence[_Row]) -> None:
        """Check that no file is trained and tested on, by links."""
        split_of_path = {row.path: row.split for row in rows}
        present = [path for path in split_of_path if os.path.lexists(path)]
        for same in find_same_files(present):
            if len({split_of_path[path] for path in same}) > 1:
                raise ValueError(
                    f"{self.field}: {same[0]} and {same[1]} are the same file, by links, in two splits; remove one"
                )
