"""Motivation conditions: what decides, after each batch, which subnet the next batch trains."""

import math
from typing import Any, Protocol

from nestnet.mode import Mode


class Condition(Protocol):
    """What the training loop asks of a condition."""

    @property
    def mode(self) -> Mode:
        """The mode for the next batch."""

    def update(self, loss: float) -> None:
        """Take in the loss of the batch just trained, whichever subnet trained it."""

    def reset(self) -> None:
        """Forget everything: called at each epoch's start, which is always in base mode."""

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on exactly from here."""

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class LossDecrease:
    """Motivated exactly while each of the last `k` losses was lower than the one before (Algorithm 1, arXiv 2602.21064).

    A loss that is NaN or infinite is lower than none, and none is lower than it.

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

    def __init__(self, k: int) -> None:
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise ValueError(f"k = {k!r}: it must be a whole number of at least 1, the falling losses that motivate")
        self.k = k
        self.last: float | None = None
        self.streak = 0

    @property
    def mode(self) -> Mode:
        return Mode.MOTIVATED if self.streak >= self.k else Mode.BASE

    def update(self, loss: float) -> None:
        loss = float(loss)
        fell = self.last is not None and math.isfinite(loss) and math.isfinite(self.last) and loss < self.last
        self.streak = self.streak + 1 if fell else 0
        self.last = loss

    def reset(self) -> None:
        self.last, self.streak = None, 0

    def state_dict(self) -> dict[str, Any]:
        return {"last": self.last, "streak": self.streak}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.last, self.streak = state["last"], state["streak"]

    def __repr__(self) -> str:
        return f"LossDecrease(k={self.k})"
