"""Reading a run directory: its configuration, its network, its images and its tables."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nestnet.config import parsing
from nestnet.config.schema import Config
from nestnet.data.image_data import ImageData, load_data
from nestnet.data.image_record import LARGEST_RECORD, RECORD_FIELDS, ImageRecord
from nestnet.models.build import build_model
from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel
from nestnet.runs.checkpoints import REMEDY, Checkpoints
from nestnet.runs.contents import CHECKPOINT_FIELDS, COLUMNS, COST_FIELDS, RECORD, TABLE_REMEDY
from nestnet.storage.read_back import (
    check_present,
    damaged,
    read_json,
    read_rows,
    read_text,
)
from nestnet.storage.state_codec import State, check_tensors
from nestnet.text.escape import for_shell


@dataclass
class Run:
    """A trained run, read from its folder."""

    path: Path
    config: Config
    net: NestedModel
    checkpoint: State
    record: ImageRecord
    best: bool = False
    """Whether the checkpoint is that of a subnet's best epoch, as it was asked for, instead of the last one."""

    @property
    def trained(self) -> dict[str, int]:
        """Number of batches that trained each mode's subnet."""
        return self.checkpoint["cost"]["batches"]

    def images(self, *, download: bool = True) -> ImageData:
        """The images of the run, as its record names them.

        Args:
            download: whether what is not there may be fetched, if the configuration says so too.

        Raises:
            ValueError: if they are not there, or not those of the run.
        """
        data = replace(self.config.data, download=download and self.config.data.download)
        command = f"nestnet resume {for_shell(self.path)}"
        try:
            return load_data(data, self.config.model, self.record, command=command)
        except ValueError as error:
            # the verbs that read a run's images do not take its options
            raise ValueError(f"{error} (`{command} --data.root FOLDER` names another folder)") from error


def read_run(path: str | os.PathLike[str], *, best: Mode | None = None) -> Run:
    """The network of a run as its last checkpoint has it, and all that was stored with it.

    Args:
        best: take the checkpoint after which the subnet of this mode had its highest top-1.

    Raises:
        ValueError: if the folder is no run, or its checkpoint is absent, damaged or of other networks.
    """
    path = Path(path)
    config, checkpoints = read_config(path), Checkpoints(path / "checkpoints")
    checkpoint = checkpoints.newest() if best is None else checkpoints.best(best)
    if checkpoint is None:
        raise ValueError(
            f"{path} has no checkpoint: it was stopped before its first batch; `nestnet resume {for_shell(path)}` goes on"
        )
    assert checkpoints.last is not None
    check_present(checkpoints.last, checkpoint, CHECKPOINT_FIELDS, REMEDY)
    net, tensors = build_model(config), checkpoint["average"] or checkpoint["net"]
    try:
        check_tensors("net", tensors, net.state_dict())
    except ValueError as error:
        raise ValueError(f"{checkpoints.last}: {error}") from error
    net.load_state_dict(tensors)
    return Run(path, config, net, checkpoint, read_record(path), best=best is not None)


def read_config(run_dir: Path) -> Config:
    """The configuration of a run, as its folder has it.

    Raises:
        ValueError: if the folder is no run, or the file cannot be read.
    """
    path = run_dir / "config.yaml"
    if not path.exists():
        raise ValueError(f"{run_dir} is no run directory: it has no config.yaml")
    read_text(path, TABLE_REMEDY)  # what is damaged is named as in all files of a run, before it is parsed
    try:
        return parsing.load(path)
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from error


def read_record(run_dir: Path) -> ImageRecord:
    """Which images a run trains and is tested on.

    Raises:
        ValueError: if its record is absent or damaged.
    """
    path = run_dir / RECORD
    remedy = "put back a copy of it, or train anew: without it nobody knows which images were trained on"
    fields = read_json(path, RECORD_FIELDS, remedy, largest=LARGEST_RECORD)
    try:
        return ImageRecord.from_json(fields)
    except ValueError as error:
        raise damaged(path, str(error), remedy) from error


def read_cost(run_dir: Path) -> dict[str, Any]:
    """What `RunDirectory.save_cost` wrote.

    Raises:
        ValueError: if it is absent or damaged.
    """
    return read_json(run_dir / "cost.json", COST_FIELDS, TABLE_REMEDY)


def read_table(path: Path, needed: Sequence[str] = (), *, at_least: int = 0) -> list[dict[str, str]]:
    """The rows of `steps.csv` or `metrics.csv` as they are written, each of which was checked.

    Args:
        path: of the table of a run, which may be training.
        needed: columns that must be there besides those that every reader needs.
        at_least: number of rows that must be there, because a checkpoint was written after them.

    Raises:
        ValueError: if it is absent or damaged.
    """
    if not os.path.lexists(path):
        raise ValueError(f"{path.parent} is no run directory: it has no {path.name}")
    columns = dict(COLUMNS[path.name])
    for name in needed:
        columns[name] = replace(columns[name], needed=True)
    rows = [row for row, _ in read_rows(path, columns, TABLE_REMEDY, at_least=at_least)]
    return rows[1:]  # without the names of the columns
