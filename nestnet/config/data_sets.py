"""The facts about each data set that can be known without reading an image."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class DataSetFacts:
    """What is known about a data set from its name alone.

    Attributes:
        img_size: height and width of training images in pixels where the configuration names no other.
        num_classes: number of classes; `None` if it depends on the folder.
        train_images: number of training images; `None` if it depends on the folder.
        channels: number of channels of each image, 1 or 3; `None` if files are read with `model.in_chans`, by
            default 3.
        augment: augmentation of training images where the configuration names none; `None` if it depends on
            their size.
        mean: mean of each channel over the training images, for values from 0 to 1; `None` where the images
            themselves or the network decide.
        std: standard deviation of each channel over the training images; `None` like `mean`.
        can_download: whether torchvision can download the data set.
        has_image_files: whether images are stored as encoded files, by themselves or inside of larger files.
        may_be_subset: whether the folder may hold fewer than `num_classes` classes.
        is_own: whether these are a user's own images, below a folder that must be named.
        fields: names of the fields of `data` that are for this data set and not for every one.
    """

    img_size: int = 224
    num_classes: int | None = None
    train_images: int | None = None
    channels: int | None = None
    augment: Literal["shift"] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    can_download: bool = False
    has_image_files: bool = False
    may_be_subset: bool = False
    is_own: bool = False
    fields: tuple[str, ...] = ()


DATA_SETS: dict[str, DataSetFacts] = {
    # A fifth of the 1,797 images is held out for testing.
    "digits": DataSetFacts(img_size=8, num_classes=10, train_images=1_437, channels=1, augment="shift"),
    # The channel statistics of CIFAR are those of its 50,000 training images (Krizhevsky 2009).
    "cifar10": DataSetFacts(
        img_size=32,
        num_classes=10,
        train_images=50_000,
        channels=3,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        can_download=True,
    ),
    "cifar100": DataSetFacts(
        img_size=32,
        num_classes=100,
        train_images=50_000,
        channels=3,
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        can_download=True,
    ),
    # Training and validation images together (Nilsback and Zisserman 2008).
    "flowers102": DataSetFacts(
        num_classes=102, train_images=2_040, channels=3, can_download=True, has_image_files=True
    ),
    # Training and validation images together (Parkhi et al. 2012).
    "oxford_pets": DataSetFacts(
        num_classes=37, train_images=3_680, channels=3, can_download=True, has_image_files=True
    ),
    "imagenet": DataSetFacts(num_classes=1_000, train_images=1_281_167, has_image_files=True, may_be_subset=True),
    "folder": DataSetFacts(has_image_files=True, is_own=True),
    "csv": DataSetFacts(
        has_image_files=True,
        is_own=True,
        fields=("labels", "image_column", "label_column", "split_column", "multi_label", "label_separator"),
    ),
    "hf_datasets": DataSetFacts(
        has_image_files=True, is_own=True, fields=("image_column", "label_column", "multi_label")
    ),
    "webdataset": DataSetFacts(has_image_files=True, is_own=True, fields=("label_column", "multi_label")),
    "python": DataSetFacts(),
}
"""The facts of each data set by its name in `data.name`."""
