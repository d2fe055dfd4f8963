"""Conditions that motivate after a streak of falling losses, or of changes of another quantity in one direction.

`LossDecrease` is the paper's own condition. The others are its variants and controls (arXiv 2602.21064,
section 4.4).
"""

import math
from abc import abstractmethod
from typing import Any

from nestnet.conditions.base import Condition, motivated_rate
from nestnet.nn.mode import Mode
from nestnet.text.arguments import check_whole_number, is_number


class StreakCondition(Condition):
    """Base class of conditions that motivate while each of the last `k` steps from one value to the next counts.

    A value that is NaN or infinite ends the streak, and the step from it to the next value does not count
    either.

    Args:
        k: number of steps in a row that motivate, at least 1.

    Attributes:
        last: last value, or `None` at the start of an epoch.
        streak: number of steps up to the last value that counted in a row.

    Raises:
        ValueError: If `k` is not a whole number of at least 1.
    """

    def __init__(self, k: int) -> None:
        self.k = check_whole_number("k", k, 1, "how many in a row motivate")
        self.last: float | None = None
        self.streak = 0

    @abstractmethod
    def continues_streak(self, last: float, value: float) -> bool:
        """Return whether the step from one finite value to the next counts.

        Args:
            last: value of the previous batch.
            value: value of this batch.

        Returns:
            Whether the streak grows by one. Otherwise it ends.
        """

    @property
    def mode(self) -> Mode:
        return Mode.MOTIVATED if self.streak >= self.k else Mode.BASE

    def update(self, loss: float) -> None:
        value = float(loss)
        # The first value of an epoch has no predecessor, and comparisons need finite values.
        last = self.last
        if last is not None and math.isfinite(last) and math.isfinite(value) and self.continues_streak(last, value):
            self.streak += 1
        else:
            self.streak = 0
        self.last = value

    def reset(self) -> None:
        self.last = None
        self.streak = 0

    def state_dict(self) -> dict[str, Any]:
        return {"last": self.last, "streak": self.streak}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.last = state["last"]
        self.streak = state["streak"]

    def expected_fraction(self, batches: int | None = None) -> float | None:
        """Return the share of motivated batches if successive values were independent; see `Condition`."""
        if batches is None:
            return motivated_rate(self.k)
        # k steps need k + 1 values of the same epoch.
        batches_that_can_be_motivated = batches - self.k - 1
        if batches_that_can_be_motivated <= 0:
            return 0.0
        return motivated_rate(self.k) * batches_that_can_be_motivated / batches

    def __repr__(self) -> str:
        return f"{type(self).__name__}(k={self.k})"


class LossDecrease(StreakCondition):
    """Motivates exactly while each of the last `k` losses is lower than the one before.

    This is the condition of Algorithm 1 of arXiv 2602.21064. If successive losses were independent, one batch in
    (k+1)! would be motivated. A loss that is NaN or infinite ends the streak, and so does the loss after it.

    Args:
        k: number of falling losses in a row that motivate, at least 1.

    Raises:
        ValueError: If `k` is not a whole number of at least 1.

    Example:
        >>> condition = LossDecrease(k=2)
        >>> for loss in (2.0, 1.5, 1.2, 1.1, 1.3):
        ...     condition.update(loss)
        ...     print(condition.mode)
        base
        base
        motivated
        motivated
        base
    """

    def continues_streak(self, last: float, value: float) -> bool:
        return value < last


class EMADecrease(StreakCondition):
    """Motivates exactly while a moving average of the loss has fallen at each of the last `k` batches.

    The average is exponential, and a fall counts if it is at least a given part of the average. The average
    starts over after a loss that is NaN or infinite.

    Args:
        k: number of falls in a row that motivate, at least 1.
        decay: weight of the previous average in the new one, from 0 to below 1. The paper does not state its
            value.
        min_drop: smallest fall that counts, as a part of the average, from 0 to below 1. The default of 0.2 %
            is the paper's.

    Raises:
        ValueError: If `k` is not a whole number of at least 1, or `decay` or `min_drop` is out of range.

    Example:
        >>> condition = EMADecrease(k=1, decay=0.5)
        >>> for loss in (2.0, 1.0, 3.0):
        ...     condition.update(loss)
        ...     print(condition.mode)
        base
        motivated
        base
    """

    def __init__(self, k: int, *, decay: float = 0.9, min_drop: float = 0.002) -> None:
        super().__init__(k)
        self.decay = _check_part("decay", decay)
        self.min_drop = _check_part("min_drop", min_drop)

    def continues_streak(self, last: float, value: float) -> bool:
        # A part of the absolute value, because the average of a negative loss can fall too.
        return value < last and last - value >= self.min_drop * abs(last)

    def update(self, loss: float) -> None:
        loss = float(loss)
        # `last` is the average up to the previous batch; without a finite one the average starts over.
        if self.last is not None and math.isfinite(self.last) and math.isfinite(loss):
            average = self.decay * self.last + (1 - self.decay) * loss
        else:
            average = loss
        super().update(average)

    def expected_fraction(self, batches: int | None = None) -> float | None:
        """Return 0 for epochs in which no batch can be motivated, and `None` for all others; see `Condition`."""
        # Successive averages are not independent, so that the share in longer epochs is unknown.
        if batches is not None and batches <= self.k + 1:
            return 0.0
        return None

    def __repr__(self) -> str:
        return f"EMADecrease(k={self.k}, decay={self.decay}, min_drop={self.min_drop})"


class HeldOutLossDecrease(LossDecrease):
    """Motivates exactly while each of the last `k` held-out losses is lower than the one before.

    The held-out loss is that of one batch of training images that is kept out of training, evaluated after
    each step with the subnet that the step trained. This takes one more forward pass per batch, which
    recorded costs do not include.

    Args:
        k: number of falling losses in a row that motivate, at least 1.

    Raises:
        ValueError: If `k` is not a whole number of at least 1.
    """

    watches = "held_out_loss"


class GradientNormIncrease(StreakCondition):
    """Motivates exactly while each of the last `k` gradient norms is higher than the one before.

    Args:
        k: number of rising norms in a row that motivate, at least 1.

    Raises:
        ValueError: If `k` is not a whole number of at least 1.
    """

    watches = "gradient_norm"

    def continues_streak(self, last: float, value: float) -> bool:
        return value > last


def _check_part(name: str, value: float) -> float:
    if not is_number(value) or not 0 <= value < 1:
        raise ValueError(f"{name} = {value!r}: it must be a number from 0 to below 1")
    return value
