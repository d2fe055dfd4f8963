"""Random augmentation of training images."""

import random
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image, ImageOps
from timm.data.auto_augment import rand_augment_transform
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torchvision.transforms import v2

from nestnet.config.schema_rules import as_pair
from nestnet.config.schema_sections import Augmentation, DataConfig
from nestnet.data.preprocessing import Transform, create_normalizing_transforms


def crop_padding(side: int) -> int:
    """Return the number of pixels by which small images are padded at both ends of a side before a random crop.

    Args:
        side: height or width of the images in pixels.
    """
    return max(side // 8, 1)


class Cutout:
    """Transform that sets a square of a normalised image to 0 (DeVries and Taylor 2017, arXiv 1708.04552).

    The middle of the square lies anywhere in the image; what lies outside the image is cut off.

    Args:
        side: side of the square in pixels.
    """

    def __init__(self, side: int) -> None:
        self.side = side

    def __call__(self, image: Tensor) -> Tensor:
        height, width = image.shape[1:]
        # The row is drawn before the column: the order decides which random numbers each of them gets.
        top = int(torch.randint(height, ())) - self.side // 2
        left = int(torch.randint(width, ())) - self.side // 2
        image[:, max(top, 0) : top + self.side, max(left, 0) : left + self.side] = 0.0
        return image


class TransformTwice:
    """Transform that makes two views of an image, one for each network, with the same random numbers.

    Each view is bit for bit what its own transform makes of the image by itself.

    Args:
        base: transform of an image to what the base sees. It may change the image in place.
        motivated: transform of an image to what the motivated network sees.
    """

    def __init__(self, base: Transform, motivated: Transform) -> None:
        self.base = base
        self.motivated = motivated

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        # timm's Random Erasing draws from Python and torch. Python's generator can be set as fast as a number is drawn.
        python_state = random.getstate()
        torch_state = torch.get_rng_state()
        base = self.base(image.clone())
        random.setstate(python_state)
        torch.set_rng_state(torch_state)
        return base, self.motivated(image)


def create_train_transform(
    data: DataConfig, augment: Augmentation, size: tuple[int, int], mean: Sequence[float], std: Sequence[float]
) -> Transform:
    """Return the transform of a stored image to an augmented and normalised one `[C, *size]`.

    If the two networks have random erasing of their own, its result is a tuple of two such images: what the
    base sees, and what the motivated network sees.

    Args:
        data: configuration of the images; its AutoAugment policy, random erasing and Cutout are used.
        augment: geometric augmentation.
        size: height and width of the result in pixels.
        mean: mean of each channel for values from 0 to 1.
        std: standard deviation of each channel.

    Raises:
        ValueError: If `data.auto_augment` is set and the images are grey.
    """
    # The order matters: AutoAugment policies expect whole images in bytes, random erasing and Cutout expect
    # normalised ones.
    transforms = _create_geometric_transforms(augment, size)
    if data.auto_augment is not None:
        if len(mean) != 3:
            raise ValueError(f"data.auto_augment = {data.auto_augment!r}: it is for colour images, and these are grey")
        transforms.append(_create_policy(data.auto_augment, min(size), mean))
    transforms += create_normalizing_transforms(mean, std)
    base, motivated = as_pair(data.random_erasing)
    if base == motivated:
        return v2.Compose(transforms + _create_covering_transforms(data, base))
    # One of them may be empty, which torchvision refuses.
    covers = TransformTwice(
        v2.Compose([v2.Identity(), *_create_covering_transforms(data, base)]),
        v2.Compose([v2.Identity(), *_create_covering_transforms(data, motivated)]),
    )
    return v2.Compose([*transforms, covers])


def _create_covering_transforms(data: DataConfig, random_erasing: float) -> list[Any]:
    """Return the transforms that cover parts of a normalised image."""
    transforms: list[Any] = []
    if random_erasing:
        transforms.append(RandomErasing(random_erasing, mode="pixel", device="cpu"))
    if data.cutout:
        transforms.append(Cutout(data.cutout))
    return transforms


def _create_geometric_transforms(augment: Augmentation, size: tuple[int, int]) -> list[Any]:
    """Return the transforms of a stored image to a randomly moved one of `size`."""
    if augment == "resized_crop":
        return [v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip()]
    # Small images are first brought to one size, so that the padding is the same part of each.
    transforms: list[Any] = [v2.Resize(size, antialias=True)]
    if augment in ("shift", "crop"):
        height, width = size
        # torchvision takes the padding of the left and right, and then that of the top and bottom.
        transforms.append(v2.RandomCrop(size, padding=[crop_padding(width), crop_padding(height)]))
    if augment == "crop":
        transforms.append(v2.RandomHorizontalFlip())
    return transforms


def _create_policy(name: str, shorter_side: int, mean: Sequence[float]) -> Any:
    """Return a policy of AutoAugment, or of timm's RandAugment where the name begins with `rand`."""
    if not name.startswith("rand"):
        return v2.AutoAugment(v2.AutoAugmentPolicy(name))
    # timm's own settings: what a move uncovers is filled with the mean colour.
    fill = tuple(min(255, round(255 * value)) for value in mean)
    policy = rand_augment_transform(name, {"translate_const": int(shorter_side * 0.45), "img_mean": fill})
    for operation in policy.ops:
        if operation.name.startswith("Posterize"):
            operation.aug_fn = _posterize
    return policy


def _posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """Keep the highest bits of each value, as timm's function of this name does.

    timm keeps 0 bits at its greatest magnitude, which Pillow refuses from release 13 on.
    """
    if bits == 0:
        return Image.new(image.mode, image.size)
    return ImageOps.posterize(image, bits)
