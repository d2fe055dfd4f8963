"""The figure of a confusion matrix. matplotlib is imported when it is drawn."""

import math
from typing import TYPE_CHECKING

import numpy as np

from nestnet.analysis.plotting import MODE_COLOURS
from nestnet.analysis.report.predictions import Predictions
from nestnet.analysis.report.rendering import TEXT_COLOUR
from nestnet.nn.mode import Mode
from nestnet.text.escape import for_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_LABELLED_CLASSES = 20
"""Number of classes up to which a confusion matrix shows names and numbers; larger ones show colours only."""
MAX_NAME_LENGTH = 14
"""Number of characters of a class name along a matrix, above which the name is shortened."""
MAX_ROWS = 200
"""Number of rows above which neighbouring classes share a row."""
STRONG_SHARE = 0.8
"""Share from which the colour of a cell is too strong for text in the page's colour."""
# These are readable on the full colour of a mode, on a light page and on a dark one.
TEXT_ON_MODE_COLOUR = {Mode.BASE: "white", Mode.MOTIVATED: "black"}


def plot_confusion(predictions: Predictions, mode: Mode) -> "Figure":
    """Plot the share of each true class (row) that was predicted as each class (column).

    Neighbours among many classes share a point, so that single points can still be seen.

    Args:
        predictions: predictions of both subnets.
        mode: mode of the subnet to show.

    Returns:
        The figure.
    """
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm
    from matplotlib.figure import Figure

    counts = predictions.confusion_matrix(mode)
    has_labels = len(counts) <= MAX_LABELLED_CLASSES
    pooled, classes_per_row = pool_classes(counts)
    # A class without images has a row of zeros, which must not become NaN.
    shares = pooled / np.maximum(pooled.sum(axis=1, keepdims=True), 1)

    figure = Figure(figsize=(5.2, 5.2), layout="constrained")
    axes = figure.subplots()
    # The colour map starts transparent, so that the page shows through where there are no images.
    colours = LinearSegmentedColormap.from_list("", [f"{MODE_COLOURS[mode]}00", MODE_COLOURS[mode]])
    # A power below 1 makes small shares visible beside those on the diagonal.
    power = 0.5 if has_labels else 0.35
    axes.imshow(shares, cmap=colours, norm=PowerNorm(power, 0, 1), interpolation="none")
    if has_labels:
        _name_classes(axes, predictions.class_names)
        _write_counts(axes, counts, shares, mode)
    else:
        _number_classes(axes, len(counts), classes_per_row)
    axes.set_title(f"{mode}: {predictions.top1(mode):.2f} % correct", fontsize=11)
    axes.set(xlabel="predicted class", ylabel="true class")
    return figure


def _name_classes(axes: "Axes", class_names: list[str]) -> None:
    """Write the names of classes along both axes of a matrix."""
    names = [for_figure(name, MAX_NAME_LENGTH) for name in class_names]
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)


def _write_counts(axes: "Axes", counts: np.ndarray, shares: np.ndarray, mode: Mode) -> None:
    """Write the number of images into each cell of a matrix that has any.

    Args:
        axes: axes of the matrix.
        counts: numbers of images [K, K].
        shares: shares of the true class [K, K], which the colours of the cells show.
        mode: mode of the subnet, for the colour of the text.
    """
    font_size = 9 if len(counts) <= 12 else 6
    for (row, column), count in np.ndenumerate(counts):
        if not count:
            continue
        colour = TEXT_COLOUR
        if shares[row, column] > STRONG_SHARE:
            colour = TEXT_ON_MODE_COLOUR[mode]
        text = axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=font_size)
        # The text fits into its cell, and measuring hundreds of texts for the layout would take seconds.
        text.set_in_layout(False)


def _number_classes(axes: "Axes", classes: int, classes_per_row: int) -> None:
    """Number some of the rows and columns of a matrix.

    Args:
        axes: axes of the matrix.
        classes: number of classes.
        classes_per_row: number of neighbouring classes that share a row.
    """
    from matplotlib.ticker import MaxNLocator

    # Use round numbers of classes, some of which may lie outside the matrix.
    positions = []
    labels = []
    for tick in MaxNLocator(8, integer=True).tick_values(0, classes - 1):
        if 0 <= tick < classes:
            # A row lies at the middle of its classes.
            positions.append((tick - (classes_per_row - 1) / 2) / classes_per_row)
            labels.append(f"{tick:.0f}")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(positions, labels)


def pool_classes(counts: np.ndarray, max_rows: int = MAX_ROWS) -> tuple[np.ndarray, int]:
    """Sum neighbouring rows and columns of a matrix, so that at most `max_rows` are left.

    Args:
        counts: numbers of images [K, K].
        max_rows: largest number of rows of the result.

    Returns:
        The smaller matrix, and the number of neighbours that share a row.

    Example:
        >>> pool_classes(np.eye(5, dtype=int), max_rows=3)
        (array([[2, 0, 0],
               [0, 2, 0],
               [0, 0, 1]]), 2)
    """
    classes_per_row = math.ceil(len(counts) / max_rows)
    # These are the first classes of each row; the last row may have fewer classes.
    starts = np.arange(0, len(counts), classes_per_row)
    pooled_rows = np.add.reduceat(counts, starts, axis=0)
    return np.add.reduceat(pooled_rows, starts, axis=1), classes_per_row
