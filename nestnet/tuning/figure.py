"""The figure of a study."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nestnet.analysis.plotting import MODE_COLOURS, style_axes
from nestnet.nn.mode import Mode
from nestnet.tuning.summary import FoldSummary, find_best

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_summaries(summaries: Sequence[FoldSummary]) -> "Figure":
    """Draw each subnet's accuracy over k, with its standard deviation over the folds, and the cost.

    The best k is filled. The subnets have separate axes, because a motivated network that is rarely trained is
    far below the base.

    Args:
        summaries: summary of each k, at least one.

    Returns:
        A figure with three axes: base, motivated network, cost.
    """
    # Import matplotlib late, because the import takes long.
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(8.4, 2.9), layout=ConstrainedLayoutEngine(wspace=0.06))
    *subnet_axes, cost_axes = figure.subplots(1, 3)
    for axes, mode in zip(subnet_axes, Mode, strict=True):
        _plot_accuracy(axes, summaries, mode)
    _plot_cost(cost_axes, summaries)
    for axes in figure.axes:
        axes.set(xlabel="k", xticks=[summary.k for summary in summaries])
        style_axes(axes)
    return figure


def _plot_accuracy(axes: "Axes", summaries: Sequence[FoldSummary], mode: Mode) -> None:
    ks = []
    means = []
    stds = []
    for summary in summaries:
        ks.append(_k(summary))
        means.append(summary.top1(mode))
        stds.append(summary.std(mode))
    colour = MODE_COLOURS[mode]
    axes.errorbar(ks, means, stds, fmt="o-", color=colour, mfc="white", capsize=3, linewidth=1)
    # Draw a filled point over the hollow one.
    best = find_best(summaries, mode)
    axes.plot(_k(best), best.top1(mode), "o", color=colour, zorder=3)
    axes.set_title(f"{mode}: best at k = {best.k}", fontsize="medium")
    axes.set_ylabel("top-1 on the held-out fold, %")


def _plot_cost(axes: "Axes", summaries: Sequence[FoldSummary]) -> None:
    ks = []
    costs = []
    # Some values of k may have no forecast.
    expected_ks = []
    expected_costs = []
    for summary in summaries:
        ks.append(_k(summary))
        costs.append(summary.relative_cost)
        if summary.expected_cost is not None:
            expected_ks.append(_k(summary))
            expected_costs.append(summary.expected_cost)
    axes.plot(ks, costs, "o-", color="0.2", linewidth=1, label="measured")
    if expected_ks:
        axes.plot(expected_ks, expected_costs, "--", color="0.5", linewidth=1, label="expected", zorder=1)
    axes.set_title("average forward cost", fontsize="medium")
    axes.set_ylabel("relative to the base alone")
    axes.legend(frameon=False)


def _k(summary: FoldSummary) -> int:
    assert summary.k is not None
    return summary.k
