"""What a run leaves on disk, and how it is read again.

config.yaml               the resolved configuration
steps.csv                 a row a batch: step, epoch, mode, loss, lr
metrics.csv               a row an epoch
cost.json                 the forward cost of both networks, expected and actual, after the last epoch
checkpoint.pt             network, optimizer, schedule and condition after the last epoch
snapshots/                the base's weights every `snapshot_steps` batches, where the configuration asks for them
base.safetensors          the two subnets, as timm loads them, at the end
motivated.safetensors
"""

import csv
import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from nestnet import config as configuration
from nestnet.config import Config
from nestnet.models import create_model
from nestnet.nested import NestedModel

STEP_COLUMNS = ("step", "epoch", "mode", "loss", "lr")
METRIC_COLUMNS = (
    "epoch",
    "train_loss",
    "base_top1",
    "motivated_top1",
    "motivated_fraction",
    "average_cost",
    "images_per_second",
    "data_wait",
    "seconds",
)


class RunDirectory:
    """The folder of a run that is being trained.

    Args:
        config: its `run_dir` is made; a new folder below `runs/` where it names none.

    Raises:
        ValueError: if that folder holds anything: an earlier run is never written over.
    """

    def __init__(self, config: Config) -> None:
        name = f"{config.model.base}-{config.model.motivated}-{config.data.name}"
        self.path = Path(config.run_dir) if config.run_dir else _unused(Path("runs") / name)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if any(self.path.iterdir()):
                raise ValueError(
                    f"run_dir = {str(self.path)!r}: it is not empty; name another folder, or remove this one"
                )
        except OSError as error:
            raise ValueError(f"run_dir = {str(self.path)!r}: it cannot be made: {error.strerror}") from error
        self.steps = _Table(self.path / "steps.csv", STEP_COLUMNS)
        self.metrics = _Table(self.path / "metrics.csv", METRIC_COLUMNS)

    def save_config(self, config: Config) -> None:
        configuration.dump(config, self.path / "config.yaml")

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Written beside the last one and then renamed, so that there is always a whole one."""
        unfinished = self.path / "checkpoint.pt.tmp"
        torch.save(state, unfinished)
        unfinished.replace(self.path / "checkpoint.pt")

    def save_cost(self, summary: dict[str, Any]) -> None:
        (self.path / "cost.json").write_text(json.dumps(summary, indent=1) + "\n")

    def save_snapshot(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """`snapshots/step-000390.safetensors`: named tensors as they are after a step."""
        folder = self.path / "snapshots"
        folder.mkdir(exist_ok=True)
        copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        save_file(copies, folder / f"step-{step:06}.safetensors")

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(self, *error: object) -> None:
        self.steps.close()
        self.metrics.close()


class Elsewhere:
    """In place of a run's folder in processes other than the first, which alone writes."""

    path = Path()

    def __init__(self) -> None:
        self.steps = self.metrics = self

    def add(self, **row: Any) -> None: ...
    def save_config(self, config: Config) -> None: ...
    def save_checkpoint(self, state: dict[str, Any]) -> None: ...
    def save_cost(self, summary: dict[str, Any]) -> None: ...
    def save_snapshot(self, step: int, tensors: Mapping[str, Tensor]) -> None: ...

    def __enter__(self) -> "Elsewhere":
        return self

    def __exit__(self, *error: object) -> None: ...


class _Table:
    """A CSV file that gains a row at a time; each row is on disk when the next is written."""

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self.file: IO[str] = path.open("w", newline="", buffering=1)
        self.writer = csv.DictWriter(self.file, columns, lineterminator="\n")
        self.writer.writeheader()

    def add(self, **row: Any) -> None:
        self.writer.writerow(row)

    def close(self) -> None:
        self.file.close()


@dataclass
class Run:
    """A trained run, read from its folder."""

    path: Path
    config: Config
    net: NestedModel
    checkpoint: dict[str, Any]


def read_run(path: str | os.PathLike[str]) -> Run:
    """The network of a run after its last finished epoch, and all that was stored with it.

    Raises:
        ValueError: if the folder is no run, or its checkpoint is absent, damaged or of other networks.
    """
    path = Path(path)
    if not (path / "config.yaml").is_file():
        raise ValueError(f"{path} is no run directory: it has no config.yaml")
    config = configuration.load(path / "config.yaml")
    if not (path / "checkpoint.pt").is_file():
        raise ValueError(f"{path} has no checkpoint.pt: its first epoch was not finished")
    try:
        checkpoint = torch.load(path / "checkpoint.pt", map_location="cpu", weights_only=True)
        net = network(config)
        net.load_state_dict(checkpoint["average"] or checkpoint["net"])
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{path / 'checkpoint.pt'} is damaged, or not of this run's networks: {reason}") from error
    return Run(path, config, net, checkpoint)


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
