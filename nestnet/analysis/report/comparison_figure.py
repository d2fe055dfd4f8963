"""The figure of several runs' top-1. matplotlib is imported when it is drawn."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nestnet.analysis.plotting import MANY_EPOCHS, set_epoch_axis
from nestnet.analysis.report.summary import RunSummary
from nestnet.nn.mode import Mode
from nestnet.text.escape import for_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Paul Tol's bright scheme: people with colour blindness can tell its colours apart, on a light page and on a dark one.
GROUP_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")
"""Colour of each group of runs, in order; the colours then repeat with another line style."""
LINE_STYLES = ("-", "--", ":")
"""Line style of each round of colours."""
LEGEND_COLUMNS = 3
"""Largest number of legend entries in a row."""
LEGEND_ROW_HEIGHT = 0.22
"""Height of a row of the legend, in inches."""


def plot_comparison(groups: Sequence[Sequence[RunSummary]]) -> "Figure":
    """Plot each subnet's top-1 over the epochs, with a line for each run.

    Args:
        groups: runs; those of a group share a colour and an entry of the legend.

    Returns:
        The figure, with a panel for each mode.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    handles = []
    labels = []
    for number, group in enumerate(groups):
        # Six groups have solid lines, the next six dashed ones, and so on.
        colour_round, position = divmod(number, len(GROUP_COLOURS))
        colour = GROUP_COLOURS[position]
        line = LINE_STYLES[colour_round % len(LINE_STYLES)]
        for axes, mode in zip(panels, Mode, strict=True):
            _draw_group(axes, group, mode, colour, line)
        # The handle is a line without data, because the first run of the group may not have trained this mode.
        handles += panels[0].plot([], [], line, color=colour)
        labels.append(_legend_entry(group))
    for axes, mode in zip(panels, Mode, strict=True):
        axes.set_title(mode, fontsize=11)
        set_epoch_axis(axes)
    images = {run.evaluated_images for group in groups for run in group}
    panels[0].set_ylabel(f"top-1 on the {' or '.join(sorted(images))}, %")
    # Enlarge the figure by its legend, so that the panels keep their height.
    rows = math.ceil(len(groups) / LEGEND_COLUMNS)
    figure.set_figheight(3.6 + LEGEND_ROW_HEIGHT * rows)
    # By default matplotlib leaves out labels that begin with an underscore, as names of runs may.
    columns = min(LEGEND_COLUMNS, len(groups))
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False)
    return figure


def _draw_group(axes: "Axes", group: Sequence[RunSummary], mode: Mode, colour: str, line: str) -> None:
    """Draw the top-1 of the runs of a group that have trained a mode for at least one epoch."""
    for run in group:
        if mode not in run.trained_modes or not run.finished_epochs:
            continue
        style = f".{line}"
        if run.finished_epochs > MANY_EPOCHS:
            style = line
        axes.plot(run.epochs["epoch"], run.top1(mode), style, color=colour, linewidth=1.2, markersize=4)


def _legend_entry(group: Sequence[RunSummary]) -> str:
    """Return the name of a group's first run, and how many more runs the group has."""
    name = for_figure(group[0].name, 30)
    if len(group) > 1:
        return f"{name} and {len(group) - 1} more"
    return name
