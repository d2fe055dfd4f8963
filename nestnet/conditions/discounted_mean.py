"""The mean of a series whose older values count less."""

import math


class DiscountedMean:
    """Weighted mean of numbers, and its variance, where the weight of each number falls with its age.

    Attributes:
        weight: sum of the weights.
        mean: weighted mean; 0 without numbers.
        squares: weighted sum of the squared differences from the mean.

    Example:
        >>> rewards = DiscountedMean()
        >>> for value in (1.0, 4.0):
        ...     rewards.discount(0.5)
        ...     rewards.add(value)
        >>> rewards.mean  # weights of 0.5 and 1
        3.0
    """

    def __init__(self) -> None:
        self.weight = 0.0
        self.mean = 0.0
        self.squares = 0.0

    def discount(self, decay: float) -> None:
        """Multiply all weights by a factor, which does not change the mean.

        Args:
            decay: factor, from 0 to 1.
        """
        self.weight *= decay
        self.squares *= decay

    def add(self, value: float) -> None:
        """Add a number with a weight of 1 (West 1979, Updating Mean and Variance Estimates, CACM 22).

        Args:
            value: finite number.
        """
        self.weight += 1
        difference = value - self.mean
        self.mean += difference / self.weight
        self.squares += difference * (value - self.mean)

    def variance(self) -> float:
        """Return the variance of the mean, as if as many numbers had been added as the weights sum up to.

        It is infinite unless they sum up to more than 1, because one number has no variance.
        """
        if self.weight <= 1:
            return math.inf
        return self.squares / (self.weight - 1) / self.weight

    def state_dict(self) -> dict[str, float]:
        """Return the three attributes by name."""
        return {"weight": self.weight, "mean": self.mean, "squares": self.squares}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restore what `state_dict` returned.

        Args:
            state: the three attributes by name.
        """
        self.weight = state["weight"]
        self.mean = state["mean"]
        self.squares = state["squares"]
