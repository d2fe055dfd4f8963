"""Data sets by name, as they are stored: scikit-learn's digits, torchvision's, ImageNet, and any folder of images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import Dataset
from torchvision import datasets

from nestnet.config.schema import IMG_SIZES, Augmentation, DataConfig, DataName, ModelConfig
from nestnet.data.class_names import imagenet_class_names
from nestnet.data.image_files import ImageFiles, Sample
from nestnet.data.image_folder import read_folder
from nestnet.runtime.notices import log_notice
from nestnet.text.escape import quoted
from nestnet.text.messages import in_one_line


@dataclass(frozen=True)
class Source:
    """A data set as it is stored.

    Attributes:
        train: a PIL image, or a tensor `[C, H, W]` of bytes, and the label for an index.
        val: the same of the images on which the best epoch is chosen; `None` where there are none but the test images.
        test: the same of the images for testing.
        train_labels: labels of all training images, in their order.
        class_names: in the order of the labels.
        channels: 1 or 3.
        img_size: of training images, where the configuration names no other.
        augment: likewise.
        mean: of each channel; `None` for the network's.
        std: likewise.
    """

    train: Any
    test: Any
    train_labels: list[int]
    class_names: list[str]
    channels: int
    img_size: int
    augment: Augmentation | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    val: Any = None


class Part(Dataset[Any]):
    """Some samples of a dataset."""

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, list(indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self.indices[index]]

    def __len__(self) -> int:
        return len(self.indices)


def part(dataset: Any, indices: Sequence[int]) -> Any:
    """Some samples of a stored data set. Where a file is to be skipped, what replaces it is one of them."""
    return dataset.part(indices) if isinstance(dataset, ImageFiles) else Part(dataset, indices)


def _digits(data: DataConfig, model: ModelConfig) -> Source:
    """1,797 images of 8 x 8 pixels. The held-out fifth is the same for every seed, so that runs compare."""
    if model.in_chans not in (None, 1):
        raise ValueError(f"model.in_chans = {model.in_chans}: the digits have 1 channel")
    digits = load_digits()
    images = torch.from_numpy(digits.images * (255 / 16)).round().byte().unsqueeze(1)  # N 1 8 8; they have 17 levels
    labels = digits.target.tolist()
    samples = list(zip(images, labels, strict=True))
    train, test = train_test_split(range(len(samples)), test_size=0.2, random_state=0, stratify=labels)
    return Source(
        train=Part(samples, train),
        test=Part(samples, test),
        train_labels=[labels[index] for index in train],
        class_names=[str(name) for name in digits.target_names],
        channels=1,
        img_size=IMG_SIZES["digits"],
        augment="shift",
        mean=[images[train].div(255).mean().item()],
        std=[images[train].div(255).std().item()],
    )


def _cifar(data: DataConfig, model: ModelConfig) -> Source:
    """60,000 images of 32 x 32 pixels, 10,000 of them for testing (Krizhevsky 2009)."""
    kind = datasets.CIFAR10 if data.name == "cifar10" else datasets.CIFAR100
    # channel statistics of the 50,000 training images
    mean, std = {
        "cifar10": ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
        "cifar100": ([0.5071, 0.4865, 0.4409], [0.2673, 0.2564, 0.2762]),
    }[data.name]
    train, test = (_torchvision(data, model, kind, train=train) for train in (True, False))
    size = IMG_SIZES[data.name]
    return Source(train, test, list(train.targets), list(train.classes), 3, size, mean=mean, std=std)


def _flowers(data: DataConfig, model: ModelConfig) -> Source:
    """Flowers-102 (Nilsback and Zisserman 2008): 2,040 training and validation images, 6,149 for testing."""
    train, val, test = (
        _torchvision(data, model, datasets.Flowers102, split=split) for split in ("train", "val", "test")
    )
    names = getattr(train, "classes", None) or [f"class {number}" for number in range(1, 103)]
    samples = [*_samples(train._image_files, train._labels), *_samples(val._image_files, val._labels)]
    return _of_files(data, data.root or "data", samples, _samples(test._image_files, test._labels), list(names), 3)


def _pets(data: DataConfig, model: ModelConfig) -> Source:
    """Oxford-IIIT Pets (Parkhi et al. 2012): 37 breeds, 3,680 training and validation images, 3,669 for testing."""
    train, test = (_torchvision(data, model, datasets.OxfordIIITPet, split=split) for split in ("trainval", "test"))
    samples, tests = (_samples(found._images, found._labels) for found in (train, test))
    return _of_files(data, data.root or "data", samples, tests, list(train.classes), 3)


def _samples(paths: Sequence[Any], labels: Sequence[int]) -> list[Sample]:
    return [(str(path), label) for path, label in zip(paths, labels, strict=True)]


def _of_files(
    data: DataConfig,
    root: str,
    train: list[Sample],
    test: list[Sample],
    class_names: list[str],
    channels: int,
    *,
    val: Sequence[Sample] = (),
) -> Source:
    """A data set of image files below a folder."""
    skip = data.corrupt == "skip"
    files = ImageFiles([], "L" if channels == 1 else "RGB", root=root, skip=skip)
    return Source(
        train=files.with_samples(train),
        val=files.with_samples(val) if val else None,
        test=files.with_samples(test),
        train_labels=[label for _, label in train],
        class_names=class_names,
        channels=channels,
        img_size=IMG_SIZES.get(data.name, 224),
    )


def _torchvision(data: DataConfig, model: ModelConfig, kind: Any, **which: Any) -> Any:
    if model.in_chans not in (None, 3):
        raise ValueError(f"model.in_chans = {model.in_chans}: the images of {data.name} have 3 channels")
    root = data.root or "data"
    try:
        return kind(root, download=data.download, **which)
    except (RuntimeError, OSError) as error:
        remedy = "check the connection" if data.download else "--data.download true fetches it"
        raise ValueError(
            f"data.root = {quoted(root)}: {data.name} cannot be read from there ({in_one_line(error)}); name the "
            f"folder that holds it, or {remedy}"
        ) from error


def _imagenet(data: DataConfig, model: ModelConfig) -> Source:
    """ImageNet-1k, or some of its classes, as folders named by WordNet id; the class names are their descriptions."""
    source, known = _folder(data, model), imagenet_class_names()
    unknown = [name for name in source.class_names if name not in known]
    if unknown:
        raise ValueError(
            f"data.root = {quoted(data.root or 'data')}: {quoted(unknown[0])} is no class of ImageNet-1k; its folders are "
            "named by WordNet id, such as n01440764; for images of your own take --data.name folder"
        )
    return replace(source, class_names=[known[name] for name in source.class_names])


def _folder(data: DataConfig, model: ModelConfig) -> Source:
    """A folder of images, as `nestnet.image_folder.read_folder` reads it."""
    channels = model.in_chans or 3
    if channels not in (1, 3):
        raise ValueError(f"model.in_chans = {channels}: image files are read with 1 or 3 channels")
    root = data.root or "data"
    found = read_folder(root, whole=data.name == "folder")
    if found.left_out:
        log_notice(f"data.root = {quoted(root)}: {found.left_out}")
    return _of_files(data, found.root, found.train, found.test, found.class_names, channels, val=found.val)


SOURCES: dict[DataName, Callable[[DataConfig, ModelConfig], Source]] = {
    "digits": _digits,
    "cifar10": _cifar,
    "cifar100": _cifar,
    "flowers102": _flowers,
    "oxford_pets": _pets,
    "imagenet": _imagenet,
    "folder": _folder,
}

KNOWN: dict[DataName, tuple[int, int, int]] = {
    "cifar10": (10, 50_000, 32),
    "cifar100": (100, 50_000, 32),
    "flowers102": (102, 2_040, 224),
    "oxford_pets": (37, 3_680, 224),
    "imagenet": (1000, 1_281_167, 224),
}
"""Classes, training images, and pixels a side as `load_data` gives them, of data sets that are the same everywhere."""
