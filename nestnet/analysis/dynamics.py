"""Training dynamics: figures that show runs side by side, on the same axes.

The idea is that of arXiv 2602.21064, section 7: a classical and a motivated run beside each other at chosen epochs, with the
motivated batches marked. matplotlib is imported when a figure is drawn.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from nestnet.analysis.figures import COLOURS, number_decades, plain_text, save_figure, tidy
from nestnet.analysis.trajectory import AVERAGED, MIN_SNAPSHOTS, Trajectory, find_snapshots, read_trajectory
from nestnet.conditions.base import expected_fraction
from nestnet.conditions.by_loss import LossDecrease
from nestnet.nn.mode import Mode
from nestnet.runs.history import History, loss_variance, motivated_fraction, read_histories
from nestnet.runtime.notices import log_notice
from nestnet.storage.files import check_output_folder, make_output_folder
from nestnet.text.escape import for_figure

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIGURES = ("losses", "variance", "motivated_fraction", "trajectory")
"""Names of the files, in the order in which they are written."""
LETTER = 0.075
"""Mean width of a letter of 10 points, in inches."""
RUN_COLOURS = ("#332288", "#cc6677", "#117733", "#ddaa33", "#88ccee", "#aa4499", "#999933", "#882255", "#44aa99")
"""Paul Tol's muted scheme, distinct to the colour-blind; a tenth run starts again."""
PAGE, MIN_PANEL = 8.4, 2.7
"""Inches that the panels share, and the least that each of many gets; letters have 10 points, and 8 on a page 6.7 wide."""


def draw_dynamics(run_dirs: Sequence[Path], output: Path, epochs: Sequence[int] = ()) -> list[Path]:
    """Draw `losses.png`, `variance.png`, `motivated_fraction.png` and `trajectory.png` of some runs.

    The last shows the runs that kept at least 3 snapshots of their weights. A notice is given of each of the others,
    and without any there is no such figure.

    Args:
        run_dirs: one run or more, also unfinished ones: their finished epochs are drawn.
        output: a folder for the figures; it is made if it is absent. Figures of these names in it are replaced.
        epochs: whose batches `losses.png` shows, counted from 1; by default the middle and the last one that all the
            runs have.

    Returns:
        The files that were written.

    Raises:
        ValueError: if a folder is no run with at least one finished epoch, an epoch is not one of every run's, a file of a
            run is damaged, or the folder cannot be made.
        OSError: if a figure cannot be written; one that was there before is as it was.
    """
    check_output_folder(output, "output", [f"{name}.png" for name in FIGURES])
    histories = read_histories(run_dirs)
    epochs = chosen_epochs(histories, epochs)
    trajectories = read_trajectories(histories)
    make_output_folder(output, "output")
    paths = []
    with plain_text():
        figures = {
            "losses": losses_figure(histories, epochs),
            "variance": variance_figure(histories),
            "motivated_fraction": fraction_figure(histories),
        }
        if trajectories:
            figures["trajectory"] = trajectory_figure(trajectories)
        for name, figure in figures.items():
            path = output / f"{name}.png"
            save_figure(figure, path, dpi=200, bbox_inches="tight")
            paths.append(path)
    _notice_absent_trajectories(histories)
    return paths


def chosen_epochs(histories: Sequence[History], epochs: Sequence[int] = ()) -> list[int]:
    """The epochs asked for, or the middle and the last one that all the runs have; they count from 1.

    Raises:
        ValueError: if a run does not have one of them.
    """
    last = min(len(history.losses) for history in histories)
    for epoch in epochs:
        if not 1 <= epoch <= last:
            raise ValueError(f"epochs = {epoch}: it must be one that all the runs have finished, from 1 to {last}")
    return list(epochs) or sorted({(last + 1) // 2, last})


def read_trajectories(histories: Sequence[History]) -> list[Trajectory]:
    """The trajectories of the runs with enough snapshots in their finished epochs.

    Raises:
        ValueError: if a snapshot is damaged.
    """
    trajectories = []
    for history in histories:
        snapshots = _snapshots(history)
        if len(snapshots) >= MIN_SNAPSHOTS:
            trajectories.append(read_trajectory(history.name, snapshots, np.concatenate(history.losses)))
    return trajectories


def _snapshots(history: History) -> dict[int, Path]:
    """The snapshots of a run's finished epochs, by the number of batches before them."""
    steps = sum(map(len, history.losses))
    return {step: path for step, path in find_snapshots(history.path).items() if step <= steps}


def _notice_absent_trajectories(histories: Sequence[History]) -> None:
    for history in histories:
        count = len(_snapshots(history))
        if count < MIN_SNAPSHOTS:
            log_notice(
                f"no trajectory of {history.path}: it takes {MIN_SNAPSHOTS} snapshots of the weights, there are "
                f"{count}; train with --snapshot_steps N to keep one every N batches"
            )


def losses_figure(histories: Sequence[History], epochs: Sequence[int]) -> "Figure":
    """Each batch's loss over an epoch, coloured by what it trained: a column a run, a row an epoch, the same axes in all."""
    from matplotlib.figure import Figure

    width = _panel_width(len(histories))
    figure = Figure(figsize=(width * len(histories) + 0.4, 2.4 * len(epochs) + 0.6), layout="constrained")
    panels = figure.subplots(len(epochs), len(histories), sharex=True, sharey=True, squeeze=False)
    dots = {}
    for row, epoch in zip(panels, epochs, strict=True):
        for axes, history in zip(row, histories, strict=True):
            losses, modes = history.losses[epoch - 1], history.modes[epoch - 1]
            batches = np.arange(1, len(losses) + 1)
            axes.plot(batches, losses, color="0.8", linewidth=0.6, zorder=1)
            for trained, colour in COLOURS.items():
                if (chosen := modes == trained).any():
                    size = 14 if trained == Mode.MOTIVATED else 7
                    dots[trained] = axes.scatter(batches[chosen], losses[chosen], size, colour, linewidths=0, zorder=2)
            tidy(axes)
        row[0].set_ylabel(f"loss in epoch {epoch}")
    for axes, history in zip(panels[0], histories, strict=True):
        _set_title(axes, history.name, width)
    panels[0, 0].set_yscale("log")
    number_decades(panels[0, 0])
    figure.supxlabel("batch of the epoch", fontsize="medium")
    _legend_above(figure, list(dots.values()), [f"{trained} batches" for trained in dots])
    return figure


def variance_figure(histories: Sequence[History]) -> "Figure":
    """The variance of the batch losses in each epoch, on a logarithmic axis."""
    variances = {history.name: loss_variance(history) for history in histories}
    figure = _epoch_figure(variances, "-")
    scale = "log" if any(variance.any() for variance in variances.values()) else "linear"  # a single batch has none
    figure.axes[0].set(ylabel="variance of the batch losses", yscale=scale)
    _legend_of_lines(figure)
    return figure


def fraction_figure(histories: Sequence[History]) -> "Figure":
    """The motivated part of each epoch's batches; dashed, the part that is expected where falling losses motivate."""
    percents = [100 * motivated_fraction(history) for history in histories]
    names = [f"{run.name}: {percent.mean():.3g} %" for run, percent in zip(histories, percents, strict=True)]
    figure = _epoch_figure(dict(zip(names, percents, strict=True)), "")  # it jumps: lines would cover each other
    axes = figure.axes[0]
    axes.set_ylabel("motivated batches, %")
    drawn = sorted({(history.k, len(history.losses[0])) for history in histories if history.k is not None})
    for k, batches in drawn:
        forecast = 100 * (expected_fraction(LossDecrease(k), batches) or 0.0)
        axes.axhline(forecast, color="0.2", linestyle="--", linewidth=1, label=f"forecast, k = {k}: {forecast:.3g} %")
    _legend_of_lines(figure)
    return figure


def trajectory_figure(trajectories: Sequence[Trajectory]) -> "Figure":
    """Each run's weights in its own principal plane, coloured by the loss; lengths and colours compare across the runs."""
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    points = np.concatenate([run.points for run in trajectories])
    low, high = points.min(axis=0), points.max(axis=0)
    half = 0.55 * (high - low)
    half[1] = max(half[1], half[0] / 2)  # a path along a line leaves room for its labels
    norm = LogNorm()
    norm.autoscale(np.concatenate([run.losses for run in trajectories]))

    width = _panel_width(len(trajectories))
    size = (width * len(trajectories) + 1, (width - 0.6) * half[1] / half[0] + 0.9)
    figure = Figure(figsize=size, layout="compressed")
    panels = figure.subplots(1, len(trajectories), sharex=True, sharey=True, squeeze=False)[0]
    for axes, run in zip(panels, trajectories, strict=True):
        x, y = run.points.T
        axes.plot(x, y, color="0.7", linewidth=0.6, zorder=1)
        dots = axes.scatter(x, y, 9, run.losses, norm=norm, linewidths=0, zorder=2)
        start = axes.scatter(x[:1], y[:1], 40, "white", marker="s", edgecolors="black", zorder=3)
        end = axes.scatter(x[-1:], y[-1:], 90, "black", marker="*", zorder=3)
        _set_title(axes, run.name, width)
        axes.set_xlabel(f"PC 1: {100 * run.shares[0]:.1f} % of the variance")
        axes.set_ylabel(f"PC 2: {100 * run.shares[1]:.1f} %")
        axes.set_aspect("equal")
        tidy(axes)
    middle = (low + high) / 2
    panels[0].set(xlim=middle[0] + half[0] * np.array([-1, 1]), ylim=middle[1] + half[1] * np.array([-1, 1]))
    bar = figure.colorbar(dots, ax=panels, label=f"loss, mean of\n{AVERAGED} batches")
    number_decades(bar.ax)
    _legend_above(figure, [start, end], ["start", "end"])
    return figure


def _epoch_figure(series: Mapping[str, np.ndarray], line: str) -> "Figure":
    """Each run's values [E] by its label, over the epochs; with points where there is no line, or few of them."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(0.75 * PAGE, 3.6), layout="constrained")
    axes = figure.subplots()
    for (label, values), colour in zip(series.items(), cycle(RUN_COLOURS), strict=False):
        style = line if line and len(values) > 50 else f".{line}"
        epochs = np.arange(1, len(values) + 1)
        axes.plot(epochs, values, style, color=colour, linewidth=1, markersize=5, label=for_figure(label))
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    tidy(axes)
    return figure


def _panel_width(panels: int) -> float:
    """Inches of each of some panels beside each other."""
    return max(PAGE / max(panels, 2), MIN_PANEL)


def _set_title(axes: "Axes", name: str, width: float) -> None:
    """A run's name above its panel of some inches, on as many lines as it takes."""
    axes.set_title(fill(for_figure(name), int(width / LETTER)), fontsize="medium")


def _legend_of_lines(figure: "Figure") -> None:
    """Each line of its axes; matplotlib by itself leaves out labels that begin with an underscore, as names of runs can."""
    lines = figure.axes[0].get_lines()
    _legend_above(figure, list(lines), [str(line.get_label()) for line in lines])


def _legend_above(figure: "Figure", handles: "list[Artist]", labels: list[str]) -> None:
    """A legend that covers no data and grows the figure, with as many entries beside each other as there is room for."""
    entry = LETTER * max(map(len, labels)) + 0.6
    columns = min(max(int(figure.get_figwidth() / entry), 1), len(labels))
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False)
    figure.set_figheight(figure.get_figheight() + 0.22 * math.ceil(len(labels) / columns))
