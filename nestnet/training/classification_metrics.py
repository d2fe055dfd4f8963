"""How well a network tells classes apart: for each class, and over all of them."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ClassificationMetrics:
    """Metrics of a network's predictions for N images of K classes, all of them in percent.

    A class without images has no precision, recall and F1 (NaN), and the means leave it out. The precision of a class
    that has images and is never predicted is 0.

    Attributes:
        class_names: name of each class `[K]`, in the order of the labels.
        confusion: number of images of each true class (rows) that are predicted as each class (columns) `[K, K]`.
        precision: for each class, share of the images predicted as it that belong to it `[K]`.
        recall: for each class, share of its images that are predicted as it `[K]`.
        f1: harmonic mean of precision and recall of each class `[K]`.

    Example:
        >>> metrics = compute_metrics([0, 0, 0, 1], [0, 0, 1, 1], ["cat", "dog"])
        >>> metrics.top1, round(metrics.balanced_accuracy, 1), metrics.precision.tolist()
        (75.0, 83.3, [100.0, 50.0])
    """

    class_names: list[str]
    confusion: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray

    @property
    def images_per_class(self) -> np.ndarray:
        """Number of images of each true class `[K]`."""
        return self.confusion.sum(axis=1)

    @property
    def images(self) -> int:
        """Number of images."""
        return int(self.confusion.sum())

    @property
    def top1(self) -> float:
        """Share of all images whose class is predicted: the top-1 accuracy."""
        return 100 * int(self.confusion.trace()) / self.images

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes, in which a rare class counts as much as a common one."""
        return float(np.nanmean(self.recall))

    @property
    def macro_precision(self) -> float:
        """Mean precision of the classes."""
        return float(np.nanmean(self.precision))

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the classes."""
        return float(np.nanmean(self.f1))


def compute_metrics(
    labels: Sequence[int] | np.ndarray, predictions: Sequence[int] | np.ndarray, class_names: Sequence[str]
) -> ClassificationMetrics:
    """Return the metrics of predictions.

    Args:
        labels: true class of each image `[N]`, of at least one image.
        predictions: predicted class of each image `[N]`.
        class_names: name of each class `[K]`, in the order of the labels.

    Returns:
        The metrics.
    """
    # Imported here, because it takes most of a second.
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    classes = np.arange(len(class_names))
    with warnings.catch_warnings():
        # scikit-learn takes labels for regression targets if there are few images per class.
        warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
        confusion = confusion_matrix(labels, predictions, labels=classes)
        by_class = precision_recall_fscore_support(labels, predictions, labels=classes, zero_division=0)
    precision, recall, f1, images = by_class
    # Without images a class has neither been recognised nor missed.
    is_absent = images == 0
    percentages = []
    for shares in (precision, recall, f1):
        percentages.append(np.where(is_absent, np.nan, 100 * shares))
    return ClassificationMetrics(list(class_names), confusion, *percentages)
