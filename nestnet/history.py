"""The course of a run, batch by batch, as its tables tell it."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nestnet import config as configuration
from nestnet.mode import Mode
from nestnet.run_directory import read_table


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


def read_histories(run_dirs: Sequence[Path]) -> list[History]:
    """The runs in these folders, each named after its folder, or by its path where folders share a name.

    Raises:
        ValueError: if there is none, or a folder is no run with at least one finished epoch.
    """
    if not run_dirs:
        raise ValueError("run_dirs is empty: name the folder of at least one run")
    names = [path.resolve().name for path in run_dirs]
    count = Counter(names)
    return [
        read_history(path, name if count[name] == 1 else str(path)) for path, name in zip(run_dirs, names, strict=True)
    ]


def read_history(run_dir: Path, name: str) -> History:
    """The batches of a run's finished epochs: those that have a row in `metrics.csv`.

    Raises:
        ValueError: if the folder is no run, or its first epoch is not finished.
    """
    steps, finished = read_table(run_dir / "steps.csv"), read_table(run_dir / "metrics.csv")
    if not finished:
        raise ValueError(f"{run_dir} has no finished epoch to draw: let it train to the end of its first")
    motivation = configuration.load(run_dir / "config.yaml").motivation
    rows = defaultdict(list)
    for row in steps:
        rows[row["epoch"]].append(row)
    epochs = [rows[row["epoch"]] for row in finished]
    losses = [np.array([float(row["loss"]) for row in epoch]) for epoch in epochs]
    modes = [np.array([row["mode"] for row in epoch]) for epoch in epochs]
    return History(run_dir, name, losses, modes, motivation.k if motivation.name == "loss_decrease" else None)


def loss_variance(history: History) -> np.ndarray:
    """The variance of the batch losses in each epoch [E], about the epoch's own mean."""
    return np.array([losses.var() for losses in history.losses])


def motivated_fraction(history: History) -> np.ndarray:
    """The part of each epoch's batches that trained the motivated network [E], from 0 to 1; joint ones trained it too."""
    return np.array([np.mean(modes != Mode.BASE) for modes in history.modes])
