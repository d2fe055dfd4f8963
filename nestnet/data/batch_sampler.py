"""The sampler of training batches: which images a batch has, and the seed of each one's augmentation."""

from collections.abc import Iterator

from torch.utils.data import Sampler

from nestnet.data.image_order import ImageOrder
from nestnet.data.seeding import mix_seed
from nestnet.device import DeviceContext


class EpochBatchSampler(Sampler[list[tuple[int, int]]]):
    """Sampler of batches of `(index, seed)`: each epoch has its own order, and each sample its own seed.

    The last batch is left out if it would be smaller than the others.

    Args:
        order: order of the training images in each epoch.
        batch_size: number of images in a batch, over all processes together.
        repeats: number of times that an epoch repeats each of its images, in direct succession and each time
            with a different seed (repeated augmentation, Hoffer et al. 2020). The length of an epoch does
            not depend on it.
        device_context: context whose process group shares each batch; by default this process gets the whole batch.

    Attributes:
        epoch: number of the epoch to sample, from 0; set it before iterating.
        start: number of batches of the epoch to leave out at its beginning; set it before iterating.
    """

    def __init__(
        self, order: ImageOrder, batch_size: int, *, repeats: int = 1, device_context: DeviceContext | None = None
    ) -> None:
        self.order = order
        self.batch_size = batch_size
        self.repeats = repeats
        self.epoch = 0
        self.start = 0
        self.share = (device_context or DeviceContext()).process_group.batch_slice(batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = self.order.epoch(self.epoch)
        # The index of each image, and the number of the copy among all copies of all images. Seeds follow
        # from the latter, so that they do not depend on how many processes share the batches.
        copies: list[tuple[int, int]] = []
        for index, draw in zip(order.indices.tolist(), order.draws.tolist(), strict=True):
            for copy in range(self.repeats):
                copies.append((index, draw * self.repeats + copy))
        for number in range(self.start, len(self)):
            batch = copies[number * self.batch_size : (number + 1) * self.batch_size]
            yield [(index, mix_seed(self.order.seed, self.epoch, copy)) for index, copy in batch[self.share]]

    def __len__(self) -> int:
        return self.order.size // self.batch_size
