"""A folder of your own images: its splits for training and testing, its classes, and the files of each.

Folders are read as they are found in practice. Splits are recognised by the names that torchvision, Hugging
Face and Kaggle give them; hidden and system entries are no images; every real folder is read once, however
many links lead to it. What is left out is counted and named.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nestnet.data.folder.file_links import find_same_files
from nestnet.data.folder.folder_walk import FolderWalk
from nestnet.data.folder.held_out_images import hold_out_images
from nestnet.data.folder.other_sources import check_has_no_table, check_is_no_other_source
from nestnet.data.folder.split_names import SPLIT_NAMES, match_split
from nestnet.data.image_decoding import USUAL_EXTENSIONS
from nestnet.data.image_files import Sample
from nestnet.text.escape import quoted


@dataclass(frozen=True)
class ImageFolder:
    """The images of a folder.

    Attributes:
        root: deepest folder below which all images lie.
        train: path and label of each training image, sorted by class and path.
        val: path and label of each image on which the best epoch is chosen, in the same order; empty if the
            folder has no such split, or no other one to test on.
        test: path and label of each test image, in the same order.
        class_names: names of the class folders, sorted; a label is a position among them.
        has_splits: whether the folder itself is divided into training and test images.
        left_out: description of what was not read; empty if there is nothing.
    """

    root: str
    train: list[Sample]
    val: list[Sample]
    test: list[Sample]
    class_names: list[str]
    has_splits: bool
    left_out: str


def read_folder(root: str, *, needs_splits: bool = False) -> ImageFolder:
    """List the images of a folder, and divide them into training, validation and test images.

    Either the folder has splits, `train/` and `test/` or `val/` (or other usual names, see `SPLIT_NAMES`),
    each with a folder of images for each class; or it holds the class folders itself. With both `val/` and
    `test/` the best epoch is chosen on the former, and the latter is for testing only. Without splits about
    a fifth of each class is held out for testing, at least one image. Whether an image is held out follows
    from a hash of its class folder and file name, so that it stays in its split when others are added or
    removed.

    Args:
        root: path of the folder.
        needs_splits: whether a folder without splits is refused.

    Returns:
        The images of each split, and their classes.

    Raises:
        ValueError: Naming the folder and a remedy, if it is absent, cannot be listed or has other contents:
            no classes, classes without images or in one split only, images outside of any class, or splits
            that cannot be told apart.
    """
    field = f"data.root = {quoted(root)}"
    check_is_folder(root, field)
    with naming_unreadable_folders(field):
        walk = FolderWalk(field, root)
        folder = walk.unwrap(root)
        check_is_no_other_source(walk.get_listing(folder), field)
        split_folders = find_split_folders(walk, folder, field)
        if split_folders:
            _check_has_train_and_test(split_folders, needs_splits, field)
            return _read_split_folders(walk, folder, split_folders, field)
        _check_not_flat_splits(walk, folder, field)
        if needs_splits:
            raise ValueError(
                f"{field}: it must hold train/ and test/ or val/, each with a folder for each class; add them"
            )
        return _read_class_folders(walk, folder, field)


def check_is_folder(root: str, field: str) -> None:
    """Check that a folder of images is present.

    Args:
        root: path of the folder.
        field: name and value of the field that names it, for the message.

    Raises:
        ValueError: If it is absent, or a file.
    """
    if Path(root).is_dir():
        return
    if Path(root).exists():
        raise ValueError(f"{field}: it is a file; name the folder of images")
    raise ValueError(f"{field}: there is no such folder")


def find_split_folders(walk: FolderWalk, folder: str, field: str) -> dict[str, str]:
    """Return the path of each split of a folder: a subfolder that has the name of a split and holds folders itself.

    A folder that has the name of a split but holds only images is either a class, such as trains, or has no
    classes, such as the test images of a competition.

    Args:
        walk: walk through the folder.
        folder: path of the folder.
        field: name and value of the field that names it, for messages.

    Returns:
        The path by split, one of `SPLIT_NAMES`; empty if the folder has no splits.

    Raises:
        ValueError: If two subfolders are for the same split.
    """
    split_folders: dict[str, str] = {}
    for name in walk.get_listing(folder).folders:
        split = match_split(name)
        path = os.path.join(folder, name)
        if split is None or not walk.get_listing(path).folders:
            continue
        if split in split_folders:
            first = os.path.basename(split_folders[split])
            raise ValueError(f"{field}: {first}/ and {name}/ are both for {split}; rename or remove one of them")
        split_folders[split] = path
    # Training images come first, because messages compare the other splits with them.
    return dict(sorted(split_folders.items(), key=lambda item: list(SPLIT_NAMES).index(item[0])))


def _check_has_train_and_test(split_folders: dict[str, str], needs_splits: bool, field: str) -> None:
    if "train" in split_folders and len(split_folders) > 1:
        return
    remedy = "add them"
    if "train" in split_folders and not needs_splits:
        remedy = f"add them, or set data.root to {split_folders['train']}, of which a fifth is then held out"
    raise ValueError(f"{field}: it must hold train/ and test/ or val/, each with a folder for each class; {remedy}")


def _check_not_flat_splits(walk: FolderWalk, folder: str, field: str) -> None:
    """Check that the classes are not in fact splits without class folders, as in some competitions.

    One such name among others is a class, such as trains. If all folders have names of splits, they are hardly
    classes.
    """
    folder_of_split: dict[str | None, str] = {}
    for name in walk.get_listing(folder).folders:
        folder_of_split[match_split(name)] = name
    train = folder_of_split.get("train")
    test = folder_of_split.get("test") or folder_of_split.get("val")
    if None not in folder_of_split and train is not None and test is not None:
        raise ValueError(
            f"{field}: {train}/ and {test}/ hold no class folders, and are named like splits rather than classes; "
            "move the images of each class into a folder of its own, or, if they are classes, rename one of them"
        )


def _read_split_folders(walk: FolderWalk, folder: str, split_folders: dict[str, str], field: str) -> ImageFolder:
    """Read a folder that is divided into splits."""
    walk.note_entries_beside(folder, list(split_folders.values()))
    roots: dict[str, str] = {}
    for split, path in split_folders.items():
        roots[split] = walk.unwrap(path, split)
    classes: dict[str, dict[str, list[str]]] = {}
    for split, root in roots.items():
        classes[split] = walk.read_classes(root)
    # Links are followed only after all splits are read, because a link in one split may lead to another.
    walk.follow_links()
    for split, root in roots.items():
        _check_classes(classes[split], root, walk, field)
    # Report wrong contents of one split before differences between splits, which may follow from them.
    for split, root in roots.items():
        _check_same_classes(classes["train"], classes[split], roots["train"], root, field)
    class_names = sorted(classes["train"])
    train = _label_images(classes["train"], class_names)
    val = _label_images(classes.get("val"), class_names)
    test = _label_images(classes.get("test"), class_names)
    _check_disjoint(train, val + test, field)
    # With a single split to evaluate on, it is the one to test on, whatever its name.
    if not test:
        test = val
        val = []
    return ImageFolder(folder, train, val, test, class_names, True, walk.describe_left_out())


def _read_class_folders(walk: FolderWalk, folder: str, field: str) -> ImageFolder:
    """Read a folder without splits, and hold out a fifth of each class for testing."""
    check_has_no_table(walk.get_listing(folder), folder, field)
    classes = walk.read_classes(folder)
    walk.follow_links()
    # Otherwise an image could be held out while a link to it is trained on.
    walk.drop_linked_duplicates(classes)
    _check_classes(classes, folder, walk, field)
    class_names = sorted(classes)
    train: dict[str, list[str]] = {}
    test: dict[str, list[str]] = {}
    for name in class_names:
        if len(classes[name]) < 2:
            raise ValueError(
                f"{field}: {os.path.join(folder, name)} has 1 image, and a class needs at least 2, one of them for testing; "
                "add some"
            )
        train[name], test[name] = hold_out_images(classes[name], folder)
    return ImageFolder(
        root=folder,
        train=_label_images(train, class_names),
        val=[],
        test=_label_images(test, class_names),
        class_names=class_names,
        has_splits=False,
        left_out=walk.describe_left_out(),
    )


def _label_images(classes: dict[str, list[str]] | None, class_names: list[str]) -> list[Sample]:
    """Return path and label of each image of a split, sorted by class and path; nothing for a split that is absent."""
    samples: list[Sample] = []
    if classes is not None:
        for label, name in enumerate(class_names):
            samples += [(path, label) for path in sorted(classes[name])]
    return samples


def _check_classes(classes: dict[str, list[str]], folder: str, walk: FolderWalk, field: str) -> None:
    """Check that there are at least two classes, each with images."""
    if len(classes) < 2:
        contents = "no class folders"
        if classes:
            contents = f"only the class folder {min(classes)}"
        raise ValueError(
            f"{field}: {folder} has {contents}; it must hold a folder of images for each of at least 2 classes"
        )
    for name, paths in classes.items():
        if paths:
            continue
        message = f"{field}: the class folder {os.path.join(folder, name)} has no images ({USUAL_EXTENSIONS})"
        message += "; add some, or remove it"
        left_out = walk.describe_left_out()
        if left_out:
            message += f"; {left_out}"
        raise ValueError(message)


def _check_same_classes(
    train: dict[str, list[str]], other: dict[str, list[str]], train_folder: str, other_folder: str, field: str
) -> None:
    """Check that a split has the classes of the training images."""
    train_name = os.path.basename(train_folder)
    other_name = os.path.basename(other_folder)
    # A class may be missing on either side: report the first difference in either direction.
    for classes, counterpart, folder_name in ((train, other, train_name), (other, train, other_name)):
        unmatched = [name for name in classes if name not in counterpart]
        if unmatched:
            verb = "is" if len(unmatched) == 1 else "are"
            raise ValueError(
                f"{field}: {train_name}/ and {other_name}/ have different classes: {', '.join(unmatched[:5])} {verb} in "
                f"{folder_name}/ only; add or remove the folder"
            )


def _check_disjoint(train: list[Sample], test: list[Sample], field: str) -> None:
    """Check that no test image is a symbolic or hard link to a training image, or the other way round."""
    train_paths = {path for path, _ in train}
    linked: list[str] = []
    for same in find_same_files([path for path, _ in train + test]):
        # Links within one split are harmless.
        test_paths = [path for path in same if path not in train_paths]
        if 0 < len(test_paths) < len(same):
            linked += test_paths
    if linked:
        raise ValueError(
            f"{field}: {len(linked)} test images are training images too, by links, such as {linked[0]}; remove the links"
        )


@contextmanager
def naming_unreadable_folders(field: str) -> Iterator[None]:
    """Turn an operating system error into one that names the folder and a remedy.

    Args:
        field: name and value of the field that names the root of the folder, for the message.

    Raises:
        ValueError: In place of the `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"{field}: {error.filename} cannot be read: {error.strerror}; change its permissions, or name another folder"
        ) from error
