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
import re
import stat
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from nestnet import config as configuration
from nestnet.checkpoints import NAME, REMEDY, Checkpoints, State, check_tensors
from nestnet.config import Config
from nestnet.data import ImageData, load_data
from nestnet.escape import for_shell, quoted
from nestnet.faults import Stopped
from nestnet.files import (
    is_unfinished,
    kind_of_file,
    make_folder,
    make_output_folder,
    remove,
    remove_folder,
    remove_unfinished,
    write_atomically,
)
from nestnet.growing_table import GrowingTable
from nestnet.image_record import LARGEST_RECORD, RECORD_FIELDS, ImageRecord
from nestnet.lock import Lock
from nestnet.mode import Mode
from nestnet.models import create_model
from nestnet.models.registry import takes_img_size
from nestnet.motivation import JOINT, WATCHED
from nestnet.nested import NestedModel
from nestnet.notices import notice
from nestnet.read_back import (
    Rule,
    any_number,
    check_present,
    damaged,
    number,
    of_type,
    optional,
    or_null,
    read_json,
    read_rows,
    read_text,
    whole,
    word,
)
from nestnet.sealed import sealed
from nestnet.tensorboard import Board

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
        write_atomically(folder / f"step-{step:06}.safetensors", sealed(tensors, {}))

    def _sync(self) -> None:
        """See that what the run has written is on the disk under its names, and write again what was removed meanwhile."""
        self._check_in_place()
        for table in self.tables:
            table.sync()
        for name, write in {"config.yaml": self._write_config, RECORD: self._write_record}.items():
            if not (self.path / name).exists():
                write()
                notice(f"{self.path / name} was removed while the run trained; it is written again")

    def _write_config(self) -> None:
        configuration.dump(self.config, self.path / "config.yaml")

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


class Elsewhere:
    """In place of a run's folder in processes other than the first, which alone writes."""

    path = Path()

    def begin(self, config: Config, record: ImageRecord, steps: int, epochs: int) -> None: ...
    def add_step(self, row: Mapping[str, Any]) -> None: ...
    def add_epoch(self, row: Mapping[str, Any], steps: int) -> None: ...
    def save_checkpoint(self, state: State) -> None: ...
    def save_cost(self, summary: dict[str, Any]) -> None: ...
    def save_snapshot(self, step: int, tensors: Mapping[str, Tensor]) -> None: ...

    def __enter__(self) -> "Elsewhere":
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


def discard(path: Path) -> None:
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
    net, tensors = network(config), checkpoint["average"] or checkpoint["net"]
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
        return configuration.load(path)
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


def network(config: Config) -> NestedModel:
    """The nested network of a resolved configuration, newly initialised."""
    model = config.model
    options = {
        name: value for name, value in vars(model).items() if value is not None and not name.endswith("_weights")
    }
    base, motivated = options.pop("base"), options.pop("motivated")
    if takes_img_size(motivated):
        options["img_size"] = config.data.img_size
    return create_model(base, motivated, **options)


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


def _unused(stem: Path) -> Path:
    """`stem`, or `stem-2`, `stem-3` ... if there is one already."""
    number, path = 1, stem
    while path.exists():
        number += 1
        path = stem.with_name(f"{stem.name}-{number}")
    return path
