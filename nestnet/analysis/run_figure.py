"""The figure of one run: the loss of each batch, and the top-1 accuracy of both subnets after each epoch."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nestnet.analysis.plotting import (
    MANY_EPOCHS,
    MODE_COLOURS,
    plain_text,
    running_median,
    save_figure,
    set_epoch_axis,
    set_log_loss_axis,
    style_axes,
)
from nestnet.nn.mode import Mode
from nestnet.runs.history import Steps, read_run_tables
from nestnet.runs.outputs import check_output_beside_runs
from nestnet.runs.parts import read_parts
from nestnet.storage.paths import real_path
from nestnet.text.escape import for_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Each dot of a vector graphic takes some 100 bytes of the file, and a long run has hundreds of thousands of batches.
MANY_BATCHES = 2000
"""Number of batches above which dots are rasterised in vector graphics, with running medians on top."""


def draw_run(run_dir: Path, output: Path) -> Path:
    """Draw each batch's loss with the motivated batches marked, and both subnets' top-1 after each epoch.

    Args:
        run_dir: folder of the run, which may be unfinished.
        output: file to write, whose suffix decides the format (PNG, SVG, PDF).

    Returns:
        The file that was written.

    Raises:
        ValueError: If the folder is not a run with at least one finished epoch, the format is unknown, or no file of this name
            can be written.
    """
    config, steps, epochs = read_run_tables(run_dir)
    parts = read_parts(run_dir, config)
    check_output_beside_runs(output)
    if not len(epochs["epoch"]):
        raise ValueError(f"{run_dir} has no finished epoch to draw")
    from matplotlib.figure import Figure

    # The title may hold any character, as it is the name of a folder.
    with plain_text():
        figure = Figure(figsize=(11, 4), layout="constrained")
        loss_axes, top1_axes = figure.subplots(1, 2, width_ratios=(3, 2))
        draw_losses(loss_axes, steps)
        loss_axes.set_xlabel("batch")
        draw_top1(top1_axes, epochs)
        mark_parts(loss_axes, [part.start_step for part in parts])
        mark_parts(top1_axes, [part.start_epoch for part in parts])
        for axes in (loss_axes, top1_axes):
            axes.legend(frameon=False)
        figure.suptitle(for_figure(real_path(run_dir).name), fontsize=11)
        save_figure(figure, output, dpi=120)
    return output


def mark_parts(axes: "Axes", starts: Sequence[int]) -> None:
    """Mark where a run was resumed for more epochs, by a dotted line.

    Args:
        axes: axes with the batches or the epochs of a run.
        starts: number of batches or epochs before each part of the run. The first part has no line.
    """
    label = "resumed for more epochs"
    for start in starts[1:]:
        axes.axvline(start + 0.5, color="0.3", linestyle=":", linewidth=1, label=label)
        # One entry of the legend stands for all lines.
        label = ""


def draw_losses(axes: "Axes", steps: Steps) -> None:
    """Draw each batch's loss as a dot, coloured by mode; crosses at the bottom mark skipped batches.

    Runs of more than `MANY_BATCHES` batches also have a running median for each colour.

    Args:
        axes: empty axes.
        steps: batches of a run.
    """
    is_finite = np.isfinite(steps.loss)
    # The order of `MODE_COLOURS` puts the few motivated batches on top of the many base batches.
    for trained, colour in MODE_COLOURS.items():
        is_of_mode = steps.mode == trained
        if is_of_mode.any():
            shown = is_of_mode & is_finite
            label = f"{trained}: {is_of_mode.sum():,} of {len(steps):,} batches"
            _draw_losses_of_mode(axes, steps, shown, trained, colour, label)
    if not is_finite.all():
        _mark_skipped(axes, steps.number[~is_finite])
    axes.set_ylabel("training loss")
    style_axes(axes)
    # A logarithmic axis has no place for a loss of 0.
    if is_finite.any() and (steps.loss[is_finite] > 0).all():
        set_log_loss_axis(axes)


def _draw_losses_of_mode(axes: "Axes", steps: Steps, shown: np.ndarray, trained: str, colour: str, label: str) -> None:
    """Draw the losses of the batches that trained one mode.

    Args:
        axes: axes of the losses.
        steps: all batches [S] of a run.
        shown: whether each batch is drawn [S].
        trained: mode of these batches.
        colour: colour of the dots.
        label: entry of the legend.
    """
    x = steps.number[shown]
    y = steps.loss[shown]
    # In long runs dots overlap, so they become smaller and more transparent.
    area = float(np.clip(4000 / max(len(steps), 1), 0.4, 8))
    alpha = float(np.clip(20 / max(len(steps), 1) ** 0.5, 0.06, 0.8))
    # Where the medians of both modes are the same, the thin line on the wide one shows both.
    median_width = 3.0
    if trained == Mode.MOTIVATED:
        area *= 1.7
        median_width = 1.2
    has_many_batches = len(steps) > MANY_BATCHES
    axes.scatter(x, y, area, colour, alpha=alpha, linewidths=0, rasterized=has_many_batches)
    if has_many_batches:
        positions, medians = running_median(x, y)
        axes.plot(positions, medians, color=colour, linewidth=median_width)
    # The legend has its own dot, because those of the data may be too small and too faint.
    axes.scatter([], [], 16, colour, linewidths=0, label=label)


def _mark_skipped(axes: "Axes", numbers: np.ndarray) -> None:
    """Mark the batches of these numbers, which have no finite loss, by crosses at the bottom of the axes."""
    # Their height is a share of the axes, because they have no loss.
    heights = np.full(len(numbers), 0.02)
    axes.plot(
        numbers,
        heights,
        "x",
        color="0.5",
        transform=axes.get_xaxis_transform(),
        markersize=4,
        label=f"skipped: {len(numbers):,}",
    )


def draw_top1(axes: "Axes", epochs: dict[str, np.ndarray]) -> None:
    """Draw the top-1 accuracy of both subnets after each epoch.

    Args:
        axes: empty axes.
        epochs: columns of `metrics.csv`, each with a value per finished epoch; there is at least one.
    """
    # Dots show the epochs if there are few; with many they would only thicken the line.
    style = ".-"
    if len(epochs["epoch"]) > MANY_EPOCHS:
        style = "-"
    for mode in Mode:
        accuracies = epochs[f"{mode}_top1"]
        label = f"{mode}: {accuracies[-1]:.2f} %"
        axes.plot(epochs["epoch"], accuracies, style, color=MODE_COLOURS[mode], label=label)
    images = "validation" if "val_images" in epochs else "test"
    axes.set_ylabel(f"top-1 on the {images} images, %")
    set_epoch_axis(axes)
