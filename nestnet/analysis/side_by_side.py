"""The layout of figures that show runs side by side: widths of panels, titles and legends.

Names of runs can be long, and matplotlib neither breaks a title into lines nor fits a legend to the width of
a figure.
"""

import math
from textwrap import fill
from typing import TYPE_CHECKING

from nestnet.text.escape import for_figure

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LETTER_WIDTH = 0.075
"""Mean width of a letter of 10 points, in inches."""
# On a page that is 6.7 inches wide, letters of 10 points are then reduced to 8 points.
PAGE_WIDTH = 8.4
"""Width that all panels share, in inches."""
MIN_PANEL_WIDTH = 2.7
"""Smallest width of a panel, in inches: with many runs the figure becomes wider than a page."""
LEGEND_ROW_HEIGHT = 0.22
"""Height of a row of a legend, in inches."""


def panel_width(panels: int) -> float:
    """Return the width of each panel in a row of panels, in inches; a single panel takes half a page."""
    return max(PAGE_WIDTH / max(panels, 2), MIN_PANEL_WIDTH)


def set_run_title(axes: "Axes", name: str, width: float) -> None:
    """Put a run's name above its panel, on as many lines as it needs.

    Args:
        axes: the panel.
        name: name of the run, which may hold any character.
        width: width of the panel, in inches.
    """
    axes.set_title(fill(for_figure(name), int(width / LETTER_WIDTH)), fontsize="medium")


def add_legend_of_lines(figure: "Figure") -> None:
    """Put a legend of all lines above a figure with a single panel.

    Args:
        figure: figure with a single panel.
    """
    lines = figure.axes[0].get_lines()
    # By default matplotlib leaves out labels that begin with an underscore, as names of runs may.
    add_legend_above(figure, list(lines), [str(line.get_label()) for line in lines])


def add_legend_above(figure: "Figure", handles: "list[Artist]", labels: list[str]) -> None:
    """Put a legend above a figure, and enlarge the figure by its height, so that the legend covers no data.

    Args:
        figure: figure with a constrained or compressed layout.
        handles: lines or dots that the legend explains, at least one.
        labels: text for each.
    """
    # Put as many entries in a row as fit, each as wide as the longest.
    longest = max(len(label) for label in labels)
    entry_width = LETTER_WIDTH * longest + 0.6
    columns = int(figure.get_figwidth() / entry_width)
    columns = min(max(columns, 1), len(labels))
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False)
    rows = math.ceil(len(labels) / columns)
    figure.set_figheight(figure.get_figheight() + LEGEND_ROW_HEIGHT * rows)
