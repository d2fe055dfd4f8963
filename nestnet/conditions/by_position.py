"""Conditions that choose by the position of a batch in its epoch, and those of classical training."""

import random
from collections.abc import Sequence
from typing import Any

from nestnet.conditions.base import Condition
from nestnet.nn.mode import Mode
from nestnet.text.arguments import check_whole_number


class PositionCondition(Condition):
    """Base class of conditions that choose by the position of a batch in its epoch, and not by losses.

    Attributes:
        epoch: number of the epoch, counted from 0.
        position: position of the next batch in its epoch, counted from 0.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self.position = 0

    def update(self, loss: float) -> None:
        self.position += 1

    def reset(self) -> None:
        # The reset at the start of the first epoch must not count an epoch.
        if self.position > 0:
            self.epoch += 1
            self.position = 0

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]
        self.position = state["position"]


class RandomBatches(PositionCondition):
    """Motivates a random number of batches in each epoch, at random positions (the paper's experiment A).

    The number is drawn from 0 to all batches, each equally likely.

    Args:
        batches: number of batches of an epoch, at least 1.
        seed: seed of the random numbers. The choice of an epoch depends on the seed and on the number of the
            epoch alone.

    Raises:
        ValueError: If `batches` is not a whole number of at least 1.
    """

    def __init__(self, batches: int, *, seed: int = 0) -> None:
        super().__init__()
        self.batches = check_whole_number("batches", batches, 1, "the batches of an epoch")
        self.seed = seed
        self._drawn_epoch: int | None = None
        self._motivated_positions: frozenset[int] = frozenset()

    def motivated_count(self, generator: random.Random) -> int:
        """Return the number of motivated batches of the current epoch.

        Args:
            generator: random generator of the epoch, from which the positions are drawn afterwards.

        Returns:
            A number from 0 to `batches`.
        """
        return generator.randint(0, self.batches)

    @property
    def mode(self) -> Mode:
        if self._drawn_epoch != self.epoch:
            self._draw_positions()
        if self.position in self._motivated_positions:
            return Mode.MOTIVATED
        return Mode.BASE

    def _draw_positions(self) -> None:
        # Seeded with the epoch, so that a resumed run draws the same positions as the interrupted one.
        generator = random.Random(f"{self.seed} {self.epoch}")
        count = self.motivated_count(generator)
        self._motivated_positions = frozenset(generator.sample(range(self.batches), count))
        self._drawn_epoch = self.epoch

    def expected_fraction(self, batches: int | None = None) -> float | None:
        # The mean of a number that is uniform from 0 to all batches.
        return 0.5

    def __repr__(self) -> str:
        return f"{type(self).__name__}(batches={self.batches}, seed={self.seed})"


class RandomLike(RandomBatches):
    """Motivates a given number of batches in each epoch, at random positions (the paper's experiment B).

    The paper takes the numbers that earlier runs of another condition had on average.

    Args:
        counts: number of motivated batches of each epoch, from 0 to `batches`. The condition can be used for as
            many epochs as there are counts.
        batches: number of batches of an epoch, at least 1.
        seed: seed of the random numbers. The positions depend on the seed and on the number of the epoch
            alone.

    Raises:
        ValueError: If a count is out of range, or `mode` is read in an epoch without a count.
    """

    def __init__(self, counts: Sequence[int], batches: int, *, seed: int = 0) -> None:
        super().__init__(batches, seed=seed)
        if not isinstance(counts, Sequence) or isinstance(counts, str) or not counts:
            raise ValueError(f"counts = {counts!r}: it must be a list with a number for each epoch")
        for epoch, count in enumerate(counts, start=1):
            check_whole_number("counts", count, 0, "the motivated batches of an epoch")
            if count > batches:
                raise ValueError(f"counts: {count} of {batches} batches in epoch {epoch}; take runs of as many batches")
        self.counts = list(counts)

    def motivated_count(self, generator: random.Random) -> int:
        if self.epoch >= len(self.counts):
            raise ValueError(
                f"counts: there is none for epoch {self.epoch + 1}, only {len(self.counts)}; give more of them"
            )
        return self.counts[self.epoch]

    def expected_fraction(self, batches: int | None = None) -> float | None:
        # The mean over all epochs, whose length is given.
        return sum(self.counts) / (len(self.counts) * self.batches)

    def expected_count(self, batches: int, epoch_length: int) -> float | None:
        full_epochs, rest = divmod(batches, epoch_length)
        count = float(sum(self.counts[:full_epochs]))
        # The positions within an epoch are random.
        if rest and full_epochs < len(self.counts):
            count += self.counts[full_epochs] * rest / epoch_length
        return count

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"counts": self.counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        # A resumed run keeps its counts: the earlier runs may have been trained further since it began.
        self.counts = list(state["counts"])
        self._drawn_epoch = None


class Periodic(PositionCondition):
    """Motivates every `period`-th batch of an epoch.

    Args:
        period: number of batches from one motivated batch to the next, at least 1.

    Raises:
        ValueError: If `period` is not a whole number of at least 1.

    Example:
        >>> condition = Periodic(period=3)
        >>> for _ in range(4):
        ...     print(condition.mode)
        ...     condition.update(0.0)
        base
        base
        motivated
        base
    """

    def __init__(self, period: int) -> None:
        super().__init__()
        self.period = check_whole_number("period", period, 1, "every how many batches one is motivated")

    @property
    def mode(self) -> Mode:
        # Positions count from 0, and the last batch of each period is motivated.
        if (self.position + 1) % self.period == 0:
            return Mode.MOTIVATED
        return Mode.BASE

    def expected_fraction(self, batches: int | None = None) -> float | None:
        if batches is None:
            return 1 / self.period
        # The length of an epoch need not be a multiple of the period.
        return batches // self.period / batches

    def __repr__(self) -> str:
        return f"Periodic(period={self.period})"


class ConstantCondition(Condition):
    """Base class of conditions with the same mode for all batches."""

    mode: Mode

    def update(self, loss: float) -> None:
        """Ignore the loss."""

    def expected_fraction(self, batches: int | None = None) -> float | None:
        return 1.0 if self.mode == Mode.MOTIVATED else 0.0

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Always(ConstantCondition):
    """Motivates every batch: classical training of the motivated network."""

    mode = Mode.MOTIVATED


class Never(ConstantCondition):
    """Motivates no batch: classical training of the base network."""

    mode = Mode.BASE
