"""The transforms of images for evaluation and inference: the same in a run's evaluation and in `nestnet predict`."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import timm
import timm.data
import torch
from PIL import Image
from timm.models import PretrainedCfg
from torch import Tensor
from torchvision.transforms import v2

# Largest height and width in pixels of small images, which are evaluated as a whole; larger ones are
# centre-cropped.
MAX_SMALL_IMG_SIZE = 64

# Largest ratio of an image's longer side to its shorter one. An image beyond it is cropped to it before it is
# resized; for a network whose inputs are not square the ratio is multiplied by that of its inputs.
MAX_ASPECT_RATIO = 8

Transform = Callable[[Any], Any]


def choose_crop_pct(motivated: str, size: tuple[int, int], crop_pct: float | None = None) -> float | None:
    """Return the part of a test image's shorter side that the centre crop keeps.

    Args:
        motivated: timm's name of the motivated network, whose crop both subnets use where the configuration
            names none.
        size: height and width in pixels that test images are brought to.
        crop_pct: value in the configuration, from 0.01 to 1; `None` if it has none.

    Returns:
        The part, from 0.01 to 1; `None` if images are resized as a whole.
    """
    if crop_pct is None and max(size) <= MAX_SMALL_IMG_SIZE:
        return None
    if crop_pct:
        return crop_pct
    # For a network that timm does not know, timm's defaults apply.
    pretrained_cfg = timm.get_pretrained_cfg(motivated) or PretrainedCfg()
    return pretrained_cfg.crop_pct


def create_eval_transform(
    size: tuple[int, int], mean: Sequence[float], std: Sequence[float], crop_pct: float | None
) -> Transform:
    """Return the transform of a PIL image, or of bytes `[C, H, W]`, to a normalised image `[C, *size]`.

    Args:
        size: height and width of the result in pixels.
        mean: mean of each channel for values from 0 to 1.
        std: standard deviation of each channel.
        crop_pct: result of `choose_crop_pct`.

    Returns:
        The transform.
    """
    if crop_pct is None:
        return v2.Compose([v2.Resize(size, antialias=True), *create_normalizing_transforms(mean, std)])
    # timm's own evaluation: resize the shorter side, then crop the centre.
    resize_and_crop = timm.data.create_transform(
        (len(mean), *size), mean=tuple(mean), std=tuple(std), **timm_eval_config(crop_pct)
    )
    return v2.Compose([_CropLongImages(MAX_ASPECT_RATIO * max(size) / min(size)), resize_and_crop])


def timm_eval_config(crop_pct: float | None) -> dict[str, Any]:
    """Return what `timm.data.create_transform` must be told to prepare images as `create_eval_transform` does.

    The results are the same, except that of an image of which one side is more than `MAX_ASPECT_RATIO` times as long as
    the other: its crop may be off by a pixel. Images that are used whole may differ by rounding, by less than 1e-6.

    Args:
        crop_pct: result of `choose_crop_pct`.

    Returns:
        `crop_pct`, `crop_mode` and `interpolation`, as in a `pretrained_cfg`.
    """
    if crop_pct is None:
        return {"crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bilinear"}
    return {"crop_pct": crop_pct, "crop_mode": "center", "interpolation": "bicubic"}


class _CropLongImages:
    """Transform that crops the centre of a PIL image of which one side is very much longer than the other.

    The shorter side is resized to the network's and the longer one with it, before the centre is cropped: for
    an image of 1 x 20,000 pixels that would take gigabytes. Other images are returned as they are.

    Args:
        max_ratio: largest ratio of the longer side to the shorter one that is left as it is.
    """

    def __init__(self, max_ratio: float) -> None:
        self.max_ratio = max_ratio

    def __call__(self, image: Image.Image) -> Image.Image:
        max_side = math.ceil(min(image.size) * self.max_ratio)
        if max(image.size) <= max_side:
            return image
        width = min(image.width, max_side)
        height = min(image.height, max_side)
        left = (image.width - width) // 2
        top = (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))


def create_normalizing_transforms(mean: Sequence[float], std: Sequence[float]) -> list[Any]:
    """Return the transforms of an image of the right size to a normalised tensor `[C, H, W]`.

    Args:
        mean: mean of each channel for values from 0 to 1.
        std: standard deviation of each channel.
    """
    normalize = v2.Normalize(list(mean), list(std))
    return [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), normalize, v2.ToPureTensor()]


class ToPixels:
    """Transform of a PIL image, or of bytes `[C, H, W]`, to bytes `[C, *size]`, not yet normalised.

    Args:
        size: height and width of the result in pixels.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.resize = v2.Compose([v2.Resize(size, antialias=True), v2.ToImage(), v2.ToPureTensor()])

    def __call__(self, image: Any) -> Tensor:
        # Every image of a data set such as CIFAR has the size already. The transforms would leave it as it is, and each of
        # them takes as long as reading the image.
        if isinstance(image, Tensor) and image.ndim == 3 and image.shape[1:] == self.size:
            return image.as_subclass(Tensor)
        if isinstance(image, Image.Image) and image.size == self.size[::-1]:
            return v2.functional.pil_to_tensor(image)
        pixels: Tensor = self.resize(image)
        return pixels


def describe_eval_transform(size: tuple[int, int], crop_pct: float | None) -> str:
    """Describe what `create_eval_transform` does to the size of an image.

    Args:
        size: height and width of the result in pixels.
        crop_pct: result of `choose_crop_pct`.

    Returns:
        The description, as the end of a sentence about an image.
    """
    height, width = size
    if crop_pct is None:
        return f"resized to {height} x {width} pixels (bilinear, antialiased), whatever its shape"
    middle = f"and the middle {height} x {width} pixels of it taken"
    resized_height, resized_width = (math.floor(side / crop_pct) for side in size)
    if resized_height == resized_width:
        return f"resized to {resized_height} pixels along its shorter side (bicubic), {middle}"
    return f"resized with its shape kept to cover {resized_height} x {resized_width} pixels (bicubic), {middle}"
