"""Motivation conditions: what decides, after each batch, which subnet the next batch trains.

The paper's own is `LossDecrease`. The others are its variants and controls (arXiv 2602.21064, section 4.4), and the
two classical trainings. A condition of your own is any object with the methods of `Condition`; `register_condition` makes
it known by a name to configurations.
"""

import difflib
import inspect
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, Protocol, TypeVar

from nestnet.mode import Mode

JOINT = "joint"
"""In place of a condition's name, and in the mode column of such a run: both networks train at every batch."""

WATCHED = ("loss", "held_out_loss", "gradient_norm")
"""The numbers of a step that a condition can be told."""


class Condition(Protocol):
    """What a training loop asks of a condition.

    A condition that wants another number than the batch's loss says which in an attribute `watches`: `"held_out_loss"`,
    the loss on one batch of training images that is kept out of training, or `"gradient_norm"`, the Euclidean norm of all
    gradients of the batch before clipping. The loop then hands this number to `update`.

    A condition that can tell how often it will motivate says so, for forecasts of the cost, in an attribute
    `expected_fraction`: the share of motivated batches in long epochs, from 0 to 1, or `None`. Where the length of an epoch
    matters, a method `expected_fraction_of_epoch(batches)` returns the share in epochs of so many batches.
    """

    @property
    def mode(self) -> Mode:
        """The mode for the next batch."""

    def update(self, loss: float) -> None:
        """Take in the loss of the batch just trained, whichever subnet trained it."""

    def reset(self) -> None:
        """An epoch starts: forget the batches before."""

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on exactly from here."""

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


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
        self.k = _whole("k", k, 1, "how many in a row motivate")
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
        self.batches, self.seed = _whole("batches", batches, 1, "the batches of an epoch"), seed
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
        self.period = _whole("period", period, 1, "every how many batches one is motivated")

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


CONDITIONS: dict[str, Callable[..., Condition]] = {
    "loss_decrease": LossDecrease,
    "ema_decrease": EMADecrease,
    "held_out_loss_decrease": HeldOutLossDecrease,
    "gradient_norm_increase": GradientNormIncrease,
    "random": RandomBatches,
    "random_like": RandomLike,
    "periodic": Periodic,
    "always": Always,
    "never": Never,
}

Factory = TypeVar("Factory", bound=Callable[..., Condition])


def register_condition(name: str) -> Callable[[Factory], Factory]:
    """Make a condition of your own known to configurations as `motivation.name`.

    Its constructor may take `k`, `batches` (of an epoch) and `seed`, and whatever `motivation.options` gives it.

    Raises:
        ValueError: if the name is taken.

    >>> @register_condition("every_monday")
    ... class EveryMonday(Never): ...
    >>> make_condition("every_monday")
    EveryMonday()
    >>> del CONDITIONS["every_monday"]
    """
    if name in CONDITIONS or name == JOINT:
        raise ValueError(f"condition {name!r}: there is one of this name already")

    def register(factory: Factory) -> Factory:
        CONDITIONS[name] = factory
        return factory

    return register


def make_condition(name: str, settings: Mapping[str, Any] | None = None, **context: Any) -> Condition:
    """The condition of a name.

    Args:
        settings: what the user asks of it: arguments of the condition.
        context: what it may take if it has such an argument.

    Raises:
        ValueError: for an unknown name, a setting that the condition does not have, or one that it lacks.
    """
    if name not in CONDITIONS:
        near = difflib.get_close_matches(name, CONDITIONS, n=1)
        hint = f"did you mean {near[0]}? Known are " if near else "known are "
        raise ValueError(f"motivation.name = {name!r}: no such condition; {hint}{', '.join(CONDITIONS)}")
    factory, settings = CONDITIONS[name], dict(settings or {})
    parameters = inspect.signature(factory).parameters
    for setting, value in settings.items():
        if setting not in parameters:
            raise ValueError(
                f"motivation.{setting} = {value!r}: {name} has no such setting"
                + (f"; it has {', '.join(parameters)}" if parameters else "; leave it out")
            )
    arguments = {key: value for key, value in context.items() if key in parameters} | settings
    for parameter in parameters.values():
        if parameter.default is parameter.empty and parameter.name not in arguments:
            raise ValueError(f"motivation.{parameter.name}: {name} needs it")
    return factory(**arguments)


def motivated_rate(k: int) -> float:
    """The share of batches that k falling losses in a row motivate, if the losses are independent draws: 1/(k+1)!.

    Of the (k+1)! orders of k + 1 losses, equally likely, one falls all the way. The published costs follow it. As each
    epoch starts anew, its first k + 1 batches are never motivated: `expected_fraction` takes that into account.

    Raises:
        ValueError: if `k` is no whole number of at least 1.

    >>> [round(100 * motivated_rate(k), 2) for k in (1, 2, 3, 4, 5)]
    [50.0, 16.67, 4.17, 0.83, 0.14]
    """
    return 1 / math.factorial(_whole("k", k, 1, "how many in a row motivate") + 1)


def expected_fraction(condition: Condition, batches: int) -> float | None:
    """Return the share of motivated batches to expect of a condition, or `None` where there is no telling.

    Args:
        batches: number of batches of an epoch, at least 1.

    Raises:
        ValueError: if the condition gives something else than a share from 0 to 1.

    >>> expected_fraction(LossDecrease(k=2), batches=12)
    0.125
    >>> expected_fraction(LossDecrease(k=2), batches=3)
    0.0
    """
    source = "expected_fraction"
    fraction = getattr(condition, source, None)
    if hasattr(condition, "expected_fraction_of_epoch"):
        source = f"expected_fraction_of_epoch({batches})"
        fraction = condition.expected_fraction_of_epoch(batches)
    if fraction is None:
        return None
    if not isinstance(fraction, (int, float)) or not 0 <= fraction <= 1:
        raise ValueError(
            f"condition {type(condition).__name__}: {source} = {fraction!r}: it must be from 0 to 1, the share of motivated "
            "batches, or None if there is no telling"
        )
    return float(fraction)


def can_motivate(condition: Condition, batches: int) -> bool:
    """Return whether a condition that is to motivate batches can do so in epochs of this length.

    A condition that motivates no batch of any epoch, such as `Never`, does so on purpose.

    >>> can_motivate(LossDecrease(k=2), batches=3), can_motivate(Never(), batches=3)
    (False, True)
    """
    return expected_fraction(condition, batches) != 0 or getattr(condition, "expected_fraction", None) == 0


def watched_by(condition: Condition) -> str:
    """Return the quantity that a condition watches, one of `WATCHED`. The default is the batch's loss.

    Raises:
        ValueError: if the condition asks for another one.
    """
    watches = getattr(condition, "watches", "loss")
    if watches not in WATCHED:
        near = difflib.get_close_matches(str(watches), WATCHED, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(
            f"condition {type(condition).__name__}: watches = {watches!r}: it must be one of {', '.join(WATCHED)}{hint}"
        )
    return watches


def motivated_counts(modes: Sequence[tuple[int, str]]) -> list[int]:
    """How many motivated batches each epoch had, from (epoch, mode) of each batch in order; epochs count from 1."""
    assert all(before <= after for (before, _), (after, _) in pairwise(modes))
    counts = [0] * (modes[-1][0] if modes else 0)
    for epoch, mode in modes:
        counts[epoch - 1] += mode == Mode.MOTIVATED
    return counts


def is_whole(value: Any, least: int) -> bool:
    """Whether this is a whole number of at least `least`; `True` is none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _whole(name: str, value: Any, least: int, meaning: str) -> int:
    if not is_whole(value, least):
        raise ValueError(f"{name} = {value!r}: it must be a whole number of at least {least}, {meaning}")
    return value
