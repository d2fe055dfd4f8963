"""The common parts of all figures: colours, axes, and saving. matplotlib is imported when a figure is drawn."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nestnet.nn.mode import BOTH, FINISH
from nestnet.storage.atomic import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Paul Tol's bright scheme, which people with colour blindness can tell apart.
MODE_COLOURS = {"base": "#4477aa", "motivated": "#ee6677", BOTH: "#228833", FINISH: "#aa3377"}
"""Colour of each mode, of batches that train both subnets, and of those that extend the base."""
MANY_EPOCHS = 60
"""Number of epochs above which a line over the epochs has no dots."""


def save_figure(figure: "Figure", path: Path, **options: Any) -> None:
    """Write a figure in the format that the file's suffix names.

    Args:
        figure: figure to write.
        path: file to write; without a suffix it is a PNG.
        options: keyword arguments of matplotlib's `Figure.savefig`, such as `dpi`.

    Raises:
        ValueError: If matplotlib does not know the format.
        OSError: If the file cannot be written; the message is one line.
    """
    # Draw in memory first, so that an error while drawing does not change an earlier file.
    content = BytesIO()
    figure.savefig(content, format=path.suffix.removeprefix(".") or "png", **options)
    write_atomically(path, content.getvalue())


@contextmanager
def plain_text() -> Iterator[None]:
    """Draw text literally within this context.

    A name with `$` is not parsed as a formula, and a script that the font lacks gives no warning.
    """
    from matplotlib import rc_context

    # matplotlib warns of each missing glyph, and draws a box in its place.
    with rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
        yield


def style_axes(axes: "Axes") -> None:
    """Add a faint grid to axes, and remove the frame except for the two axes.

    Args:
        axes: axes to style.
    """
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def set_epoch_axis(axes: "Axes") -> None:
    """Label the x-axis as epochs, with ticks at whole numbers only, and style the axes.

    Args:
        axes: axes whose x-axis shows epochs.
    """
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    style_axes(axes)


def set_log_loss_axis(axes: "Axes") -> None:
    """Make the y-axis logarithmic, with the labels 0.1, 0.2, 0.5, 1 and so on.

    The limits of the axis must be final. A range below a factor of 5 has evenly spaced labels instead, because too few of
    those labels would lie in it.

    Args:
        axes: axes whose y-axis shows a loss above 0.
    """
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if high < 5 * low:
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    else:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    # The minor ticks of a logarithmic axis would otherwise have labels between those of the major ones.
    axes.yaxis.set_minor_formatter(NullFormatter())


def running_median(x: np.ndarray, y: np.ndarray, points: int = 150) -> tuple[np.ndarray, np.ndarray]:
    """Return the medians of equal parts of a series, each placed at the median position of its part.

    Args:
        x: positions [N], ascending.
        y: values [N].
        points: number of parts; a shorter series has a part per value.

    Returns:
        The positions and the medians, each [min(points, N)].

    Example:
        >>> running_median(np.arange(6), np.array([3.0, 1.0, 2.0, 8.0, 9.0, 7.0]), points=2)
        (array([1., 4.]), array([2., 8.]))
    """
    positions = []
    medians = []
    for part in np.array_split(np.arange(len(x)), points):
        # A series that is shorter than `points` leaves some parts empty.
        if len(part):
            positions.append(np.median(x[part]))
            medians.append(np.median(y[part]))
    return np.array(positions), np.array(medians)
