"""The batch of training images that is kept out of training for the held-out loss."""

from dataclasses import replace

import torch
from torch import Tensor

from nestnet.config.schema import Config
from nestnet.data.image_data import ImageData
from nestnet.data.seeding import mix_seed


def split_off_held_out_batch(images: ImageData, config: Config) -> tuple[ImageData, tuple[Tensor, Tensor]]:
    """The data without a batch of training images, drawn by the seed, and that batch as test images are treated."""
    generator, size = torch.Generator().manual_seed(mix_seed(config.seed)), config.data.batch_size
    order = torch.randperm(len(images.train), generator=generator).tolist()
    rest = images.split(sorted(order[size:]), order[:size])
    drawn = [rest.test[index] for index in range(len(order[:size]))]
    batch = torch.stack([image for image, _ in drawn]), torch.tensor([label for _, label in drawn])
    return replace(rest, test=images.test), batch
