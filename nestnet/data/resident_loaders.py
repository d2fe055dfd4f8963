"""Loaders of small images that are kept on the device as bytes, and augmented there a batch at a time.

No image is read, decoded or copied to the device during training. torchvision's random transforms draw once
per batch, so the usual ones for small images are implemented here with one draw per image: flip, crop with
padding, and Cutout. Flip and crop together are one lookup of pixels.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from nestnet.config.schema_sections import DataConfig
from nestnet.data.augmentation import crop_padding
from nestnet.data.image_data import ImageData
from nestnet.data.image_order import ImageOrder
from nestnet.data.preprocessing import Transform
from nestnet.data.seeding import mix_seed
from nestnet.data.transformed_images import EvalImages
from nestnet.data.workers import check_file_handles, create_worker_initialiser, iterate_loader
from nestnet.device import DeviceContext

# Number that makes the seed of an epoch's augmentation different from the seed of its order.
AUGMENTATION_STREAM = 1

# Number of images that are augmented at once on a GPU, where each operation costs a launch whatever its size:
# for batches of 128, a sixteenth of the launches. On a CPU one batch at a time stays in the caches.
IMAGES_AT_ONCE = 2048


class ResidentTrainLoader:
    """Loader of training batches from images on the device.

    Args:
        images: images to train on.
        config: configuration of the images.
        seed: seed of the run.
        device_context: device on which the images are kept, and the process group that shares each batch.

    Attributes:
        batches_at_once: number of batches that are augmented at once. It does not change the result.

    Raises:
        ValueError: If the images are not stored as bytes.
    """

    def __init__(self, images: ImageData, config: DataConfig, seed: int, device_context: DeviceContext) -> None:
        self.device_context = device_context
        self.order = ImageOrder(images, config, seed)
        self.batch_size = config.images_per_batch
        self.repeats = config.repeats
        self.cutout = config.cutout
        self.size = images.input_size[1:]
        self.flips = images.augment == "crop"
        height, width = self.size
        self.padding = (0, 0)
        if images.augment != "none":
            self.padding = (crop_padding(height), crop_padding(width))
        pixels, labels = _read_pixels(images.train.dataset, images.to_train_pixels, config)  # [N, H, W, C], [N]
        vertical, horizontal = self.padding
        padded = F.pad(pixels, [0, 0, horizontal, horizontal, vertical, vertical])
        self.padded_size = padded.shape[1:3]
        # The table has one row per pixel of all padded images, so that a crop is a lookup of rows.
        self.pixels = padded.view(-1, padded.shape[3]).to(device_context.device)  # [N * padded H * padded W, C]
        self.labels = labels.to(device_context.device)
        self.normalize = _NormalizePixels(images, width, device_context)
        self.rows = torch.arange(height, device=device_context.device)
        self.columns = torch.arange(width, device=device_context.device)
        self.batches_at_once = 1
        if device_context.device.type != "cpu":
            self.batches_at_once = max(IMAGES_AT_ONCE // config.images_per_batch, 1)

    def __len__(self) -> int:
        return len(self.labels) // self.batch_size

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Return the batches of an epoch; see `TrainLoader.epoch`."""
        device = self.device_context.device
        order = self.order.epoch(number)
        used = len(self) * self.batch_size
        copies = (order.draws.unsqueeze(1) * self.repeats + torch.arange(self.repeats)).flatten()[:used]
        indices = order.indices.repeat_interleave(self.repeats)[:used]
        # All processes draw the same order, and each takes its share of every batch. The order and the draws of the
        # whole epoch are copied to the device once; the rest is indexing on the device.
        share = self.device_context.process_group.batch_slice(self.batch_size)
        shape = (len(self), self.batch_size)
        copies = copies.view(shape)[start:, share].to(device)
        indices = indices.view(shape)[start:, share].to(device)
        draws = self._draw(number).to(device)
        local_batch_size = indices.shape[1]
        groups = zip(indices.split(self.batches_at_once), copies.split(self.batches_at_once), strict=True)
        for group_indices, group_copies in groups:
            images = self.augment(group_indices.flatten(), draws[:, group_copies.flatten()])
            labels = self.labels[group_indices.flatten()]
            yield from zip(images.split(local_batch_size), labels.split(local_batch_size), strict=True)

    def stop_workers(self) -> None:
        """Do nothing: workers read the images at the start, and have ended."""

    def _draw(self, epoch: int) -> Tensor:
        """Draw top, left, whether to flip, and row and column of Cutout's middle, for each copy of each image `[5, N]`."""
        generator = torch.Generator().manual_seed(mix_seed(self.order.seed, epoch, AUGMENTATION_STREAM))
        vertical, horizontal = self.padding
        limits = [2 * vertical + 1, 2 * horizontal + 1, 1 + self.flips, *self.size]
        count = len(self.labels) * self.repeats
        return torch.stack([torch.randint(limit, (count,), generator=generator) for limit in limits])

    def augment(self, indices: Tensor, draws: Tensor) -> Tensor:
        """Return augmented and normalised images `[B, C, H, W]`.

        Args:
            indices: positions of the images among the training images `[B]`.
            draws: top, left, whether to flip, and row and column of Cutout's middle, for each image `[5, B]`.
        """
        # Position of each pixel of the result in its padded image: a flip reads the columns backwards.
        top, left, is_flipped, row, column = draws.unsqueeze(2)  # [B, 1] each
        height, width = self.size
        padded_height, padded_width = self.padded_size
        ys = top + self.rows  # [B, H]
        xs = left + torch.where(is_flipped > 0, width - 1 - self.columns, self.columns)  # [B, W]
        # Position in the table of all pixels.
        lines = indices.unsqueeze(1) * padded_height + ys  # [B, H], among the lines of all padded images
        pixel_rows = lines.unsqueeze(2) * padded_width + xs.unsqueeze(1)  # [B, H, W]
        pixels = self.pixels.index_select(0, pixel_rows.flatten())  # [B * H * W, C]
        images = self.normalize(pixels.view(len(indices), height, width, -1))
        # Zero is the mean colour of normalised images.
        if self.cutout:
            in_rows = self._is_in_square(self.rows, row).unsqueeze(2)  # [B, H, 1]
            in_columns = self._is_in_square(self.columns, column).unsqueeze(1)  # [B, 1, W]
            images.masked_fill_((in_rows & in_columns).unsqueeze(1), 0.0)
        return images

    def _is_in_square(self, positions: Tensor, middle: Tensor) -> Tensor:
        """Return which positions along a side `[H]` Cutout's square covers `[B, H]`, from its middle `[B, 1]`."""
        distance = positions - middle + self.cutout // 2
        return (distance >= 0) & (distance < self.cutout)


class ResidentEvalLoader:
    """Loader of test batches from images on the device; with several processes each keeps a share of the images.

    Args:
        images: data that the images belong to.
        dataset: images to evaluate on.
        config: configuration of the images.
        device_context: device on which the images are kept, and the process group that shares them.

    Raises:
        ValueError: If the images are not stored as bytes.
    """

    def __init__(
        self, images: ImageData, dataset: EvalImages, config: DataConfig, device_context: DeviceContext
    ) -> None:
        self.batch_size = config.eval_batch_size
        self.normalize = _NormalizePixels(images, images.eval_size[1], device_context)
        share = Subset(dataset.dataset, device_context.process_group.sample_indices(len(dataset)))
        # There may be fewer test images than processes.
        self.pixels = torch.empty(0)
        self.labels = torch.empty(0)
        if len(share) > 0:
            pixels, labels = _read_pixels(share, images.to_eval_pixels, config)  # [N, H, W, C], [N]
            self.pixels = pixels.to(device_context.device)
            self.labels = labels.to(device_context.device)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if len(self.labels) == 0:
            return
        pixel_batches = self.pixels.split(self.batch_size)
        label_batches = self.labels.split(self.batch_size)
        for pixels, labels in zip(pixel_batches, label_batches, strict=True):
            yield self.normalize(pixels), labels


class _NormalizePixels:
    """Transform of bytes `[B, H, W, C]` to images `[B, C, H, W]`.

    It computes the same as `v2.ToDtype(torch.float32, scale=True)` followed by `v2.Normalize`.
    """

    def __init__(self, images: ImageData, width: int, device_context: DeviceContext) -> None:
        # Mean and std are repeated for a whole line of pixels, because broadcasting over three channels is slow.
        self.mean = torch.tensor(images.mean, device=device_context.device).mul(255).repeat(width)  # [W * C]
        self.std = torch.tensor(images.std, device=device_context.device).mul(255).repeat(width)  # [W * C]
        self.memory_format = torch.contiguous_format
        if device_context.memory_format == torch.channels_last:
            self.memory_format = torch.channels_last

    def __call__(self, pixels: Tensor) -> Tensor:
        values = pixels.flatten(2).float().sub_(self.mean).div_(self.std)  # [B, H, W * C]
        return values.view(pixels.shape).permute(0, 3, 1, 2).contiguous(memory_format=self.memory_format)


def _read_pixels(dataset: Any, to_pixels: Transform, config: DataConfig) -> tuple[Tensor, Tensor]:
    """Return all images as bytes, channels last `[N, H, W, C]`, and their labels `[N]`."""
    check_file_handles(config.workers)
    loader: DataLoader[Any] = DataLoader(
        EvalImages(dataset, to_pixels),
        batch_size=256,
        num_workers=config.workers,
        generator=torch.Generator(),
        worker_init_fn=create_worker_initialiser(),
    )
    pixel_batches = []
    label_batches = []
    for pixels, labels in iterate_loader(loader):
        # Batches of worker processes lie in shared memory, each with a file handle: copying the batch releases the
        # handle at once.
        pixel_batches.append(pixels.clone())
        label_batches.append(labels.clone())
    pixels = torch.cat(pixel_batches)  # [N, C, H, W]
    labels = torch.cat(label_batches)
    if pixels.dtype != torch.uint8:
        raise ValueError("data.loader: the images are not stored as bytes, and cannot be resident; set it to files")
    return pixels.permute(0, 2, 3, 1).contiguous(), labels
