"""The batches and epochs of a run, as its tables record them. The run need not be finished."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nestnet.config.schema import Config
from nestnet.nn.mode import FINISH, Mode
from nestnet.runs.checkpoint_file import parse_checkpoint_name
from nestnet.runs.checkpoints import Checkpoints
from nestnet.runs.contents import TABLE_REMEDY
from nestnet.runs.reading import name_runs, read_config, read_table
from nestnet.storage.read_back import damaged


@dataclass(frozen=True)
class Steps:
    """The S batches that a run has trained, in order, as `steps.csv` records them.

    Attributes:
        number: number of each batch in the run [S], from 1.
        epoch: epoch of each batch [S], from 1.
        mode: network that each batch trained [S]: `base`, `motivated` or `both`, or `finish` for the motivated one
            without its base.
        loss: loss of each batch [S]; NaN or infinite where the batch was skipped.
        lr: learning rate of each batch [S]; NaN if the run did not record it.
    """

    number: np.ndarray
    epoch: np.ndarray
    mode: np.ndarray
    loss: np.ndarray
    lr: np.ndarray

    def __len__(self) -> int:
        return len(self.number)


@dataclass(frozen=True)
class History:
    """The batches of a run's E finished epochs.

    Attributes:
        path: run directory.
        name: name of the run in figures.
        losses: training losses of the batches of each epoch, E arrays [B].
        modes: network that each batch of each epoch trained, E arrays [B], as in `Steps`.
        k: `motivation.k` of a run with the condition `loss_decrease`; `None` with any other condition.
    """

    path: Path
    name: str
    losses: list[np.ndarray]
    modes: list[np.ndarray]
    k: int | None


def read_run_tables(run_dir: Path, required: Sequence[str] = ()) -> tuple[Config, Steps, dict[str, np.ndarray]]:
    """Read the configuration, the batches and the metrics of a run, which may be training at the same time.

    Args:
        run_dir: run directory.
        required: columns that `metrics.csv` must have, in addition to the epoch and the accuracies.

    Returns:
        The configuration; the batches, including those of an unfinished epoch; and the columns of
        `metrics.csv`, each with one value per finished epoch [E].

    Raises:
        ValueError: If the folder is not a run directory, or a file is damaged.
    """
    # The order matters: a run that is training writes an epoch's batches before its row, and both before its
    # checkpoint.
    checkpoints = Checkpoints(run_dir / "checkpoints").paths()
    config, metrics = read_metrics(run_dir, required)
    checkpointed_steps = 0
    if checkpoints:
        checkpointed_steps, _ = parse_checkpoint_name(checkpoints[0])
    steps = read_steps(run_dir, finished_epochs=len(metrics["epoch"]), at_least=checkpointed_steps)
    return config, steps, metrics


def read_metrics(run_dir: Path, required: Sequence[str] = ()) -> tuple[Config, dict[str, np.ndarray]]:
    """Read the configuration of a run and the columns of its `metrics.csv`.

    Args:
        run_dir: run directory.
        required: columns that `metrics.csv` must have, in addition to the epoch and the accuracies.

    Returns:
        The configuration, and the columns, each with one value per finished epoch [E].

    Raises:
        ValueError: If the folder is not a run directory, or a file is damaged.
    """
    # Checkpoints are listed first, so that the tables, which are read later, have the rows that they count.
    checkpoints = Checkpoints(run_dir / "checkpoints").paths()
    config = read_config(run_dir)
    path = run_dir / "metrics.csv"
    checkpointed_epochs = max((parse_checkpoint_name(checkpoint)[1] for checkpoint in checkpoints), default=0)
    rows = read_table(path, required, at_least=checkpointed_epochs)
    if len(rows) > config.total_epochs:
        raise damaged(path, f"it has {len(rows)} rows, and the run is of {config.total_epochs} epochs", TABLE_REMEDY)
    # Without a finished epoch, callers still get the columns that every run has.
    names = ["epoch", "base_top1", "motivated_top1", *required]
    if rows:
        names = list(rows[0])
    return config, {name: _column(rows, name, float) for name in names}


def read_steps(run_dir: Path, *, finished_epochs: int = 0, at_least: int = 0) -> Steps:
    """Read the batches of a run from its `steps.csv`.

    Args:
        run_dir: run directory.
        finished_epochs: number of finished epochs, of which batches must be present.
        at_least: number of batches that must be present, because a checkpoint was written after them.

    Returns:
        The batches in order, including those of an unfinished epoch.

    Raises:
        ValueError: If the file is absent or damaged.
    """
    path = run_dir / "steps.csv"
    rows = read_table(path, at_least=at_least)
    steps = Steps(
        number=_column(rows, "step", int),
        epoch=_column(rows, "epoch", int),
        mode=_column(rows, "mode", str),
        loss=_column(rows, "loss", float),
        lr=np.array([row.get("lr", "nan") for row in rows], dtype=float),
    )
    # Each batch belongs to the epoch of the previous batch or to the next epoch.
    advance = np.diff(steps.epoch, prepend=0)
    misplaced = np.flatnonzero((advance < 0) | (advance > 1))
    if len(misplaced):
        index = misplaced[0]
        reason = f"epoch is {steps.epoch[index]} in row {index + 1}, which cannot be there"
        raise damaged(path, reason, TABLE_REMEDY)
    if finished_epochs > len(set(steps.epoch)):
        raise damaged(path, f"it has no batches of epoch {finished_epochs}, which is finished", TABLE_REMEDY)
    return steps


def _column(rows: list[dict[str, str]], name: str, dtype: type) -> np.ndarray:
    return np.array([row[name] for row in rows], dtype=dtype)


def read_histories(run_dirs: Sequence[Path]) -> list[History]:
    """Read the histories of several runs, each named after its folder, or by its path where folders share a name.

    Args:
        run_dirs: run directories, at least one.

    Returns:
        The histories in the order of the folders.

    Raises:
        ValueError: If `run_dirs` is empty, or one of the folders is not a run with a finished epoch.
    """
    return [read_history(path, name) for path, name in zip(run_dirs, name_runs(run_dirs), strict=True)]


def read_history(run_dir: Path, name: str) -> History:
    """Read the batches of a run's finished epochs: those that have a row in `metrics.csv`.

    Args:
        run_dir: run directory.
        name: name of the run in figures.

    Returns:
        The history.

    Raises:
        ValueError: If the folder is not a run directory, its first epoch is not finished, or a file is damaged.
    """
    config, steps, metrics = read_run_tables(run_dir)
    finished = len(metrics["epoch"])
    if not finished:
        raise ValueError(f"{run_dir} has no finished epoch to draw: let it train to the end of its first")
    # The batches of an epoch are adjacent, because epochs are in order. Batches after the last end are of an
    # unfinished epoch.
    ends = np.searchsorted(steps.epoch, range(1, finished + 1), side="right")
    losses = np.split(steps.loss, ends)[:finished]
    modes = np.split(steps.mode, ends)[:finished]
    k = None
    if config.motivation.name == "loss_decrease":
        k = config.motivation.k
    return History(run_dir, name, losses, modes, k)


def loss_variance(history: History) -> np.ndarray:
    """Return the variance of the batch losses within each epoch [E].

    Args:
        history: history of a run.

    Returns:
        The population variance of each epoch, about the mean of the epoch.
    """
    return np.array([losses.var() for losses in history.losses])


def motivated_fraction(history: History) -> np.ndarray:
    """Return the share of each epoch's batches that trained the motivated network [E].

    Args:
        history: history of a run.

    Returns:
        Shares from 0 to 1. Batches that trained both networks count.
    """
    # All batches except those in base mode trained the motivated network.
    return np.array([np.mean(modes != Mode.BASE) for modes in history.modes])


def motivated_counts(steps: Steps) -> list[int]:
    """Return the number of motivated batches in each epoch of a run, including those that trained both networks.

    Args:
        steps: batches of a run, as `read_steps` returns them.

    Returns:
        The number of motivated batches per epoch, including that of an unfinished epoch. The epochs that only
        extend the base are left out: no condition chose their batches.
    """
    steps = without_finish(steps)
    epochs = int(steps.epoch.max(initial=0))
    # Epochs are numbered from 1, so that the count of epoch 0 is dropped.
    motivated = steps.epoch[steps.mode != Mode.BASE]
    return np.bincount(motivated, minlength=epochs + 1)[1:].tolist()


def without_finish(steps: Steps) -> Steps:
    """Return the batches of a run without those that only extend the base.

    Args:
        steps: batches of a run, as `read_steps` returns them.

    Returns:
        The batches of which the condition chose the mode.
    """
    return select_steps(steps, steps.mode != FINISH)


def select_steps(steps: Steps, selected: np.ndarray) -> Steps:
    """Return some batches of a run.

    Args:
        steps: batches of a run, as `read_steps` returns them.
        selected: whether each batch is selected [S].

    Returns:
        The selected batches, in order.
    """
    return Steps(
        number=steps.number[selected],
        epoch=steps.epoch[selected],
        mode=steps.mode[selected],
        loss=steps.loss[selected],
        lr=steps.lr[selected],
    )
