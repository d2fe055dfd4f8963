"""The images of a data set that is given in Python: each item is checked, and random numbers follow from the run's seed."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Subset

from nestnet.data.seeding import seeded_rng

RECORDED_IMAGES = 16
"""Number of images of each data set whose pixels are hashed for the record of a run, spread over the data set."""


class PythonImages(Dataset[tuple[Image.Image, int]]):
    """The images of a data set that was given in Python, each of them checked.

    The data set may augment its images at random: in training its random numbers follow from the seed of each
    sample, like those of nestnet's own augmentation, so that a run still resumes exactly.

    Args:
        dataset: data set whose items are an image and its label. An image is one of Pillow, or bytes `[C, H, W]`.
        name: name of the argument that it was given as, for messages.
        mode: mode of Pillow that images are converted to, `"RGB"` or `"L"`.
        num_classes: number of classes; `None` while labels are being read.
        is_fixed: whether each image is read with the random numbers of its own index, so that it is always the same.
    """

    def __init__(
        self, dataset: Any, name: str, mode: str, num_classes: int | None = None, *, is_fixed: bool = False
    ) -> None:
        self.dataset = dataset
        self.name = name
        self.mode = mode
        self.num_classes = num_classes
        self.is_fixed = is_fixed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """Return an image and its label.

        Raises:
            ValueError: If the item is not an image and its label.
        """
        if not self.is_fixed:
            return self._read(index)
        with seeded_rng(index):
            return self._read(index)

    def fixed(self) -> "PythonImages":
        """Return the same images, each of which is the same whenever it is read: for evaluation."""
        return PythonImages(self.dataset, self.name, self.mode, self.num_classes, is_fixed=True)

    def subset(self, indices: Sequence[int]) -> "PythonImages":
        """Return some of the images.

        Args:
            indices: positions of the images, in the desired order.
        """
        chosen = Subset(self.dataset, list(indices))
        return PythonImages(chosen, self.name, self.mode, self.num_classes, is_fixed=self.is_fixed)

    def _read(self, index: int) -> tuple[Image.Image, int]:
        item = self.dataset[index]
        where = f"{self.name}[{index}]"
        if not isinstance(item, Sequence) or len(item) != 2:
            raise ValueError(f"{where} is {describe_value(item)}: it must be an image and its label")
        image, label = item
        return self._check_image(image, where), check_label(label, where, self.num_classes)

    def digests(self, split: str) -> dict[str, str]:
        """Return the SHA-256 of the pixels and the label of some images, by a name for each.

        Args:
            split: split that the images are of, with which their names begin.
        """
        digests = {}
        step = max(len(self) // RECORDED_IMAGES, 1)
        images = self.fixed()
        for index in range(0, len(self), step):
            image, label = images[index]
            pixels = np.asarray(image)
            facts = f"{pixels.shape} {label}".encode()
            digests[f"{split}/{index}"] = hashlib.sha256(facts + pixels.tobytes()).hexdigest()
        return digests

    def _check_image(self, image: Any, where: str) -> Image.Image:
        """Return an image with the channels of the run."""
        channels = len(self.mode)
        if isinstance(image, Image.Image):
            return image.convert(self.mode)
        if not isinstance(image, Tensor):
            raise ValueError(
                f"{where}: its image is {describe_value(image)}; it must be an image of Pillow, or a tensor of bytes [C, H, W]"
            )
        if image.dtype != torch.uint8:
            raise ValueError(
                f"{where}: its image is a tensor of {image.dtype}; give bytes (torch.uint8): nestnet normalises them"
            )
        if image.ndim != 3 or image.shape[0] != channels:
            raise ValueError(
                f"{where}: its image has the shape {list(image.shape)}; it must be [{channels}, height, width]"
            )
        pixels = image.permute(1, 2, 0).numpy()  # [H, W, C]
        return Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels)


def check_label(label: Any, where: str, num_classes: int | None) -> int:
    """Return the label of an image as an integer.

    Args:
        label: label as the data set gives it.
        where: what it is the label of, for messages.
        num_classes: number of classes; `None` if it is not known yet.

    Returns:
        The label.

    Raises:
        ValueError: If it is no integer, below 0, or belongs to no class.
    """
    # Data sets give labels as integers, as tensors or as numpy's numbers.
    if isinstance(label, Tensor):
        label = label.numpy()
    if isinstance(label, np.ndarray | np.generic) and label.size == 1:
        label = label.item()
    if isinstance(label, bool) or not isinstance(label, int) or label < 0:
        raise ValueError(f"{where}: its label is {describe_value(label)}; it must be a whole number from 0")
    if num_classes is not None and label >= num_classes:
        raise ValueError(f"{where}: its label is {label}, and there are {num_classes} classes")
    return label


def describe_value(value: Any) -> str:
    """Return a number, or the type of another value in words, for messages."""
    if isinstance(value, int | float):
        return repr(value)
    return f"a {type(value).__name__}"
