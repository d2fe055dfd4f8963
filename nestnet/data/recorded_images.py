"""The images of an earlier run, found again in a folder that may have changed since.

No image that was trained on can become a test image, and notices name what has changed in the meantime.
"""

import os
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nestnet.data.image_files import ImageFiles, Label, Sample, numbers_of
from nestnet.data.image_record import SPLITS, ImageRecord, hash_content, hash_labels
from nestnet.data.stored_data_set import StoredDataSet
from nestnet.runtime.log import log_notice


def restore_recorded_images(
    record: ImageRecord, stored: StoredDataSet, root_field: str, command: str | None = None
) -> StoredDataSet:
    """Return the images of a run from the present contents of its folder.

    Absent training images keep their position and count as unreadable; absent test images are left out, and so
    are images that the run does not know. Notices name both, and images whose contents have changed.

    Args:
        record: record of the run.
        stored: present contents of the folder.
        root_field: name and value of the field that names the folder, for messages.
        command: command that resumes the run, as in `ImageFiles`.

    Returns:
        The images of the run, in their recorded order and splits.

    Raises:
        ValueError: If the classes differ, most images of a class differ, an image has taken the name of one of
            another class or split, or all images of a split are absent.
    """
    _check_classes(record.class_names, stored.class_names, root_field)
    # Data sets that are not stored as files are identified by the labels of their training images.
    if not record.files:
        if hash_labels(stored.train_labels) != record.labels:
            raise ValueError(
                f"{root_field}: the training images are not those of the run; name the data that it was trained on"
            )
        return stored
    # Each file belongs to the split that the record names, wherever the folder would put it now.
    present = _PresentFiles(stored)
    splits: dict[str, Any] = {"val": None}
    for split, samples in record.files.items():
        splits[split] = _restore_split(stored.train, samples, present, split, root_field)
        splits[split].command = command
    _report_unknown_images(record, present, root_field)
    _report_changed_labels(record, present, root_field)
    _check_contents(record, present, root_field)
    return replace(stored, train_labels=splits["train"].labels, **splits)


class _PresentFiles:
    """The image files that are present in a data set, by name.

    macOS decomposes accents when files are copied there: if no file has exactly the recorded name, a file whose
    name differs only in this respect is used.
    """

    def __init__(self, stored: StoredDataSet) -> None:
        self.store = stored.train.store
        self.label_of_path: dict[str, Label] = {}
        self._by_name: dict[str, str] = {}
        self._by_composed_name: dict[str, str] = {}
        for split in SPLITS:
            images = getattr(stored, split)
            if images is None:
                continue
            self.label_of_path.update(images.samples)
            for name, path in zip(images.names, images.paths, strict=True):
                self._by_name[name] = path
                self._by_composed_name[_compose_accents(name)] = path

    @property
    def paths(self) -> Iterable[str]:
        """Path of each file."""
        return self._by_name.values()

    def find(self, name: str) -> str | None:
        """Return the path of the file that a record calls `name`; `None` if it is absent."""
        return self._by_name.get(name) or self._by_composed_name.get(_compose_accents(name))


def _compose_accents(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _check_classes(recorded: Sequence[str], present: Sequence[str], root_field: str) -> None:
    """Check that the classes are those of the run, in the same order."""
    if list(present) == list(recorded):
        return
    # A few names are enough to see what happened.
    new = [name for name in present if name not in recorded]
    gone = [name for name in recorded if name not in present]
    changes = []
    if new:
        changes.append(f"{', '.join(new[:5])} new")
    if gone:
        changes.append(f"{', '.join(gone[:5])} gone")
    raise ValueError(
        f"{root_field}: its classes are not those that the run was trained on ({'; '.join(changes) or 'another order'}); give "
        "the class folders, or the labels, their names again, or name the folder that the run was trained on"
    )


def _restore_split(
    files: ImageFiles, samples: list[Sample], present: _PresentFiles, split: str, root_field: str
) -> ImageFiles:
    """Return the images of one split of the run."""
    absent = [name for name, _ in samples if present.find(name) is None]
    if samples and len(absent) == len(samples):
        raise ValueError(
            f"{root_field}: none of the {len(samples):,} {split} images of the run is present, such as {absent[0]}; name the "
            "folder that it was trained on"
        )
    if absent and split != "train":
        log_notice(
            f"{root_field}: {len(absent):,} {split} images of the run are absent and left out, such as {absent[0]}"
        )
    restored: list[Sample] = []
    for name, label in samples:
        path = present.find(name)
        if path is not None:
            restored.append((path, label))
        elif split == "train":
            # The position of a training image determines its seeds, so an absent one keeps its position.
            restored.append((os.path.join(files.root, name), label))
    return files.with_samples(restored)


def _report_unknown_images(record: ImageRecord, present: _PresentFiles, root_field: str) -> None:
    """Log a notice about images of the folder that do not belong to the run."""
    recorded_paths: set[str | None] = set()
    for samples in record.files.values():
        for name, _ in samples:
            recorded_paths.add(present.find(name))
    unknown = [path for path in present.paths if path not in recorded_paths]
    if unknown:
        log_notice(
            f"{root_field}: {len(unknown):,} images that the run does not know are left out, such as {unknown[0]}"
        )


def _report_changed_labels(record: ImageRecord, present: _PresentFiles, root_field: str) -> None:
    """Log a notice about images that have other labels now, where labels are stored beside the images."""
    changed: list[str] = []
    for samples in record.files.values():
        for name, label in samples:
            path = present.find(name)
            if path is not None and present.label_of_path[path] != label:
                changed.append(path)
    if changed:
        log_notice(
            f"{root_field}: {len(changed):,} images have other labels now, such as {changed[0]}; the run keeps those with "
            "which it began"
        )


@dataclass
class _ClassChanges:
    """Comparison of the hashed images of a class with their record.

    Attributes:
        hashed: number of images whose contents were compared.
        changed: paths of those whose contents have changed.
    """

    hashed: int = 0
    changed: list[str] = field(default_factory=list)


def _check_contents(record: ImageRecord, present: _PresentFiles, root_field: str) -> None:
    """Check that the files still hold the recorded images, as far as their contents were hashed."""
    split_and_label = _look_up_labels(record)
    # Ignore digests of files that the record does not list.
    name_of_digest: dict[str, str] = {}
    for name, digest in record.contents.items():
        if name in split_and_label:
            name_of_digest[digest] = name
    # Compare the files that are hashed in the record with what they hold now.
    classes = [_ClassChanges() for _ in record.class_names]
    all_changed: list[str] = []
    confused: list[tuple[str, str, str]] = []  # path, its recorded name, and the recorded name of what it holds now
    for name, digest in record.contents.items():
        path = present.find(name)
        if path is None or name not in split_and_label:
            continue
        _, label = split_and_label[name]
        changes_of_classes = [classes[number] for number in numbers_of(label)]
        for changes in changes_of_classes:
            changes.hashed += 1
        digest_now = hash_content(path, present.store)
        if digest_now == digest:
            continue
        all_changed.append(path)
        for changes in changes_of_classes:
            changes.changed.append(path)
        # Two images of one class and split may be exchanged: it makes no difference to the run.
        holds = name_of_digest.get(digest_now or "")
        if holds is not None and split_and_label[holds] != split_and_label[name]:
            confused.append((path, name, holds))
    _check_classes_kept_images(record.class_names, classes, root_field)
    if confused:
        path, name, holds = confused[0]
        before = _describe_image(*split_and_label[name], record.class_names)
        now = _describe_image(*split_and_label[holds], record.class_names)
        raise ValueError(
            f"{root_field}: {len(confused):,} images have the names of others, such as {path}: the run had {before} there, "
            f"and now there is {holds}, {now}; give the files their names again, or remove them"
        )
    if all_changed:
        log_notice(
            f"{root_field}: {len(all_changed):,} images have changed since the run began, such as {all_changed[0]}"
        )


def _look_up_labels(record: ImageRecord) -> dict[str, tuple[str, Label]]:
    """Return the split and the label of each file in a record, by its name."""
    split_and_label: dict[str, tuple[str, Label]] = {}
    for split, samples in record.files.items():
        for name, label in samples:
            split_and_label[name] = (split, label)
    return split_and_label


def _check_classes_kept_images(class_names: Sequence[str], classes: Sequence[_ClassChanges], root_field: str) -> None:
    """Check that most images of each class are still those of the run."""
    if sum(len(changes.changed) for changes in classes) <= 1:
        return  # a single image was repaired
    for name, changes in zip(class_names, classes, strict=True):
        if len(changes.changed) > changes.hashed / 2:
            raise ValueError(
                f"{root_field}: most images of the class {name} are not those that the run was trained on, such as "
                f"{changes.changed[0]}; name the folder that it was trained on"
            )


def _describe_image(split: str, label: Label, class_names: Sequence[str]) -> str:
    names = [class_names[number] for number in numbers_of(label)]
    if isinstance(label, int):
        return f"a {split} image of the class {names[0]}"
    return f"a {split} image with the labels {', '.join(names) or 'none'}"
