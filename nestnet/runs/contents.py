"""The names of the files in a run directory, and the rules for their columns and fields."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from nestnet.conditions.base import WATCHED
from nestnet.nn.mode import BOTH, FINISH, Mode
from nestnet.storage.rules import Rule, any_number, number, of_type, optional, or_null, whole, word

# The first column of a table counts its rows: `nestnet.storage.table_rows` relies on it.
STEP_COLUMNS = {
    "step": whole(1),
    "epoch": whole(1),
    "mode": word(*Mode, BOTH, FINISH),
    "loss": any_number(),
    "lr": optional(number(0)),
}
"""Columns of `steps.csv`. Here and in `metrics.csv`, a column is optional if not every reader needs it."""

METRIC_COLUMNS = {
    "epoch": whole(1),
    "train_loss": optional(number()),
    "base_top1": number(0, 100),
    "motivated_top1": number(0, 100),
    "motivated_fraction": optional(number(0, 1)),
    "average_cost": optional(number(0)),
    "skipped_steps": optional(whole()),
    "images_per_second": optional(number(0)),
    "data_wait": optional(number(0)),
    "seconds": optional(number(0)),
}
"""Columns of `metrics.csv`."""

# These are separate, because runs without validation images do not have them.
VAL_COLUMNS = {"val_images": optional(whole(1))}
"""Further column of `metrics.csv` if the data has validation images: their number. The accuracies are then of these images,
and not of the test images, which are evaluated once, when the run has ended."""

# Runs on images that have one label each do not have them.
MAP_COLUMNS = {f"{mode}_map": optional(number(0, 100)) for mode in Mode}
"""Further columns of `metrics.csv` if images may have several labels: the mean average precision."""

COLUMNS = {
    "steps.csv": STEP_COLUMNS,
    "metrics.csv": METRIC_COLUMNS | VAL_COLUMNS | MAP_COLUMNS,
}
"""Columns of each table, by the name of its file."""

CRITERIA = ("map", "top1")
"""Ends of the columns of `metrics.csv` by which the best epoch may be chosen, the preferred one first."""


def is_run_directory(path: Path) -> bool:
    """Return whether a folder holds a run, whatever the state of its files.

    Args:
        path: any path.
    """
    return (path / "config.yaml").exists()


def choose_metric_columns(*, has_val: bool, multi_label: bool) -> dict[str, Rule]:
    """Return the columns of a run's `metrics.csv` with their rules.

    Args:
        has_val: whether the data has validation images.
        multi_label: whether images may have several labels.
    """
    columns = dict(METRIC_COLUMNS)
    if has_val:
        columns |= VAL_COLUMNS
    if multi_label:
        columns |= MAP_COLUMNS
    return columns


def choose_criterion(mode: Mode | str, columns: Collection[str]) -> str:
    """Return the column of `metrics.csv` by which the best epoch of a subnet is chosen: its highest value.

    It is the mean average precision if images may have several labels, and otherwise the top-1.

    Args:
        mode: mode of the subnet.
        columns: columns that the run has.

    >>> choose_criterion("base", ["epoch", "base_top1", "base_map"])
    'base_map'
    """
    return next(f"{mode}_{criterion}" for criterion in CRITERIA if f"{mode}_{criterion}" in columns)


COST_FIELDS = {
    "convention": word("macs"),
    "base": whole(1),
    "motivated": whole(1),
    "expected": or_null(number(0)),
    "actual": or_null(number(0)),
    "relative_to_base": optional(or_null(number(0))),
}
"""Fields of `cost.json`: the convention of counting, numbers of operations in it, and the cost of the run."""


def _counts_batches(value: Any) -> bool:
    """Return whether a value has the number of batches that trained each mode."""
    batches = None
    if isinstance(value, dict):
        batches = value.get("batches")
    return isinstance(batches, dict) and all(whole().fits(batches.get(str(mode))) for mode in Mode)


CHECKPOINT_FIELDS = {
    "net": of_type(dict, "tensors by name"),
    "average": or_null(of_type(dict, "tensors by name")),
    "class_names": of_type(list, "a list of names"),
    "input_size": of_type(list, "a list of sizes"),
    "recalibrated": of_type(dict, "statistics by mode"),
    "watches": word(*WATCHED),
    "cost": Rule("the number of batches that trained each mode", _counts_batches),
}
"""Fields of a checkpoint that are read without resuming its run."""

# Only a copy helps, because measured values cannot be computed again without training.
TABLE_REMEDY = "put back a copy of it, or train the run again"
"""Remedy for a damaged table, `config.yaml` or `cost.json`."""

RECORD = "images.json"
"""Name of the record of the images."""

PARTS = "parts.json"
"""Name of the record of the parts of a run. Only a run of more than one part has it."""

RESULT = "result.json"
"""Name of the record of how a run ended, and of its measurement on the test images."""

FILES = ("config.yaml", RECORD, PARTS, RESULT, *COLUMNS, "cost.json", *(f"{mode}.safetensors" for mode in Mode))
"""Names of the files of a run."""

FOLDERS = ("checkpoints", "snapshots", "tensorboard", "wandb", "mlflow", "trackio")
"""Names of the folders of a run, of which the last ones are those of trackers."""

EARLIER_EXPORT = re.compile(rf"({'|'.join(Mode)})-epoch-\d+\.safetensors", re.ASCII)
"""Names of the exports of an earlier part of a run."""

# Patterns are as strict as the names that nestnet writes: a run that starts again deletes what they match.
SNAPSHOT = re.compile(r"step-(\d{6,})\.safetensors", re.ASCII)
"""Names in `snapshots`."""

TRACKER_FILES = re.compile(r"events\.out\.tfevents\..+|run_id|mlflow\.db")
"""Names in the folders of trackers; wandb has further ones."""
