"""The top-1 accuracy of exported networks, as their users run them."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor


@torch.inference_mode()
def count_top1(networks: Sequence[Callable[[Any], Tensor]], batches: Iterable[tuple[Any, Tensor]]) -> list[float]:
    """Return the percentage of images for which the true class has the largest logit, for each of some networks.

    Each image is read once, however many networks see it.

    Args:
        networks: functions from images to logits `[B, K]`, which all take the same images.
        batches: images as the networks take them, such as `[B, C, H, W]`, and labels `[B]`.

    Returns:
        The top-1 accuracy of each network in percent.
    """
    correct = [0] * len(networks)
    total = 0
    for images, labels in batches:
        total += len(labels)
        for index, network in enumerate(networks):
            predicted = network(images).argmax(dim=1).cpu()
            correct[index] += int((predicted == labels.cpu()).sum())
    return [100 * count / total for count in correct]
