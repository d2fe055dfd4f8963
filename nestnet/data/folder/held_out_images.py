"""The fifth of each class that is held out for testing if a folder of images is not divided into splits.

Whether an image is held out depends on its own name only, so it stays in its split when other images are
added or removed.
"""

import hashlib
import os
import unicodedata
from collections.abc import Sequence

# One in this many images is held out. Changing the value would move images of existing folders between their splits.
HELD_OUT_PERIOD = 5


def is_held_out(name: str) -> bool:
    """Return whether an image is held out for testing.

    Args:
        name: class folder and file name, such as `cat/0001.jpg`. Composed and decomposed accents, as on macOS,
            give the same result.
    """
    return _hash_name(name) % HELD_OUT_PERIOD == 0


def hold_out_images(paths: Sequence[str], root: str) -> tuple[list[str], list[str]]:
    """Divide the images of a class into training and test images, at least one of each.

    Args:
        paths: paths of at least two images.
        root: folder at which the names of the images begin; it holds the class folders.

    Returns:
        The paths of the training images and those of the test images.
    """
    names: dict[str, str] = {}
    for path in paths:
        names[path] = os.path.relpath(path, root).replace(os.sep, "/")
    by_hash = sorted(paths, key=lambda path: _hash_name(names[path]))
    test = [path for path in paths if is_held_out(names[path])]
    # In a small class the hashes may leave one of the splits empty.
    if not test:
        test = [by_hash[0]]
    if len(test) == len(paths):
        test.remove(by_hash[-1])
    train = sorted(set(paths) - set(test))
    return train, test


def _hash_name(name: str) -> int:
    # Python's own `hash` differs from process to process.
    digest = hashlib.sha256(os.fsencode(unicodedata.normalize("NFC", name))).digest()
    return int.from_bytes(digest[:8], "big")
