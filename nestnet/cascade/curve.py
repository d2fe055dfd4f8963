"""The curve of a cascade: its accuracy for every share of images that it passes on."""

from dataclasses import dataclass

import numpy as np

ALL_PASSED_ON = 2.0
"""A threshold above every confidence, with which the motivated network decides all images."""


@dataclass(frozen=True)
class CascadeCurve:
    """Accuracy of a cascade at every threshold that makes a difference, from passing on no image to passing on all of them.

    Attributes:
        thresholds: smallest confidence with which the base decides an image, rising `[P]`.
        passed_on: share of the images that are passed on, rising from 0 to 1 `[P]`.
        accuracy: top-1 accuracy of the cascade in percent `[P]`.
        standard_error: standard error of its difference to the motivated network's accuracy, in percentage points `[P]`:
            other images of the same kind would give differences about as far away.
        images: number of images that it was computed on.
    """

    thresholds: np.ndarray
    passed_on: np.ndarray
    accuracy: np.ndarray
    standard_error: np.ndarray
    images: int

    def __len__(self) -> int:
        return len(self.thresholds)

    @property
    def base_accuracy(self) -> float:
        """Top-1 accuracy of the base alone in percent."""
        return float(self.accuracy[0])

    @property
    def motivated_accuracy(self) -> float:
        """Top-1 accuracy of the motivated network alone in percent."""
        return float(self.accuracy[-1])

    def nearest(self, share: float) -> int:
        """Return the index of the point whose share of passed-on images is nearest to a given one.

        Args:
            share: share of the images, from 0 to 1.
        """
        return int(np.abs(self.passed_on - share).argmin())


def trace_curve(confidences: np.ndarray, base_correct: np.ndarray, motivated_correct: np.ndarray) -> CascadeCurve:
    """Compute the curve of a cascade from what both networks say of some images.

    Args:
        confidences: confidence of the base for each image in float32 `[N]`, from 0 to 1.
        base_correct: whether the base is right about each image `[N]`.
        motivated_correct: whether the motivated network is right about each image `[N]`.

    Returns:
        The curve, with a point for each different confidence, and one for passing on all images.

    Raises:
        ValueError: If there is no image.
    """
    if len(confidences) == 0:
        raise ValueError("confidences is empty: the curve of a cascade needs at least one image")
    order = np.argsort(confidences, kind="stable")
    confidences = confidences[order]
    # Point n passes on the n least confident images: the motivated network decides those, and the base all others.
    motivated_decides = np.concatenate([[0], np.cumsum(motivated_correct[order])])
    base_decides = np.concatenate([[0], np.cumsum(base_correct[order])])
    correct = motivated_decides + base_decides[-1] - base_decides

    # Images of equal confidence are passed on together: a point lies below the first of them.
    is_first = np.concatenate([[True], confidences[1:] > confidences[:-1], [True]])
    numbers = np.flatnonzero(is_first)
    thresholds = [0.0]
    for number in numbers[1:-1]:
        thresholds.append(_between(confidences[number - 1], confidences[number]))
    thresholds.append(ALL_PASSED_ON)
    # Only images that the base decides, and about which one network is right and the other wrong, make a difference.
    is_different = base_correct[order] != motivated_correct[order]
    different = is_different.sum() - np.concatenate([[0], np.cumsum(is_different)])
    mean = (correct[numbers] - correct[-1]) / len(confidences)
    variance = different[numbers] / len(confidences) - mean**2
    return CascadeCurve(
        thresholds=np.array(thresholds),
        passed_on=numbers / len(confidences),
        accuracy=100 * correct[numbers] / len(confidences),
        standard_error=100 * np.sqrt(variance / len(confidences)),
        images=len(confidences),
    )


def _between(low: np.float32, high: np.float32) -> float:
    """Return a threshold that only the first of two confidences is below, in the middle if float32 has such a number."""
    middle = np.float32((float(low) + float(high)) / 2)
    if middle > low:
        return float(middle)
    return float(high)
