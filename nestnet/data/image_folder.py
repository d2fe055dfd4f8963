"""A folder of your own images: its parts for training and testing, its classes, and the files of each.

Folders are read as they are found in practice. Parts are recognised by the names that torchvision, Hugging Face and Kaggle give
them; hidden and system entries are no images; every real folder is read once, however many links lead to it. What is left out
is counted and named.
"""

import hashlib
import os
import re
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from nestnet.data.image_files import USUAL, Sample, is_image
from nestnet.text.escape import for_terminal, is_utf8, quoted

PART_NAMES = {
    "train": ("train", "training", "trainval"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""What folders of each part are called: torchvision's names, and the keywords of Hugging Face's `datasets`."""

CONTENT_NAMES = ("set", "sets", "data", "image", "images", "img", "imgs", "folder")
"""What can follow these in a folder's name without a separator, as in `TrainImages`."""

SYSTEM_NAMES = {
    "__macosx",  # archives made on macOS
    "__pycache__",
    "@eadir",  # Synology
    "#recycle",
    "#snapshot",
    "@recycle",  # QNAP
    "@recently-snapshot",
    "$recycle.bin",  # Windows
    "recycler",
    "system volume information",
    "thumbs.db",
    "desktop.ini",
    "lost+found",  # Linux
    "network trash folder",  # macOS
    "temporary items",
}
"""Folders and files that systems leave beside those of people, in lower case. Names that begin with a dot are hidden too."""

HELD_OUT = 5
"""Where a folder has no part for testing, one image in so many is held out."""


@dataclass(frozen=True)
class ImageFolder:
    """The images of a folder.

    Attributes:
        root: folder below which all of them lie, as deep as it can be.
        train: path and label of each training image, by class and path.
        val: the same of the images on which the best epoch is chosen; empty where the folder has no such part, or no other
            one to test on.
        test: the same of the images for testing.
        class_names: the names of the class folders, sorted; a label is a place among them.
        divided: whether the folder has parts of its own for training and testing.
        left_out: what was not read, in words; empty where there is nothing.
    """

    root: str
    train: list[Sample]
    val: list[Sample]
    test: list[Sample]
    class_names: list[str]
    divided: bool
    left_out: str


def read_folder(root: str, *, whole: bool = True) -> ImageFolder:
    """Read which images a folder has, and what each is for.

    Either the folder has parts, `train/` and `test/` or `val/` (or other names of theirs, see `PART_NAMES`), each with a folder
    of images for each class; or it has the class folders itself. With `val/` and `test/` the best epoch is chosen on the
    former, and the latter is for testing alone.

    Args:
        root: path of the folder.
        whole: whether `root` may also have class folders and no parts. Then about a fifth of each class is held out for
            testing, at least one image. Whether an image is follows from its own name alone (a hash of its class folder and
            file name), so that it stays in its part when others are added or removed.

    Raises:
        ValueError: naming the folder and what to do, if it is absent, cannot be listed or has other contents: no classes,
            classes without images or in one part only, images outside of any class, or parts that cannot be told apart.
    """
    where = f"data.root = {quoted(root)}"
    if not Path(root).is_dir():
        if Path(root).exists():
            raise ValueError(f"{where}: it is a file; name the folder of images")
        raise ValueError(f"{where}: there is no such folder")
    with _readable(where):
        walk = _Walk(where, root)
        folder = walk.unwrapped(root)
        parts = _parts(walk, folder, where)
        if not parts:
            _check_not_flat_parts(walk, folder, where)
            if not whole:
                raise ValueError(
                    f"{where}: it must hold train/ and test/ or val/, each with a folder for each class; add them"
                )
            return _held_out(walk, folder, where)
        if "train" not in parts or len(parts) == 1:
            raise ValueError(_missing_part(parts, whole, where))
        return _divided(walk, folder, parts, where)


def images_below(folder: str) -> tuple[list[str], str]:
    """Return the image files at any depth of a folder, sorted, and what else lies there, in words.

    Raises:
        OSError: if the folder cannot be listed.
    """
    walk = _Walk(quoted(folder), folder)
    files: list[str] = []
    walk.take(folder, files)
    walk.follow_links()
    return sorted(files), walk.summary()


def is_held_out(name: str) -> bool:
    """Whether an image of a folder without parts is for testing.

    Args:
        name: class folder and file, such as `cat/0001.jpg`. How its accents are encoded does not matter: macOS decomposes them.
    """
    return _hashed(name) % HELD_OUT == 0


def _hashed(name: str) -> int:
    digest = hashlib.sha256(os.fsencode(unicodedata.normalize("NFC", name))).digest()
    return int.from_bytes(digest[:8], "big")


# Parts


def _parts(walk: "_Walk", folder: str, where: str) -> dict[str, str]:
    """The path of each part that a folder has: of those subfolders that are called like one and hold folders themselves.

    A folder that is called like a part and holds images alone is a class, such as trains, or has no classes, such as the test
    images of a competition.
    """
    found: dict[str, str] = {}
    for name in walk.listed(folder).folders:
        part = _part_of(name)
        path = os.path.join(folder, name)
        if part is None or not walk.listed(path).folders:
            continue
        if part in found:
            raise ValueError(
                f"{where}: {os.path.basename(found[part])}/ and {name}/ are both for {part}; rename or remove one of them"
            )
        found[part] = path
    return {part: found[part] for part in PART_NAMES if part in found}


def _part_of(name: str) -> str | None:
    """Which part a folder is by its name, such as `train`, `Training`, `seg_train` or `test_set`."""
    content = rf"[\s_-]?(?:{'|'.join(CONTENT_NAMES)})"
    for part, words in PART_NAMES.items():
        if re.search(rf"(?:^|[\W\d_])(?:{'|'.join(words)})(?:{content})?(?:$|[\W\d_])", name, re.IGNORECASE):
            return part
    return None


def _check_not_flat_parts(walk: "_Walk", folder: str, where: str) -> None:
    """See that the classes are no parts whose images lie in no class folders, as those of a competition can.

    Such a name among others is a class, such as trains; where all of them are for training or testing they are hardly classes.
    """
    flat = {_part_of(name): name for name in walk.listed(folder).folders}
    tested = flat.get("test") or flat.get("val")
    if None not in flat and "train" in flat and tested is not None:
        raise ValueError(
            f"{where}: {flat['train']}/ and {tested}/ hold no class folders, and are called like parts rather than classes; "
            "move the images of each class into a folder of its own, or, if they are classes, rename one of them"
        )


def _missing_part(parts: dict[str, str], whole: bool, where: str) -> str:
    remedy = "add them"
    if whole and "train" in parts:
        remedy = f"add them, or give --data.root {parts['train']}, of which a fifth is then held out"
    return f"{where}: it must hold train/ and test/ or val/, each with a folder for each class; {remedy}"


def _divided(walk: "_Walk", folder: str, parts: dict[str, str], where: str) -> ImageFolder:
    walk.leave_out_others(folder, list(parts.values()))
    opened = {part: walk.unwrapped(path, part) for part, path in parts.items()}
    classes = {part: walk.classes(path) for part, path in opened.items()}
    walk.follow_links()
    for part, path in opened.items():
        _check_classes(classes[part], path, walk, where)
    names = sorted(classes["train"])
    for part in classes:
        _check_same_classes(classes["train"], classes[part], opened["train"], opened[part], where)
    samples = {part: _labelled(classes[part], names) for part in classes}
    val = samples.get("val", [])
    test = samples.get("test", [])
    _check_apart(samples["train"], [*val, *test], where)
    if not test:
        val, test = [], val
    return ImageFolder(folder, samples["train"], val, test, names, True, walk.summary())


def _check_same_classes(
    train: dict[str, list[str]], other: dict[str, list[str]], train_folder: str, other_folder: str, where: str
) -> None:
    for own, others, path in ((train, other, train_folder), (other, train, other_folder)):
        only = [name for name in own if name not in others]
        if only:
            raise ValueError(
                f"{where}: {os.path.basename(train_folder)}/ and {os.path.basename(other_folder)}/ have different classes: "
                f"{', '.join(only[:5])} {'is' if len(only) == 1 else 'are'} in {os.path.basename(path)}/ only; add or remove "
                "the folder"
            )


def _check_apart(train: list[Sample], test: list[Sample], where: str) -> None:
    """See that no test image is a link to a training image, or the other way round; hard links are links too."""
    trained = {path for path, _ in train}
    both = []
    for paths in _same_files([path for path, _ in (*train, *test)]):
        tested = [path for path in paths if path not in trained]
        if 0 < len(tested) < len(paths):
            both += tested
    if both:
        raise ValueError(
            f"{where}: {len(both)} test images are training images too, by links, such as {both[0]}; remove the links"
        )


def _held_out(walk: "_Walk", folder: str, where: str) -> ImageFolder:
    classes = walk.classes(folder)
    walk.follow_links()
    walk.leave_out_same_files(classes)
    _check_classes(classes, folder, walk, where)
    names = sorted(classes)
    train: dict[str, list[str]] = {}
    test: dict[str, list[str]] = {}
    for name in names:
        paths = classes[name]
        if len(paths) < 2:
            raise ValueError(
                f"{where}: {os.path.join(folder, name)} has 1 image, and a class needs at least 2, one of them for testing; "
                "add some"
            )
        # The hash of each image decides for it; by chance it may leave one of the parts without any of a small class.
        image_names = {path: os.path.relpath(path, folder).replace(os.sep, "/") for path in paths}
        by_hash = sorted(paths, key=lambda path: _hashed(image_names[path]))
        drawn = [path for path in paths if is_held_out(image_names[path])]
        if not drawn:
            drawn = [by_hash[0]]
        if len(drawn) == len(paths):
            drawn.remove(by_hash[-1])
        chosen = set(drawn)
        train[name] = [path for path in paths if path not in chosen]
        test[name] = drawn
    return ImageFolder(folder, _labelled(train, names), [], _labelled(test, names), names, False, walk.summary())


def _labelled(classes: dict[str, list[str]], names: list[str]) -> list[Sample]:
    return [(path, label) for label, name in enumerate(names) for path in sorted(classes[name])]


def _check_classes(classes: dict[str, list[str]], folder: str, walk: "_Walk", where: str) -> None:
    """Raises ValueError unless there are at least two classes, each with images."""
    if len(classes) < 2:
        found = f"only the class folder {min(classes)}" if classes else "no class folders"
        raise ValueError(
            f"{where}: {folder} has {found}; it must hold a folder of images for each of at least 2 classes"
        )
    for name, paths in classes.items():
        if not paths:
            raise ValueError(
                f"{where}: the class folder {os.path.join(folder, name)} has no images ({USUAL}); "
                f"add some, or remove it{walk.summary() and '; ' + walk.summary()}"
            )


# Files


@dataclass
class _Listing:
    """What lies in one folder, sorted by name, without what is hidden or a system's."""

    folders: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    not_files: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)


class _Walk:
    """Reads folders, each real one once, and remembers what it leaves out.

    Links to folders wait until all folders that are there themselves have been read, because a link can lead to one of them:
    from a class of the training images to the test images, or back to the beginning.
    """

    def __init__(self, where: str, root: str) -> None:
        self.where = where
        self.roots = [os.path.realpath(root)]
        self.seen: set[tuple[int, int]] = set()  # device and inode of the folders read
        self.links: list[tuple[str, list[str]]] = []  # each with the files of its class
        self.left_out: dict[str, list[str]] = {}
        self.listings: dict[str, _Listing] = {}

    def listed(self, folder: str) -> _Listing:
        if folder not in self.listings:
            self.listings[folder] = _list(folder)
        return self.listings[folder]

    def unwrapped(self, folder: str, part: str | None = None) -> str:
        """The folder, or the one that is all it holds, as archives are often unpacked.

        Args:
            part: which part of the images the folder is. A folder within it may be called like that part too.
        """
        inside = self.listed(folder)
        while len(inside.folders) == 1 and not inside.images and _part_of(inside.folders[0]) in (None, part):
            deeper = os.path.join(folder, inside.folders[0])
            if not self.listed(deeper).folders:
                break
            folder, inside = deeper, self.listed(deeper)
        return folder

    def leave_out_others(self, folder: str, parts: list[str]) -> None:
        """Note what lies beside the parts of a folder."""
        inside = self.listed(folder)
        others = [name for name in inside.folders if os.path.join(folder, name) not in parts]
        self._note("folders beside the parts", [os.path.join(folder, name) for name in others])
        self._note("images outside of any class", [os.path.join(folder, name) for name in inside.images])
        self._note_others(folder, inside)

    def classes(self, folder: str) -> dict[str, list[str]]:
        """The image files of each class folder, at any depth. Those behind links are added by `follow_links`."""
        self._enter(folder)
        self.roots.append(os.path.realpath(folder))
        inside = self.listed(folder)
        if inside.images:
            raise ValueError(
                f"{self.where}: {len(inside.images)} images, such as {inside.images[0]}, lie in {folder} itself and so belong "
                "to no class; move them into class folders, or remove them"
            )
        self._note_others(folder, inside)
        self._check_not_parts(folder)
        classes: dict[str, list[str]] = {}
        for name in inside.folders:
            if not is_utf8(name):
                raise ValueError(
                    f"{self.where}: the class folder {for_terminal(os.path.join(folder, name))} has a name that is not UTF-8; "
                    "rename it"
                )
            files = classes.setdefault(unicodedata.normalize("NFC", name), [])
            self._take_below(folder, name, files)
        return classes

    def _check_not_parts(self, folder: str) -> None:
        """See that the folders in a folder of classes are no parts of another kind, such as folds or sizes."""
        inside = [self.listed(os.path.join(folder, name)) for name in self.listed(folder).folders]
        if len(inside) < 2 or any(listing.images for listing in inside):
            return
        same = inside[0].folders
        if len(same) >= 2 and all(listing.folders == same for listing in inside):
            raise ValueError(
                f"{self.where}: all folders in {folder} hold the same folders ({', '.join(same[:3])}"
                f"{', ...' if len(same) > 3 else ''}) and no images, so that they are parts rather than classes; name them "
                "train and test, or, if they are classes, put their images into them directly"
            )

    def take(self, folder: str, files: list[str]) -> None:
        """Add the images of a folder, at any depth; links to folders are put off."""
        inside = self.listed(folder)
        self._note_others(folder, inside)
        files += [os.path.join(folder, name) for name in inside.images]
        for name in inside.folders:
            self._take_below(folder, name, files)
        del self.listings[folder]

    def _take_below(self, folder: str, name: str, files: list[str]) -> None:
        path = os.path.join(folder, name)
        if os.path.islink(path):
            self.links.append((path, files))
        elif self._enter(path):
            self.take(path, files)
        else:
            self._note("links to folders that are read already, or hold this one", [path])

    def follow_links(self) -> None:
        """Read the folders to which links lead, if nothing else did."""
        while self.links:
            link, files = self.links.pop(0)
            target = os.path.realpath(link)
            encloses = any(os.path.commonpath([target, root]) == target for root in self.roots)
            if encloses or not self._enter(target):
                self._note("links to folders that are read already, or hold this one", [link])
            else:
                self.take(link, files)

    def leave_out_same_files(self, classes: dict[str, list[str]]) -> None:
        """Take out all but one of the images that are the same file by links, so that no two parts can get one each.

        A file itself is rather kept than links to it.
        """
        surplus: set[str] = set()
        for paths in _same_files([path for files in classes.values() for path in files]):
            kept = min(paths, key=lambda path: (os.path.islink(path), path))
            surplus.update(path for path in paths if path != kept)
        self._note("links to images that are read already", sorted(surplus))
        for files in classes.values():
            files[:] = [path for path in files if path not in surplus]

    def _enter(self, folder: str) -> bool:
        """Whether this real folder is met for the first time."""
        status = os.stat(folder)
        folder_id = (status.st_dev, status.st_ino)
        known = folder_id in self.seen
        self.seen.add(folder_id)
        return not known

    def _note_others(self, folder: str, inside: _Listing) -> None:
        self._note("files that are no images", [os.path.join(folder, name) for name in inside.others])
        self._note("that are neither files nor folders", [os.path.join(folder, name) for name in inside.not_files])
        self._note("hidden or of the system", [os.path.join(folder, name) for name in inside.hidden])

    def _note(self, why: str, paths: list[str]) -> None:
        if paths:
            self.left_out.setdefault(why, []).extend(paths)

    def summary(self) -> str:
        """How many entries are left out, why, and an example of each kind."""
        kinds = [f"{len(paths):,} {why} (such as {paths[0]})" for why, paths in self.left_out.items()]
        return "left out: " + ", ".join(kinds) if kinds else ""


def _same_files(paths: Sequence[str]) -> list[list[str]]:
    """The paths that lead to the same file, by symbolic or by hard links: a list for each file that has several."""
    if not any(_is_link(path) for path in paths):  # of a million images the table below would take much memory
        return []
    found: dict[tuple[int, int], list[str]] = {}
    for path in paths:
        with suppress(OSError):  # a link to nothing
            status = os.stat(path)
            found.setdefault((status.st_dev, status.st_ino), []).append(path)
    return [same for same in found.values() if len(same) > 1]


def _is_link(path: str) -> bool:
    """Whether this is a symbolic link, or one of several names of a file."""
    status = os.lstat(path)
    return stat.S_ISLNK(status.st_mode) or status.st_nlink > 1


def _list(folder: str) -> _Listing:
    listing = _Listing()
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith(".") or entry.name.lower() in SYSTEM_NAMES:
                listing.hidden.append(entry.name)
            elif os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
                listing.folders.append(entry.name)
            elif not is_image(entry.name):
                listing.others.append(entry.name)
            elif entry.is_file() or not os.path.exists(entry.path):  # a link to nothing is an image that cannot be read
                listing.images.append(entry.name)
            else:
                listing.not_files.append(entry.name)
    return listing


@contextmanager
def _readable(where: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"{where}: {error.filename} cannot be read: {error.strerror}; change its permissions, or name another folder"
        ) from error
