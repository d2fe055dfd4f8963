"""The summary of a folder of images: number of images and classes, and typical size."""

import statistics
from dataclasses import dataclass

from nestnet.data.folder.image_folder import read_folder
from nestnet.data.image_decoding import UnreadableImageError, open_image, upright_size
from nestnet.text.escape import quoted

MAX_OPENED_IMAGES = 200
"""Approximate number of images, spread over the folder, that are opened for their sizes. Pixels are not decoded."""

GREY_MODES = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L"}
"""Modes of PIL's images without colours."""


@dataclass(frozen=True)
class FolderSummary:
    """Summary of a folder of images.

    Attributes:
        root: path of the folder.
        train_images: number of images for training.
        test_images: number of images for testing.
        classes: number of classes.
        has_test_split: whether the folder itself says which images are for testing; otherwise a part of each
            class is held out.
        width: median width of the opened images in pixels.
        height: median height of the opened images in pixels.
        shorter_side: median of the shorter sides of the opened images in pixels.
        is_grey: whether none of the opened images has colours.
    """

    root: str
    train_images: int
    test_images: int
    classes: int
    has_test_split: bool
    width: int
    height: int
    shorter_side: int
    is_grey: bool


def summarise_folder(root: str) -> FolderSummary:
    """Summarise a folder of images, some of which are opened for their sizes.

    Args:
        root: path of the folder, laid out as `data.root` describes it.

    Returns:
        The summary.

    Raises:
        ValueError: For the same reasons as `nestnet.data.folder.image_folder.read_folder`, or if none of the opened
            files can be read as an image.
    """
    folder = read_folder(root)
    # Open images at regular distances, because neighbours in a sorted folder may be similar.
    step = max(1, len(folder.train) // MAX_OPENED_IMAGES)
    widths = []
    heights = []
    modes = set()
    for path, _ in folder.train[::step]:
        try:
            with open_image(path) as (image, _):
                width, height = upright_size(image)
                modes.add(image.mode)
        except UnreadableImageError:
            # Training reports the file, and stops or skips it according to `data.corrupt`.
            continue
        widths.append(width)
        heights.append(height)
    if not widths:
        raise ValueError(
            f"data.root = {quoted(root)}: {folder.train[0][0]} and others cannot be read as images; replace or remove them"
        )
    return FolderSummary(
        root=root,
        train_images=len(folder.train),
        test_images=len(folder.test),
        classes=len(folder.class_names),
        has_test_split=folder.has_splits,
        width=round(statistics.median(widths)),
        height=round(statistics.median(heights)),
        shorter_side=round(statistics.median(map(min, widths, heights))),
        is_grey=modes <= GREY_MODES,
    )
