"""The order in which an epoch shows the training images, and which random numbers augment each of them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nestnet.config.schema_sections import DataConfig
from nestnet.data.class_balance import count_images
from nestnet.data.image_data import ImageData
from nestnet.data.seeding import mix_seed


@dataclass(frozen=True)
class EpochOrder:
    """Order of the N images that an epoch shows.

    Attributes:
        indices: position of each of them among the training images `[N]`.
        draws: number from 0 to N - 1 that selects the random numbers of each one's augmentation `[N]`. No two are
            equal, so that an image that is shown twice is augmented in two ways.
    """

    indices: Tensor
    draws: Tensor


class ImageOrder:
    """Order of the training images in each epoch. It depends on the seed of the run and the number of the epoch only.

    Args:
        images: images to train on.
        config: configuration of the images. With its `sampler` `"shuffle"` an epoch shows each image once; with
            `"balanced"` it shows as many images, which are drawn with replacement, and every class is equally likely.
        seed: seed of the run.

    Raises:
        ValueError: If a class of a balanced order has no images.
    """

    def __init__(self, images: ImageData, config: DataConfig, seed: int) -> None:
        self.size = len(images.train)
        self.seed = seed
        # Relative probability of each image [N], as torch's `WeightedRandomSampler` takes it.
        self.probabilities: Tensor | None = None
        if config.sampler == "balanced":
            counts = count_images(images.single_labels, images.class_names, f"data.sampler = {config.sampler}")
            self.probabilities = 1 / counts.double()[torch.tensor(images.single_labels)]

    def epoch(self, number: int) -> EpochOrder:
        """Return the order of an epoch.

        Args:
            number: number of the epoch, from 0.
        """
        generator = torch.Generator().manual_seed(mix_seed(self.seed, number))
        if self.probabilities is None:
            order = torch.randperm(self.size, generator=generator)
            return EpochOrder(order, order)
        indices = torch.multinomial(self.probabilities, self.size, replacement=True, generator=generator)
        return EpochOrder(indices, torch.arange(self.size))
