"""The names of the files in a run directory, and the rules for their columns and fields."""

import re
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
VAL_COLUMNS = {f"{mode}_val_top1": optional(number(0, 100)) for mode in Mode}
"""Further columns of `metrics.csv` if the data has validation images, on which the best epoch is chosen."""

COLUMNS = {"steps.csv": STEP_COLUMNS, "metrics.csv": METRIC_COLUMNS | VAL_COLUMNS}
"""Columns of each table, by the name of its file."""

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

FILES = ("config.yaml", RECORD, PARTS, *COLUMNS, "cost.json", *(f"{mode}.safetensors" for mode in Mode))
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
