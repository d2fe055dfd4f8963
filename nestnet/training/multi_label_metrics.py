"""How well a network finds the labels of images that may have several: average precision, for each class and as a mean."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from nestnet.device import autocast
from nestnet.distributed.process_group import ProcessGroup
from nestnet.nn.mode import Mode


@dataclass(frozen=True)
class MultiLabelMetrics:
    """Metrics of a network's scores for N images of K classes, in percent.

    Attributes:
        class_names: name of each class `[K]`, in the order of the labels.
        positives: number of images that have each label `[K]`.
        images: number of images.
        average_precision: average precision of each class `[K]`; NaN for a class that no image has.
        top1: share of the images with labels whose class with the highest score is one of their labels.
    """

    class_names: list[str]
    positives: np.ndarray
    images: int
    average_precision: np.ndarray
    top1: float

    @property
    def mean_average_precision(self) -> float:
        """Mean of the average precisions, without classes that no image has."""
        return float(np.nanmean(self.average_precision))


def compute_multi_label_metrics(
    targets: np.ndarray, scores: np.ndarray, class_names: Sequence[str]
) -> MultiLabelMetrics:
    """Return the metrics of the scores of a network.

    Args:
        targets: 1 for each label of each image and 0 elsewhere `[N, K]`; at least one image has a label.
        scores: logits, or probabilities, of which a higher one says that the image has the label `[N, K]`.
        class_names: name of each class `[K]`, in the order of the labels.

    Returns:
        The metrics.

    Example:
        >>> metrics = compute_multi_label_metrics(np.array([[1, 0], [1, 1]]), np.array([[3, 2], [1, 0]]), ["cat", "dog"])
        >>> metrics.average_precision.tolist(), metrics.mean_average_precision, metrics.top1
        ([100.0, 50.0], 75.0, 100.0)
    """
    # Imported here, because it takes most of a second.
    from sklearn.metrics import average_precision_score

    # A network whose weights are not finite recognises nothing.
    scores = np.nan_to_num(scores, nan=-np.inf)
    positives = targets.sum(axis=0).astype(int)
    average_precision = np.full(len(class_names), np.nan)
    for label in np.flatnonzero(positives):
        # Only the order of the scores matters, and ranks are finite.
        _, ranks = np.unique(scores[:, label], return_inverse=True)
        average_precision[label] = 100 * average_precision_score(targets[:, label], ranks)
    with_labels = targets.any(axis=1)
    best = scores.argmax(axis=1)
    hits = targets[np.arange(len(targets)), best][with_labels]
    return MultiLabelMetrics(
        class_names=list(class_names),
        positives=positives,
        images=len(targets),
        average_precision=average_precision,
        top1=100 * float(hits.mean(dtype=float)),
    )


@torch.inference_mode()
def evaluate_multi_label(
    net: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    class_names: Sequence[str],
    modes: Iterable[Mode] = tuple(Mode),
    *,
    precision: str = "float32",
    process_group: ProcessGroup | None = None,
) -> dict[Mode, MultiLabelMetrics]:
    """Return the metrics of some modes of a network on images that may have several labels.

    Args:
        net: network that maps images `[B, C, H, W]` and a mode to logits `[B, K]`, in evaluation mode.
        batches: images `[B, C, H, W]` and targets `[B, K]`, on the network's device. With several processes each
            passes its share.
        class_names: name of each class `[K]`, in the order of the labels.
        modes: modes to evaluate, all of them on each batch.
        precision: `"float32"`, or `"bfloat16"` for autocast.
        process_group: processes that evaluate together.

    Returns:
        The metrics of each mode, the same in all processes.
    """
    device = next(net.parameters()).device
    modes = list(modes)
    # Average precision orders all images by their scores, so that the scores are kept.
    rows: list[list[Tensor]] = []
    for images, targets in batches:
        row = [targets]
        for mode in modes:
            with autocast(device, precision):
                row.append(net(images, mode).float())
        rows.append(row)
    # The targets, and the scores of each mode: [N, K] each. A process may have no images.
    joined = [torch.cat(column).cpu() for column in zip(*rows, strict=True)]
    if process_group is not None:
        gathered = [share for share in process_group.all_gather_object(joined) if share]
        joined = [torch.cat(shares) for shares in zip(*gathered, strict=True)]
    all_targets = joined[0].numpy()
    metrics: dict[Mode, MultiLabelMetrics] = {}
    for mode, scores in zip(modes, joined[1:], strict=True):
        metrics[mode] = compute_multi_label_metrics(all_targets, scores.numpy(), class_names)
    return metrics
