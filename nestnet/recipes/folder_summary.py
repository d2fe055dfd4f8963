"""The summary of a user's own images: number of images and classes, and typical size."""

import statistics
from dataclasses import dataclass

from nestnet.config.schema_sections import DataConfig
from nestnet.data.image_decoding import UnreadableImageError, open_image, upright_size
from nestnet.data.sources.own_images import find_own_images, name_source

MAX_OPENED_IMAGES = 200
"""Approximate number of images, spread over the folder, that are opened for their sizes. Pixels are not decoded."""

GREY_MODES = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L"}
"""Modes of PIL's images without colours."""


@dataclass(frozen=True)
class FolderSummary:
    """Summary of a user's own images.

    Attributes:
        source: path of the folder, or of the CSV file with the labels.
        train_images: number of images for training.
        test_images: number of images for testing.
        classes: number of classes.
        has_test_split: whether the source itself says which images are for testing; otherwise a part of each
            class is held out.
        width: median width of the opened images in pixels.
        height: median height of the opened images in pixels.
        shorter_side: median of the shorter sides of the opened images in pixels.
        is_grey: whether none of the opened images has colours.
    """

    source: str
    train_images: int
    test_images: int
    classes: int
    has_test_split: bool
    width: int
    height: int
    shorter_side: int
    is_grey: bool


def summarise_images(data: DataConfig) -> FolderSummary:
    """Summarise a user's own images, some of which are opened for their sizes.

    Args:
        data: configuration of the images; its fields that say where they are matter here.

    Returns:
        The summary.

    Raises:
        ValueError: For the same reasons as `nestnet.data.sources.own_images.find_own_images`, or if none of the opened
            files can be read as an image.
    """
    own = find_own_images(data)
    # Open images at regular distances, because neighbours in a sorted folder may be similar.
    step = max(1, len(own.train) // MAX_OPENED_IMAGES)
    widths = []
    heights = []
    modes = set()
    for path, _ in own.train[::step]:
        try:
            with open_image(path, own.store) as (image, _):
                width, height = upright_size(image)
                modes.add(image.mode)
        except UnreadableImageError:
            # Training reports the file, and stops or skips it according to `data.corrupt`.
            continue
        widths.append(width)
        heights.append(height)
    if not widths:
        raise ValueError(
            f"{name_source(data)}: {own.train[0][0]} and others cannot be read as images; replace or remove them"
        )
    return FolderSummary(
        source=data.labels or data.root or "",
        train_images=len(own.train),
        test_images=len(own.test),
        classes=len(own.class_names),
        has_test_split=own.has_splits,
        width=round(statistics.median(widths)),
        height=round(statistics.median(heights)),
        shorter_side=round(statistics.median(map(min, widths, heights))),
        is_grey=modes <= GREY_MODES,
    )
