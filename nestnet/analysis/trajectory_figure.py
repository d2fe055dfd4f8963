"""The figure of the paths of weights. matplotlib is imported when it is drawn."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nestnet.analysis.plotting import set_log_loss_axis, style_axes
from nestnet.analysis.side_by_side import add_legend_above, panel_width, set_run_title
from nestnet.analysis.trajectory import AVERAGED_BATCHES, Trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure


def plot_trajectories(trajectories: Sequence[Trajectory]) -> "Figure":
    """Plot each run's weights in its own principal plane, coloured by the loss.

    Args:
        trajectories: runs, each of which has a panel.

    Returns:
        The figure. Lengths and colours have the same scale in all panels, so that they compare across the runs.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    # All panels share one colour scale.
    norm = LogNorm()
    norm.autoscale(np.concatenate([run.losses for run in trajectories]))
    centre, half = _limits(trajectories)

    # The height follows from the limits, because an inch is the same length along both axes.
    width = panel_width(len(trajectories))
    height = (width - 0.6) * half[1] / half[0]
    figure = Figure(figsize=(width * len(trajectories) + 1, height + 0.9), layout="compressed")
    panels = figure.subplots(1, len(trajectories), sharex=True, sharey=True, squeeze=False)[0]
    for axes, run in zip(panels, trajectories, strict=True):
        dots, start, end = _draw_path(axes, run, norm)
        set_run_title(axes, run.name, width)
    # All panels share the limits of the first.
    both_sides = np.array([-1, 1])
    panels[0].set(xlim=centre[0] + half[0] * both_sides, ylim=centre[1] + half[1] * both_sides)
    bar = figure.colorbar(dots, ax=panels, label=f"loss, mean of\n{AVERAGED_BATCHES} batches")
    set_log_loss_axis(bar.ax)
    add_legend_above(figure, [start, end], ["start", "end"])
    return figure


def _limits(trajectories: Sequence[Trajectory]) -> tuple[np.ndarray, np.ndarray]:
    """Return the centre [2] and half of the extent [2] of the axes that hold the points of all runs."""
    points = np.concatenate([run.points for run in trajectories])
    low = points.min(axis=0)
    high = points.max(axis=0)
    half = 0.55 * (high - low)
    # Leave room for the labels even if the path is a straight line.
    half[1] = max(half[1], half[0] / 2)
    return (low + high) / 2, half


def _draw_path(
    axes: "Axes", run: Trajectory, norm: "LogNorm"
) -> "tuple[PathCollection, PathCollection, PathCollection]":
    """Draw the path of one run's weights.

    Args:
        axes: empty axes.
        run: points of the path and their losses.
        norm: scale of the colours.

    Returns:
        The dots of all snapshots, and the marks of the first and of the last.
    """
    x, y = run.points.T
    axes.plot(x, y, color="0.7", linewidth=0.6, zorder=1)
    dots = axes.scatter(x, y, 9, run.losses, norm=norm, linewidths=0, zorder=2)
    start = axes.scatter(x[:1], y[:1], 40, "white", marker="s", edgecolors="black", zorder=3)
    end = axes.scatter(x[-1:], y[-1:], 90, "black", marker="*", zorder=3)
    axes.set_xlabel(f"PC 1: {100 * run.shares[0]:.1f} % of the variance")
    axes.set_ylabel(f"PC 2: {100 * run.shares[1]:.1f} %")
    axes.set_aspect("equal")
    style_axes(axes)
    return dots, start, end
