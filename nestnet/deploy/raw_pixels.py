"""The preparation of images inside the exported network, which then takes raw pixels of any size.

It prepares images as the run's own evaluation does (`nestnet.data.preprocessing`), with the same bits up to the
normalisation. The decoding of files, with their EXIF orientation, remains outside.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from nestnet.data.preprocessing import MAX_ASPECT_RATIO
from nestnet.deploy.pillow_resize import AxisResize, bicubic, bilinear, resize
from nestnet.weights.metadata import Metadata


class RawPixelNetwork(nn.Module):
    """Network that takes raw pixels, uint8 `[B, H, W, C]`, and returns logits `[B, K]`.

    Args:
        network: network that takes normalised images `[B, C, H, W]`.
        metadata: metadata of the network, which says how its images are prepared.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, metadata: Metadata) -> None:
        super().__init__()
        self.network = network
        self.size = metadata.size
        self.crop_pct = metadata.crop_pct
        self.register_buffer("mean", torch.tensor(metadata.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(metadata.std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        levels = self.resize(images)
        return self.network((levels.float() / 255 - self.mean) / self.std)

    def resize(self, images: Tensor) -> Tensor:
        """Return images, resized and cropped to the size of the network.

        Args:
            images: raw pixels, uint8 `[B, H, W, C]`.

        Returns:
            Levels from 0 to 255 as float64 `[B, C, height, width]`.
        """
        height = images.shape[1]
        width = images.shape[2]
        pixels = images.permute(0, 3, 1, 2).double()
        if self.crop_pct is None:
            return resize(
                pixels, _resize_whole_axis(height, self.size[0]), _resize_whole_axis(width, self.size[1]), bilinear
            )
        rows, columns = self._resize_and_crop(height, width, self.crop_pct)
        return resize(pixels, rows, columns, bicubic)

    def _resize_and_crop(self, height: int, width: int, crop_pct: float) -> tuple[AxisResize, AxisResize]:
        """Return what timm's evaluation does along both axes: resize the shorter side, then crop the centre."""
        # Very long images are cropped first, as by `_CropLongImages`.
        shorter_side = torch.minimum(_as_tensor(height), _as_tensor(width))
        max_ratio = MAX_ASPECT_RATIO * max(self.size) / min(self.size)
        longest_side = torch.ceil(shorter_side.double() * max_ratio).long()
        crop_sizes = [torch.minimum(_as_tensor(side), longest_side) for side in (height, width)]
        axes = []
        resized_sizes = self._cover(crop_sizes, crop_pct)
        for side, crop_size, resized, kept in zip((height, width), crop_sizes, resized_sizes, self.size, strict=True):
            # As torchvision's `center_crop` does, half of a pixel is rounded to an even number.
            start = torch.round((resized - kept).double() / 2).long()
            axes.append(AxisResize(side, (side - crop_size) // 2, crop_size, resized, start, kept))
        return axes[0], axes[1]

    def _cover(self, crop_sizes: Sequence[Tensor], crop_pct: float) -> list[Tensor]:
        """Return height and width to which timm resizes an image before it crops the centre."""
        targets = [math.floor(side / crop_pct) for side in self.size]
        shorter_side = torch.minimum(*crop_sizes)
        if targets[0] == targets[1]:
            return [targets[0] * size // shorter_side for size in crop_sizes]
        # timm's `ResizeKeepRatio`.
        ratios = [size.double() / target for size, target in zip(crop_sizes, targets, strict=True)]
        return [torch.round(size.double() / torch.minimum(*ratios)).long() for size in crop_sizes]


def _resize_whole_axis(size: int, resized: int) -> AxisResize:
    """Return the resize of all pixels to a fixed number."""
    zero = _as_tensor(0)
    return AxisResize(size, zero, _as_tensor(size), _as_tensor(resized), zero, resized)


def _as_tensor(size: int) -> Tensor:
    """Return a size, which is a symbol while a network is traced, as a whole number in a tensor."""
    return torch.full((), size, dtype=torch.int64)


def to_raw_pixels(image: Any) -> Tensor:
    """Return a stored image as a network with the preparation inside takes it.

    Args:
        image: PIL image, grey or in colour, or bytes `[C, H, W]`.

    Returns:
        Raw pixels, uint8 `[H, W, C]`.
    """
    if isinstance(image, Image.Image):
        image = v2.functional.pil_to_tensor(image)
    return image.permute(1, 2, 0).contiguous()


def run_raw(network: Callable[[Tensor], Tensor], images: Sequence[Tensor]) -> Tensor:
    """Run a network with the preparation inside on images of several sizes, those of one size together.

    Args:
        network: function from raw pixels, uint8 `[B, H, W, C]`, to logits `[B, K]`.
        images: raw pixels, uint8 `[H, W, C]`, at least one image.

    Returns:
        The logits `[B, K]`, in the order of the images.
    """
    positions_by_size: dict[torch.Size, list[int]] = {}
    for position, image in enumerate(images):
        positions_by_size.setdefault(image.shape, []).append(position)
    order: list[int] = []
    logits = []
    for positions in positions_by_size.values():
        order += positions
        logits.append(network(torch.stack([images[position] for position in positions])))
    # The inverse of a permutation brings the logits back into the order of the images.
    return torch.cat(logits)[torch.tensor(order).argsort()]
