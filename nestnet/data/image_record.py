"""The record of the images of a run: its classes, and the split of each image file.

Folders change: images are added, damaged ones removed, classes renamed. A run nevertheless keeps its own
images: they are read again by the names in its record, whatever a new run would find in the folder
(`nestnet.data.recorded_images`).
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nestnet.data.image_files import ImageFiles, Label, Sample, numbers_of
from nestnet.data.image_store import FILES, ImageStore
from nestnet.data.sources.python_images import PythonImages
from nestnet.storage.rules import Rule, of_type
from nestnet.text.escape import quoted

SPLITS = ("train", "val", "test")

# Largest number of files of each split whose contents are recorded, spread evenly over the split.
MAX_HASHED_FILES = 1000

# Number of bytes of a file that are hashed, together with its size: enough to distinguish two images, and fast
# for large photographs.
HASHED_BYTES = 1 << 16


@dataclass(frozen=True)
class ImageRecord:
    """Record of the images and classes that a run is trained and tested on.

    Attributes:
        class_names: name of each class, in the order of the labels.
        labels: SHA-256 of the labels of the training images, in their order.
        files: name and label, or labels, of each image file, in their order, by split; empty for data sets that do not
            store each image in a file of its own.
        contents: SHA-256 of size and beginning of some of these files, by name; for data sets that are given in
            Python, of the pixels and labels of some images.
    """

    class_names: list[str]
    labels: str
    files: dict[str, list[Sample]] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, class_names: Sequence[str], train_labels: Sequence[Label], splits: Mapping[str, Any]) -> "ImageRecord":
        """Create the record of a data set as it is now.

        Args:
            class_names: name of each class, in the order of the labels.
            train_labels: label of each training image, in their order.
            splits: stored images by split, one of `SPLITS`.

        Returns:
            The record.
        """
        files: dict[str, list[Sample]] = {}
        contents: dict[str, str] = {}
        for split, images in splits.items():
            if isinstance(images, PythonImages):
                contents |= images.digests(split)
            if not isinstance(images, ImageFiles):
                continue
            names = images.names
            files[split] = list(zip(names, images.labels, strict=True))
            # Reading all files of a large data set would take minutes.
            step = max(math.ceil(len(images) / MAX_HASHED_FILES), 1)
            for index in range(0, len(images), step):
                path, _ = images.samples[index]
                digest = hash_content(path, images.store)
                if digest is not None:
                    contents[names[index]] = digest
        return cls(list(class_names), hash_labels(train_labels), files, contents)

    @property
    def has_val(self) -> bool:
        """Whether there are validation images, on which the best epoch is chosen."""
        # Data sets that are given in Python have no files.
        return "val" in self.files or any(name.startswith("val/") for name in self.contents if not self.files)

    @property
    def fingerprint(self) -> str:
        """Summary of the record in a checkpoint: a hash of the classes and of the training images' names and labels.

        Test images do not affect training and are not included.
        """
        training = self.files.get("train", [])
        facts = json.dumps([self.class_names, self.labels, training])
        # Images from Python have no names, but their pixels tell them apart.
        if not self.files and self.contents:
            facts += json.dumps(self.contents)
        digest = hashlib.sha256(facts.encode()).hexdigest()
        # The count is for readers: it shows at once which of two records has more images.
        if not training:
            return digest
        return f"{len(training):,} training image files, {digest}"

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON can store them.

        Returns:
            The value of each field by name.
        """
        return {
            "class_names": self.class_names,
            "labels": self.labels,
            "files": self.files,
            "contents": self.contents,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "ImageRecord":
        """Return the record that `to_json` stored.

        Args:
            stored: fields that keep to `RECORD_FIELDS`.

        Returns:
            The record.

        Raises:
            ValueError: If a label belongs to no class, or a file to two splits.
        """
        num_classes = len(stored["class_names"])
        # No image may be both trained and tested on, even if the stored file was changed.
        files: dict[str, list[Sample]] = {}
        names: set[str] = set()
        for split, samples in stored["files"].items():
            files[split] = []
            for name, stored_label in samples:
                # JSON has lists for tuples.
                label = tuple(stored_label) if isinstance(stored_label, list) else stored_label
                if not all(0 <= number < num_classes for number in numbers_of(label)):
                    raise ValueError(f"files.{split} has a label {label}, and there are {num_classes} classes")
                if name in names:
                    raise ValueError(f"files.{split} has {quoted(name)}, which comes twice")
                names.add(name)
                files[split].append((name, label))
        return cls(stored["class_names"], stored["labels"], files, stored["contents"])


def hash_labels(labels: Sequence[Label]) -> str:
    """Return the SHA-256 of labels in their order."""
    # JSON cannot encode numpy's integers.
    plain = [label if isinstance(label, tuple) else int(label) for label in labels]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()


def hash_content(path: str, store: ImageStore = FILES) -> str | None:
    """Return a hash of size and beginning of a file.

    Args:
        path: path of the file.
        store: store that has the file.

    Returns:
        The hash; `None` if the file cannot be read, or is empty and thus equal to any other empty file.
    """
    try:
        with store.open(path) as file:
            size = file.seek(0, os.SEEK_END)
            if size == 0:
                return None
            file.seek(0)
            return hashlib.sha256(size.to_bytes(8, "little") + file.read(HASHED_BYTES)).hexdigest()
    except OSError:
        return None


def _are_strings(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _are_digests(values: Any) -> bool:
    return isinstance(values, dict) and _are_strings(list(values.values()))


def _are_samples_of_splits(values: Any) -> bool:
    if not isinstance(values, dict) or not set(values) <= set(SPLITS):
        return False
    return all(isinstance(samples, list) and all(map(_is_sample, samples)) for samples in values.values())


def _is_sample(sample: Any) -> bool:
    if not isinstance(sample, list) or len(sample) != 2:
        return False
    name, label = sample
    numbers = label if isinstance(label, list) else [label]
    # True and False are integers too, but no labels.
    return isinstance(name, str) and all(type(number) is int for number in numbers)


# The rule that each field of a stored record must keep to.
RECORD_FIELDS = {
    "class_names": Rule("a list of strings", _are_strings),
    "labels": of_type(str, "a string"),
    "files": Rule(f"lists of file names with labels, of the splits {', '.join(SPLITS)}", _are_samples_of_splits),
    "contents": Rule("strings by file name", _are_digests),
}

# Largest size in bytes of a stored record: that of some 20 million images.
MAX_RECORD_BYTES = 1 << 30
