"""The sampler of training batches: which images a batch has, and the seed of each one's augmentation."""

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from nestnet.data.seeding import mix_seed
from nestnet.device import DeviceContext


class EpochBatchSampler(Sampler[list[tuple[int, int]]]):
    """Sampler of batches of `(index, seed)`: each epoch has its own order, and each sample its own seed.

    The last batch is left out if it would be smaller than the others.

    Args:
        size: number of training images.
        batch_size: number of images in a batch, over all processes together.
        seed: seed of the run.
        repeats: number of times that an epoch repeats each of its images, in direct succession and each time
            with a different seed (repeated augmentation, Hoffer et al. 2020). The length of an epoch does
            not depend on it.
        device_context: context whose process group shares each batch; by default this process gets the whole batch.

    Attributes:
        epoch: number of the epoch to sample, from 0; set it before iterating.
        start: number of batches of the epoch to leave out at its beginning; set it before iterating.
    """

    def __init__(
        self, size: int, batch_size: int, seed: int, *, repeats: int = 1, device_context: DeviceContext | None = None
    ) -> None:
        self.size = size
        self.batch_size = batch_size
        self.seed = seed
        self.repeats = repeats
        self.epoch = 0
        self.start = 0
        self.share = (device_context or DeviceContext()).process_group.batch_slice(batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        generator = torch.Generator().manual_seed(mix_seed(self.seed, self.epoch))
        order = torch.randperm(self.size, generator=generator).tolist()
        # The index of each image, and the number of the copy among all copies of all images. Seeds follow
        # from the latter, so that they depend neither on the order nor on how many processes share the
        # batches.
        copies: list[tuple[int, int]] = []
        for index in order:
            for copy in range(self.repeats):
                copies.append((index, index * self.repeats + copy))
        for number in range(self.start, len(self)):
            batch = copies[number * self.batch_size : (number + 1) * self.batch_size]
            yield [(index, mix_seed(self.seed, self.epoch, copy)) for index, copy in batch[self.share]]

    def __len__(self) -> int:
        return self.size // self.batch_size
