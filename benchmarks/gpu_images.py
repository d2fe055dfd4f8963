"""CIFAR-10 as a folder of images, from an archive; and a few images for a quick run."""

import tarfile
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

from common import CLASSES, make_images

QUICK_IMAGES = 16
"""Number of images per class for training and testing in a quick run, which gives five batches of 32."""


class Images:
    """CIFAR-10 as a folder, which is prepared while the first parts run.

    Args:
        make: function that creates the images within a folder, and returns their root.
        folder: folder for the images.
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


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack the images of a .tar.gz; nothing can be written outside of the folder.

    Raises:
        ValueError: If there are no images of training and test within.
    """
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return find_image_root(folder, archive)


def find_image_root(folder: Path, named: Path) -> Path:
    """Return the folder that holds `train` and `test`: this one, or one within it.

    Raises:
        ValueError: If none does.
    """
    for candidate in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        if (candidate / "train").is_dir() and (candidate / "test").is_dir():
            return candidate
    raise ValueError(f"--data {named.name}: it has no folders train/ and test/")


def generate_images(folder: Path) -> Path:
    """Generate some random images, for a quick run without data."""
    make_images(folder, QUICK_IMAGES * CLASSES, 32)
    return folder


def link_some_images(root: Path, folder: Path) -> Path:
    """Create a folder of links to the first images of each class, for a quick run."""
    for classes in (*(root / "train").iterdir(), *(root / "test").iterdir()):
        links = folder / classes.parent.name / classes.name
        links.mkdir(parents=True)
        for image in sorted(classes.iterdir())[:QUICK_IMAGES]:
            (links / image.name).symlink_to(image.resolve())
    return folder
