"""Both subnets' predictions on the test images, and how they relate."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch

from nestnet.nn.mode import Mode, PerMode
from nestnet.training.calibration import calibration_error
from nestnet.training.classification_metrics import ClassificationMetrics, compute_metrics


class Agreement(StrEnum):
    """Relation of the two subnets' predictions for an image. Each image has exactly one."""

    BOTH_CORRECT = "both correct"
    ONLY_MOTIVATED_CORRECT = "motivated correct, base wrong"
    ONLY_BASE_CORRECT = "base correct, motivated wrong"
    SAME_ERROR = "both wrong, with the same class"
    DIFFERENT_ERRORS = "both wrong, with different classes"


EXAMPLE_ORDER = {
    Agreement.ONLY_MOTIVATED_CORRECT: "the motivated network's probability of the true class exceeds the base's most",
    Agreement.ONLY_BASE_CORRECT: "the base's probability of the true class exceeds the motivated network's most",
    Agreement.DIFFERENT_ERRORS: "both are most confident of their wrong predictions, by the sum of the two probabilities",
}
"""Criterion that puts an image first among the examples, for each way in which the subnets disagree."""


@dataclass(frozen=True)
class SubnetPredictions:
    """A subnet's predictions for N images.

    Attributes:
        classes: predicted classes, those with the largest logits [N].
        confidences: probabilities of the predicted classes [N].
        true_class_probabilities: probabilities of the true classes [N].
    """

    classes: np.ndarray
    confidences: np.ndarray
    true_class_probabilities: np.ndarray


@dataclass(frozen=True)
class Predictions:
    """Both subnets' predictions for N test images of K classes.

    Attributes:
        class_names: names of the classes [K].
        labels: true classes [N].
        subnets: predictions of each mode's subnet.
    """

    class_names: list[str]
    labels: np.ndarray
    subnets: PerMode[SubnetPredictions]

    def __len__(self) -> int:
        return len(self.labels)

    def top1(self, mode: Mode) -> float:
        """Return the top-1 of a subnet, in percent.

        Args:
            mode: mode of the subnet.

        Returns:
            The top-1.
        """
        return 100 * float(np.mean(self.subnets.of(mode).classes == self.labels))

    def calibration_error(self, mode: Mode) -> float:
        """Return the expected calibration error of a subnet, in percent: see `nestnet.training.calibration`.

        Args:
            mode: mode of the subnet.

        Returns:
            The error, from 0 to 100.
        """
        subnet = self.subnets.of(mode)
        return calibration_error(torch.from_numpy(subnet.confidences), torch.from_numpy(subnet.classes == self.labels))

    def find_images(self, agreement: Agreement) -> np.ndarray:
        """Return the indices of the images for which the predictions relate in this way, in ascending order.

        Args:
            agreement: relation of the two predictions.

        Returns:
            The indices [M].
        """
        # All arrays here hold a boolean or a class for each image [N].
        base = self.subnets.base.classes
        motivated = self.subnets.motivated.classes
        base_correct = base == self.labels
        motivated_correct = motivated == self.labels
        both_wrong = ~base_correct & ~motivated_correct
        match agreement:
            case Agreement.BOTH_CORRECT:
                selected = base_correct & motivated_correct
            case Agreement.ONLY_MOTIVATED_CORRECT:
                selected = motivated_correct & ~base_correct
            case Agreement.ONLY_BASE_CORRECT:
                selected = base_correct & ~motivated_correct
            case Agreement.SAME_ERROR:
                selected = both_wrong & (base == motivated)
            case Agreement.DIFFERENT_ERRORS:
                selected = both_wrong & (base != motivated)
        return np.flatnonzero(selected)

    def find_examples(self, agreement: Agreement, count: int) -> np.ndarray:
        """Return the indices of the images that best show how the predictions differ.

        Args:
            agreement: one of the ways to disagree in `EXAMPLE_ORDER`, which defines the order.
            count: number of images.

        Returns:
            At most `count` indices, the best first.
        """
        # The score of each image [N]; see `EXAMPLE_ORDER`.
        base = self.subnets.base
        motivated = self.subnets.motivated
        match agreement:
            case Agreement.ONLY_MOTIVATED_CORRECT:
                scores = motivated.true_class_probabilities - base.true_class_probabilities
            case Agreement.ONLY_BASE_CORRECT:
                scores = base.true_class_probabilities - motivated.true_class_probabilities
            case Agreement.DIFFERENT_ERRORS:
                scores = base.confidences + motivated.confidences
            case _:
                raise AssertionError(f"the subnets do not disagree: {agreement}")
        indices = self.find_images(agreement)
        # A stable sort keeps images with equal scores in order, so that reports are reproducible.
        descending = np.argsort(-scores[indices], kind="stable")
        return indices[descending][:count]

    def top1_difference(self) -> tuple[float, float]:
        """Return the motivated network's top-1 minus the base's, and its standard error, both in percentage points.

        Both subnets predict the same images, so that the images on which both are correct, or both are wrong,
        contribute no variance (McNemar 1947).

        Returns:
            The difference and its standard error.
        """
        images = len(self)
        won = len(self.find_images(Agreement.ONLY_MOTIVATED_CORRECT))
        lost = len(self.find_images(Agreement.ONLY_BASE_CORRECT))
        # The difference of an image is 1, -1 or 0: its variance over the images is E[d^2] - E[d]^2.
        difference = 100 * (won - lost) / images
        variance_of_sum = won + lost - (won - lost) ** 2 / images
        return difference, 100 * variance_of_sum**0.5 / images

    def metrics(self, mode: Mode) -> ClassificationMetrics:
        """Return precision, recall, F1 and confusions of each class for a subnet.

        Args:
            mode: mode of the subnet.

        Returns:
            The metrics, in percent.
        """
        return compute_metrics(self.labels, self.subnets.of(mode).classes, self.class_names)

    def confusion_matrix(self, mode: Mode) -> np.ndarray:
        """Return how many images of each true class (rows) a subnet predicted as each class (columns) [K, K].

        Args:
            mode: mode of the subnet.

        Returns:
            The numbers of images [K, K].
        """
        return self.metrics(mode).confusion

    def find_most_confused(self, count: int) -> list[tuple[int, int]]:
        """Return the pairs of a true class and a wrong prediction that occur most often.

        Args:
            count: number of pairs.

        Returns:
            At most `count` pairs, the most frequent first. The count of a pair is that of the subnet that
            confuses it more.
        """
        # Take the larger count of both subnets, and ignore correct predictions.
        counts = np.maximum(self.confusion_matrix(Mode.BASE), self.confusion_matrix(Mode.MOTIVATED))
        np.fill_diagonal(counts, 0)
        cells = np.argsort(-counts, axis=None, kind="stable")[:count]
        pairs = []
        for cell in cells:
            label, prediction = divmod(int(cell), len(counts))
            # There may be fewer confused pairs than `count`.
            if counts[label, prediction]:
                pairs.append((label, prediction))
        return pairs
