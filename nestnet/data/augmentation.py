"""Random changes of training images."""

from typing import Any

import torch
from timm.data.auto_augment import rand_augment_transform
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torchvision.transforms import v2

from nestnet.config.schema import Augmentation, DataConfig
from nestnet.data.sources import Source


def border(size: int) -> int:
    """By how many pixels small images are padded before they are cropped at random."""
    return max(size // 8, 1)


class Cutout:
    """Sets a square of a normalised image to 0, its middle anywhere in the image (DeVries and Taylor 2017, arXiv 1708.04552).

    Args:
        side: of the square, in pixels; what lies outside the image is cut off.
    """

    def __init__(self, side: int) -> None:
        self.side = side

    def __call__(self, image: Tensor) -> Tensor:
        top, left = (int(torch.randint(size, ())) - self.side // 2 for size in image.shape[1:])
        image[:, max(top, 0) : top + self.side, max(left, 0) : left + self.side] = 0.0
        return image


def _augmentation(data: DataConfig, kind: Augmentation, size: int, mean: list[float], source: Source) -> list[Any]:
    """From a stored image to an augmented one of `size`, before it is normalised."""
    fit = [] if kind == "resized_crop" else [v2.Resize((size, size), antialias=True)]
    shift = v2.RandomCrop(size, padding=border(size))
    geometry = {
        "none": [],
        "shift": [shift],
        "crop": [shift, v2.RandomHorizontalFlip()],
        "resized_crop": [v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip()],
    }[kind]
    if data.auto_augment is None:
        return [*fit, *geometry]
    if source.channels != 3:
        raise ValueError(f"data.auto_augment = {data.auto_augment!r}: it is for colour images, and these are grey")
    if data.auto_augment.startswith("rand"):
        # timm's own settings: what a move uncovers is filled with the mean colour
        fill = tuple(min(255, round(255 * value)) for value in mean)
        policy = rand_augment_transform(data.auto_augment, {"translate_const": int(size * 0.45), "img_mean": fill})
    else:
        policy = v2.AutoAugment(v2.AutoAugmentPolicy(data.auto_augment))
    return [*fit, *geometry, policy]


def _erasing(data: DataConfig) -> list[Any]:
    erasing = [RandomErasing(data.random_erasing, mode="pixel", device="cpu")] if data.random_erasing else []
    return [*erasing, *([Cutout(data.cutout)] if data.cutout else [])]
