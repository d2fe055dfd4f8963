"""Conditions that learn how often to motivate: from the base's held-out loss, or from the gradients of both networks.

Both choose each batch at random, with a probability that they learn. It stays within bounds, so that they keep
measuring, and they draw from a seed, so that all processes choose alike.
"""

import math
import random
import sys
from abc import abstractmethod
from typing import Any

from nestnet.conditions.base import Condition
from nestnet.conditions.discounted_mean import DiscountedMean
from nestnet.nn.mode import Mode, PerMode
from nestnet.text.arguments import is_number


class LearnedRate(Condition):
    """Base class of conditions that motivate each batch with a probability that they learn during the run.

    The first batch trains the base. What was learned is kept from one epoch to the next.

    Args:
        decay: weight of what was learned before in what is known after a batch, from 0 to below 1.
        min_rate: smallest probability that a batch is motivated, above 0 and below `max_rate`.
        max_rate: largest probability that a batch is motivated, at most 1.
        seed: seed of the random numbers. That of a batch depends on the seed and its position in the run alone.

    Attributes:
        batches: number of batches so far.

    Raises:
        ValueError: If `decay` or a rate is out of range.
    """

    mode = Mode.BASE  # of the first batch

    def __init__(self, *, decay: float, min_rate: float, max_rate: float, seed: int) -> None:
        if not is_number(decay) or not 0 <= decay < 1:
            raise ValueError(f"decay = {decay!r}: it must be a number from 0 to below 1")
        if not is_number(max_rate) or not 0 < max_rate <= 1:
            raise ValueError(f"max_rate = {max_rate!r}: it must be a number above 0 and at most 1")
        if not is_number(min_rate) or not 0 < min_rate < max_rate:
            raise ValueError(
                f"min_rate = {min_rate!r}: it must be a number above 0 and below max_rate = {max_rate}; lower it, or raise "
                "max_rate"
            )
        self.decay = decay
        self.min_rate = min_rate
        self.max_rate = max_rate
        self.seed = seed
        self.batches = 0

    @abstractmethod
    def preference(self) -> float:
        """Return how much speaks for motivated batches, from 0 (`min_rate`) to 1 (`max_rate`)."""

    @property
    def rate(self) -> float:
        """Probability that a batch is motivated, by what has been learned so far."""
        return self.min_rate + (self.max_rate - self.min_rate) * self.preference()

    def update(self, loss: float) -> None:
        self.batches += 1
        # Seeded with the number of the batch, so that there is no generator whose state would have to be saved.
        draw = random.Random(f"{self.seed} {self.batches}").random()
        self.mode = Mode.MOTIVATED if draw < self.rate else Mode.BASE

    def overrule(self) -> None:
        self.mode = Mode.BASE

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self.batches, "mode": str(self.mode)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batches = state["batches"]
        self.mode = Mode(state["mode"])

    def __repr__(self) -> str:
        settings = f"decay={self.decay}, min_rate={self.min_rate}, max_rate={self.max_rate}, seed={self.seed}"
        return f"{type(self).__name__}({settings})"


class Bandit(LearnedRate):
    """Motivates more often the more motivated batches have lowered the base's held-out loss, compared with base batches.

    It is a bandit with two arms, the two modes. The reward of a batch is the fall of the base's loss on one
    batch of training images that is kept out of training, evaluated after each step. This takes one more
    forward pass of the base per batch, which recorded costs do not include. The reward is immediate: what a
    batch does to later ones belongs to these. It does not consider what a batch costs: limit that with
    `motivation.budget`, or with `MotivationLimits`.

    The rule is Thompson sampling with discounted rewards (Qi et al. 2023, Discounted Thompson Sampling for
    Non-Stationary Bandit Problems, arXiv 2305.10718), between two bounds. Let p be the probability that the mean
    reward of motivated batches is the higher one, from the discounted means of both arms and their variances.
    The rate is `min_rate` for p = 0, `max_rate` for p = 1, and in proportion between them. An arm that has not
    been tried for long becomes uncertain, which moves p towards one half, where it starts.

    A batch that is skipped because its loss is not finite has a reward of 0. The first batch of an epoch has
    none, nor have differences from or to a held-out loss that is not finite.

    Args:
        decay: factor on the weight of all earlier rewards at each batch, from 0.9 to below 1: with 0.99, the last
            100 batches or so count.
        min_rate: smallest probability that a batch is motivated, above 0 and below `max_rate`.
        max_rate: largest probability that a batch is motivated, at most 1.
        seed: seed of the random numbers.

    Raises:
        ValueError: If `decay` or a rate is out of range.

    Example:
        >>> condition = Bandit(min_rate=0.1, max_rate=0.9)
        >>> loss = 100.0
        >>> for _ in range(200):
        ...     loss -= 0.3 if condition.mode == "motivated" else 0.1
        ...     condition.update(loss)
        >>> round(condition.rate, 2)
        0.9
    """

    watches = "held_out_base_loss"

    def __init__(self, *, decay: float = 0.99, min_rate: float = 0.05, max_rate: float = 0.5, seed: int = 0) -> None:
        super().__init__(decay=decay, min_rate=min_rate, max_rate=max_rate, seed=seed)
        # A variance needs more than one reward of each arm among those that still count.
        if decay < 0.9:
            raise ValueError(
                f"decay = {decay!r}: it must be at least 0.9 for a bandit, so that 10 batches or more count"
            )
        self.falls = PerMode(DiscountedMean(), DiscountedMean())
        self.last: float | None = None

    def preference(self) -> float:
        """Return the probability that the mean fall after motivated batches is larger than that after base batches."""
        difference = self.falls.motivated.mean - self.falls.base.mean
        variance = self.falls.motivated.variance() + self.falls.base.variance()
        deviation = max(math.sqrt(variance), sys.float_info.min)
        # The normal distribution function of the difference in standard deviations.
        return 0.5 + 0.5 * math.erf(difference / deviation / math.sqrt(2))

    def update(self, loss: float) -> None:
        loss = float(loss)
        # Both arms age alike: falls become smaller during a run, and an arm must not look better for its age.
        for mode in Mode:
            self.falls.of(mode).discount(self.decay)
        if self.last is not None and math.isfinite(self.last - loss):
            self.falls.of(self.mode).add(self.last - loss)
        self.last = loss
        super().update(loss)

    def reset(self) -> None:
        self.last = None

    def state_dict(self) -> dict[str, Any]:
        falls = {str(mode): self.falls.of(mode).state_dict() for mode in Mode}
        return super().state_dict() | {"falls": falls, "last": self.last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        for mode in Mode:
            self.falls.of(mode).load_state_dict(state["falls"][mode])
        self.last = state["last"]


class GradientAgreement(LearnedRate):
    """Motivates more often the more the gradients of both networks agree on the weights that they share.

    The agreement is the cosine of the angle between the two gradients. To first order, a step along the
    motivated network's gradient lowers the base's loss by this part of what a step of the same length along the
    base's own gradient does. The rate rises from `min_rate`, for gradients that are orthogonal or oppose each
    other, to `max_rate`, for gradients in the same direction.

    Only a batch that trains both networks measures it, so `motivation.trains` must be `both`. The measurement
    takes no further forward or backward pass. The average is exponential over the measured batches. Before the
    first one, the rate lies in the middle between both bounds.

    Args:
        decay: weight of the previous average in the new one, from 0 to below 1.
        min_rate: smallest probability that a batch is motivated, above 0 and below `max_rate`.
        max_rate: largest probability that a batch is motivated, at most 1.
        seed: seed of the random numbers.

    Attributes:
        agreement: average of the agreement, or `None` before the first one.

    Raises:
        ValueError: If `decay` or a rate is out of range.

    Example:
        >>> condition = GradientAgreement(decay=0.5, min_rate=0.1, max_rate=0.5)
        >>> for agreement in (0.8, float("nan"), 0.2):  # the second batch trained the base
        ...     condition.update(agreement)
        ...     print(round(condition.rate, 2))
        0.42
        0.42
        0.3
    """

    watches = "gradient_agreement"

    def __init__(self, *, decay: float = 0.9, min_rate: float = 0.05, max_rate: float = 0.5, seed: int = 0) -> None:
        super().__init__(decay=decay, min_rate=min_rate, max_rate=max_rate, seed=seed)
        self.agreement: float | None = None

    def preference(self) -> float:
        """Return the average agreement, or 0 if it is negative."""
        if self.agreement is None:
            return 0.5
        # Rounding may leave a cosine above 1.
        return min(max(self.agreement, 0.0), 1.0)

    def update(self, loss: float) -> None:
        agreement = float(loss)
        # A batch that trained the base has no agreement.
        if math.isfinite(agreement):
            previous = agreement if self.agreement is None else self.agreement
            self.agreement = self.decay * previous + (1 - self.decay) * agreement
        super().update(loss)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"agreement": self.agreement}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.agreement = state["agreement"]
