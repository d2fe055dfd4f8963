"""What a run leaves on disk, and how it is read again.

config.yaml               the resolved configuration
steps.csv                 a row a batch: step, epoch, mode, loss, lr
metrics.csv               a row an epoch
cost.json                 the forward cost of both networks, expected and actual, after the last epoch
checkpoints/              the last two, and those after which each subnet was best: see `nestnet.checkpoints`
snapshots/                the base's weights every `snapshot_steps` batches, where the configuration asks for them
tensorboard/              where the configuration asks for it
base.safetensors          the two subnets, as timm loads them, at the end
motivated.safetensors
"""

import csv
import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from torch import Tensor

from nestnet import config as configuration
from nestnet.checkpoints import Checkpoints, State, check_tensors
from nestnet.config import Config
from nestnet.escape import for_shell, quoted
from nestnet.files import write_atomically
from nestnet.lock import Lock
from nestnet.mode import Mode
from nestnet.models import create_model
from nestnet.nested import NestedModel
from nestnet.sealed import sealed
from nestnet.tensorboard import Board

STEP_COLUMNS = ("step", "epoch", "mode", "loss", "lr")
METRIC_COLUMNS = (
    "epoch",
    "train_loss",
    "base_top1",
    "motivated_top1",
    "motivated_fraction",
    "average_cost",
    "skipped_steps",
    "images_per_second",
    "data_wait",
    "seconds",
)


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
        self.closing = ExitStack()
        try:
            self.closing.callback(Lock(path, "train").close)
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
        try:
            path.mkdir(parents=True, exist_ok=True)
            if (path / "config.yaml").exists():
                command = f"nestnet resume {for_shell(path)}"
                raise ValueError(
                    f"run_dir = {quoted(path)}: a run is there, and `{command}` goes on with it; name another folder"
                )
            if any(other.name != ".lock" and not _is_unfinished(other) for other in path.iterdir()):
                raise ValueError(f"run_dir = {quoted(path)}: it is not empty; name another folder, or remove this one")
        except OSError as error:
            raise ValueError(f"run_dir = {quoted(path)}: it cannot be made: {error.strerror}") from error
        return cls(path)

    def begin(self, config: Config, steps: int, epochs: int) -> None:
        """Go on after so many batches and whole epochs: what was written after them is taken away.

        Raises:
            ValueError: if what was written before them is not there.
        """
        tables = [(STEP_COLUMNS, "steps.csv", steps), (METRIC_COLUMNS, "metrics.csv", epochs)]
        ends = [_end_of_row(self.path / name, columns, rows) for columns, name, rows in tables]
        for other in self.path.iterdir():
            if _is_unfinished(other):
                other.unlink()
        configuration.dump(config, self.path / "config.yaml")
        self.steps, self.metrics = (
            Table(self.path / name, columns, end) for (columns, name, _), end in zip(tables, ends, strict=True)
        )
        if config.tensorboard:
            self.board = Board(self.path / "tensorboard", after=steps)
            self.closing.callback(self.board.close)
        self.closing.callback(self.steps.close)
        self.closing.callback(self.metrics.close)

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
        self.steps.sync()
        self.metrics.sync()
        self.checkpoints.save(state)

    def save_cost(self, summary: dict[str, Any]) -> None:
        write_atomically(self.path / "cost.json", json.dumps(summary, indent=1) + "\n")

    def save_snapshot(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """`snapshots/step-000390.safetensors`: named tensors as they are after a step."""
        folder = self.path / "snapshots"
        folder.mkdir(exist_ok=True)
        write_atomically(folder / f"step-{step:06}.safetensors", sealed(tensors, {}))

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(self, *error: object) -> None:
        self.closing.close()


class Elsewhere:
    """In place of a run's folder in processes other than the first, which alone writes."""

    path = Path()

    def begin(self, config: Config, steps: int, epochs: int) -> None: ...
    def add_step(self, row: Mapping[str, Any]) -> None: ...
    def add_epoch(self, row: Mapping[str, Any], steps: int) -> None: ...
    def save_checkpoint(self, state: State) -> None: ...
    def save_cost(self, summary: dict[str, Any]) -> None: ...
    def save_snapshot(self, step: int, tensors: Mapping[str, Tensor]) -> None: ...

    def __enter__(self) -> "Elsewhere":
        return self

    def __exit__(self, *error: object) -> None: ...


class Table:
    """A CSV file that gains a row at a time; each row is on its way to the disk when the next is written.

    Args:
        end: bytes of it that are kept; 0 for a new one.
    """

    def __init__(self, path: Path, columns: tuple[str, ...], end: int = 0) -> None:
        self.file: IO[str] = path.open("a", newline="", buffering=1)
        self.file.truncate(end)
        self.writer = csv.DictWriter(self.file, columns, lineterminator="\n")
        if end == 0:
            self.writer.writeheader()

    def add(self, row: Mapping[str, Any]) -> None:
        self.writer.writerow(row)

    def sync(self) -> None:
        """See that all rows are on the disk."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def close(self) -> None:
        self.file.close()


def _end_of_row(path: Path, columns: tuple[str, ...], rows: int) -> int:
    """How many bytes a table has up to its row of this number, counted from 1."""
    if rows == 0:
        return 0
    try:
        lines = path.read_bytes().splitlines(keepends=True)[: rows + 1]
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}; a run cannot go on without it") from error
    wanted = [columns[0], *map(str, range(1, rows + 1))]
    if [line.partition(b",")[0] for line in lines] != [first.encode() for first in wanted] or lines[-1][-1:] != b"\n":
        raise ValueError(f"{path} is damaged: it does not have the rows 1 to {rows}, after which the run would go on")
    return sum(map(len, lines))


def _is_unfinished(path: Path) -> bool:
    """Whether this is what a write that was interrupted left."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


@dataclass
class Run:
    """A trained run, read from its folder."""

    path: Path
    config: Config
    net: NestedModel
    checkpoint: State


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
    net, tensors = network(config), checkpoint["average"] or checkpoint["net"]
    try:
        check_tensors("net", tensors, net.state_dict())
    except ValueError as error:
        raise ValueError(f"{checkpoints.last}: {error}") from error
    net.load_state_dict(tensors)
    return Run(path, config, net, checkpoint)


def read_config(run_dir: Path) -> Config:
    """The configuration of a run, as its folder has it.

    Raises:
        ValueError: if the folder is no run, or the file cannot be read.
    """
    path = run_dir / "config.yaml"
    if not path.is_file():
        raise ValueError(f"{run_dir} is no run directory: it has no config.yaml")
    return configuration.load(path)


def network(config: Config) -> NestedModel:
    """The nested network of a resolved configuration, newly initialised."""
    model = config.model
    options = {
        name: value for name, value in vars(model).items() if value is not None and not name.endswith("_weights")
    }
    base, motivated = options.pop("base"), options.pop("motivated")
    if motivated.startswith("vit"):
        options["img_size"] = config.data.img_size
    return create_model(base, motivated, **options)


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of one of a run's CSV files."""
    if not path.is_file():
        raise ValueError(f"{path.parent} is no run directory: it has no {path.name}")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _unused(stem: Path) -> Path:
    """`stem`, or `stem-2`, `stem-3` ... if there is one already."""
    number, path = 1, stem
    while path.exists():
        number += 1
        path = stem.with_name(f"{stem.name}-{number}")
    return path
