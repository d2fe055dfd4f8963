"""Data sets that are given in Python: any `torch.utils.data.Dataset` with a length."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import IterableDataset, Subset

from nestnet.config.data_sets import DATA_SETS
from nestnet.data.class_names import describe_untrained_classes
from nestnet.data.sources.python_images import PythonImages, check_label, describe_value
from nestnet.data.stored_data_set import StoredDataSet
from nestnet.runtime.log import log_notice


def store_datasets(
    train: Any, test: Any, val: Any = None, *, class_names: Sequence[str] | None = None, in_chans: int | None = None
) -> StoredDataSet:
    """Return data sets that are given in Python as a data set of nestnet.

    Args:
        train: training images and their labels.
        test: test images.
        val: images on which the best epoch is chosen; `None` if it is chosen on the test images.
        class_names: name of each class, in the order of the labels; by default `train.classes`, or numbers.
        in_chans: number of channels of the images, 1 or 3; `None` for 3.

    Returns:
        The data set.

    Raises:
        ValueError: If a data set has no length or no images, there is one class only, or an item is not an image and its
            label.
    """
    if in_chans not in (None, 1, 3):
        raise ValueError(f"model.in_chans = {in_chans}: it must be 1 or 3")
    channels = in_chans or 3
    mode = "L" if channels == 1 else "RGB"
    given = {"train": train, "test": test}
    if val is not None:
        given["val"] = val
    for name, dataset in given.items():
        _check_map_style(name, dataset)
    train_labels = _read_labels(train, "train", mode)
    if class_names is None:
        class_names = _find_class_names(train)
    if class_names is None:
        class_names = [str(number) for number in range(max(train_labels) + 1)]
    _check_classes(train_labels, class_names)
    images = {name: PythonImages(dataset, name, mode, len(class_names)) for name, dataset in given.items()}
    # A wrong item is reported before anything is trained.
    for dataset in images.values():
        dataset[0]
    return StoredDataSet(
        train=images["train"],
        test=images["test"],
        val=images.get("val"),
        train_labels=train_labels,
        class_names=list(class_names),
        channels=channels,
        img_size=DATA_SETS["python"].img_size,
    )


def _check_classes(train_labels: Sequence[int], class_names: Sequence[str]) -> None:
    """Check that there are at least two classes, and log how many of them have no training images."""
    # Labels beyond the names, and names that are no strings, are refused with all images, whatever their source.
    names = [str(name) for name in class_names]
    if len(names) == 1 and max(train_labels) == 0:
        raise ValueError(f"train: it has only the class {names[0]}; training needs images of at least 2 classes")
    trained = {names[label] for label in set(train_labels) if label < len(names)}
    untrained = describe_untrained_classes(names, trained)
    # Labels that count from 1 leave the first class without images.
    if untrained:
        log_notice(f"train: {untrained}; labels count from 0")


def _check_map_style(name: str, dataset: Any) -> None:
    """Check that a data set has a length and items, so that each image can be read at any time."""
    if isinstance(dataset, IterableDataset) or not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise ValueError(
            f"{name}: it is {describe_value(dataset)}; it must have a length and items by index (a map-style data set), "
            "so that an interrupted run resumes exactly"
        )
    if len(dataset) == 0:
        raise ValueError(f"{name}: it has no images")


def _read_labels(dataset: Any, name: str, mode: str) -> list[int]:
    """Return the label of each image: `targets`, as torchvision's data sets have them, or those of its items."""
    targets = _find_targets(dataset)
    if targets is None:
        log_notice(
            f"{name}: each image is read once for its label; an attribute `targets` with all labels would spare this"
        )
        images = PythonImages(dataset, name, mode, is_fixed=True)
        return [images[index][1] for index in range(len(images))]
    if len(targets) != len(dataset):
        raise ValueError(f"{name}: its `targets` are {len(targets)} labels for {len(dataset)} images")
    return [check_label(label, f"{name}.targets[{index}]", None) for index, label in enumerate(targets)]


def _find_targets(dataset: Any) -> Sequence[Any] | None:
    """Return the `targets` of a data set, or of the data set that it is a subset of; `None` if it has none."""
    if isinstance(dataset, Subset):
        targets = _find_targets(dataset.dataset)
        if targets is None:
            return None
        return [targets[index] for index in dataset.indices]
    targets = getattr(dataset, "targets", None)
    if isinstance(targets, Tensor | np.ndarray):
        return targets.tolist()
    return targets


def _find_class_names(dataset: Any) -> list[str] | None:
    """Return the `classes` of a data set, as torchvision's data sets have them; `None` if it has none."""
    if isinstance(dataset, Subset):
        return _find_class_names(dataset.dataset)
    classes = getattr(dataset, "classes", None)
    if classes is None:
        return None
    return [str(name) for name in classes]
