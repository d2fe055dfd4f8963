"""The figures of a run's training in a report. matplotlib is imported when one is drawn."""

from typing import TYPE_CHECKING

import numpy as np

from nestnet.analysis.plotting import MANY_EPOCHS, MODE_COLOURS, set_epoch_axis, style_axes
from nestnet.analysis.report.rendering import TEXT_COLOUR
from nestnet.analysis.report.summary import RunSummary
from nestnet.analysis.run_figure import draw_losses, draw_top1, mark_parts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_loss(run: RunSummary) -> "Figure":
    """Plot each batch's loss over the whole run, and the learning rate below.

    Args:
        run: run with at least one batch.

    Returns:
        The figure; without a recorded learning rate it has a single panel.
    """
    from matplotlib.figure import Figure

    # Runs of older versions did not record the learning rate.
    has_lr = bool(np.isfinite(run.steps.lr).any())
    if has_lr:
        figure = Figure(figsize=(9, 4.2), layout="constrained")
        loss_axes, lr_axes = figure.subplots(2, 1, sharex=True, height_ratios=(5, 1))
        bottom_axes = lr_axes
    else:
        figure = Figure(figsize=(9, 3.5), layout="constrained")
        loss_axes = figure.subplots()
        bottom_axes = loss_axes
    draw_losses(loss_axes, run.steps)
    mark_parts(loss_axes, [part.start_step for part in run.parts])
    if has_lr:
        lr_axes.plot(run.steps.number, run.steps.lr, color="0.5", linewidth=1)
        lr_axes.set(ylabel="learning\nrate", ylim=(0, None))
        style_axes(lr_axes)
    bottom_axes.set_xlabel("batch")
    bottom_axes.xaxis.set_major_formatter("{x:,.0f}")
    _add_legend_above(loss_axes)
    return figure


def plot_top1(run: RunSummary) -> "Figure":
    """Plot both subnets' top-1 after each finished epoch, with a ring around the best epoch.

    Args:
        run: run with at least one finished epoch.

    Returns:
        The figure.
    """
    figure, axes = _create_panel()
    draw_top1(axes, run.epochs)
    mark_parts(axes, [part.start_epoch for part in run.parts])
    for mode in run.trained_modes:
        top1, epoch = run.best_epoch(mode)
        axes.plot(epoch, top1, "o", markersize=9, markerfacecolor="none", color=MODE_COLOURS[mode])
    _add_legend_above(axes)
    return figure


def plot_motivated_fraction(run: RunSummary) -> "Figure":
    """Plot the share of motivated batches in each finished epoch, and its forecast as a dashed line.

    Args:
        run: run with at least one finished epoch.

    Returns:
        The figure.
    """
    figure, axes = _create_panel()
    percents = 100 * run.epochs["motivated_fraction"]
    # The shares fluctuate between epochs: over many epochs a line would hide the points.
    style = ".-"
    if len(percents) > MANY_EPOCHS:
        style = "."
    axes.plot(
        run.epochs["epoch"],
        percents,
        style,
        color=MODE_COLOURS["motivated"],
        label=f"measured: {percents.mean():.3g} %",
    )
    if run.expected_fraction is not None:
        forecast = 100 * run.expected_fraction
        axes.axhline(forecast, color=TEXT_COLOUR, linestyle="--", linewidth=1, label=f"forecast: {forecast:.3g} %")
    # Start the axis at 0, or below 0 if a share of 0 needs its margin.
    lowest = min(0, axes.get_ylim()[0])
    axes.set(ylabel="motivated batches, %", ylim=(lowest, None))
    set_epoch_axis(axes)
    _add_legend_above(axes)
    return figure


def plot_cost(run: RunSummary) -> "Figure":
    """Plot the cost of training the run, forecast and measured, beside the cost of training each network alone and both.

    Args:
        run: run with at least one batch.

    Returns:
        The figure, with a bar for each cost as a multiple of the base's.
    """
    base_macs = run.network_costs.base.macs
    motivated_macs = run.network_costs.motivated.macs
    bars = [
        (f"{run.network_names.base} alone", base_macs, MODE_COLOURS["base"]),
        ("this run, forecast", run.expected_training_cost, "0.7"),
        ("this run", run.training_cost, "#ccbb44"),
        (f"{run.network_names.motivated} alone", motivated_macs, MODE_COLOURS["motivated"]),
        ("both, in turn", base_macs + motivated_macs, "0.5"),
    ]
    # A cost that is not known, such as the forecast of an unusual condition, has no bar.
    labels = []
    multiples = []
    colours = []
    for label, macs, colour in bars:
        if macs is not None:
            labels.append(label)
            multiples.append(macs / base_macs)
            colours.append(colour)
    figure, axes = _create_panel()
    positions = np.arange(len(labels))
    drawn_bars = axes.barh(positions, multiples, color=colours, height=0.65)
    axes.bar_label(drawn_bars, fmt="%.2f", padding=4)
    axes.set_yticks(positions, labels)
    # Put the first bar on top, as in a table.
    axes.invert_yaxis()
    # Leave room for the numbers at the ends of the bars.
    axes.margins(x=0.12)
    axes.set_xlabel(f"cost of training / {run.network_names.base} alone")
    style_axes(axes)
    axes.grid(visible=False, axis="y")
    return figure


def _create_panel() -> "tuple[Figure, Axes]":
    """Create a figure with one panel, three of which fit side by side on a page."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.3, 3.2), layout="constrained")
    return figure, figure.subplots()


def _add_legend_above(axes: "Axes") -> None:
    """Add a legend above the panel, where it covers no data."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, borderaxespad=0.2, handletextpad=0.4)
