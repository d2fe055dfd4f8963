"""The accuracy of exported networks, as their users run them: top-1, or the mean average precision."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nestnet.training.multi_label_metrics import compute_multi_label_metrics


@dataclass(frozen=True)
class Measure:
    """What the accuracy of a network is.

    Attributes:
        key: end of its name in tables and metadata, as in `base_top1`.
        name: name in text.
        short_name: name at the head of a column.
    """

    key: str
    name: str
    short_name: str

    def format(self, percent: float) -> str:
        """Return an accuracy for the middle of a sentence.

        Args:
            percent: the accuracy in percent.

        >>> TOP1.format(93.2)
        'top-1 93.20 %'
        """
        return f"{self.name} {percent:.2f} %"


TOP1 = Measure("top1", "top-1", "top-1")
"""The share of images whose class has the largest logit."""

MEAN_AVERAGE_PRECISION = Measure("map", "mean average precision", "mAP")
"""The mean over the classes of how well the logits order the images."""

MEASURES = (TOP1, MEAN_AVERAGE_PRECISION)
"""All of them, in the order of columns."""


def choose_measure(*, multi_label: bool) -> Measure:
    """Return what the accuracy of networks is for some images.

    Args:
        multi_label: whether an image may have several labels.
    """
    if multi_label:
        return MEAN_AVERAGE_PRECISION
    return TOP1


@torch.inference_mode()
def measure_accuracy(
    networks: Sequence[Callable[[Any], Tensor]], batches: Iterable[tuple[Any, Tensor]], measure: Measure
) -> list[float]:
    """Return the accuracy of each of some networks. Each image is read once, however many networks see it.

    Args:
        networks: functions from images to logits `[B, K]`, which all take the same images.
        batches: images as the networks take them, such as `[B, C, H, W]`, and labels `[B]`, or targets `[B, K]` of images
            that may have several labels.
        measure: accuracy that suits the labels.

    Returns:
        The accuracies in percent.
    """
    answers: list[list[Tensor]] = [[] for _ in networks]
    labels: list[Tensor] = []
    for images, batch_labels in batches:
        labels.append(batch_labels.cpu())
        for of_network, network in zip(answers, networks, strict=True):
            answer = network(images)
            # The logits of all images of ImageNet take 200 MB, and their classes 0.4 MB.
            if measure is TOP1:
                answer = answer.argmax(dim=1)
            of_network.append(answer.cpu())
    all_labels = torch.cat(labels)
    return [_compare(torch.cat(of_network), all_labels, measure) for of_network in answers]


def _compare(answers: Tensor, labels: Tensor, measure: Measure) -> float:
    """Return the accuracy of classes `[N]`, or of logits `[N, K]`, in percent."""
    if measure is TOP1:
        return 100 * int((answers == labels).sum()) / len(labels)
    class_names = [""] * answers.shape[1]
    metrics = compute_multi_label_metrics(labels.numpy(), answers.float().numpy(), class_names)
    return metrics.mean_average_precision
