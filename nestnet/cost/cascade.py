"""What an image costs in each network, and the share of images up to which a cascade of both can pay."""

from dataclasses import dataclass
from typing import overload

import numpy as np


@dataclass(frozen=True)
class CascadeCosts:
    """Cost of an image in each network, in any unit: multiply-accumulates, or seconds.

    Attributes:
        base: cost in the base, above 0.
        motivated: cost in the motivated network, above 0.
    """

    base: float
    motivated: float

    @overload
    def of_share(self, passed_on: float) -> float: ...

    @overload
    def of_share(self, passed_on: np.ndarray) -> np.ndarray: ...

    def of_share(self, passed_on: float | np.ndarray) -> float | np.ndarray:
        """Return the average cost of an image in a cascade: all images go through the base, and some through both networks.

        Args:
            passed_on: share of the images that are passed on, from 0 to 1.

        Returns:
            The cost, in the unit of the networks' costs.
        """
        return self.base + passed_on * self.motivated

    @property
    def break_even(self) -> float:
        """Share of images passed on from which a cascade costs at least as much as the motivated network alone.

        It is 0 if the base costs as much as the motivated network: then no cascade pays.

        >>> round(CascadeCosts(base=386, motivated=570).break_even, 2)
        0.32
        """
        return max(1 - self.base / self.motivated, 0.0)

    def pays(self, passed_on: float) -> bool:
        """Return whether a cascade costs less than the motivated network alone.

        Args:
            passed_on: share of the images that are passed on, from 0 to 1.
        """
        return passed_on < self.break_even
