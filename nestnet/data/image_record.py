"""The record of what a run was trained and tested on: its classes, and which part of the run each image file belonged to.

Folders change: images are added, damaged ones removed, classes renamed. A run keeps its own images all the same: they are read
again by the names in its record, and not by what the folder would give a new run. So no image that was trained on can come
among the test images, and what has changed in the meantime is said.
"""

import hashlib
import json
import math
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nestnet.data.image_files import ImageFiles, Sample
from nestnet.data.sources import Source
from nestnet.runtime.notices import log_notice
from nestnet.storage.files import open_regular
from nestnet.storage.read_back import Rule, of_type
from nestnet.text.escape import quoted

PARTS = ("train", "val", "test")

LOOKED_AT = 1000
"""Files of each part whose contents are recorded, spread evenly over the part."""

BEGINNING = 1 << 16
"""Bytes of a file that are hashed, with its size: enough to tell two images apart, and quick for large photographs."""


@dataclass(frozen=True)
class ImageRecord:
    """What a run was trained and tested on.

    Attributes:
        class_names: names of the classes, in the order of the labels.
        labels: SHA-256 of the labels of the training images, in their order.
        files: for each part, the name and the label of each image file, in their order; empty for data sets that are not stored
            as a file for each image.
        contents: SHA-256 of size and beginning of some of these files.
    """

    class_names: list[str]
    labels: str
    files: dict[str, list[Sample]] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, class_names: Sequence[str], train_labels: Sequence[int], parts: Mapping[str, Any]) -> "ImageRecord":
        """Record what a data set has now.

        Args:
            class_names: names of the classes, in the order of the labels.
            train_labels: labels of all training images, in their order.
            parts: stored images by the name of their part, one of `PARTS`.
        """
        files: dict[str, list[Sample]] = {}
        contents: dict[str, str] = {}
        for part, images in parts.items():
            if not isinstance(images, ImageFiles):
                continue
            names = images.names()
            files[part] = list(zip(names, images.labels, strict=True))
            step = math.ceil(len(images) / LOOKED_AT)
            for index in range(0, len(images), max(step, 1)):
                digest = _content(images.samples[index][0])
                if digest is not None:
                    contents[names[index]] = digest
        return cls(list(class_names), _labels(train_labels), files, contents)

    @property
    def fingerprint(self) -> str:
        """What a checkpoint keeps of it: a hash of the classes and the training images, by name and label.

        Test images do not matter to what is trained.
        """
        training = self.files.get("train", [])
        facts = json.dumps([self.class_names, self.labels, training])
        count = f"{len(training):,} training image files, " if training else ""
        return count + hashlib.sha256(facts.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return {
            "class_names": self.class_names,
            "labels": self.labels,
            "files": self.files,
            "contents": self.contents,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "ImageRecord":
        """The record that `to_json` gave, from fields that keep to `RECORD_FIELDS`.

        Raises:
            ValueError: if a label is of no class, or a file belongs to two parts.
        """
        classes = len(stored["class_names"])
        files: dict[str, list[Sample]] = {}
        taken: set[str] = set()
        for part, samples in stored["files"].items():
            for name, label in samples:
                if not 0 <= label < classes:
                    raise ValueError(f"files.{part} has a label {label}, and there are {classes} classes")
                if name in taken:
                    raise ValueError(f"files.{part} has {quoted(name)}, which comes twice")
                taken.add(name)
            files[part] = [(name, label) for name, label in samples]
        return cls(stored["class_names"], stored["labels"], files, stored["contents"])

    def applied(self, source: Source, where: str, command: str | None = None) -> Source:
        """Return the images of the run from what its folder has now.

        Training images that are absent keep their place, and cannot be read then; absent test images are left out. Images that
        were not in the run are left out too. Both is said, as is what has other contents.

        Args:
            source: what the folder has now.
            where: name and value of the field that names the folder, for messages.
            command: as in `ImageFiles`.

        Raises:
            ValueError: if the classes are others, most images of a class are others, an image took the name of one of another
                class or part, or all images of a part are absent.
        """
        self._check_classes(source.class_names, where)
        if not self.files:
            if _labels(source.train_labels) != self.labels:
                raise ValueError(
                    f"{where}: the training images are not those of the run; name the data that it was trained on"
                )
            return source
        present = _Present(source)
        parts: dict[str, Any] = {"val": None}
        for part, samples in self.files.items():
            parts[part] = self._part(source.train, samples, present, part, where)
            parts[part].command = command
        recorded = {present.path(name) for samples in self.files.values() for name, _ in samples}
        added = [path for path in present.paths if path not in recorded]
        if added:
            log_notice(f"{where}: {len(added):,} images that the run does not know are left out, such as {added[0]}")
        self._check_contents(present, where)
        return replace(source, train_labels=parts["train"].labels, **parts)

    def _part(self, files: ImageFiles, samples: list[Sample], present: "_Present", part: str, where: str) -> ImageFiles:
        absent = [name for name, _ in samples if present.path(name) is None]
        if samples and len(absent) == len(samples):
            raise ValueError(
                f"{where}: none of the {len(samples):,} {part} images of the run is there, such as {absent[0]}; name the "
                "folder that it was trained on"
            )
        if absent and part != "train":
            log_notice(
                f"{where}: {len(absent):,} {part} images of the run are absent and left out, such as {absent[0]}"
            )
            samples = [sample for sample in samples if present.path(sample[0]) is not None]
        return files.with_samples(
            [(present.path(name) or os.path.join(files.root, name), label) for name, label in samples]
        )

    def _check_classes(self, found: Sequence[str], where: str) -> None:
        if list(found) == self.class_names:
            return
        new = [name for name in found if name not in self.class_names]
        gone = [name for name in self.class_names if name not in found]
        changes = [f"{', '.join(new[:5])} new"] * bool(new) + [f"{', '.join(gone[:5])} gone"] * bool(gone)
        raise ValueError(
            f"{where}: its classes are not those that the run was trained on ({'; '.join(changes) or 'another order'}); give "
            "the class folders their names again, or name the folder that the run was trained on"
        )

    def _check_contents(self, present: "_Present", where: str) -> None:
        """See that the files are still the images that they were, as far as they were looked at."""
        labels = {name: label for samples in self.files.values() for name, label in samples}
        parts = {name: part for part, samples in self.files.items() for name, _ in samples}
        names = {digest: name for name, digest in self.contents.items() if name in parts}
        looked_at = dict.fromkeys(range(len(self.class_names)), 0)
        changed: dict[int, list[str]] = {label: [] for label in looked_at}
        confused: list[tuple[str, str, str]] = []
        for name, digest in self.contents.items():
            path = present.path(name)
            if path is None or name not in labels:
                continue
            looked_at[labels[name]] += 1
            now = _content(path)
            if now == digest:
                continue
            changed[labels[name]].append(path)
            other = names.get(now) if now is not None else None
            if other is not None and (parts[other], labels[other]) != (parts[name], labels[name]):
                confused.append((path, name, other))
        paths = [path for of_class in changed.values() for path in of_class]
        others = [label for label, of_class in changed.items() if len(of_class) > looked_at[label] / 2]
        # one alone was repaired
        if others and len(paths) > 1:
            name = self.class_names[others[0]]
            raise ValueError(
                f"{where}: most images of the class {name} are others than the run was trained on, such as "
                f"{changed[others[0]][0]}; name the folder that it was trained on"
            )
        if confused:
            path, name, other = confused[0]
            before, now = (
                f"a {parts[file]} image of the class {self.class_names[labels[file]]}" for file in (name, other)
            )
            raise ValueError(
                f"{where}: {len(confused):,} images have the names of others, such as {path}: the run had {before} there, and "
                f"now there is {other}, {now}; give the files their names again, or remove them"
            )
        if paths:
            log_notice(f"{where}: {len(paths):,} images have changed since the run began, such as {paths[0]}")


class _Present:
    """The image files that a data set has now, by their names.

    macOS decomposes accents when files are copied there: where no file has a name itself, the one is taken whose name is the
    same but for that.
    """

    def __init__(self, source: Source) -> None:
        self._by_name: dict[str, str] = {}
        for part in PARTS:
            images = getattr(source, part)
            if images is not None:
                self._by_name |= dict(zip(images.names(), images.paths(), strict=True))
        self._by_composed_name = {_composed(name): path for name, path in self._by_name.items()}

    @property
    def paths(self) -> Iterable[str]:
        return self._by_name.values()

    def path(self, name: str) -> str | None:
        """The path of the file that a record calls `name`; `None` if it is absent."""
        return self._by_name.get(name) or self._by_composed_name.get(_composed(name))


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _labels(labels: Sequence[int]) -> str:
    return hashlib.sha256(json.dumps([int(label) for label in labels]).encode()).hexdigest()


def _content(path: str) -> str | None:
    """A hash of size and beginning of a file; `None` if it cannot be read, or is empty and so like any other empty one."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                return None
            return hashlib.sha256(size.to_bytes(8, "little") + file.read(BEGINNING)).hexdigest()
    except OSError:
        return None


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _are_digests(values: Any) -> bool:
    return isinstance(values, dict) and _are_texts(list(values.values()))


def _are_parts(values: Any) -> bool:
    if not isinstance(values, dict) or not set(values) <= set(PARTS):
        return False
    return all(isinstance(samples, list) and all(map(_is_sample, samples)) for samples in values.values())


def _is_sample(sample: Any) -> bool:
    if not isinstance(sample, list) or len(sample) != 2:
        return False
    name, label = sample
    return isinstance(name, str) and type(label) is int


RECORD_FIELDS = {
    "class_names": Rule("a list of texts", _are_texts),
    "labels": of_type(str, "a text"),
    "files": Rule(f"lists of file names with labels, of the parts {', '.join(PARTS)}", _are_parts),
    "contents": Rule("texts by file name", _are_digests),
}
"""What a stored record must be."""

LARGEST_RECORD = 1 << 30
"""Bytes of a stored record: of some 20 million images."""
