"""Figures of the losses and the motivated batches of runs side by side. matplotlib is imported when one is drawn."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from nestnet.analysis.plotting import MANY_EPOCHS, MODE_COLOURS, set_epoch_axis, set_log_loss_axis, style_axes
from nestnet.analysis.side_by_side import (
    PAGE_WIDTH,
    add_legend_above,
    add_legend_of_lines,
    panel_width,
    set_run_title,
)
from nestnet.conditions.base import expected_fraction
from nestnet.conditions.by_loss import LossDecrease
from nestnet.nn.mode import Mode
from nestnet.runs.history import History, loss_variance, motivated_fraction
from nestnet.text.escape import for_figure

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Paul Tol's muted scheme, which people with colour blindness can tell apart.
RUN_COLOURS = ("#332288", "#cc6677", "#117733", "#ddaa33", "#88ccee", "#aa4499", "#999933", "#882255", "#44aa99")
"""Colour of each run, in order; a tenth run has the first colour again."""


def plot_epoch_losses(histories: Sequence[History], epochs: Sequence[int]) -> "Figure":
    """Plot each batch's loss over chosen epochs, coloured by the mode of the batch.

    Args:
        histories: runs, each of which has a column of panels.
        epochs: numbers of epochs, counted from 1, each of which has a row of panels; all runs must have finished them.

    Returns:
        The figure, with the same axes in all panels.
    """
    from matplotlib.figure import Figure

    # A column of panels for each run, and a row for each epoch.
    width = panel_width(len(histories))
    figure = Figure(figsize=(width * len(histories) + 0.4, 2.4 * len(epochs) + 0.6), layout="constrained")
    panels = figure.subplots(len(epochs), len(histories), sharex=True, sharey=True, squeeze=False)
    # The legend has an entry for each mode that occurs in any panel.
    dots: dict[str, Artist] = {}
    for row, epoch in zip(panels, epochs, strict=True):
        for axes, history in zip(row, histories, strict=True):
            dots |= _draw_epoch(axes, history.losses[epoch - 1], history.modes[epoch - 1])
        row[0].set_ylabel(f"loss in epoch {epoch}")
    for axes, history in zip(panels[0], histories, strict=True):
        set_run_title(axes, history.name, width)
    # All panels share the axes of the first.
    panels[0, 0].set_yscale("log")
    set_log_loss_axis(panels[0, 0])
    figure.supxlabel("batch of the epoch", fontsize="medium")
    add_legend_above(figure, list(dots.values()), [f"{trained} batches" for trained in dots])
    return figure


def _draw_epoch(axes: "Axes", losses: np.ndarray, modes: np.ndarray) -> "dict[str, Artist]":
    """Draw the losses of an epoch's batches as a grey line with a coloured dot for each batch.

    Args:
        axes: empty axes.
        losses: training losses [B].
        modes: mode of each batch [B].

    Returns:
        The dots, by mode.
    """
    batches = np.arange(1, len(losses) + 1)
    axes.plot(batches, losses, color="0.8", linewidth=0.6, zorder=1)
    dots: dict[str, Artist] = {}
    for trained, colour in MODE_COLOURS.items():
        is_of_mode = modes == trained
        if not is_of_mode.any():
            continue
        # Motivated batches are few and should stand out.
        area = 14 if trained == Mode.MOTIVATED else 7
        dots[trained] = axes.scatter(batches[is_of_mode], losses[is_of_mode], area, colour, linewidths=0, zorder=2)
    style_axes(axes)
    return dots


def plot_loss_variances(histories: Sequence[History]) -> "Figure":
    """Plot the variance of the batch losses within each epoch.

    Args:
        histories: runs, each of which has a line.

    Returns:
        The figure. Its y-axis is logarithmic, unless each epoch of all runs has a single batch, whose variance is 0.
    """
    # Names are unique: `read_histories` gives different folders different names.
    variances = {history.name: loss_variance(history) for history in histories}
    figure = _plot_over_epochs(variances, "-")
    has_positive = any(variance.any() for variance in variances.values())
    scale = "log" if has_positive else "linear"
    figure.axes[0].set(ylabel="variance of the batch losses", yscale=scale)
    add_legend_of_lines(figure)
    return figure


def plot_motivated_fractions(histories: Sequence[History]) -> "Figure":
    """Plot the share of motivated batches in each epoch, and as dashed lines the forecast for falling losses.

    Args:
        histories: runs; each has its points, and each k of the loss decrease has a dashed line.

    Returns:
        The figure.
    """
    percents = {}
    for history in histories:
        # The legend also shows the mean over all epochs.
        percent = 100 * motivated_fraction(history)
        percents[f"{history.name}: {percent.mean():.3g} %"] = percent
    # The shares fluctuate between epochs, so lines would cover each other.
    figure = _plot_over_epochs(percents, "")
    axes = figure.axes[0]
    axes.set_ylabel("motivated batches, %")
    # The forecast depends on the length of an epoch.
    forecasts = set()
    for history in histories:
        if history.k is not None:
            forecasts.add((history.k, len(history.losses[0])))
    for k, batches in sorted(forecasts):
        forecast = 100 * (expected_fraction(LossDecrease(k), batches) or 0.0)
        axes.axhline(forecast, color="0.2", linestyle="--", linewidth=1, label=f"forecast, k = {k}: {forecast:.3g} %")
    add_legend_of_lines(figure)
    return figure


def _plot_over_epochs(series: Mapping[str, np.ndarray], line: str) -> "Figure":
    """Plot series of values over the epochs.

    Args:
        series: values [E] by the label of the legend.
        line: matplotlib's style of the line; empty for points without a line.

    Returns:
        The figure without a legend. Lines over few epochs also have points.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(0.75 * PAGE_WIDTH, 3.6), layout="constrained")
    axes = figure.subplots()
    for (label, values), colour in zip(series.items(), cycle(RUN_COLOURS), strict=False):
        style = f".{line}"
        if line and len(values) > MANY_EPOCHS:
            style = line
        epochs = np.arange(1, len(values) + 1)
        axes.plot(epochs, values, style, color=colour, linewidth=1, markersize=5, label=for_figure(label))
    set_epoch_axis(axes)
    return figure
