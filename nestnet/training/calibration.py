"""The calibration of a classifier: a temperature that makes its probabilities true, and how far they are from it.

Guo et al. 2017, "On Calibration of Modern Neural Networks" (arXiv 1706.04599).
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

LOWEST_TEMPERATURE = 0.05
HIGHEST_TEMPERATURE = 20.0
"""Bounds of a temperature. A network that is right about every image would otherwise get 0, and one that guesses infinity."""

BINS = 15
"""Number of bins of the calibration error, as in arXiv 1706.04599, section 5."""


def confidence(logits: Tensor) -> Tensor:
    """Return the largest probability of each image.

    Args:
        logits: logits `[B, K]`.

    Returns:
        The largest value of their softmax, `[B]`, from 1/K to 1.
    """
    return logits.softmax(dim=1).amax(dim=1)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature with which the cross entropy of some images is lowest (arXiv 1706.04599, section 4.2).

    A division of all logits by one number does not change the class of any image.

    Args:
        logits: logits `[N, K]` of images that the network was not trained on.
        labels: their classes `[N]`.

    Returns:
        The temperature, from 0.05 to 20; above 1 for a network that is too sure of itself.
    """
    # scipy comes with scikit-learn; importing it takes a while.
    from scipy.optimize import minimize_scalar

    logits = logits.double()

    def cross_entropy(log_temperature: float) -> float:
        return F.cross_entropy(logits / math.exp(log_temperature), labels).item()

    # The cross entropy is convex in 1 / temperature, so it has one minimum in the logarithm too.
    bounds = (math.log(LOWEST_TEMPERATURE), math.log(HIGHEST_TEMPERATURE))
    found = minimize_scalar(cross_entropy, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return math.exp(found.x)


def calibration_error(confidences: Tensor, correct: Tensor, bins: int = BINS) -> float:
    """Return the expected calibration error: how far confidence and accuracy are apart (arXiv 1706.04599, equation 3).

    The images are divided into bins of equal width by confidence. The error is the mean difference between the mean confidence
    and the accuracy of a bin, weighted by its images.

    Args:
        confidences: confidence of each image `[N]`, from 0 to 1.
        correct: whether the network is right about each image `[N]`.
        bins: number of bins, at least 1.

    Returns:
        The error in percent, from 0 to 100.

    Example:
        >>> import torch
        >>> confidences = torch.tensor([0.9, 0.9, 0.6, 0.6], dtype=torch.double)
        >>> calibration_error(confidences, torch.tensor([True, True, True, False]))
        10.0
    """
    confidences = confidences.double()
    # The bins are (0, 1/bins], (1/bins, 2/bins] and so on.
    bin_of_image = (confidences * bins).ceil().long().clamp(1, bins) - 1
    surplus = torch.zeros(bins, dtype=torch.double, device=confidences.device)
    surplus.index_add_(0, bin_of_image, confidences - correct.double())
    return round(100 * surplus.abs().sum().item() / len(confidences), 10)
