"""Motivation conditions: what decides, after each batch, which subnet the next batch trains.

The paper's own is `LossDecrease`. The others are its variants and controls (arXiv 2602.21064, section 4.4), and the
two classical trainings. A condition of your own is any object with the methods of `Condition`; `register_condition` makes
it known by a name to configurations.
"""

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from nestnet.conditions.base import motivated_rate
from nestnet.nn.mode import Mode
from nestnet.text.arguments import check_whole_number


class Streak(ABC):
    """Motivated exactly while each of the last `k` differences between successive values is of the wanted kind.

    A value that is NaN or infinite breaks the streak, and so does the difference after it.

    Args:
        k: how many in a row motivate; at least 1.

    Raises:
        ValueError: if `k` is no whole number of at least 1.
    """

    watches: ClassVar[str] = "loss"

    def __init__(self, k: int) -> None:
        self.k = check_whole_number("k", k, 1, "how many in a row motivate")
        self.last: float | None = None
        self.streak = 0

    @property
    def expected_fraction(self) -> float | None:
        """The share of motivated batches if successive values were independent, or `None` where they never are."""
        return motivated_rate(self.k)

    def expected_fraction_of_epoch(self, batches: int) -> float | None:
        """The same in epochs of so many batches, of which the first k + 1 are never motivated."""
        if batches <= self.k + 1:
            return 0.0
        if self.expected_fraction is None:
            return None
        return self.expected_fraction * (batches - self.k - 1) / batches

    @abstractmethod
    def counts(self, last: float, value: float) -> bool:
        """Whether the step from one finite value to the next is of the wanted kind."""

    @property
    def mode(self) -> Mode:
        return Mode.MOTIVATED if self.streak >= self.k else Mode.BASE

    def update(self, loss: float) -> None:
        value = float(loss)
        both_finite = self.last is not None and math.isfinite(self.last) and math.isfinite(value)
        self.streak = self.streak + 1 if both_finite and self.counts(self.last or 0.0, value) else 0
        self.last = value

    def reset(self) -> None:
        self.last, self.streak = None, 0

    def state_dict(self) -> dict[str, Any]:
        return {"last": self.last, "streak": self.streak}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.last, self.streak = state["last"], state["streak"]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(k={self.k})"


class LossDecrease(Streak):
    """Motivated exactly while each of the last `k` losses was lower than the one before (Algorithm 1, arXiv 2602.21064).

    If successive losses were independent, one batch in (k+1)! would be motivated. A loss that is NaN or infinite is
    lower than none, and none is lower than it.

    Args:
        k: how many falling losses in a row motivate; at least 1.

    Raises:
        ValueError: if `k` is no whole number of at least 1.

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

    def counts(self, last: float, value: float) -> bool:
        return value < last


class EMADecrease(Streak):
    """The same of an exponential moving average of the loss, of which a fall counts from a relative size on.

    After a loss that is NaN or infinite the average starts anew.

    Args:
        k: how many falls in a row motivate; at least 1.
        decay: the average's share of itself at each batch, from 0 to below 1. The paper does not print its value.
        min_drop: the smallest fall that counts, as a part of the average; the paper's is 0.2 %.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(self, k: int, *, decay: float = 0.9, min_drop: float = 0.002) -> None:
        super().__init__(k)
        for name, value in {"decay": decay, "min_drop": min_drop}.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
                raise ValueError(f"{name} = {value!r}: it must be a number from 0 to below 1")
        self.decay, self.min_drop = decay, min_drop

    @property
    def expected_fraction(self) -> None:
        """Successive averages are never independent."""

    def counts(self, last: float, value: float) -> bool:
        return value < last and last - value >= self.min_drop * abs(last)

    def update(self, loss: float) -> None:
        loss = float(loss)
        going = self.last is not None and math.isfinite(self.last) and math.isfinite(loss)
        super().update(self.decay * (self.last or 0.0) + (1 - self.decay) * loss if going else loss)

    def __repr__(self) -> str:
        return f"EMADecrease(k={self.k}, decay={self.decay}, min_drop={self.min_drop})"


class HeldOutLossDecrease(LossDecrease):
    """Falling losses on one batch of training images that is kept out of training, evaluated after each step.

    That evaluation is one more forward pass a batch, which recorded costs do not include.
    """

    watches = "held_out_loss"


class GradientNormIncrease(Streak):
    """Motivated exactly while each of the last `k` gradient norms was higher than the one before."""

    watches = "gradient_norm"

    def counts(self, last: float, value: float) -> bool:
        return value > last
