"""The reader of each data set: digits of scikit-learn, data sets of torchvision, ImageNet, your own images.

Facts that are known without reading a data set, such as its number of classes, are in
`nestnet.config.data_sets`.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import Subset
from torchvision import datasets

from nestnet.config.data_sets import DATA_SETS
from nestnet.config.schema_sections import DataConfig, DataName, ModelConfig
from nestnet.data.class_names import imagenet_class_names
from nestnet.data.image_files import ImageFiles, Sample
from nestnet.data.image_store import FILES, ImageStore
from nestnet.data.sources.own_images import find_own_images, name_source
from nestnet.data.stored_data_set import StoredDataSet
from nestnet.runtime.log import log_notice
from nestnet.text.escape import quoted
from nestnet.text.messages import in_one_line

DEFAULT_ROOT = "data"
"""Folder of the data sets where `data.root` is null."""


def read_data_set(data: DataConfig, model: ModelConfig) -> StoredDataSet:
    """Read the data set that the configuration names.

    Args:
        data: configuration of the images; `name`, `root`, `corrupt` and `download` matter here.
        model: configuration of the networks; `in_chans` matters here.

    Returns:
        The stored images, without any transform.

    Raises:
        ValueError: If the data set is absent, cannot be read or has other channels than `model.in_chans`.
    """
    return READERS[data.name](data, model)


def _read_digits(data: DataConfig, model: ModelConfig) -> StoredDataSet:
    """Read 1,797 images of 8 x 8 pixels. The held-out fifth is the same for every seed, so that runs are comparable."""
    if model.in_chans not in (None, 1):
        raise ValueError(f"model.in_chans = {model.in_chans}: the digits have 1 channel")
    return _load_digits()


@functools.cache
def _load_digits() -> StoredDataSet:
    """Return scikit-learn's digits, which it reads from text, with their split. No caller changes them."""
    # Importing scikit-learn takes a quarter of a command's start, which other images need not wait for.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    # The digits have 17 grey levels, from 0 to 16.
    images = torch.from_numpy(digits.images * (255 / 16)).round().byte().unsqueeze(1)  # [N, 1, 8, 8]
    labels = digits.target.tolist()
    samples = list(zip(images, labels, strict=True))
    train, test = train_test_split(range(len(samples)), test_size=0.2, random_state=0, stratify=labels)
    return StoredDataSet(
        train=Subset(samples, train),  # type: ignore[arg-type]  # a list serves as a dataset
        test=Subset(samples, test),  # type: ignore[arg-type]  # a list serves as a dataset
        train_labels=[labels[index] for index in train],
        class_names=list(map(str, digits.target_names)),
        channels=1,
        img_size=DATA_SETS["digits"].img_size,
        mean=[images[train].div(255).mean().item()],
        std=[images[train].div(255).std().item()],
    )


def _read_cifar(data: DataConfig, model: ModelConfig) -> StoredDataSet:
    """Read CIFAR-10 or CIFAR-100: 60,000 images of 32 x 32 pixels, 10,000 of them for testing (Krizhevsky 2009)."""
    dataset_class = datasets.CIFAR10 if data.name == "cifar10" else datasets.CIFAR100
    facts = DATA_SETS[data.name]
    train = _open_torchvision(data, model, dataset_class, train=True)
    test = _open_torchvision(data, model, dataset_class, train=False)
    return StoredDataSet(
        train=train,
        test=test,
        train_labels=list(train.targets),
        class_names=list(train.classes),
        channels=3,
        img_size=facts.img_size,
        mean=facts.mean,
        std=facts.std,
    )


def _read_flowers(data: DataConfig, model: ModelConfig) -> StoredDataSet:
    """Read Flowers-102 (Nilsback and Zisserman 2008): 2,040 training and validation images, 6,149 for testing."""
    train = _open_torchvision(data, model, datasets.Flowers102, split="train")
    val = _open_torchvision(data, model, datasets.Flowers102, split="val")
    test = _open_torchvision(data, model, datasets.Flowers102, split="test")
    # Older versions of torchvision have no names for these classes.
    class_names = getattr(train, "classes", None)
    if not class_names:
        class_names = [f"class {number}" for number in range(1, 103)]
    train_samples = _pair_samples(train._image_files, train._labels) + _pair_samples(val._image_files, val._labels)
    test_samples = _pair_samples(test._image_files, test._labels)
    return _store_files(data, data.root or DEFAULT_ROOT, train_samples, test_samples, list(class_names), 3)


def _read_pets(data: DataConfig, model: ModelConfig) -> StoredDataSet:
    """Read Oxford-IIIT Pets (Parkhi et al. 2012): 37 breeds, 3,680 training and validation images, 3,669 for testing."""
    train = _open_torchvision(data, model, datasets.OxfordIIITPet, split="trainval")
    test = _open_torchvision(data, model, datasets.OxfordIIITPet, split="test")
    train_samples = _pair_samples(train._images, train._labels)
    test_samples = _pair_samples(test._images, test._labels)
    return _store_files(data, data.root or DEFAULT_ROOT, train_samples, test_samples, list(train.classes), 3)


def _read_imagenet(data: DataConfig, model: ModelConfig) -> StoredDataSet:
    """Read ImageNet-1k, or some of its classes, from folders named by WordNet id; classes are named by their descriptions."""
    stored = _read_own(replace(data, root=data.root or DEFAULT_ROOT), model)
    descriptions = imagenet_class_names()
    for wordnet_id in stored.class_names:
        if wordnet_id not in descriptions:
            raise ValueError(
                f"data.root = {quoted(data.root or DEFAULT_ROOT)}: {quoted(wordnet_id)} is not a class of ImageNet-1k; its "
                "folders are named by WordNet id, such as n01440764; for your own images set data.name to folder"
            )
    return replace(stored, class_names=[descriptions[wordnet_id] for wordnet_id in stored.class_names])


def _read_own(data: DataConfig, model: ModelConfig) -> StoredDataSet:
    """Read images below a folder that a user names; see `find_own_images`."""
    channels = _file_channels(model)
    own = find_own_images(data)
    for notice in own.notices:
        log_notice(f"{name_source(data)}: {notice}")
    return _store_files(
        data, own.root, own.train, own.test, own.class_names, channels, val_samples=own.val, store=own.store
    )


def _refuse_python(data: DataConfig, model: ModelConfig) -> StoredDataSet:
    """Say that images from Python are known in Python only."""
    raise ValueError(
        "data.name = 'python': these images are data sets that are given in Python, and no command can read them; pass "
        "images=ImageData.from_datasets(...) to Trainer, resume, read_run or write_report in a program of your own"
    )


def _file_channels(model: ModelConfig) -> int:
    """Return the number of channels with which image files are read."""
    channels = model.in_chans or 3
    if channels not in (1, 3):
        raise ValueError(f"model.in_chans = {channels}: image files are read with 1 or 3 channels")
    return channels


def _open_torchvision(data: DataConfig, model: ModelConfig, dataset_class: Any, **split: Any) -> Any:
    """Return one split of a data set of torchvision, downloaded if it is absent and `data.download` says so."""
    if model.in_chans not in (None, 3):
        raise ValueError(f"model.in_chans = {model.in_chans}: the images of {data.name} have 3 channels")
    root = data.root or DEFAULT_ROOT
    # torchvision raises RuntimeError for absent or damaged files, and operating system errors while
    # downloading.
    try:
        return dataset_class(root, download=data.download, **split)
    except (RuntimeError, OSError) as error:
        remedy = "set data.download to true to download it"
        if data.download:
            remedy = "check the connection"
        raise ValueError(
            f"data.root = {quoted(root)}: {data.name} cannot be read from there ({in_one_line(error)}); name the "
            f"folder that holds it, or {remedy}"
        ) from error


def _pair_samples(paths: Sequence[Any], labels: Sequence[int]) -> list[Sample]:
    return [(str(path), label) for path, label in zip(paths, labels, strict=True)]


def _store_files(
    data: DataConfig,
    root: str,
    train_samples: list[Sample],
    test_samples: list[Sample],
    class_names: list[str],
    channels: int,
    *,
    val_samples: Sequence[Sample] = (),
    store: ImageStore = FILES,
) -> StoredDataSet:
    """Return a data set whose images are files below the folder `root`, or in another store."""
    mode = "RGB"
    if channels == 1:
        mode = "L"
    files = ImageFiles([], mode, root=root, skip=data.corrupt == "skip", store=store)
    if data.multi_label:
        files.num_targets = len(class_names)
    val = None
    if val_samples:
        val = files.with_samples(val_samples)
    return StoredDataSet(
        train=files.with_samples(train_samples),
        val=val,
        test=files.with_samples(test_samples),
        train_labels=[label for _, label in train_samples],
        class_names=class_names,
        channels=channels,
        img_size=DATA_SETS[data.name].img_size,
    )


READERS: dict[DataName, Callable[[DataConfig, ModelConfig], StoredDataSet]] = {
    "digits": _read_digits,
    "cifar10": _read_cifar,
    "cifar100": _read_cifar,
    "flowers102": _read_flowers,
    "oxford_pets": _read_pets,
    "imagenet": _read_imagenet,
    "folder": _read_own,
    "csv": _read_own,
    "hf_datasets": _read_own,
    "webdataset": _read_own,
    "python": _refuse_python,
}
"""The function that reads each data set, by its name in `data.name`."""
