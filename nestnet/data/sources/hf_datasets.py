"""Image data sets that Hugging Face's `datasets` saved on disk. The package is an extra: `pip install "nestnet[datasets]"`.

`datasets` only opens its tables here. Images are decoded as files are, no code of a data set is executed, and nothing
is downloaded.
"""

import errno
import importlib.util
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from nestnet.config.schema_sections import DataConfig
from nestnet.data.folder.split_names import SPLIT_NAMES, match_split
from nestnet.data.image_store import ImageStore
from nestnet.data.sources.labelled_images import LabelledImage, LabelledImages
from nestnet.text.escape import quoted
from nestnet.text.messages import in_one_line

ALL = "all"
"""Name of the only table of a data set without splits, in the paths of its images."""


class TableStore(ImageStore):
    """The store of images in the tables of a data set.

    The path of an image is `root`, the name of the table and the number of the row, such as `pets/train/17`.

    Args:
        root: folder of the data set.
        tables: table of each split, by its name; each has the encoded images in its only column.
    """

    def __init__(self, root: str, tables: Mapping[str, Any]) -> None:
        self.root = root
        self.tables = dict(tables)

    def path(self, table: str, row: int) -> str:
        """Return the path of the image in a row, which counts from 0."""
        return f"{self.root}/{table}/{row}"

    def open(self, path: str) -> BinaryIO:
        """Open the encoded image in a row; see `ImageStore.open`."""
        if not self.has(path):
            raise OSError(errno.ENOENT, "the data set has no such row", path)
        table, row = self._divide(path)
        [image] = self.tables[table][int(row)].values()
        # The path in a table may name any file of this machine: only what the data set itself holds is read.
        if image is None or image["bytes"] is None:
            raise OSError(errno.ENOENT, "the data set does not hold its bytes", path)
        return io.BytesIO(image["bytes"])

    def has(self, path: str) -> bool:
        """Return whether there is such a row."""
        table, row = self._divide(path)
        return table in self.tables and row.isdecimal() and int(row) < len(self.tables[table])

    def _divide(self, path: str) -> tuple[str, str]:
        table, _, row = path.removeprefix(f"{self.root}/").rpartition("/")
        return table, row


def check_datasets_installed() -> None:
    """Check that the package `datasets` is installed.

    Raises:
        ValueError: If it is not, with the command that installs it.
    """
    if importlib.util.find_spec("datasets") is None:
        raise ValueError(
            "data.name = 'hf_datasets': the package datasets is not installed; run `pip install \"nestnet[datasets]\"`"
        )


def read_hf_datasets(data: DataConfig) -> LabelledImages:
    """Read the images and labels of a data set that `save_to_disk` wrote.

    Args:
        data: configuration of the images; `root`, `image_column`, `label_column` and `multi_label` matter here.

    Returns:
        The images in the order of the splits and rows.

    Raises:
        ValueError: If the package is not installed, or the folder holds no such data set, no images or no labels.
    """
    assert data.root is not None
    check_datasets_installed()
    field = f"data.root = {quoted(data.root)}"
    tables, notices = _open_tables(data.root, field)
    first = next(iter(tables.values()))
    image_column = _find_column(first.features, "image_column", data.image_column, _is_image, "images", field)
    described = "lists of ClassLabel" if data.multi_label else "a ClassLabel"
    is_label = _are_labels if data.multi_label else _is_label
    label_column = _find_column(first.features, "label_column", data.label_column, is_label, described, field)

    from datasets import Image

    stored = {}
    for split, table in tables.items():
        stored[split] = table.select_columns([image_column]).cast_column(image_column, Image(decode=False))
    store = TableStore(data.root, stored)
    class_names = _class_label(first.features[label_column]).names
    images: list[LabelledImage] = []
    for split, table in tables.items():
        labels = table.select_columns([label_column])[:][label_column]
        for row, label in enumerate(labels):
            numbers = label if data.multi_label else [label]
            _check_labels(numbers, len(class_names), f"{field}: row {row} of {split}")
            names = tuple(class_names[number] for number in dict.fromkeys(numbers))
            images.append(LabelledImage(store.path(split, row), names, None if split == ALL else split))
    return LabelledImages(data.root, store, images, class_names, has_one_label=not data.multi_label, notices=notices)


def _open_tables(root: str, field: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the table of each split of a data set, by `train`, `val` and `test`, or its only table as `ALL`; and notices."""
    # A name with a protocol, such as s3://, would be downloaded.
    if not Path(root).is_dir():
        raise ValueError(
            f"{field}: there is no such folder; name one that save_to_disk of Hugging Face's datasets wrote"
        )
    from datasets import Dataset, load_from_disk

    try:
        opened = load_from_disk(root)
    except Exception as error:  # a damaged table can make the reader raise any exception
        raise ValueError(
            f"{field}: it cannot be read as a data set ({in_one_line(error)}); name a folder that save_to_disk of Hugging "
            "Face's datasets wrote"
        ) from error
    if isinstance(opened, Dataset):
        return {ALL: opened.with_format(None)}, ()
    tables: dict[str, Any] = {}
    left_out = []
    for name, table in opened.items():
        split = match_split(name)
        if split is None:
            left_out.append(name)
        elif split in tables:
            raise ValueError(
                f"{field}: two of its splits are for {split}, one of them {name}; save it with one of them"
            )
        else:
            tables[split] = table.with_format(None)
    if not tables:
        raise ValueError(f"{field}: it has no split that is named {', '.join(SPLIT_NAMES)}; rename its splits")
    if not left_out:
        return tables, ()
    return tables, (f"left out: splits that are not named {', '.join(SPLIT_NAMES)}: {', '.join(left_out)}",)


def _is_image(feature: Any) -> bool:
    from datasets import Image

    return isinstance(feature, Image)


def _is_label(feature: Any) -> bool:
    from datasets import ClassLabel

    return isinstance(feature, ClassLabel)


def _are_labels(feature: Any) -> bool:
    """Return whether a column has a list of labels for each image."""
    return _is_label(getattr(feature, "feature", None))


def _class_label(feature: Any) -> Any:
    return getattr(feature, "feature", feature)


def _find_column(features: Mapping[str, Any], name: str, column: str | None, fits: Any, kind: str, field: str) -> str:
    """Return the column that the configuration names, or else the only one of a kind."""
    fitting = [name for name, feature in features.items() if fits(feature)]
    if column is None and len(fitting) == 1:
        return fitting[0]
    if column in fitting:
        return column
    present = ", ".join(features)
    if column is not None:
        raise ValueError(f"data.{name} = {quoted(column)}: it is no column with {kind}; the columns are {present}")
    if fitting:
        raise ValueError(f"{field}: the columns {', '.join(fitting)} have {kind}; set data.{name} to one of them")
    raise ValueError(
        f"{field}: none of its columns ({present}) has {kind}; cast one with cast_column, and save it again"
    )


def _check_labels(numbers: Any, num_classes: int, where: str) -> None:
    """Check that an image has labels; test images of competitions have -1."""
    if numbers is None or not all(isinstance(number, int) and 0 <= number < num_classes for number in numbers):
        raise ValueError(f"{where} has no label; remove such rows, or this split, and save the data set again")
