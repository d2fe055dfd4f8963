"""Training and test images: from a stored data set to normalised images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import timm
from timm.models import PretrainedCfg

from nestnet.config.data_sets import DATA_SETS
from nestnet.config.schema import Config
from nestnet.config.schema_rules import as_pair, as_size
from nestnet.config.schema_sections import Augmentation, DataConfig, ModelConfig
from nestnet.data.augmentation import create_train_transform
from nestnet.data.class_names import validate_class_names
from nestnet.data.image_files import ImageFiles, Label, numbers_of
from nestnet.data.image_record import ImageRecord
from nestnet.data.preprocessing import (
    MAX_SMALL_IMG_SIZE,
    ToPixels,
    Transform,
    choose_crop_pct,
    create_eval_transform,
)
from nestnet.data.readers import DEFAULT_ROOT, read_data_set
from nestnet.data.recorded_images import restore_recorded_images
from nestnet.data.sources.own_images import name_source
from nestnet.data.sources.python_datasets import store_datasets
from nestnet.data.sources.python_images import PythonImages
from nestnet.data.stored_data_set import StoredDataSet, take_subset
from nestnet.data.transformed_images import EvalImages, TrainImages
from nestnet.data.validation_split import hold_out_validation_images
from nestnet.text.escape import quoted

# Largest size in bytes of training images that are kept on the device; if they take more, each is read for
# its batch.
MAX_RESIDENT_BYTES = 4 * 2**30


@dataclass(frozen=True)
class ImageData:
    """Training and test images, with what a user of the trained networks needs to know about them.

    Attributes:
        train: training images; gives an augmented image `[C, H, W]`, or two views of it, and its label for a key
            `(index, seed)`.
        val: images on which the best epoch is chosen; gives an image `[C, H, W]` and its label for an index.
            `None` if the best epoch is chosen on the test images.
        test: test images, in the form of `val`.
        train_labels: label of each training image, or tuple of its labels, in the order of `train`.
        class_names: name of each class, in the order of the labels.
        input_size: number of channels, height and width in pixels of training images.
        eval_size: height and width of test images in pixels.
        mean: mean of each channel, for values from 0 to 1, by which images are normalised.
        std: standard deviation of each channel by which images are normalised.
        augment: geometric augmentation of training images.
        eval_transform: transform of a stored image to a test image.
        to_train_pixels: transform of a stored image to bytes `[C, H, W]` of the training size.
        to_eval_pixels: transform of a stored image to bytes `[C, H, W]` of the test size.
        reason_not_resident: reason why the images cannot be kept on the device and augmented there; `None` if
            they can.
    """

    train: TrainImages
    val: EvalImages | None
    test: EvalImages
    train_labels: Sequence[Label]
    class_names: list[str]
    input_size: tuple[int, int, int]
    eval_size: tuple[int, int]
    mean: list[float]
    std: list[float]
    augment: Augmentation
    eval_transform: Transform
    to_train_pixels: Transform
    to_eval_pixels: Transform
    reason_not_resident: str | None

    def __post_init__(self) -> None:
        """Raise ValueError for names that no export could carry, and for a label that belongs to no class."""
        num_classes = len(self.class_names)
        validate_class_names(self.class_names, num_classes)
        for label in self.train_labels:
            if not all(0 <= number < num_classes for number in numbers_of(label)):
                raise ValueError(
                    f"train_labels: there is a label {label}, but only {num_classes} class names; labels count from 0"
                )

    @classmethod
    def from_datasets(
        cls, config: Config, *, train: Any, test: Any, val: Any = None, class_names: Sequence[str] | None = None
    ) -> "ImageData":
        """Return data sets of PyTorch as the images of a run, for `Trainer(config, images=...)`.

        Each item is an image and its label, a whole number from 0. An image is one of Pillow, or a tensor of bytes
        `[C, H, W]`, and is augmented and normalised as `config.data` says. A data set may augment its images itself:
        its random numbers then follow from the seed of the run, so that a run resumes exactly.

        Args:
            config: configuration of the run, whose `data.name` is `python`.
            train: training images: a map-style data set, such as one of torchvision without a transform to tensors. If it
                has `targets`, the labels of all images, they need not be read from its items.
            test: test images.
            val: images on which the best epoch is chosen; `None` if it is chosen on the test images.
            class_names: name of each class, in the order of the labels; by default `train.classes`, or numbers.

        Returns:
            The images.

        Raises:
            ValueError: If a data set has no length or no images, or an item is not an image and its label.

        Example:
            >>> import torch
            >>> from nestnet.config.schema import Config, DataConfig
            >>> config = Config(data=DataConfig(name="python", img_size=8))
            >>> items = [(torch.zeros(3, 8, 8, dtype=torch.uint8), label) for label in (0, 1)]
            >>> len(ImageData.from_datasets(config, train=items, test=items).train)
            2
        """
        if config.data.name != "python":
            raise ValueError(
                f"data.name = {config.data.name!r}: it must be python for data sets that are given in Python"
            )
        stored = store_datasets(train, test, val, class_names=class_names, in_chans=config.model.in_chans)
        return prepare_images(config.data, config.model, stored)

    @property
    def is_multi_label(self) -> bool:
        """Whether an image may have any number of labels, which are then given as a vector `[K]` of zeros and ones."""
        return any(isinstance(label, tuple) for label in self.train_labels[:1])

    @property
    def single_labels(self) -> Sequence[int]:
        """Label of each training image, where each has one."""
        assert not self.is_multi_label
        return cast(Sequence[int], self.train_labels)

    def record(self) -> ImageRecord:
        """Return the record that lets a resumed run read the same images.

        Returns:
            The record: names and hashes of the images and classes.
        """
        splits = {"train": self.train.dataset, "test": self.test.dataset}
        if self.val is not None:
            splits["val"] = self.val.dataset
        return ImageRecord.of(self.class_names, self.train_labels, splits)

    def resplit(self, train_indices: Sequence[int], test_indices: Sequence[int]) -> "ImageData":
        """Return the data with new training and test images, both taken from the present training images.

        Args:
            train_indices: positions of the images to train on, in the desired order.
            test_indices: positions of the images that replace the test images.

        Returns:
            The data with the new split.
        """
        stored = self.train.dataset
        return replace(
            self,
            train=TrainImages(
                take_subset(stored, train_indices), self.train.transform, torch_only=self.train.torch_only
            ),
            train_labels=[self.train_labels[index] for index in train_indices],
            test=_eval_images(take_subset(stored, test_indices), self.eval_transform),
        )

    def fold(self, number: int, folds: int) -> "ImageData":
        """Return one fold of a stratified cross-validation on the training images.

        The folds are the same for every seed.

        Args:
            number: index of the fold to test on, from 0 to `folds - 1`.
            folds: number of folds, each with an equal share of every class.

        Returns:
            The data with the fold as test images, without validation images, and with all other folds as
            training images.

        Raises:
            ValueError: If a class has fewer training images than there are folds, or images have several labels.
        """
        if self.is_multi_label:
            raise ValueError(
                "data.multi_label = True: cross-validation compares top-1 over equal shares of every class, and these "
                "images have several labels; compare runs with different k by their mean average precision"
            )
        # scikit-learn only warns if a class is too rare for the number of folds.
        images_per_class = np.bincount(self.train_labels, minlength=len(self.class_names))
        if images_per_class.min() < folds:
            rarest = self.class_names[int(images_per_class.argmin())]
            raise ValueError(
                f"folds = {folds}: class {rarest!r} has only {images_per_class.min()} training images; take fewer folds"
            )
        # Imported here, because it takes a quarter of a command's start.
        from sklearn.model_selection import StratifiedKFold

        splitter = StratifiedKFold(folds, shuffle=True, random_state=0)
        placeholder = np.zeros(len(self.train_labels))  # the splitter looks at the labels alone
        train_indices, test_indices = list(splitter.split(placeholder, self.train_labels))[number]
        fold = replace(self.resplit(train_indices.tolist(), test_indices.tolist()), val=None)
        return replace(fold, test=_eval_images(_drop_unreadable(fold.test.dataset), self.eval_transform))


def load_data(
    data: DataConfig, model: ModelConfig, record: ImageRecord | None = None, *, command: str | None = None
) -> ImageData:
    """Load the training and test images that a configuration names.

    Args:
        data: configuration of the images, their reading and their augmentation.
        model: configuration of the networks, which determines channels and normalisation where `data` leaves
            them open.
        record: record of an earlier run whose images are to be read; `None` to take all images that are
            present.
        command: command that resumes the run, for advice about a damaged image; `None` if the current command
            accepts the field `data.corrupt` itself.

    Returns:
        The images, with their transforms and class names.

    Raises:
        ValueError: If the data set is absent, its training and test images have different classes,
            normalisation or augmentation do not suit the channels, or the images are not those of the record.
    """
    # Read the images, and select those that belong to the run.
    stored = read_data_set(data, model)
    if data.val_fraction:
        stored = hold_out_validation_images(stored, data.val_fraction)
    if record is not None:
        field = name_source(replace(data, root=data.root or DEFAULT_ROOT))
        stored = restore_recorded_images(record, stored, field, command)
    return prepare_images(data, model, stored)


def prepare_images(data: DataConfig, model: ModelConfig, stored: StoredDataSet) -> ImageData:
    """Return stored images with their transforms.

    Args:
        data: configuration of the images.
        model: configuration of the networks.
        stored: images as they are stored.

    Returns:
        The images.

    Raises:
        ValueError: If normalisation or augmentation do not suit the channels.
    """
    val = _drop_unreadable(stored.val)
    test = _drop_unreadable(stored.test)
    # Determine the transforms: what the configuration leaves open follows from the data set, the network and
    # the image size.
    size = as_size(data.img_size or stored.img_size)
    eval_size = size if data.eval_img_size is None else as_size(data.eval_img_size)
    mean, std = _choose_normalization(data, model, stored)
    crop_pct = choose_crop_pct(model.motivated, eval_size, data.crop_pct)
    eval_transform = create_eval_transform(eval_size, mean, std, crop_pct)
    augment = data.augment or DATA_SETS[data.name].augment or _usual_augmentation(max(size))
    train_transform = create_train_transform(data, augment, size, mean, std)
    # timm's RandAugment and random erasing draw from Python's and numpy's generators too.
    torch_only = not (data.auto_augment or any(as_pair(data.random_erasing)) or data.name == "python")
    return ImageData(
        train=TrainImages(stored.train, train_transform, torch_only=torch_only),
        val=None if val is None else _eval_images(val, eval_transform),
        test=_eval_images(test, eval_transform),
        train_labels=stored.train_labels,
        class_names=stored.class_names,
        input_size=(stored.channels, *size),
        eval_size=eval_size,
        mean=mean,
        std=std,
        augment=augment,
        eval_transform=eval_transform,
        to_train_pixels=ToPixels(size),
        to_eval_pixels=ToPixels(eval_size),
        reason_not_resident=_find_reason_not_resident(
            data, augment, (size, eval_size), stored.channels, len(stored.train_labels)
        ),
    )


def check_train_images_exist(images: ImageData, data: DataConfig) -> None:
    """Check that all training images of a resumed run are present, unless absent ones are to be skipped.

    Args:
        images: images of the run, read by its record.
        data: configuration of the images.

    Raises:
        ValueError: If some are absent and `data.corrupt` is not `skip`.
    """
    stored = images.train.dataset
    if not isinstance(stored, ImageFiles) or stored.skip:
        return
    absent = [path for path in stored.paths if not stored.store.has(path)]
    if absent:
        raise ValueError(
            f"data.root = {quoted(data.root)}: {len(absent):,} training images of the run are absent, such as {absent[0]}; "
            "put them back, or set data.corrupt to skip to train on others in their place"
        )


def _eval_images(stored: Any, transform: Transform) -> EvalImages:
    """Return stored images as a network is evaluated on them: each is always the same."""
    if isinstance(stored, PythonImages):
        stored = stored.fixed()
    return EvalImages(stored, transform)


def _drop_unreadable(stored: Any) -> Any:
    """Return stored test images without the files that cannot be read, if those are to be skipped."""
    if isinstance(stored, ImageFiles) and stored.skip:
        return stored.drop_unreadable()
    return stored


def _choose_normalization(
    data: DataConfig, model: ModelConfig, stored: StoredDataSet
) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel: the configuration's, the data set's or the network's."""
    mean: Sequence[float] = [0.5]
    std: Sequence[float] = [0.5]
    if stored.channels == 3:
        pretrained_cfg = timm.get_pretrained_cfg(model.motivated) or PretrainedCfg()
        mean = pretrained_cfg.mean
        std = pretrained_cfg.std
    mean = data.mean or stored.mean or mean
    std = data.std or stored.std or std
    for name, values in (("mean", list(mean)), ("std", list(std))):
        if len(values) != stored.channels:
            raise ValueError(
                f"data.{name} = {values}: it must have a number for each of the {stored.channels} channels"
            )
    return list(mean), list(std)


def _usual_augmentation(longer_side: int) -> Augmentation:
    if longer_side <= MAX_SMALL_IMG_SIZE:
        return "crop"
    return "resized_crop"


def _find_reason_not_resident(
    data: DataConfig, augment: Augmentation, sizes: Sequence[tuple[int, int]], channels: int, num_images: int
) -> str | None:
    """Return why the images cannot be kept on the device; `None` if they can."""
    if max(map(max, sizes)) > MAX_SMALL_IMG_SIZE or data.crop_pct is not None or augment == "resized_crop":
        return f"it is for images that are used whole, of up to {MAX_SMALL_IMG_SIZE} pixels a side"
    if data.auto_augment or any(as_pair(data.random_erasing)):
        return "data.auto_augment and data.random_erasing change images one by one"
    if data.name == "python":
        return "data sets that are given in Python are read anew in every epoch, because they may augment their images"
    if num_images * channels * max(map(math.prod, sizes)) > MAX_RESIDENT_BYTES:
        return f"{num_images} images take more than {MAX_RESIDENT_BYTES / 2**30:g} GiB"
    return None
