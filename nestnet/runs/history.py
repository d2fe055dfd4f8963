"""The course of a run, batch by batch and epoch by epoch, as its tables tell it. It need not be finished."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from nestnet.config.schema import Config
from nestnet.nn.mode import Mode
from nestnet.runs.checkpoints import Checkpoints, position
from nestnet.runs.contents import TABLE_REMEDY
from nestnet.runs.reading import read_config, read_table
from nestnet.storage.paths import real_path
from nestnet.storage.read_back import damaged


@dataclass(frozen=True)
class Steps:
    """The S batches of a run, in order."""

    number: np.ndarray
    """[S], from 1."""
    epoch: np.ndarray
    """[S], from 1."""
    mode: np.ndarray
    """[S], what each trained: `base`, `motivated`, or `joint` for both subnets."""
    loss: np.ndarray
    """[S]; NaN or infinite where the batch was skipped."""
    lr: np.ndarray
    """[S], the learning rate; NaN where the run did not record it."""

    def __len__(self) -> int:
        return len(self.number)


@dataclass(frozen=True)
class History:
    """The batches of a run's E finished epochs."""

    path: Path
    name: str
    """What figures call the run."""
    losses: list[np.ndarray]
    """The training loss of each batch [B], for each epoch."""
    modes: list[np.ndarray]
    """Likewise, what each batch trained: `base`, `motivated`, or `joint` for both subnets."""
    k: int | None
    """Of the condition, if it is the loss decrease."""


def read_course(run_dir: Path, needed: Sequence[str] = ()) -> tuple[Config, Steps, dict[str, np.ndarray]]:
    """Read the configuration of a run, its batches, and the columns of its `metrics.csv`, each a value per finished epoch [E].

    The run may be training at the same time.

    Args:
        needed: columns of `metrics.csv` that must be there, besides the accuracies.

    Raises:
        ValueError: if the folder is no run, or a file is damaged.
    """
    # In this order: a run that is training writes an epoch's batches before its row, and both before its checkpoint.
    checkpoints = Checkpoints(run_dir / "checkpoints").paths()
    config, epochs = read_epochs(run_dir, needed)
    path = run_dir / "steps.csv"
    rows = read_table(path, at_least=position(checkpoints[0])[0] if checkpoints else 0)
    steps = Steps(
        number=np.array([row["step"] for row in rows], dtype=int),
        epoch=np.array([row["epoch"] for row in rows], dtype=int),
        mode=np.array([row["mode"] for row in rows], dtype=str),
        loss=np.array([row["loss"] for row in rows], dtype=float),
        lr=np.array([row.get("lr", "nan") for row in rows], dtype=float),
    )
    changes = np.diff(steps.epoch, prepend=0)
    wrong = np.flatnonzero((changes < 0) | (changes > 1))
    if len(wrong):
        row = wrong[0] + 1
        raise damaged(path, f"epoch is {steps.epoch[wrong[0]]} in row {row}, which cannot be there", TABLE_REMEDY)
    finished = len(epochs["epoch"])
    if finished > len(set(steps.epoch)):
        raise damaged(path, f"it has no batches of epoch {finished}, which is finished", TABLE_REMEDY)
    return config, steps, epochs


def read_epochs(run_dir: Path, needed: Sequence[str] = ()) -> tuple[Config, dict[str, np.ndarray]]:
    """Read the configuration of a run, and the columns of its `metrics.csv`. Arguments and errors are as in `read_course`."""
    checkpoints = Checkpoints(run_dir / "checkpoints").paths()
    config = read_config(run_dir)
    path = run_dir / "metrics.csv"
    finished = max((position(checkpoint)[1] for checkpoint in checkpoints), default=0)
    rows = read_table(path, needed, at_least=finished)
    if len(rows) > config.epochs:
        raise damaged(path, f"it has {len(rows)} rows, and the run is of {config.epochs} epochs", TABLE_REMEDY)
    names = rows[0] if rows else ["epoch", "base_top1", "motivated_top1", *needed]
    return config, {name: np.array([row[name] for row in rows], dtype=float) for name in names}


def read_histories(run_dirs: Sequence[Path]) -> list[History]:
    """The runs in these folders, each named after its folder, or by its path where folders share a name.

    Raises:
        ValueError: if there is none, or a folder is no run with at least one finished epoch.
    """
    if not run_dirs:
        raise ValueError("run_dirs is empty: name the folder of at least one run")
    names = [real_path(path).name for path in run_dirs]
    count = Counter(names)
    return [
        read_history(path, name if count[name] == 1 else str(path)) for path, name in zip(run_dirs, names, strict=True)
    ]


def read_history(run_dir: Path, name: str) -> History:
    """The batches of a run's finished epochs: those that have a row in `metrics.csv`.

    Raises:
        ValueError: if the folder is no run, its first epoch is not finished, or a file is damaged.
    """
    config, steps, epochs = read_course(run_dir)
    finished = len(epochs["epoch"])
    if not finished:
        raise ValueError(f"{run_dir} has no finished epoch to draw: let it train to the end of its first")
    ends = np.searchsorted(steps.epoch, range(1, finished + 1), side="right")
    losses = np.split(steps.loss, ends)[:finished]
    modes = np.split(steps.mode, ends)[:finished]
    motivation = config.motivation
    return History(run_dir, name, losses, modes, motivation.k if motivation.name == "loss_decrease" else None)


def loss_variance(history: History) -> np.ndarray:
    """The variance of the batch losses in each epoch [E], about the epoch's own mean."""
    return np.array([losses.var() for losses in history.losses])


def motivated_fraction(history: History) -> np.ndarray:
    """The part of each epoch's batches that trained the motivated network [E], from 0 to 1; joint ones trained it too."""
    return np.array([np.mean(modes != Mode.BASE) for modes in history.modes])


def motivated_counts(modes: Sequence[tuple[int, str]]) -> list[int]:
    """How many motivated batches each epoch had, from (epoch, mode) of each batch in order; epochs count from 1."""
    assert all(before <= after for (before, _), (after, _) in pairwise(modes))
    counts = [0] * (modes[-1][0] if modes else 0)
    for epoch, mode in modes:
        counts[epoch - 1] += mode == Mode.MOTIVATED
    return counts
