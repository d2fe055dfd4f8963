"""What a run leaves on disk, and how it is read again.

config.yaml               the resolved configuration
images.json               which images it trains and is tested on: see `nestnet.image_record`
steps.csv                 a row a batch: step, epoch, mode, loss, lr
metrics.csv               a row an epoch
cost.json                 the forward cost of both networks, expected and actual, after the last epoch
checkpoints/              the last two, and those after which each subnet was best: see `nestnet.checkpoints`
snapshots/                the base's weights every `snapshot_steps` batches, where the configuration asks for them
tensorboard/              where the configuration asks for it
base.safetensors          the two subnets, as timm loads them, at the end
motivated.safetensors
"""

import json
import os
import stat
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import Tensor

from nestnet.config import parsing
from nestnet.config.schema import Config
from nestnet.data.image_record import ImageRecord
from nestnet.runs.checkpoints import NAME, Checkpoints
from nestnet.runs.contents import EVENTS, FILES, FOLDERS, METRIC_COLUMNS, RECORD, SNAPSHOT, STEP_COLUMNS, VAL_COLUMNS
from nestnet.runs.stopped import Stopped
from nestnet.runs.tensorboard import Board
from nestnet.runtime.notices import log_notice
from nestnet.storage.files import (
    is_unfinished,
    kind_of_file,
    make_folder,
    make_output_folder,
    remove,
    remove_folder,
    remove_unfinished,
    write_atomically,
)
from nestnet.storage.growing_table import GrowingTable
from nestnet.storage.hashed import serialize_hashed
from nestnet.storage.lock import Lock
from nestnet.storage.read_back import (
    Rule,
    damaged,
    read_rows,
)
from nestnet.storage.state_codec import State
from nestnet.text.escape import for_shell, quoted


class RunDirectory:
    """The folder of a run that is being trained, by this process alone.

    Args:
        path: of the folder.

    Raises:
        ValueError: if another process trains there, or nothing can be written there.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.checkpoints = path, Checkpoints(path / "checkpoints")
        self.board: Board | None = None
        self.tables: list[GrowingTable] = []
        self.closing = ExitStack()
        try:
            self.closing.callback(Lock(path, "train").close)
            # of the folder itself, wherever it is moved to
            self.descriptor = os.open(path, os.O_RDONLY)
            self.closing.callback(os.close, self.descriptor)
        except OSError as error:
            raise ValueError(f"run_dir = {quoted(path)}: it cannot be written to: {error.strerror}") from error

    @classmethod
    def new(cls, config: Config) -> "RunDirectory":
        """The folder that `config.run_dir` names, or a new one below `runs/` where it names none.

        Raises:
            ValueError: if that folder holds anything: an earlier run is never written over.
        """
        name = f"{config.model.base}-{config.model.motivated}-{config.data.name}"
        path = Path(config.run_dir) if config.run_dir else _unused(Path("runs") / name)
        make_output_folder(path, "run_dir")
        try:
            if (path / "config.yaml").exists():
                command = f"nestnet resume {for_shell(path)}"
                raise ValueError(
                    f"run_dir = {quoted(path)}: a run is there, and `{command}` goes on with it; name another folder"
                )
            if any(other.name != ".lock" and not is_unfinished(other) for other in path.iterdir()):
                raise ValueError(f"run_dir = {quoted(path)}: it is not empty; name another folder, or remove this one")
        except OSError as error:
            raise ValueError(f"run_dir = {quoted(path)}: it cannot be read: {error.strerror}") from error
        return cls(path)

    def begin(self, config: Config, record: ImageRecord, steps: int, epochs: int) -> None:
        """Go on after so many batches and whole epochs: what was written after them is taken away.

        Raises:
            ValueError: if what was written before them is not there, or something else than a file of the run has the name of
                one.
        """
        self._check_names()
        metric_columns = METRIC_COLUMNS | VAL_COLUMNS if "val" in record.files else METRIC_COLUMNS
        end_of_steps = _end_of_row(self.path / "steps.csv", STEP_COLUMNS, steps)
        end_of_epochs = _end_of_row(self.path / "metrics.csv", metric_columns, epochs)
        for folder in (self.path, self.path / "checkpoints", self.path / "snapshots"):
            remove_unfinished(folder)
        self.record = record
        if steps == 0:
            self._write_record()
        self.config = config
        self._write_config()
        self.steps = GrowingTable(self.path / "steps.csv", STEP_COLUMNS, end_of_steps)
        self.closing.callback(self.steps.close)
        self.metrics = GrowingTable(self.path / "metrics.csv", metric_columns, end_of_epochs)
        self.closing.callback(self.metrics.close)
        self.tables += [self.steps, self.metrics]
        self.closing.callback(self.tables.clear)
        if config.tensorboard:
            self.board = Board(self.path / "tensorboard", after=steps)
            self.closing.callback(self.board.close)

    def add_step(self, row: Mapping[str, Any]) -> None:
        self.steps.add(row)
        if self.board is not None:
            self.board.add_step(row)

    def add_epoch(self, row: Mapping[str, Any], steps: int) -> None:
        self.metrics.add(row)
        if self.board is not None:
            self.board.add_epoch(row, steps)

    def save_checkpoint(self, state: State) -> None:
        """The rows of the tables that belong to it are on the disk before it is."""
        self._sync()
        self.checkpoints.save(state)

    def save_cost(self, summary: dict[str, Any]) -> None:
        self._check_in_place()
        write_atomically(self.path / "cost.json", json.dumps(summary, indent=1) + "\n")

    def save_snapshot(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """`snapshots/step-000390.safetensors`: named tensors as they are after a step."""
        self._check_in_place()
        folder = self.path / "snapshots"
        make_folder(folder)
        write_atomically(folder / f"step-{step:06}.safetensors", serialize_hashed(tensors, {}))

    def _sync(self) -> None:
        """See that what the run has written is on the disk under its names, and write again what was removed meanwhile."""
        self._check_in_place()
        for table in self.tables:
            table.sync()
        for name, write in {"config.yaml": self._write_config, RECORD: self._write_record}.items():
            if not (self.path / name).exists():
                write()
                log_notice(f"{self.path / name} was removed while the run trained; it is written again")

    def _write_config(self) -> None:
        parsing.dump(self.config, self.path / "config.yaml")

    def _write_record(self) -> None:
        write_atomically(self.path / RECORD, json.dumps(self.record.to_json()) + "\n")

    def _check_names(self) -> None:
        """See that nothing else has a name that a run needs; a link would lead it to write outside of its folder."""
        for name in FILES:
            path = self.path / name
            if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
                kind = kind_of_file(os.lstat(path).st_mode)
                raise ValueError(f"{path} is {kind}, and a run needs this name for a file of its own; move it")
        for name in FOLDERS:
            path = self.path / name
            if os.path.lexists(path) and not path.is_dir():
                kind = kind_of_file(os.lstat(path).st_mode)
                raise ValueError(f"{path} is {kind}, and a run needs this name for a folder of its own; move it")

    def _check_in_place(self) -> None:
        """See that the folder still has the name by which it is written to.

        Raises:
            Stopped: if it was moved or removed.
        """
        held = os.fstat(self.descriptor)
        try:
            in_place = os.path.samestat(held, os.stat(self.path))
        except OSError:
            in_place = False
        if in_place:
            return
        place = _present_path(self.descriptor)
        if place is None:
            raise Stopped(f"{self.path} was moved or removed while the run trained, which can write no more")
        raise Stopped(
            f"{self.path} was moved to {place} while the run trained; `nestnet resume {for_shell(place)}` goes on from the "
            "last checkpoint"
        )

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        with self.closing:
            if not self.tables:
                return
            if kind is None:
                self._sync()
            elif issubclass(kind, Exception):
                # what failed may have failed because the folder is not there any more
                self._check_in_place()


class NullRunDirectory:
    """In place of a run's folder in processes other than the first, which alone writes."""

    path = Path()

    def begin(self, config: Config, record: ImageRecord, steps: int, epochs: int) -> None: ...
    def add_step(self, row: Mapping[str, Any]) -> None: ...
    def add_epoch(self, row: Mapping[str, Any], steps: int) -> None: ...
    def save_checkpoint(self, state: State) -> None: ...
    def save_cost(self, summary: dict[str, Any]) -> None: ...
    def save_snapshot(self, step: int, tensors: Mapping[str, Tensor]) -> None: ...

    def __enter__(self) -> "NullRunDirectory":
        return self

    def __exit__(self, *error: object) -> None: ...


def _end_of_row(path: Path, columns: Mapping[str, Rule], rows: int) -> int:
    """How many bytes a table has up to its row of this number, counted from 1.

    Raises:
        ValueError: if the rows up to there are not all as they were written.
    """
    if rows == 0:
        return 0
    remedy = "put back a copy of it: a run cannot go on without it"
    found = read_rows(path, columns, remedy, at_least=rows)
    names, end = next(found)
    if list(names) != list(columns):
        raise damaged(path, f"its columns are not {', '.join(columns)}", remedy)
    for _ in range(rows):
        _, end = next(found)
    return end


def _present_path(descriptor: int) -> str | None:
    """Where an open folder is now; `None` where it is nowhere, or the system does not tell."""
    try:
        place = os.readlink(f"/proc/self/fd/{descriptor}")
        in_place = os.path.samestat(os.fstat(descriptor), os.stat(place))
    except OSError:
        return None
    return place if in_place else None


def delete_run(path: Path) -> None:
    """Remove a run of which nothing is to be kept: the files that it wrote, and the folders that are empty then.

    Raises:
        ValueError: if its folder holds something else, which stays.
        OSError: with one line, if a file cannot be removed.
    """
    own = [path / name for name in (*FILES, ".lock")]
    own += [file for file in _inside(path / "checkpoints") if NAME.fullmatch(file.name)]
    own += [file for file in _inside(path / "snapshots") if SNAPSHOT.fullmatch(file.name)]
    own += [file for file in _inside(path / "tensorboard") if EVENTS.fullmatch(file.name)]
    for file in own:
        if os.path.lexists(file) and stat.S_ISREG(os.lstat(file).st_mode):
            remove(file)
    for folder in (*(path / name for name in FOLDERS), path):
        remove_unfinished(folder, of_anyone=True)
        others = _inside(folder)
        if others:
            raise ValueError(
                f"{others[0]} is in the folder of a run that is to start again, and is not of the run; move it"
            )
        if os.path.lexists(folder):
            remove_folder(folder)


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _unused(stem: Path) -> Path:
    """`stem`, or `stem-2`, `stem-3` ... if there is one already."""
    number, path = 1, stem
    while path.exists():
        number += 1
        path = stem.with_name(f"{stem.name}-{number}")
    return path
