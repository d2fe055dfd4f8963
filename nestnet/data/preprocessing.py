"""How an image is brought to a network that is not being trained: the same in a run's evaluation and in `nestnet predict`."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import timm
import timm.data
import torch
from PIL import Image
from timm.models import PretrainedCfg
from torchvision.transforms import v2

SMALL_IMAGE_SIDE = 64
"""Images of up to this many pixels a side are used whole, of larger ones the middle."""

LONGEST = 8
"""An image whose longer side is more than so many times the shorter one is cut to that before it is resized; for a network that
takes other shapes than squares, times its own ratio."""

Transform = Callable[[Any], Any]


def eval_crop(motivated: str, size: tuple[int, int], crop_pct: float | None = None) -> float | None:
    """The part of a test image's shorter side that is kept; `None` where images are used whole.

    Args:
        motivated: timm's name of the motivated network, whose crop both subnets get where the configuration names none.
        size: height and width that test images are brought to.
        crop_pct: as the configuration has it.
    """
    if crop_pct is None and max(size) <= SMALL_IMAGE_SIDE:
        return None
    return crop_pct or (timm.get_pretrained_cfg(motivated) or PretrainedCfg()).crop_pct


def eval_transform(
    size: tuple[int, int], mean: Sequence[float], std: Sequence[float], crop_pct: float | None
) -> Transform:
    """From a PIL image, or bytes `[C, H, W]`, to a normalised image `[C, *size]`.

    Args:
        size: height and width.
        mean: of each channel of images with values from 0 to 1.
        std: likewise.
        crop_pct: what `eval_crop` says.
    """
    if crop_pct is None:
        return v2.Compose([v2.Resize(size, antialias=True), *to_normalised(mean, std)])
    # resize the shorter side and crop the middle, as timm evaluates
    evaluation = timm.data.create_transform(
        (len(mean), *size), mean=tuple(mean), std=tuple(std), crop_pct=crop_pct, interpolation="bicubic"
    )
    return v2.Compose([_Middle(LONGEST * max(size) / min(size)), evaluation])


class _Middle:
    """Cuts a PIL image to its middle where one side is very much longer than the other.

    The shorter side is resized to the network's and the longer one with it, before the middle is taken: of an image of 1 x
    20,000 pixels that would be gigabytes. Other images are left as they are.

    Args:
        ratio: largest ratio of the two sides that is left.
    """

    def __init__(self, ratio: float) -> None:
        self.ratio = ratio

    def __call__(self, image: Image.Image) -> Image.Image:
        longest = math.ceil(min(image.size) * self.ratio)
        if max(image.size) <= longest:
            return image
        width, height = (min(side, longest) for side in image.size)
        left = (image.width - width) // 2
        top = (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))


def to_normalised(mean: Sequence[float], std: Sequence[float]) -> list[Any]:
    """The transforms from an image of the right size to a normalised tensor."""
    normalise = v2.Normalize(list(mean), list(std))
    return [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), normalise, v2.ToPureTensor()]


def in_words(size: tuple[int, int], crop_pct: float | None) -> str:
    """What `eval_transform` does to an image's size, for a reader."""
    height, width = size
    if crop_pct is None:
        return f"resized to {height} x {width} pixels (bilinear, antialiased), whatever its shape"
    sides = sorted({math.floor(side / crop_pct) for side in size})
    return (
        f"resized to {' x '.join(map(str, sides))} pixels along its shorter side (bicubic), and the middle {height} x {width} "
        "pixels of it taken"
    )
