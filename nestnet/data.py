"""Images by name: the digits that come with scikit-learn, and any folder of images.

A training sample's augmentation and its place in the epoch follow from (seed, epoch, index) alone, so that they are the
same with any number of workers.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import timm.data
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from timm.models import PretrainedCfg
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from nestnet.config import Augmentation, DataConfig, ModelConfig

SMALL = 64
"""Images up to this many pixels a side are cropped with a border, larger ones by a random part."""


@dataclass(frozen=True)
class ImageData:
    """Training and test images with what a user of the trained networks must know of them.

    Attributes:
        train: gives the augmented image `[C, H, W]` and the label for a key `(index, seed)`.
        test: gives the image and the label for an index.
        class_names: in the order of the labels.
        input_size: channels, height and width.
        mean: of each channel of images with values from 0 to 1, by which they are normalised.
        std: likewise.
        augment: which augmentation the training images get.
    """

    train: "Augmented"
    test: Dataset[tuple[Tensor, int]]
    class_names: list[str]
    input_size: tuple[int, int, int]
    mean: list[float]
    std: list[float]
    augment: Augmentation


def load_data(data: DataConfig, model: ModelConfig) -> ImageData:
    """The images that the configuration names.

    Raises:
        ValueError: for an absent folder, classes that differ between training and test images, or a normalisation that
            does not have a number for each channel.
    """
    return {"digits": _digits, "folder": _folder}[data.name](data, model)


def train_loader(images: ImageData, config: DataConfig, seed: int, *, pin_memory: bool = False) -> DataLoader[Any]:
    """Batches of `[B, C, H, W]` and `[B]`, in an order of its own for each epoch: call `batch_sampler.set_epoch` before.

    Raises:
        ValueError: if there are fewer training images than one batch takes.
    """
    if len(images.train) < config.batch_size:
        raise ValueError(
            f"data.batch_size = {config.batch_size}: there are only {len(images.train)} training images; take fewer a batch"
        )
    sampler = EpochBatches(len(images.train), config.batch_size, seed)
    return DataLoader(
        images.train,
        batch_sampler=sampler,
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
        pin_memory=pin_memory,
    )


def eval_loader(images: ImageData, config: DataConfig, *, pin_memory: bool = False) -> DataLoader[Any]:
    """All test images once, in order."""
    return DataLoader(images.test, batch_size=config.eval_batch_size, num_workers=config.workers, pin_memory=pin_memory)


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (index, seed): an order for each epoch, and a seed for each sample of it.

    A last batch that would be smaller than the others is left out.
    """

    def __init__(self, size: int, batch_size: int, seed: int) -> None:
        self.size, self.batch_size, self.seed, self.epoch = size, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        generator = torch.Generator().manual_seed(mixed(self.seed, self.epoch))
        order = torch.randperm(self.size, generator=generator).tolist()
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            yield [(index, mixed(self.seed, self.epoch, index)) for index in order[start : start + self.batch_size]]

    def __len__(self) -> int:
        return self.size // self.batch_size


class Augmented(Dataset[tuple[Tensor, int]]):
    """A dataset whose augmentation draws from a seed that comes with the index, and leaves the global generators alone."""

    def __init__(self, dataset: Any, transform: Callable[[Any], Tensor]) -> None:
        self.dataset, self.transform = dataset, transform

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        index, seed = key
        image, label = self.dataset[index]
        states = torch.get_rng_state(), random.getstate()  # torchvision draws from torch, timm also from Python
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        try:
            return self.transform(image), label
        finally:
            torch.set_rng_state(states[0])
            random.setstate(states[1])

    def __len__(self) -> int:
        return len(self.dataset)


def mixed(*numbers: int) -> int:
    """One number of 63 bits from several, well spread (the finaliser of SplitMix64, Steele et al. 2014, figure 17)."""
    state = 0
    for number in numbers:
        state = (state ^ number) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1


class _Listed(Dataset[tuple[Tensor, int]]):
    """Images and labels in memory, transformed when asked for."""

    def __init__(self, images: Tensor, labels: list[int], transform: Callable[[Any], Any] | None = None) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = self.images[index]
        return (self.transform(image) if self.transform else image), self.labels[index]

    def __len__(self) -> int:
        return len(self.labels)


def _digits(data: DataConfig, model: ModelConfig) -> ImageData:
    """1,797 images of 8 x 8 pixels. The held-out fifth is the same for every seed, so that runs compare."""
    digits = load_digits()
    images = torch.from_numpy(digits.images).float().div(16).unsqueeze(1)  # N 1 8 8, from 0 to 1
    rows = train_test_split(range(len(images)), test_size=0.2, random_state=0, stratify=digits.target)
    (train, train_labels), (test, test_labels) = ((images[part], digits.target[part].tolist()) for part in rows)
    mean, std = data.mean or [train.mean().item()], data.std or [train.std().item()]
    size = data.img_size or 8
    if model.in_chans not in (None, 1):
        raise ValueError(f"model.in_chans = {model.in_chans}: the digits have 1 channel")
    augment: Augmentation = data.augment or "shift"
    normalise = _normalise(mean, std, 1)
    resize = [v2.Resize((size, size), antialias=True)] if size != 8 else []
    return ImageData(
        train=Augmented(_Listed(train, train_labels), v2.Compose([*resize, *_augmentation(augment, size), normalise])),
        test=_Listed(test, test_labels, v2.Compose([*resize, normalise])),
        class_names=[str(name) for name in digits.target_names],
        input_size=(1, size, size),
        mean=mean,
        std=std,
        augment=augment,
    )


def _folder(data: DataConfig, model: ModelConfig) -> ImageData:
    """`root/train` and `root/test` (or `val`), each with a folder of images a class."""
    root = Path(data.root or "")
    if not root.is_dir():
        raise ValueError(f"data.root = {data.root!r}: there is no such folder")
    test_root = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    if not (root / "train").is_dir() or test_root is None:
        raise ValueError(
            f"data.root = {data.root!r}: it must hold train/ and test/ or val/, each with a folder a class"
        )
    channels, size = model.in_chans or 3, data.img_size or 224
    if channels not in (1, 3):
        raise ValueError(f"model.in_chans = {channels}: image files are read with 1 or 3 channels")
    config = timm.get_pretrained_cfg(model.motivated) or PretrainedCfg()
    mean = data.mean or (list(config.mean) if channels == 3 else [0.5])
    std = data.std or (list(config.std) if channels == 3 else [0.5])
    normalise = _normalise(mean, std, channels)
    augment: Augmentation = data.augment or ("crop" if size <= SMALL else "resized_crop")
    to_tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), normalise]
    if size <= SMALL:
        test_transform = v2.Compose([v2.Resize((size, size), antialias=True), *to_tensor])
    else:  # resize the shorter side and crop the middle, as timm evaluates
        test_transform = timm.data.create_transform(
            (channels, size, size), mean=tuple(mean), std=tuple(std), crop_pct=config.crop_pct, interpolation="bicubic"
        )
    fit = [] if augment == "resized_crop" else [v2.Resize((size, size), antialias=True)]
    train_transform = v2.Compose([*fit, *_augmentation(augment, size), *to_tensor])
    read = ImageReader("L" if channels == 1 else "RGB")
    train = ImageFolder(root / "train", loader=read)
    test = ImageFolder(test_root, test_transform, loader=read)
    if train.classes != test.classes:
        only = sorted(set(train.classes) ^ set(test.classes))
        raise ValueError(
            f"data.root = {data.root!r}: train/ and {test_root.name}/ have different classes: {', '.join(only[:5])}"
        )
    return ImageData(
        train=Augmented(train, train_transform),
        test=test,
        class_names=train.classes,
        input_size=(channels, size, size),
        mean=mean,
        std=std,
        augment=augment,
    )


@dataclass(frozen=True)
class ImageReader:
    """Reads an image file in a PIL mode; names the file when it is damaged."""

    mode: str

    def __call__(self, path: str) -> Image.Image:
        try:
            with Image.open(path) as image:
                return image.convert(self.mode)
        except (OSError, SyntaxError, ValueError) as error:  # what PIL raises for files cut short or of another kind
            raise ValueError(f"{path} cannot be read as an image ({error}); replace or remove it") from error


def _augmentation(kind: Augmentation, size: int) -> list[v2.Transform]:
    border = v2.RandomCrop(size, padding=max(size // 8, 1))
    return {
        "none": [],
        "shift": [border],
        "crop": [border, v2.RandomHorizontalFlip()],
        "resized_crop": [v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip()],
    }[kind]


def _normalise(mean: list[float], std: list[float], channels: int) -> v2.Normalize:
    for name, values in {"mean": mean, "std": std}.items():
        if len(values) != channels:
            raise ValueError(f"data.{name} = {values}: it must have a number for each of the {channels} channels")
    return v2.Normalize(mean, std)
