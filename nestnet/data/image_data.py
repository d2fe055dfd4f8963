"""Training and test images: from a stored data set to normalised ones."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import timm
from sklearn.model_selection import StratifiedKFold
from timm.models import PretrainedCfg
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from nestnet.config.schema import Augmentation, DataConfig, ModelConfig
from nestnet.data.augmentation import _augmentation, _erasing
from nestnet.data.class_names import checked_class_names
from nestnet.data.image_files import ImageFiles
from nestnet.data.image_record import ImageRecord
from nestnet.data.preprocessing import SMALL_IMAGE_SIDE, Transform, eval_crop, eval_transform, to_normalised
from nestnet.data.seeding import seeded
from nestnet.data.sources import SOURCES, part
from nestnet.text.escape import quoted

RESIDENT_BYTES = 4 * 2**30
"""Training images that take more are read one by one."""


@dataclass(frozen=True)
class ImageData:
    """Training and test images with what a user of the trained networks must know of them.

    Attributes:
        train: gives the augmented image `[C, H, W]` and the label for a key `(index, seed)`.
        val: gives the image and the label for an index, of the images on which the best epoch is chosen; `None` where it is
            chosen on the test images.
        test: the same, of the test images.
        train_labels: of the training images, in their order.
        class_names: in the order of the labels.
        input_size: channels, height and width of training images.
        eval_size: height and width of test images.
        mean: of each channel of images with values from 0 to 1, by which they are normalised.
        std: likewise.
        augment: which augmentation the training images get.
        test_transform: makes a test image of a stored one.
        fit: brings a stored image to bytes `[C, H, W]` of the training size.
        eval_fit: likewise, of the test size.
        not_resident: why the images cannot be kept on the device and augmented there; `None` where they can.
    """

    train: "Augmented"
    val: "Plain | None"
    test: "Plain"
    train_labels: list[int]
    class_names: list[str]
    input_size: tuple[int, int, int]
    eval_size: tuple[int, int]
    mean: list[float]
    std: list[float]
    augment: Augmentation
    test_transform: Transform
    fit: Transform
    eval_fit: Transform
    not_resident: str | None

    def __post_init__(self) -> None:
        """Raises ValueError for names that no export could carry, and for a label that none of the classes has."""
        checked_class_names(self.class_names, len(self.class_names))
        wrong = [label for label in self.train_labels if not 0 <= label < len(self.class_names)]
        if wrong:
            raise ValueError(
                f"train_labels: there is a label {wrong[0]}, and {len(self.class_names)} class names; labels count from 0"
            )

    def record(self) -> ImageRecord:
        """What a run on these images keeps of them, so that they are the same ones whenever they are read again."""
        parts = {"train": self.train.dataset, "test": self.test.dataset}
        if self.val is not None:
            parts["val"] = self.val.dataset
        return ImageRecord.of(self.class_names, self.train_labels, parts)

    def split(self, kept: Sequence[int], held_out: Sequence[int]) -> "ImageData":
        """The same with some of the training images for training, and some others in place of the test images."""
        stored = self.train.dataset
        return replace(
            self,
            train=Augmented(part(stored, kept), self.train.transform, torch_only=self.train.torch_only),
            train_labels=[self.train_labels[index] for index in kept],
            test=Plain(part(stored, held_out), self.test_transform),
        )

    def fold(self, number: int, folds: int) -> "ImageData":
        """Part `number`, from 0, of a cross-validation of the training images in `folds` parts with equal shares of each class.

        The parts are the same for every seed.

        Raises:
            ValueError: if a class has fewer training images than there are parts.
        """
        counts = np.bincount(self.train_labels, minlength=len(self.class_names))
        if counts.min() < folds:
            rare = self.class_names[int(counts.argmin())]
            raise ValueError(
                f"folds = {folds}: class {rare!r} has only {counts.min()} training images; take fewer folds"
            )
        parts = StratifiedKFold(folds, shuffle=True, random_state=0)
        kept, held_out = list(parts.split(np.zeros(len(self.train_labels)), self.train_labels))[number]
        fold = replace(self.split(kept.tolist(), held_out.tolist()), val=None)
        return replace(fold, test=Plain(_readable(fold.test.dataset), self.test_transform))


def load_data(
    data: DataConfig, model: ModelConfig, record: ImageRecord | None = None, *, command: str | None = None
) -> ImageData:
    """The images that the configuration names.

    Args:
        data: which they are, and how they are read and augmented.
        model: the networks, by which sizes and channels are chosen where `data` says nothing.
        record: of an earlier run, whose images these are to be; by default they are all that there are now.
        command: that takes options of this run, for advice, where the one at hand takes none.

    Raises:
        ValueError: for an absent folder or data set, classes that differ between training and test images, a normalisation or
            augmentation that does not suit the channels, or images that are not those of the record.
    """
    source = SOURCES[data.name](data, model)
    if record is not None:
        source = record.applied(source, f"data.root = {quoted(data.root or 'data')}", command)
    source = replace(source, val=_readable(source.val), test=_readable(source.test))
    channels, size = source.channels, data.img_size or source.img_size
    eval_size = data.eval_img_size or size
    config = timm.get_pretrained_cfg(model.motivated) or PretrainedCfg()
    mean = data.mean or source.mean or (list(config.mean) if channels == 3 else [0.5])
    std = data.std or source.std or (list(config.std) if channels == 3 else [0.5])
    for name, values in {"mean": mean, "std": std}.items():
        if len(values) != channels:
            raise ValueError(f"data.{name} = {values}: it must have a number for each of the {channels} channels")
    crop_pct = eval_crop(model.motivated, (eval_size, eval_size), data.crop_pct)
    test_transform = eval_transform((eval_size, eval_size), mean, std, crop_pct)
    augment = data.augment or source.augment or ("crop" if size <= SMALL_IMAGE_SIDE else "resized_crop")
    augmentation = _augmentation(data, augment, size, mean, source)
    train_transform = v2.Compose([*augmentation, *to_normalised(mean, std), *_erasing(data)])
    return ImageData(
        train=Augmented(source.train, train_transform, torch_only=not (data.auto_augment or data.random_erasing)),
        val=None if source.val is None else Plain(source.val, test_transform),
        test=Plain(source.test, test_transform),
        train_labels=source.train_labels,
        class_names=source.class_names,
        input_size=(channels, size, size),
        eval_size=(eval_size, eval_size),
        mean=mean,
        std=std,
        augment=augment,
        test_transform=test_transform,
        fit=_fit(size),
        eval_fit=_fit(eval_size),
        not_resident=_not_resident(data, augment, max(size, eval_size), channels, len(source.train_labels)),
    )


def check_present(images: ImageData, data: DataConfig) -> None:
    """Raises ValueError if training images of a run are absent, and are not to be skipped."""
    stored = images.train.dataset
    if not isinstance(stored, ImageFiles) or stored.skip:
        return
    absent = [path for path, _ in stored.samples if not os.path.lexists(path)]
    if absent:
        raise ValueError(
            f"data.root = {quoted(data.root)}: {len(absent):,} training images of the run are absent, such as {absent[0]}; "
            "put them back, or give --data.corrupt skip, by which others are taken in their place"
        )


def _readable(stored: Any) -> Any:
    """Images to test on, without the files that cannot be read where those are to be skipped."""
    return stored.readable() if isinstance(stored, ImageFiles) and stored.skip else stored


def _not_resident(data: DataConfig, augment: Augmentation, size: int, channels: int, images: int) -> str | None:
    if size > SMALL_IMAGE_SIDE or data.crop_pct is not None or augment == "resized_crop":
        return f"it is for images that are used whole, of up to {SMALL_IMAGE_SIDE} pixels a side"
    if data.auto_augment or data.random_erasing:
        return "data.auto_augment and data.random_erasing change images one by one"
    if images * channels * size**2 > RESIDENT_BYTES:
        return f"{images} images take more than {RESIDENT_BYTES / 2**30:g} GiB"
    return None


def _fit(size: int) -> Transform:
    return v2.Compose([v2.Resize((size, size), antialias=True), v2.ToImage(), v2.ToPureTensor()])


class Augmented(Dataset[tuple[Tensor, int]]):
    """A dataset whose augmentation draws from a seed that comes with the index.

    Args:
        torch_only: whether the augmentation draws from torch alone; to seed the others too takes a tenth of a millisecond.
    """

    def __init__(self, dataset: Any, transform: Transform, *, torch_only: bool) -> None:
        self.dataset, self.transform, self.torch_only = dataset, transform, torch_only

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        index, seed = key
        image, label = self.dataset[index]
        with seeded(seed, torch_only=self.torch_only):
            return self.transform(image), label

    def __len__(self) -> int:
        return len(self.dataset)


class Plain(Dataset[tuple[Tensor, int]]):
    """A dataset whose images are all treated alike."""

    def __init__(self, dataset: Any, transform: Transform) -> None:
        self.dataset, self.transform = dataset, transform

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.dataset[index]
        return self.transform(image), label

    def __len__(self) -> int:
        return len(self.dataset)


# Augmentation
