"""The summary of a study: means over the folds, and the best k for each subnet if there are several."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from nestnet.cost.run import average_cost
from nestnet.nn.mode import Mode
from nestnet.tuning.fold_result import FoldResult


@dataclass(frozen=True)
class FoldSummary:
    """Summary of runs over the folds: means, and standard deviations of the accuracies.

    Attributes:
        k: k of the condition; `None` if the study does not compare several.
        folds: number of folds.
        base_top1: mean top-1 of the base, in percent.
        base_std: its standard deviation over the folds, in percentage points.
        motivated_top1: mean top-1 of the motivated network, in percent.
        motivated_std: its standard deviation over the folds, in percentage points.
        motivated_fraction: mean share of motivated batches, from 0 to 1.
        expected_fraction: forecast of this share; `None` if the condition has no forecast.
        relative_cost: average cost of a forward pass in training, relative to that of the base trained alone.
        expected_cost: the same with the expected share of motivated batches.
    """

    k: int | None
    folds: int
    base_top1: float
    base_std: float
    motivated_top1: float
    motivated_std: float
    motivated_fraction: float
    expected_fraction: float | None
    relative_cost: float
    expected_cost: float | None

    def top1(self, mode: Mode) -> float:
        """Return the mean top-1 of a subnet, in percent."""
        return self.base_top1 if mode is Mode.BASE else self.motivated_top1

    def std(self, mode: Mode) -> float:
        """Return the standard deviation of a subnet's top-1 over the folds, in percentage points."""
        return self.base_std if mode is Mode.BASE else self.motivated_std


def summarize_by_k(results: Sequence[FoldResult]) -> list[FoldSummary]:
    """Summarize the results of each k.

    Args:
        results: results of at least two folds per k, sorted by k.

    Returns:
        A summary for each k.
    """
    # The results of each k are consecutive.
    summaries = []
    for _, group in groupby(results, key=lambda result: result.k):
        summaries.append(summarize(list(group)))
    return summaries


def find_best(summaries: Sequence[FoldSummary], mode: Mode) -> FoldSummary:
    """Return the k with the highest accuracy of a subnet, and the lowest cost if several are equally accurate.

    The paper chooses k by the accuracy of the base (arXiv 2602.21064, section 4).

    Args:
        summaries: summaries to choose from, at least one.
        mode: mode of the subnet.

    Returns:
        The summary of the best k.
    """
    return max(summaries, key=lambda summary: (summary.top1(mode), -summary.relative_cost))


def summarize(results: Sequence[FoldResult]) -> FoldSummary:
    """Summarize the results of all folds of one configuration.

    Args:
        results: results of at least two folds, with one k.
    """
    base_top1 = []
    motivated_top1 = []
    motivated_fractions = []
    costs = []
    for result in results:
        base_top1.append(result.base_top1)
        motivated_top1.append(result.motivated_top1)
        motivated_fractions.append(result.motivated_fraction)
        costs.append(result.average_cost)
    # The costs of the networks alone and the forecast are the same for each fold.
    base_cost = results[0].base_cost
    expected_fraction = results[0].expected_fraction
    # The paper states costs relative to the base.
    expected_cost = None
    if expected_fraction is not None:
        expected = average_cost(base_cost, results[0].motivated_cost, motivated_fraction=expected_fraction)
        expected_cost = expected / base_cost
    return FoldSummary(
        results[0].k,
        folds=len(results),
        base_top1=statistics.fmean(base_top1),
        base_std=statistics.stdev(base_top1),
        motivated_top1=statistics.fmean(motivated_top1),
        motivated_std=statistics.stdev(motivated_top1),
        motivated_fraction=statistics.fmean(motivated_fractions),
        expected_fraction=expected_fraction,
        relative_cost=statistics.fmean(costs) / base_cost,
        expected_cost=expected_cost,
    )
