"""The run directory as training writes it.

config.yaml               the resolved configuration
images.json               the images on which the run is trained and tested: see `nestnet.data.image_record`
steps.csv                 a row per batch: step, epoch, mode, loss, lr
metrics.csv               a row per epoch
result.json               how the run ended, and its accuracy on the test images if it has validation images
parts.json                the parts of a run that was resumed for more epochs: see `nestnet.runs.parts`
cost.json                 the forward cost of both networks, and the expected and actual average, after the last epoch
checkpoints/              the last two, and those after which each subnet was best: see `nestnet.runs.checkpoints`
snapshots/                the base's weights every `snapshot_steps` batches, if the configuration asks for them
tensorboard/, wandb/ ...   what `trackers` of the configuration keep there
base.safetensors          the two subnets as files that timm loads, after the last epoch
motivated.safetensors
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import Tensor

from nestnet.config import parsing
from nestnet.config.schema import Config
from nestnet.data.image_record import ImageRecord
from nestnet.runs.checkpoints import Checkpoints
from nestnet.runs.contents import RECORD, STEP_COLUMNS, choose_metric_columns, is_run_directory
from nestnet.runs.held_folder import HeldFolder
from nestnet.runs.parts import RunPart, write_parts
from nestnet.runs.result import RunResult, write_result
from nestnet.runs.run_files import check_names
from nestnet.runtime.log import log_notice
from nestnet.storage.atomic import write_atomically
from nestnet.storage.folders import make_folder
from nestnet.storage.growing_table import GrowingTable
from nestnet.storage.hashed import serialize_hashed
from nestnet.storage.lock import Lock
from nestnet.storage.outputs import make_output_folder
from nestnet.storage.read_back import damaged
from nestnet.storage.rules import Rule
from nestnet.storage.state_codec import State
from nestnet.storage.table_rows import read_rows
from nestnet.storage.unfinished import is_unfinished, remove_unfinished
from nestnet.text.escape import for_shell, quoted


class RunDirectory:
    """The folder of a run that this process alone is training. It is used in a `with` statement.

    Args:
        path: path of an existing folder.

    Attributes:
        path: path of the folder.
        checkpoints: checkpoints of the run.
        tables: open tables, from `begin` on until the directory is closed.
        closing: stack of the resources that are closed at the end.
        folder: open folder.

    Raises:
        ValueError: If another process trains there, or the folder cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = Checkpoints(path / "checkpoints")
        self.tables: list[GrowingTable] = []
        # The lock is taken first and released last, so that this process has the folder to itself in between.
        self.closing = ExitStack()
        try:
            self.closing.callback(Lock(path, "train").close)
            self.folder = HeldFolder(path)
            self.closing.callback(self.folder.close)
        except OSError as error:
            raise ValueError(f"run_dir = {quoted(path)}: it cannot be written to: {error.strerror}") from error

    @classmethod
    def new(cls, config: Config) -> "RunDirectory":
        """Make the folder of a new run.

        Args:
            config: configuration of the run. Its `run_dir` names the folder; if it is `None`, a new folder below
                `runs/` is made.

        Returns:
            The run directory.

        Raises:
            ValueError: If the folder is not empty, or cannot be made, read or written to. An earlier run is never
                overwritten.
        """
        if config.run_dir:
            path = Path(config.run_dir)
        else:
            path = _unused_path(Path("runs") / f"{config.model.base}-{config.model.motivated}-{config.data.name}")
        make_output_folder(path, "run_dir")
        try:
            if is_run_directory(path):
                command = f"nestnet resume {for_shell(path)}"
                raise ValueError(
                    f"run_dir = {quoted(path)}: a run is there, and `{command}` continues it; name another folder"
                )
            # A process that was killed before the run began may have left its lock file and temporary files.
            if any(entry.name != ".lock" and not is_unfinished(entry) for entry in path.iterdir()):
                raise ValueError(f"run_dir = {quoted(path)}: it is not empty; name another folder, or remove this one")
        except OSError as error:
            raise ValueError(f"run_dir = {quoted(path)}: it cannot be read: {error.strerror}") from error
        return cls(path)

    def begin(self, config: Config, record: ImageRecord, steps: int, epochs: int) -> None:
        """Open the tables for further rows, and remove rows after the batches and epochs that are done.

        Args:
            config: configuration of the run, which is written.
            record: record of the images of the run, which is written when the run starts and never changed.
            steps: number of batches that are done.
            epochs: number of epochs that are done.

        Raises:
            ValueError: If rows of these batches and epochs are missing, or something other than a file of the run
                has the name of one.
            OSError: If a file cannot be written.
        """
        # Everything is checked before anything is changed.
        check_names(self.path)
        # The columns of a run never change, because the record of its images does not.
        has_val = record.has_val or config.data.val_fraction > 0
        metric_columns = choose_metric_columns(has_val=has_val, multi_label=config.data.multi_label)
        end_of_steps = _end_of_row(self.path / "steps.csv", STEP_COLUMNS, steps)
        end_of_metrics = _end_of_row(self.path / "metrics.csv", metric_columns, epochs)
        for folder in (self.path, self.path / "checkpoints", self.path / "snapshots"):
            remove_unfinished(folder)
        # A resumed run keeps its record, with which the present images are compared.
        self.record = record
        if steps == 0:
            self._write_record()
        self.config = config
        self._write_config()
        self.steps_table = self._open_table("steps.csv", STEP_COLUMNS, end_of_steps)
        self.metrics_table = self._open_table("metrics.csv", metric_columns, end_of_metrics)
        # From here on, leaving the `with` statement syncs the tables, until they are closed.
        self.tables += [self.steps_table, self.metrics_table]
        self.closing.callback(self.tables.clear)

    def add_step(self, row: Mapping[str, Any]) -> None:
        """Write the row of a batch.

        Args:
            row: values of the columns of `steps.csv`.

        Raises:
            OSError: If it cannot be written.
        """
        self.steps_table.add(row)

    def add_epoch(self, row: Mapping[str, Any]) -> None:
        """Write the row of an epoch.

        Args:
            row: values of the columns of `metrics.csv`.

        Raises:
            OSError: If it cannot be written.
        """
        self.metrics_table.add(row)

    def save_checkpoint(self, state: State) -> None:
        """Write a checkpoint, once the rows that belong to it are on the disk.

        Args:
            state: state of the run.

        Raises:
            OSError: If it cannot be written.
            RunStopped: If the folder was moved or removed.
        """
        # A run cannot be resumed from a checkpoint whose rows were lost in a loss of power.
        self._sync()
        self.checkpoints.save(state)

    def save_parts(self, parts: Sequence[RunPart]) -> None:
        """Write `parts.json`.

        Args:
            parts: parts of the run.

        Raises:
            ValueError: If there is a damaged one.
            OSError: If it cannot be written.
            RunStopped: If the folder was moved or removed.
        """
        self.folder.check_in_place()
        write_parts(self.path, parts)

    def save_result(self, result: RunResult) -> None:
        """Write `result.json`.

        Args:
            result: result of the run.

        Raises:
            OSError: If it cannot be written.
            RunStopped: If the folder was moved or removed.
        """
        self.folder.check_in_place()
        write_result(self.path, result)

    def save_cost(self, summary: dict[str, Any]) -> None:
        """Write `cost.json`.

        Args:
            summary: costs, by the names of its fields.

        Raises:
            OSError: If it cannot be written.
            RunStopped: If the folder was moved or removed.
        """
        self.folder.check_in_place()
        write_atomically(self.path / "cost.json", json.dumps(summary, indent=1) + "\n")

    def save_snapshot(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Write a snapshot such as `snapshots/step-000390.safetensors`.

        Args:
            step: number of batches that are done.
            tensors: weights by name.

        Raises:
            OSError: If it cannot be written.
            RunStopped: If the folder was moved or removed.
        """
        self.folder.check_in_place()
        folder = self.path / "snapshots"
        make_folder(folder)
        write_atomically(folder / f"step-{step:06}.safetensors", serialize_hashed(tensors, {}))

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        with self.closing:
            if not self.tables:
                return
            if kind is None:
                self._sync()
            elif issubclass(kind, Exception):
                # The error may have occurred because the folder was moved or removed.
                self.folder.check_in_place()

    def _open_table(self, name: str, columns: Mapping[str, Rule], end: int) -> GrowingTable:
        table = GrowingTable(self.path / name, columns, end)
        self.closing.callback(table.close)
        return table

    def _sync(self) -> None:
        """Make sure that the files of the run are on the disk, and write those again that were removed meanwhile."""
        self.folder.check_in_place()
        for table in self.tables:
            table.sync()
        # Without these two the run could not be resumed.
        for name, write in {"config.yaml": self._write_config, RECORD: self._write_record}.items():
            if not (self.path / name).exists():
                write()
                log_notice(f"{self.path / name} was removed while the run trained; it is written again")

    def _write_config(self) -> None:
        parsing.dump(self.config, self.path / "config.yaml")

    def _write_record(self) -> None:
        write_atomically(self.path / RECORD, json.dumps(self.record.to_json()) + "\n")


def _unused_path(path: Path) -> Path:
    """Return the path if it does not exist, otherwise the first of `path-2`, `path-3` and so on that does not."""
    number = 1
    unused = path
    while unused.exists():
        number += 1
        unused = path.with_name(f"{path.name}-{number}")
    return unused


def _end_of_row(path: Path, columns: Mapping[str, Rule], row: int) -> int:
    """Return the number of bytes up to the end of a row, counted from 1, after checking the table up to there."""
    if row == 0:
        return 0
    remedy = "put back a copy of it: a run cannot continue without it"
    # Reading the rows checks them, so that a run never continues a damaged table.
    rows = read_rows(path, columns, remedy, at_least=row)
    names, end = next(rows)
    # Rows are appended in this order of columns.
    if list(names) != list(columns):
        raise damaged(path, f"its columns are not {', '.join(columns)}", remedy)
    for _ in range(row):
        _, end = next(rows)
    return end
