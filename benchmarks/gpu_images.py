"""CIFAR-10 as a folder of images, from an archive of one; and a few images for a quick run."""

import tarfile
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

from common import CLASSES, make_images

QUICK_IMAGES = 16
"""Of each class, for training and for testing in a quick run: five batches of 32."""


class Images:
    """CIFAR-10 as a folder, which is made while the first parts run.

    Args:
        make: makes it within a folder, and returns it.
        folder: for that.
    """

    def __init__(self, make: Callable[[Path], Path], folder: Path) -> None:
        self.root: Path | None = None
        self.reason = ""
        self.thread = threading.Thread(target=self._make, args=(make, folder), daemon=True)
        self.thread.start()

    def _make(self, make: Callable[[Path], Path], folder: Path) -> None:
        try:
            self.root = make(folder)
        except (OSError, EOFError, ValueError, tarfile.TarError, zlib.error) as error:
            self.reason = str(error) or type(error).__name__

    def wait(self) -> None:
        self.thread.join()


def unpacked(archive: Path, folder: Path) -> Path:
    """The images of a .tar.gz, unpacked; nothing in it can reach outside of the folder.

    Raises:
        ValueError: if there are no images of training and test within.
    """
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return root_of_images(folder, archive)


def root_of_images(folder: Path, named: Path) -> Path:
    """The folder that holds `train` and `test`: this one, or one within it.

    Raises:
        ValueError: if none does.
    """
    for candidate in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        if (candidate / "train").is_dir() and (candidate / "test").is_dir():
            return candidate
    raise ValueError(f"--data {named.name}: it has no folders train/ and test/")


def made_up(folder: Path) -> Path:
    """Some images at random, for a quick run without data."""
    make_images(folder, QUICK_IMAGES * CLASSES, 32)
    return folder


def some_images(root: Path, folder: Path) -> Path:
    """A folder of links to the first images of each class, for a quick run."""
    for classes in (*(root / "train").iterdir(), *(root / "test").iterdir()):
        links = folder / classes.parent.name / classes.name
        links.mkdir(parents=True)
        for image in sorted(classes.iterdir())[:QUICK_IMAGES]:
            (links / image.name).symlink_to(image.resolve())
    return folder
