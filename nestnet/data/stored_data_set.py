"""A data set as it is stored, before any transform."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Subset

from nestnet.data.image_files import ImageFiles, Label
from nestnet.data.sources.python_images import PythonImages


@dataclass(frozen=True)
class StoredDataSet:
    """A data set as it is stored.

    Attributes:
        train: training images; gives a PIL image or bytes `[C, H, W]`, and a label, for an index.
        test: test images, in the same form.
        train_labels: label of each training image, or tuple of its labels, in the order of `train`.
        class_names: name of each class, in the order of the labels.
        channels: number of channels of each image, 1 or 3.
        img_size: height and width of training images in pixels where the configuration names no other.
        mean: mean of each channel for values from 0 to 1; `None` to take the network's.
        std: standard deviation of each channel; `None` to take the network's.
        val: images on which the best epoch is chosen, in the form of `train`; `None` if it is chosen on the
            test images.
    """

    train: Any
    test: Any
    train_labels: Sequence[Label]
    class_names: list[str]
    channels: int
    img_size: int
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    val: Any = None


def take_subset(dataset: Any, indices: Sequence[int]) -> Any:
    """Return some samples of stored images as a dataset.

    Args:
        dataset: stored images.
        indices: positions of the samples in it, in the desired order.

    Returns:
        The subset. For image files it is another `ImageFiles`, so that the replacement of an unreadable file
        belongs to the subset, and for images from Python another `PythonImages`.
    """
    # With torch's Subset, an unreadable file would be replaced by one that is not in the subset.
    if isinstance(dataset, ImageFiles | PythonImages):
        return dataset.subset(indices)
    return Subset(dataset, list(indices))
