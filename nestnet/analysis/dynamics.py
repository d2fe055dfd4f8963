"""Training dynamics: figures that show runs side by side, on the same axes.

The figures follow arXiv 2602.21064, section 7: a classical and a motivated run side by side at chosen
epochs, with the motivated batches marked.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nestnet.analysis.dynamics_figures import plot_epoch_losses, plot_loss_variances, plot_motivated_fractions
from nestnet.analysis.plotting import plain_text, save_figure
from nestnet.analysis.trajectory import MIN_SNAPSHOTS, Trajectory, find_snapshots, read_trajectory
from nestnet.analysis.trajectory_figure import plot_trajectories
from nestnet.runs.history import History, read_histories
from nestnet.runtime.log import log_notice
from nestnet.storage.outputs import check_output_folder, make_output_folder

FIGURE_NAMES = ("losses", "variance", "motivated_fraction", "trajectory")
"""Names of the files without their suffix, in the order in which they are written."""


def draw_dynamics(run_dirs: Sequence[Path], output: Path, epochs: Sequence[int] = ()) -> list[Path]:
    """Draw `losses.png`, `variance.png`, `motivated_fraction.png` and `trajectory.png` of runs side by side.

    `trajectory.png` shows the runs that have at least 3 snapshots of their weights. A notice names each
    other run. If no run has enough snapshots, this figure is not written.

    Args:
        run_dirs: folders of one or more runs; for an unfinished run, the finished epochs are drawn.
        output: folder for the figures. It is made if it is absent, and figures of these names in it are
            replaced.
        epochs: epochs whose batches `losses.png` shows, counted from 1. By default these are the middle and
            the last epoch that all runs have finished.

    Returns:
        The files that were written.

    Raises:
        ValueError: If a folder is not a run with at least one finished epoch, a run has not finished one of
            `epochs`, a file of a run is damaged, or the folder cannot be made.
        OSError: If a figure cannot be written; an earlier figure of this name is then unchanged.
    """
    check_output_folder(output, "output", [f"{name}.png" for name in FIGURE_NAMES])
    # Read, and thereby check, everything before the folder is created.
    histories = read_histories(run_dirs)
    epochs = choose_epochs(histories, epochs)
    trajectories = read_trajectories(histories)
    make_output_folder(output, "output")

    # matplotlib only notices letters that the font lacks when a figure is saved.
    paths = []
    with plain_text():
        figures = {
            "losses": plot_epoch_losses(histories, epochs),
            "variance": plot_loss_variances(histories),
            "motivated_fraction": plot_motivated_fractions(histories),
        }
        if trajectories:
            figures["trajectory"] = plot_trajectories(trajectories)
        for name, figure in figures.items():
            path = output / f"{name}.png"
            save_figure(figure, path, dpi=200, bbox_inches="tight")
            paths.append(path)
    _log_missing_trajectories(histories)
    return paths


def choose_epochs(histories: Sequence[History], epochs: Sequence[int] = ()) -> list[int]:
    """Choose the requested epochs, or by default the middle and the last epoch that all runs have finished.

    Args:
        histories: at least one run.
        epochs: requested epochs, counted from 1; may be empty.

    Returns:
        Numbers of epochs, counted from 1.

    Raises:
        ValueError: If a run has not finished one of the requested epochs.
    """
    last = min(len(history.losses) for history in histories)
    for epoch in epochs:
        if not 1 <= epoch <= last:
            raise ValueError(f"epochs = {epoch}: it must be one that all the runs have finished, from 1 to {last}")
    if epochs:
        return list(epochs)
    # If there is a single epoch, the middle is also the last.
    middle = (last + 1) // 2
    return sorted({middle, last})


def read_trajectories(histories: Sequence[History]) -> list[Trajectory]:
    """Read the trajectories of the runs that have enough snapshots in their finished epochs.

    Args:
        histories: runs, with the losses of their finished epochs.

    Returns:
        A trajectory for each run with at least `MIN_SNAPSHOTS` snapshots.

    Raises:
        ValueError: If a snapshot is damaged.
    """
    trajectories = []
    for history in histories:
        snapshots = _find_finished_snapshots(history)
        if len(snapshots) >= MIN_SNAPSHOTS:
            trajectories.append(read_trajectory(history.name, snapshots, np.concatenate(history.losses)))
    return trajectories


def _find_finished_snapshots(history: History) -> dict[int, Path]:
    """Return the snapshots of a run's finished epochs, by the number of batches before each."""
    # There may be snapshots of an unfinished epoch, whose losses are not in the history.
    batches = sum(len(losses) for losses in history.losses)
    snapshots = {}
    for step, path in find_snapshots(history.path).items():
        if step <= batches:
            snapshots[step] = path
    return snapshots


def _log_missing_trajectories(histories: Sequence[History]) -> None:
    """Log a notice for each run that has too few snapshots for a trajectory."""
    for history in histories:
        count = len(_find_finished_snapshots(history))
        if count < MIN_SNAPSHOTS:
            log_notice(
                f"no trajectory of {history.path}: it needs {MIN_SNAPSHOTS} snapshots of the weights, but there are "
                f"{count}; train with snapshot_steps set to N to keep one every N batches"
            )
