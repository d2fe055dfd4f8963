"""The batch of training images that is kept out of training for the held-out loss."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.data import default_collate

from nestnet.config.schema import Config
from nestnet.data.image_data import ImageData
from nestnet.data.seeding import mix_seed


def split_off_held_out_batch(images: ImageData, config: Config) -> tuple[ImageData, tuple[Tensor, Tensor]]:
    """Split off a batch of training images, drawn by the run's seed.

    Args:
        images: training and test images of the run.
        config: configuration of the run; its seed and batch size matter here.

    Returns:
        The images without that batch, and the batch itself: images `[B, C, H, W]`, transformed as test images
        are, and labels `[B]`, or `[B, K]` if images have several.
    """
    size = config.data.images_per_batch
    generator = torch.Generator().manual_seed(mix_seed(config.seed))
    order = torch.randperm(len(images.train), generator=generator).tolist()
    held_out_indices = order[:size]
    remaining = images.resplit(sorted(order[size:]), held_out_indices)
    # Their transform has no random numbers, so that the loss on them is comparable from step to step.
    held_out_images = []
    held_out_labels = []
    for index in range(len(held_out_indices)):
        image, label = remaining.test[index]
        held_out_images.append(image)
        held_out_labels.append(label)
    batch = torch.stack(held_out_images), default_collate(held_out_labels)
    return replace(remaining, test=images.test), batch
