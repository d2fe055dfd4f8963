"""What a cascade is to reach: an accuracy, a cost or a time; and the point of its curve that reaches it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import numpy as np

from nestnet.cascade.curve import CascadeCurve
from nestnet.cost.cascade import CascadeCosts

ROUNDING = 1e-9
"""Accuracies are quotients of whole numbers: a difference below this is none."""


class NoSuchPointError(ValueError):
    """No point of the curve reaches the target."""


class Target(ABC):
    """Target for which a point of the curve is chosen."""

    @abstractmethod
    def choose(self, curve: CascadeCurve, macs: CascadeCosts, seconds: CascadeCosts) -> int:
        """Choose the point of a curve.

        Args:
            curve: curve on held-out images.
            macs: multiply-accumulates of an image in each network.
            seconds: seconds of an image in each network, as measured on this machine.

        Returns:
            The index of the point.

        Raises:
            NoSuchPointError: If no point reaches the target; the message says what is possible.
        """

    def without_margin(self) -> "Target | None":
        """Return the same target without what it keeps in hand for new images; `None` if it keeps nothing."""
        return None

    def is_missed(self, cascade_top1: float, motivated_top1: float) -> bool:
        """Return whether a cascade has a lower accuracy on the test images than the target says.

        Args:
            cascade_top1: top-1 accuracy of the cascade in percent.
            motivated_top1: top-1 accuracy of the motivated network alone in percent.
        """
        return False


@dataclass(frozen=True)
class AccuracyTarget(Target):
    """The lowest cost at which the accuracy is high enough, and stays so if more images are passed on.

    A curve on few images has peaks by chance: where it only touches the target, new images are below it half of the
    time. A loss against the motivated network therefore counts one standard error more than the images show by default.

    Attributes:
        within: largest loss against the motivated network alone, in percentage points, at least 0; `None` for `percent`.
        percent: lowest top-1 accuracy in percent; `None` for `within`.
        standard_errors: number of standard errors by which a loss counts more, at least 0.
    """

    within: float | None = 0.1
    percent: float | None = None
    standard_errors: float = 1.0

    def __str__(self) -> str:
        if self.percent is not None:
            return f"an accuracy of {self.percent:g} %"
        return f"an accuracy within {self.within:g} points of the motivated network's"

    def choose(self, curve: CascadeCurve, macs: CascadeCosts, seconds: CascadeCosts) -> int:
        needed = self._needed(curve.motivated_accuracy)
        accuracy = curve.accuracy
        if self.percent is None:
            accuracy = accuracy - self.standard_errors * curve.standard_error
        is_below = accuracy < needed - ROUNDING
        if is_below.all():
            highest = curve.accuracy.max()
            raise NoSuchPointError(
                f"no cascade reaches {needed:.2f} % on the held-out images; the most is {highest:.2f} %"
            )
        if is_below[-1]:
            # The motivated network alone is below the target, but some cascades are not: take the cheapest of these.
            return int(np.flatnonzero(~is_below)[0])
        if not is_below.any():
            return 0
        return int(np.flatnonzero(is_below)[-1]) + 1

    def without_margin(self) -> "AccuracyTarget | None":
        if self.percent is not None or self.standard_errors == 0:
            return None
        return replace(self, standard_errors=0.0)

    def is_missed(self, cascade_top1: float, motivated_top1: float) -> bool:
        return cascade_top1 < self._needed(motivated_top1) - ROUNDING

    def _needed(self, motivated_top1: float) -> float:
        """Return the lowest accuracy in percent, by that of the motivated network on the same images."""
        if self.percent is not None:
            return self.percent
        assert self.within is not None
        return motivated_top1 - self.within


@dataclass(frozen=True)
class CostTarget(Target):
    """The highest accuracy at an average cost of at most so many times the base's multiply-accumulates.

    Attributes:
        times: largest average cost in units of the base's, at least 1.
    """

    times: float

    def __str__(self) -> str:
        return f"{self.times:g} times the multiply-accumulates of the base"

    def choose(self, curve: CascadeCurve, macs: CascadeCosts, seconds: CascadeCosts) -> int:
        costs = macs.of_share(curve.passed_on)
        if costs[0] > self.times * macs.base:
            raise NoSuchPointError(f"cost = {self.times:g}: the base alone costs 1")
        return _most_accurate(curve, costs <= self.times * macs.base)


@dataclass(frozen=True)
class TimeTarget(Target):
    """The highest accuracy at a measured time of at most so many milliseconds for an image, in batches.

    Attributes:
        milliseconds: largest average time of an image in milliseconds, above 0.
    """

    milliseconds: float

    def __str__(self) -> str:
        return f"{self.milliseconds:g} ms per image"

    def choose(self, curve: CascadeCurve, macs: CascadeCosts, seconds: CascadeCosts) -> int:
        times = seconds.of_share(curve.passed_on)
        if times[0] > self.milliseconds / 1000:
            raise NoSuchPointError(
                f"milliseconds = {self.milliseconds:g}: the base alone takes {1000 * seconds.base:.3g} ms per image here"
            )
        return _most_accurate(curve, times <= self.milliseconds / 1000)


def _most_accurate(curve: CascadeCurve, is_allowed: np.ndarray) -> int:
    """Return the cheapest of the most accurate points among those that are allowed."""
    accuracy = np.where(is_allowed, curve.accuracy, -1)
    # `argmax` returns the first of equal ones, which passes on the fewest images.
    return int(accuracy.argmax())
