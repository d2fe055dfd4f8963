"""The classification of image files and folders with an exported network, reported in lines of text."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from nestnet.data.folder.folder_walk import list_images
from nestnet.data.image_decoding import USUAL_EXTENSIONS
from nestnet.deploy.prediction_text import LAYOUTS, Layout
from nestnet.deploy.predictor import Prediction, Predictor
from nestnet.runtime.log import log_notice


def predict(
    paths: Sequence[Path],
    predictor: Predictor,
    *,
    top: int = 5,
    batch_size: int = 32,
    layout: Layout = "text",
    tell: Callable[[str], None],
    tell_error: Callable[[str], None],
) -> None:
    """Classify image files, and report the predictions as lines of text.

    Args:
        paths: image files, and folders of them.
        predictor: network, or cascade of two, that classifies them.
        top: number of classes per image, at least 1.
        batch_size: number of images per forward pass, at least 1.
        layout: format of the lines: `"text"` for reading, `"csv"` or `"json"`.
        tell: function that is called with each line.
        tell_error: function that is called with one line for each image that cannot be read.

    Raises:
        ValueError: If an argument is out of range, or a folder has no images.
    """
    predictions = predictor.predict(list_image_files(paths), top=top, batch_size=batch_size)

    # Report an unreadable file at once, and classify the others.
    def readable() -> Iterator[Prediction]:
        for prediction in predictions:
            if prediction.error is None:
                yield prediction
            else:
                tell_error(prediction.error)

    for line in LAYOUTS[layout](readable()):
        tell(line)


def list_image_files(paths: Sequence[Path]) -> list[Path]:
    """Replace folders by all image files below them, in the order of training.

    Args:
        paths: files and folders.

    Returns:
        The paths of the files.

    Raises:
        ValueError: For a folder without images, or one that cannot be read.
    """
    files: list[Path] = []
    for path in paths:
        # This includes absent files, which the predictor reports.
        if not os.path.isdir(path):
            files.append(path)
            continue
        try:
            images, left_out = list_images(str(path))
        except OSError as error:
            raise ValueError(f"{error.filename} cannot be read: {error.strerror}; change its permissions") from error
        if not images:
            # Mention files that are not images, because they may have been meant.
            others = f"; {left_out}" if left_out else ""
            raise ValueError(f"{path}: this folder has no images ({USUAL_EXTENSIONS}){others}")
        if left_out:
            log_notice(f"{path}: {left_out}")
        files.extend(map(Path, images))
    return files
