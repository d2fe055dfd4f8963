"""The limits within which a condition may motivate batches: a part of the run, and a budget."""

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from nestnet.conditions.base import Condition, expected_fraction
from nestnet.nn.mode import Mode, PerMode
from nestnet.text.arguments import check_whole_number, is_number


@dataclass(frozen=True)
class MotivationLimits:
    """Limits on the batches of a run that may be motivated, whatever the condition says.

    A motivated batch outside of them is trained in base mode.

    Attributes:
        epoch_length: number of batches of an epoch.
        epochs: number of epochs.
        batch_costs: cost of a base batch and of a motivated batch, in any unit.
        start: part of the run, from 0 to below `until`, before which no batch is motivated.
        until: part of the run, at most 1, from which on no batch is motivated.
        budget: the most that the run may cost, in units of the same number of base batches, at least 1; `None`
            for no limit.

    Raises:
        ValueError: If a value is out of range.

    Example:
        >>> limits = MotivationLimits(10, 2, PerMode(100, 300), start=0.5, budget=1.2)
        >>> limits.window
        range(10, 20)
        >>> limits.allow(9, spent=900, counted=9)  # the window begins with the next batch
        False
        >>> limits.allow(10, spent=1000, counted=10)  # 1300 of 11 base batches' 1100 times 1.2
        True
        >>> limits.allow(11, spent=1300, counted=11)
        False
    """

    epoch_length: int
    epochs: int
    batch_costs: PerMode[int]
    start: float = 0.0
    until: float = 1.0
    budget: float | None = None

    def __post_init__(self) -> None:
        check_whole_number("epoch_length", self.epoch_length, 0, "the batches of an epoch")
        check_whole_number("epochs", self.epochs, 0, "the epochs of the run")
        for mode in Mode:
            cost = self.batch_costs.of(mode)
            if not is_number(cost) or not (math.isfinite(cost) and cost > 0):
                raise ValueError(f"batch_costs.{mode} = {cost!r}: it must be a finite number above 0")
        if not is_number(self.until) or not 0 < self.until <= 1:
            raise ValueError(f"until = {self.until!r}: it must be a number above 0 and at most 1")
        if not is_number(self.start) or not 0 <= self.start < self.until:
            raise ValueError(f"start = {self.start!r}: it must be a number from 0 to below until = {self.until}")
        if self.budget is not None and not (is_number(self.budget) and math.isfinite(self.budget) and self.budget >= 1):
            raise ValueError(
                f"budget = {self.budget!r}: it must be a finite number of at least 1, or None for no limit"
            )

    @property
    def steps(self) -> int:
        """Number of batches of the run."""
        return self.epoch_length * self.epochs

    @cached_property
    def window(self) -> range:
        """Numbers of the batches, counted from 0, that may be motivated."""
        # Decimal fractions as they are written: 0.1 * 30 is above 3 in floating point.
        first = math.ceil(Fraction(str(self.start)) * self.steps)
        end = math.ceil(Fraction(str(self.until)) * self.steps)
        return range(first, end)

    def allow(self, step: int, *, spent: int, counted: int) -> bool:
        """Return whether the next batch may be motivated.

        Args:
            step: number of the batch in the run, counted from 0.
            spent: cost of all batches so far.
            counted: number of these batches.

        Returns:
            Whether it lies in the window, and the budget of the batches up to and including it suffices.
        """
        if step not in self.window:
            return False
        if self.budget is None:
            return True
        # The budget holds at every batch, and not only at the end, so that a run may end at any time.
        limit = Fraction(str(self.budget)) * self.batch_costs.base * (counted + 1)
        return spent + self.batch_costs.motivated <= limit

    def most(self) -> int:
        """Return the largest number of motivated batches that the limits allow, whatever the condition."""
        affordable = self.affordable()
        if affordable is None:
            return len(self.window)
        return min(len(self.window), affordable)

    def affordable(self) -> int | None:
        """Return the largest number of motivated batches that the budget allows; `None` without a budget."""
        extra = self.batch_costs.motivated - self.batch_costs.base
        if self.budget is None or extra <= 0:
            return None
        # What is not spent before the window can be spent in it, and what is left after it is lost.
        savings = (Fraction(str(self.budget)) - 1) * self.batch_costs.base * self.window.stop
        return math.floor(savings / extra)

    def expected_fraction(self, condition: Condition) -> float | None:
        """Return the share of the run's batches that a condition is expected to motivate within the limits.

        Args:
            condition: motivation condition of the run.

        Returns:
            Share from 0 to 1, or `None` if the condition does not know its own.

        Raises:
            ValueError: If the condition's `expected_fraction` returns an invalid value.
        """
        # A run that only extends a finished base has no batch to motivate.
        if self.steps == 0:
            return 0.0
        # It checks what a condition of the user returns.
        if expected_fraction(condition, self.epoch_length) is None:
            return None
        before = condition.expected_count(self.window.start, self.epoch_length)
        until = condition.expected_count(self.window.stop, self.epoch_length)
        if before is None or until is None:
            return None
        return min(max(until - before, 0.0), self.most()) / self.steps

    def can_motivate(self, condition: Condition) -> bool:
        """Return whether a condition that is meant to motivate batches can do so within the limits.

        Args:
            condition: motivation condition of the run.

        Returns:
            `False` if the condition motivates batches, but none within the limits; otherwise `True`.
        """
        is_meant_to_motivate = expected_fraction(condition) != 0
        if not is_meant_to_motivate or self.steps == 0:
            return True
        if self.most() == 0:
            return False
        return self.expected_fraction(condition) != 0
