"""Conditions that go by the position of a batch in its epoch, and the two classical trainings."""

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from nestnet.nn.mode import Mode
from nestnet.text.arguments import check_whole_number


class ByPosition(ABC):
    """A condition that goes by the position of a batch in its epoch, whatever the losses are."""

    def __init__(self) -> None:
        self.epoch = self.position = 0

    @property
    @abstractmethod
    def mode(self) -> Mode: ...

    def update(self, loss: float) -> None:
        self.position += 1

    def reset(self) -> None:
        if self.position:  # the first epoch has begun already
            self.epoch, self.position = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]


class RandomBatches(ByPosition):
    """Experiment A of the paper: in each epoch a random number of batches, drawn from 0 to all, at random places.

    Args:
        batches: of an epoch.
        seed: an epoch's draw follows from it and the epoch's number.
    """

    def __init__(self, batches: int, *, seed: int = 0) -> None:
        super().__init__()
        self.batches, self.seed = check_whole_number("batches", batches, 1, "the batches of an epoch"), seed
        self.drawn: tuple[int, frozenset[int]] | None = None

    @property
    def expected_fraction(self) -> float:
        return 0.5

    def count(self, draw: random.Random) -> int:
        """How many batches of this epoch are motivated."""
        return draw.randint(0, self.batches)

    @property
    def mode(self) -> Mode:
        if self.drawn is None or self.drawn[0] != self.epoch:
            draw = random.Random(f"{self.seed} {self.epoch}")
            self.drawn = self.epoch, frozenset(draw.sample(range(self.batches), self.count(draw)))
        return Mode.MOTIVATED if self.position in self.drawn[1] else Mode.BASE

    def __repr__(self) -> str:
        return f"{type(self).__name__}(batches={self.batches}, seed={self.seed})"


class RandomLike(RandomBatches):
    """Experiment B of the paper: in each epoch as many motivated batches as earlier runs had on average, at random places.

    Args:
        counts: motivated batches of each epoch.
        batches: of an epoch.
        seed: an epoch's draw follows from it and the epoch's number.

    Raises:
        ValueError: if a count is below 0 or above `batches`; in an epoch for which there is no count.
    """

    def __init__(self, counts: Sequence[int], batches: int, *, seed: int = 0) -> None:
        super().__init__(batches, seed=seed)
        for epoch, count in enumerate(counts, start=1):
            if not 0 <= count <= batches:
                raise ValueError(f"counts: {count} of {batches} batches in epoch {epoch}; take runs of as many batches")
        self.counts = list(counts)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"counts": self.counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.counts, self.drawn = list(state["counts"]), None  # the earlier runs may have been trained further

    @property
    def expected_fraction(self) -> float:
        return sum(self.counts) / (len(self.counts) * self.batches)

    def count(self, draw: random.Random) -> int:
        if self.epoch >= len(self.counts):
            raise ValueError(f"epoch {self.epoch + 1}: the earlier runs have only {len(self.counts)} epochs to go by")
        return self.counts[self.epoch]


class Periodic(ByPosition):
    """Every `period`-th batch of an epoch is motivated."""

    def __init__(self, period: int) -> None:
        super().__init__()
        self.period = check_whole_number("period", period, 1, "every how many batches one is motivated")

    @property
    def expected_fraction(self) -> float:
        return 1 / self.period

    def expected_fraction_of_epoch(self, batches: int) -> float:
        """The same in epochs of so many batches, which need not be a multiple of the period."""
        return batches // self.period / batches

    @property
    def mode(self) -> Mode:
        return Mode.MOTIVATED if (self.position + 1) % self.period == 0 else Mode.BASE

    def __repr__(self) -> str:
        return f"Periodic(period={self.period})"


class Constant:
    """One mode for all batches."""

    mode: Mode

    @property
    def expected_fraction(self) -> float:
        return float(self.mode is Mode.MOTIVATED)

    def update(self, loss: float) -> None:
        """Nothing changes it."""

    def reset(self) -> None:
        """There is nothing to forget."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """There is nothing to restore."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Always(Constant):
    """Classical training of the motivated network."""

    mode = Mode.MOTIVATED


class Never(Constant):
    """Classical training of the base network."""

    mode = Mode.BASE
