"""Batches, on the device that trains them.

Small images are kept there whole and augmented by batches (`nestnet.resident`); others are read and augmented one by one, by
torch's loader. Either way a sample's augmentation and its place in the epoch follow from (seed, epoch, index) alone: they
are the same with any number of workers, and several processes have the batches of one among them.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from nestnet.config.schema import DataConfig
from nestnet.data.image_data import ImageData, Plain
from nestnet.data.resident import ResidentBatches, ResidentTestBatches
from nestnet.data.seeding import mix_seed
from nestnet.data.sources import Part
from nestnet.data.workers import check_file_handles, initialise_worker, iterate
from nestnet.device import DeviceContext

Batch = tuple[Tensor, Tensor]
"""Images `[B, C, H, W]` and labels `[B]`."""


class TrainBatches(Protocol):
    """Training batches of this process's size."""

    def __len__(self) -> int:
        """Batches an epoch."""

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from `start` on, both counted from 0."""


def train_batches(
    images: ImageData, config: DataConfig, seed: int, device_context: DeviceContext | None = None
) -> TrainBatches:
    """Training batches as the configuration wants them; by default all of each, on the CPU.

    Raises:
        ValueError: if there are fewer training images than one batch takes, or they cannot be resident and are to be.
    """
    if len(images.train) < config.batch_size:
        raise ValueError(
            f"data.batch_size = {config.batch_size}: there are only {len(images.train)} training images; take fewer a batch"
        )
    kind = ResidentBatches if is_resident(images, config) else ReadBatches
    return kind(images, config, seed, device_context or DeviceContext())


def eval_batches(
    images: ImageData, config: DataConfig, device_context: DeviceContext | None = None, *, part: Plain | None = None
) -> Iterable[Batch]:
    """All test images once, in order; of several processes each has some of them.

    Args:
        images: the images and how they are normalised.
        config: their batch size and loader.
        device_context: where the batches are put; by default the CPU.
        part: other images to test on, such as `images.val`; by default `images.test`.
    """
    kind = ResidentTestBatches if is_resident(images, config) else ReadTestBatches
    return kind(images, part or images.test, config, device_context or DeviceContext())


def is_resident(images: ImageData, config: DataConfig) -> bool:
    """Whether the images are to be kept on the device.

    Raises:
        ValueError: if the configuration wants that, and it cannot be.
    """
    if config.loader == "resident" and images.not_resident:
        raise ValueError(f"data.loader = 'resident': {images.not_resident}; take `files`")
    return config.loader != "files" and images.not_resident is None


class ReadBatches:
    """Training images read and augmented one by one, by torch's loader."""

    def __init__(self, images: ImageData, config: DataConfig, seed: int, device_context: DeviceContext) -> None:
        self.device_context = device_context
        self.sampler = EpochBatches(
            len(images.train), config.batch_size, seed, repeats=config.repeats, device_context=device_context
        )
        self.loader: DataLoader[Any] = DataLoader(
            images.train,
            batch_sampler=self.sampler,
            **_options(config, device_context),
            persistent_workers=config.workers > 0,
        )

    def __len__(self) -> int:
        return len(self.sampler)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        self.sampler.epoch, self.sampler.start = number, start
        return (self.device_context.put(*batch) for batch in iterate(self.loader))


class ReadTestBatches:
    """Test images read one by one, by torch's loader."""

    def __init__(self, images: ImageData, tested: Plain, config: DataConfig, device_context: DeviceContext) -> None:
        self.device_context = device_context
        part = Part(tested, device_context.process_group.sample_indices(len(tested)))
        self.loader: DataLoader[Any] = DataLoader(
            part, batch_size=config.eval_batch_size, **_options(config, device_context)
        )

    def __iter__(self) -> Iterator[Batch]:
        return (self.device_context.put(*batch) for batch in iterate(self.loader))


def _options(config: DataConfig, device_context: DeviceContext) -> dict[str, Any]:
    check_file_handles(config.workers, loaders=2)  # those of the training images go on while test images are read
    return {
        "generator": torch.Generator(),  # a loader's start draws a number, which the network's dropout must not miss
        "num_workers": config.workers,
        "prefetch_factor": 4 if config.workers else None,
        "pin_memory": device_context.device.type == "cuda",
        "worker_init_fn": initialise_worker,
    }


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (index, seed): an order for each epoch, and a seed for each sample of it.

    A last batch that would be smaller than the others is left out.

    Args:
        repeats: how often each sample that an epoch has comes, one copy after the other and each with a seed of its own
            (repeated augmentation, Hoffer et al. 2020). The epoch's length does not depend on it.

    Attributes:
        epoch: to be set before its batches are asked for.
        start: likewise, how many of its batches are passed over.
    """

    def __init__(
        self, size: int, batch_size: int, seed: int, *, repeats: int = 1, device_context: DeviceContext | None = None
    ) -> None:
        self.size, self.batch_size, self.seed, self.repeats = size, batch_size, seed, repeats
        self.epoch = self.start = 0
        self.share = (device_context or DeviceContext()).process_group.batch_slice(batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        generator = torch.Generator().manual_seed(mix_seed(self.seed, self.epoch))
        order = torch.randperm(self.size, generator=generator).tolist()
        copies = [(index, index * self.repeats + copy) for index in order for copy in range(self.repeats)]
        for number in range(self.start, len(self)):
            batch = copies[number * self.batch_size : (number + 1) * self.batch_size][self.share]
            yield [(index, mix_seed(self.seed, self.epoch, copy)) for index, copy in batch]

    def __len__(self) -> int:
        return self.size // self.batch_size
