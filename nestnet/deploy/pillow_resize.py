"""Pillow's resizing as tensor operations that can be exported: the result has the same bits as Pillow's.

Pillow resizes along one axis after the other. A pixel of the result is a weighted sum of the pixels below a filter, which
is as wide as the scale where images shrink (antialiasing). Weights are whole numbers of 2^-22, and each sum is rounded
to one of 256 levels. Here a matrix per axis holds the weights, computed from sizes that may be those of a traced image.
All sums are whole numbers below 2^53, so that float64 holds them exactly, in whatever order they are added.
"""

from collections.abc import Callable
from dataclasses import dataclass

import PIL
import torch
from torch import Tensor

# Number of bits after the point in Pillow's weights (`PRECISION_BITS` in its Resample.c).
WEIGHT_BITS = 22

# From this release on, Pillow resizes the rows of tall images before their columns, which is faster.
RESIZES_TALL_IMAGES_BY_ROWS_FIRST = int(PIL.__version__.split(".")[0]) >= 13

Filter = Callable[[Tensor], Tensor]
"""Function from distances to weights. Distances are at least 0, in pixels of the smaller one of image and result."""


def bilinear(distance: Tensor) -> Tensor:
    """Return the weights of Pillow's bilinear filter."""
    return torch.clamp(1.0 - distance, min=0.0)


def bicubic(distance: Tensor) -> Tensor:
    """Return the weights of Pillow's bicubic filter: Keys' cubic convolution with a = -0.5."""
    near = (1.5 * distance - 2.5) * distance * distance + 1.0
    far = (((distance - 5.0) * distance + 8.0) * distance - 4.0) * -0.5
    return torch.where(distance < 1.0, near, torch.where(distance < 2.0, far, 0.0))


@dataclass(frozen=True)
class AxisResize:
    """What happens to an image along one axis: a crop, a resize, and a crop of the result.

    Sizes that depend on the image are whole numbers in tensors without dimensions, which can be traced.

    Attributes:
        size: number of pixels of the image.
        crop_start: first pixel that is resized.
        crop_size: number of pixels that are resized, at least 1.
        resized: number of pixels after the resize, at least 1.
        start: first one of them that is kept.
        kept: number of them that are kept.
    """

    size: int
    crop_start: Tensor
    crop_size: Tensor
    resized: Tensor
    start: Tensor
    kept: int

    def create_weights(self, weight_filter: Filter) -> Tensor:
        """Return the weight of each pixel of the image in each pixel of the result, in units of 2^-22.

        Args:
            weight_filter: filter of the resize.

        Returns:
            Whole numbers as float64 `[kept, size]`.
        """
        pixels = torch.arange(self.size) - self.crop_start  # [size]
        results = torch.arange(self.kept) + self.start  # [kept]
        # The distance between the centres of two pixels is a fraction of whole numbers: no digit of it is lost.
        numerators = (2 * pixels + 1) * self.resized - ((2 * results + 1) * self.crop_size).unsqueeze(1)
        denominator = 2 * torch.maximum(self.crop_size, self.resized)
        weights = weight_filter(numerators.abs().double() / denominator.double())  # [kept, size]
        is_resized = (pixels >= 0) & (pixels < self.crop_size)
        weights = torch.where(is_resized, weights, 0.0)
        weights = weights / weights.sum(dim=1, keepdim=True) * 2**WEIGHT_BITS
        # As C does, half of a unit is rounded away from zero.
        return torch.where(weights < 0.0, torch.ceil(weights - 0.5), torch.floor(weights + 0.5))


def resize(pixels: Tensor, height: AxisResize, width: AxisResize, weight_filter: Filter) -> Tensor:
    """Resize a batch of images as Pillow resizes an image of 8 bits per channel.

    Args:
        pixels: levels from 0 to 255 as float64 `[B, C, H, W]`.
        height: what happens along the height.
        width: what happens along the width.
        weight_filter: filter of the resize.

    Returns:
        Levels from 0 to 255 as float64 `[B, C, h, w]`.
    """
    row_weights = height.create_weights(weight_filter)  # [h, H]
    column_weights = width.create_weights(weight_filter)  # [w, W]
    # The result of the first axis is rounded before the second one, so that the order matters.
    columns_first = _to_levels(row_weights @ _to_levels(pixels @ column_weights.T))
    if not RESIZES_TALL_IMAGES_BY_ROWS_FIRST:
        return columns_first
    rows_first = _to_levels(_to_levels(row_weights @ pixels) @ column_weights.T)
    # Both orders are computed, because a branch is not safe: OpenVINO 2026.4 gives wrong results in the first call with
    # another batch size. Pillow's rule, in its Resample.c: the height shrinks by more than twice as many pixels as the width.
    fewer_rows = height.crop_size - height.resized
    fewer_columns = width.crop_size - width.resized
    is_tall = (fewer_rows > 0) & (fewer_rows > 2 * fewer_columns)
    return torch.where(is_tall, rows_first, columns_first)


def _to_levels(sums: Tensor) -> Tensor:
    """Return sums of levels times weights as levels, rounded with half of a level up."""
    levels = torch.floor((sums + 2 ** (WEIGHT_BITS - 1)) * 2.0**-WEIGHT_BITS)
    return torch.clamp(levels, 0.0, 255.0)
