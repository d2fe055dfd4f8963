"""The names of the files in a run directory, and the columns and fields in them."""

import re
from typing import Any

from nestnet.conditions.base import JOINT, WATCHED
from nestnet.nn.mode import Mode
from nestnet.storage.read_back import Rule, any_number, number, of_type, optional, or_null, whole, word

STEP_COLUMNS = {
    "step": whole(1),
    "epoch": whole(1),
    "mode": word(*Mode, JOINT),
    "loss": any_number(),
    "lr": optional(number(0)),
}


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
"""What each value in the tables must be. Columns that a run need not have are those that not every reader needs."""


VAL_COLUMNS = {f"{mode}_val_top1": optional(number(0, 100)) for mode in Mode}
"""Of `metrics.csv` besides, where the data has images on which the best epoch is chosen."""


COLUMNS = {"steps.csv": STEP_COLUMNS, "metrics.csv": METRIC_COLUMNS | VAL_COLUMNS}


COST_FIELDS = {
    "convention": word("macs"),
    "base": whole(1),
    "motivated": whole(1),
    "expected": or_null(number(0)),
    "actual": or_null(number(0)),
}


def _has_batches(value: Any) -> bool:
    batches = value.get("batches") if isinstance(value, dict) else None
    return isinstance(batches, dict) and all(whole().fits(batches.get(str(mode))) for mode in Mode)


CHECKPOINT_FIELDS = {
    "net": of_type(dict, "tensors by name"),
    "average": or_null(of_type(dict, "tensors by name")),
    "class_names": of_type(list, "a list of names"),
    "input_size": of_type(list, "a list of sizes"),
    "recalibrated": of_type(dict, "statistics by mode"),
    "watches": word(*WATCHED),
    "cost": Rule("the number of batches that trained each mode", _has_batches),
}
"""What is read of a checkpoint besides what a run goes on from."""


TABLE_REMEDY = "put back a copy of it, or train the run anew"


RECORD = "images.json"


FILES = ("config.yaml", RECORD, *COLUMNS, "cost.json", *(f"{mode}.safetensors" for mode in Mode))


FOLDERS = ("checkpoints", "snapshots", "tensorboard")


SNAPSHOT = re.compile(r"step-(\d{6,})\.safetensors", re.ASCII)


EVENTS = re.compile(r"events\.out\.tfevents\..+")
