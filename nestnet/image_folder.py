"""A folder of images of one's own: which classes and files it has, and which of them are for testing."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from torchvision.datasets.folder import IMG_EXTENSIONS

from nestnet.image_files import Sample

TEST_NAMES = ("test", "val")
HELD_OUT = 5
"""Where a folder has no part for testing, one image in so many of each class is held out."""


@dataclass(frozen=True)
class ImageFolder:
    """What lies in a folder.

    Attributes:
        train: path and label of each training image, by class and name.
        test: likewise, for testing.
        class_names: the names of the class folders, sorted; a label is a place among them.
        divided: whether the folder has parts of its own for training and testing.
    """

    train: list[Sample]
    test: list[Sample]
    class_names: list[str]
    divided: bool


def read_folder(root: str, *, whole: bool = True) -> ImageFolder:
    """The images in `root/train` and `root/test` (or `val`), each with a folder a class.

    Args:
        whole: whether `root` may also have class folders and no parts. Then a fifth of each class is held out for
            testing: at least one, drawn by the names of the files, and so the same for every seed and run.

    Raises:
        ValueError: naming the folder and what to do, if it is absent, cannot be listed or has other contents: no classes,
            classes without images or in one part only, or images outside of any class.
    """
    field, folder = f"data.root = {root!r}", Path(root)
    if not folder.is_dir():
        if folder.exists():
            raise ValueError(f"{field}: it is a file; name the folder of images")
        raise ValueError(f"{field}: there is no such folder")
    with _readable(field):
        inside = {path.name for path in folder.iterdir() if path.is_dir()}
    tests = [name for name in TEST_NAMES if name in inside]
    if "train" in inside and tests:
        return _divided(folder / "train", folder / tests[0], field)
    if "train" in inside or tests or not whole:
        remedy = f"add them, or give --data.root {folder / 'train'}, of which a fifth is then held out"
        remedy = remedy if whole and "train" in inside else "add them"
        raise ValueError(f"{field}: it must hold train/ and test/ or val/, each with a folder a class; {remedy}")
    return _held_out(folder, field)


def _divided(train: Path, test: Path, field: str) -> ImageFolder:
    samples, tests = _classes(train, field), _classes(test, field)
    for own, other, path in ((samples, tests, train), (tests, samples, test)):
        only = [name for name in own if name not in other]
        if only:
            raise ValueError(
                f"{field}: {train.name}/ and {test.name}/ have different classes: {', '.join(only[:5])} "
                f"{'is' if len(only) == 1 else 'are'} in {path.name}/ only; add or remove the folder"
            )
    return ImageFolder(_labelled(samples), _labelled(tests), list(samples), divided=True)


def _held_out(folder: Path, field: str) -> ImageFolder:
    kept, tests = {}, {}
    for name, paths in _classes(folder, field).items():
        if len(paths) < 2:
            raise ValueError(
                f"{field}: {folder / name} has 1 image, and a class needs at least 2, one of them for testing; add some"
            )
        # by the class alone, so that another one more or less changes nothing for it
        drawn = set(random.Random(name).sample(range(len(paths)), max(1, round(len(paths) / HELD_OUT))))
        kept[name] = [path for number, path in enumerate(paths) if number not in drawn]
        tests[name] = [path for number, path in enumerate(paths) if number in drawn]
    return ImageFolder(_labelled(kept), _labelled(tests), list(kept), divided=False)


def _labelled(classes: dict[str, list[str]]) -> list[Sample]:
    return [(path, label) for label, paths in enumerate(classes.values()) for path in paths]


def _classes(folder: Path, field: str) -> dict[str, list[str]]:
    """The image files of each class folder, at any depth; both sorted by name."""
    with _readable(field):
        entries = sorted(folder.iterdir())
        classes = {path.name: _images(path) for path in entries if path.is_dir()}
    loose = [path.name for path in entries if _is_image(path.name) and path.name not in classes]
    if loose:
        raise ValueError(
            f"{field}: {len(loose)} images, such as {loose[0]}, lie in {folder} itself and so belong to no class; move "
            "them into class folders, or remove them"
        )
    if len(classes) < 2:
        found = f"only the class folder {min(classes)}" if classes else "no class folders"
        raise ValueError(
            f"{field}: {folder} has {found}; it must hold a folder of images for each of at least 2 classes"
        )
    for name, paths in classes.items():
        if not paths:
            raise ValueError(
                f"{field}: the class folder {folder / name} has no images ({' '.join(IMG_EXTENSIONS)}); add some, or remove it"
            )
    return classes


def _images(folder: Path) -> list[str]:
    def refuse(error: OSError) -> NoReturn:
        raise error

    walk = sorted(os.walk(folder, onerror=refuse, followlinks=True))
    return [os.path.join(inside, name) for inside, _, names in walk for name in sorted(names) if _is_image(name)]


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMG_EXTENSIONS)


@contextmanager
def _readable(field: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"{field}: {error.filename} cannot be read: {error.strerror}; change its permissions, or name another folder"
        ) from error
