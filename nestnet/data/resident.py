"""Small images, all of them kept on the device as bytes, and augmented there a batch at a time.

No image is read, decoded or sent while a network trains. torchvision's random transforms draw once for a whole batch, so that
the usual ones for small images are written here for one draw an image: flip, crop with a border, and Cutout. Flip and crop
are one lookup of pixels.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from nestnet.config.schema import DataConfig
from nestnet.data.augmentation import border
from nestnet.data.image_data import ImageData, Plain
from nestnet.data.seeding import mix_seed
from nestnet.data.sources import Part
from nestnet.data.workers import check_file_handles, initialise_worker, iterate
from nestnet.device import DeviceContext

DRAWS = 1
"""Sets the seed of an epoch's augmentation off from that of its order."""

AHEAD = 2048
"""Images that are augmented at once on a GPU, where each operation costs a launch whatever its size: for batches of 128, a
sixteenth of the launches. On a CPU a batch at a time stays in the caches."""


class ResidentBatches:
    """Training batches of images that lie on the device.

    Attributes:
        ahead: batches that are augmented at once. What they are does not depend on it.

    Raises:
        ValueError: if the images are not stored as bytes.
    """

    def __init__(self, images: ImageData, config: DataConfig, seed: int, device_context: DeviceContext) -> None:
        self.device_context, self.seed = device_context, seed
        self.batch_size, self.repeats, self.cutout = config.batch_size, config.repeats, config.cutout
        self.size, self.flips = images.input_size[1], images.augment == "crop"
        self.border = 0 if images.augment == "none" else border(self.size)
        pixels, labels = _read(images.train.dataset, images.fit, config)
        padded = F.pad(pixels, [0, 0, *[self.border] * 4])
        self.width = padded.shape[2]
        self.pixels, self.labels = (
            padded.view(-1, padded.shape[3]).to(device_context.device),
            labels.to(device_context.device),
        )
        self.normalise = _Normalise(images, self.size, device_context)
        self.along = torch.arange(self.size, device=device_context.device)
        self.ahead = 1 if device_context.device.type == "cpu" else max(AHEAD // config.batch_size, 1)

    def __len__(self) -> int:
        return len(self.labels) // self.batch_size

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        # one transfer an epoch; what follows is indexing on the device
        generator = torch.Generator().manual_seed(mix_seed(self.seed, number))
        order = torch.randperm(len(self.labels), generator=generator)
        copies = (order.unsqueeze(1) * self.repeats + torch.arange(self.repeats)).flatten()
        batches = copies[: len(self) * self.batch_size].view(len(self), self.batch_size)
        own = batches[start:, self.device_context.process_group.batch_slice(self.batch_size)].to(
            self.device_context.device
        )
        draws = self._draw(number).to(self.device_context.device)
        for some in own.split(self.ahead):
            index = some.flatten().div(self.repeats, rounding_mode="floor")
            images = self.augmented(index, draws[:, some.flatten()])
            yield from zip(images.split(own.shape[1]), self.labels[index].split(own.shape[1]), strict=True)

    def _draw(self, epoch: int) -> Tensor:
        """For each copy of each image: top, left, whether flipped, and the row and column of Cutout's middle `[5, N]`."""
        generator = torch.Generator().manual_seed(mix_seed(self.seed, epoch, DRAWS))
        limits = [2 * self.border + 1, 2 * self.border + 1, 1 + self.flips, self.size, self.size]
        count = len(self.labels) * self.repeats
        return torch.stack([torch.randint(limit, (count,), generator=generator) for limit in limits])

    def augmented(self, index: Tensor, draws: Tensor) -> Tensor:
        """The normalised images `[B, C, H, W]` of an index `[B]`, by the draws `[5, B]`."""
        top, left, flipped, row, column = draws.unsqueeze(2)  # [B, 1] each
        ys = top + self.along
        xs = left + torch.where(flipped > 0, self.size - 1 - self.along, self.along)
        rows = index.unsqueeze(1) * self.width + ys  # among those of all padded images
        pixels = self.pixels.index_select(0, (rows.unsqueeze(2) * self.width + xs.unsqueeze(1)).flatten())
        images = self.normalise(pixels.view(len(index), self.size, self.size, -1))
        if self.cutout:
            inside = [self._within(middle) for middle in (row, column)]
            images.masked_fill_((inside[0].unsqueeze(2) & inside[1].unsqueeze(1)).unsqueeze(1), 0.0)
        return images

    def _within(self, middle: Tensor) -> Tensor:
        """Which places along a side `[B, H]` a square around the middle `[B, 1]` covers."""
        distance = self.along - middle + self.cutout // 2
        return (distance >= 0) & (distance < self.cutout)


class ResidentTestBatches:
    """Test batches of images that lie on the device; of several processes each has some of them."""

    def __init__(self, images: ImageData, tested: Plain, config: DataConfig, device_context: DeviceContext) -> None:
        self.batch_size = config.eval_batch_size
        self.normalise = _Normalise(images, images.eval_size[0], device_context)
        part = Part(tested.dataset, device_context.process_group.sample_indices(len(tested)))
        self.pixels = self.labels = torch.empty(0)  # there may be fewer test images than processes
        if len(part) > 0:
            pixels, labels = _read(part, images.eval_fit, config)
            self.pixels = pixels.to(device_context.device)
            self.labels = labels.to(device_context.device)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if len(self.labels) == 0:
            return iter(())
        batches = zip(self.pixels.split(self.batch_size), self.labels.split(self.batch_size), strict=True)
        return ((self.normalise(pixels), labels) for pixels, labels in batches)


class _Normalise:
    """Bytes `[B, H, W, C]` to images `[B, C, H, W]`, as `v2.ToDtype(torch.float32, scale=True)` and `v2.Normalize` do."""

    def __init__(self, images: ImageData, size: int, device_context: DeviceContext) -> None:
        # for a whole row of pixels: operations along three channels would be slow
        self.mean, self.std = (
            torch.tensor(values, device=device_context.device).mul(255).repeat(size)
            for values in (images.mean, images.std)
        )
        last = device_context.memory_format == torch.channels_last
        self.memory_format = torch.channels_last if last else torch.contiguous_format

    def __call__(self, pixels: Tensor) -> Tensor:
        values = pixels.flatten(2).float().sub_(self.mean).div_(self.std)
        return values.view(pixels.shape).permute(0, 3, 1, 2).contiguous(memory_format=self.memory_format)


def _read(dataset: Any, fit: Any, config: DataConfig) -> tuple[Tensor, Tensor]:
    """All images `[N, H, W, C]` as bytes, a pixel's channels together, and their labels `[N]`."""
    check_file_handles(config.workers)
    loader: DataLoader[Any] = DataLoader(
        Plain(dataset, fit),
        batch_size=256,
        num_workers=config.workers,
        generator=torch.Generator(),
        worker_init_fn=initialise_worker,
    )
    # Batches of worker processes lie in shared memory, each with a file handle of its own: copies give it back at once.
    batches = [(pixels.clone(), labels.clone()) for pixels, labels in iterate(loader)]
    pixels, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    if pixels.dtype != torch.uint8:
        raise ValueError("data.loader: the images are not stored as bytes, and cannot be resident; take `files`")
    return pixels.permute(0, 2, 3, 1).contiguous(), labels
