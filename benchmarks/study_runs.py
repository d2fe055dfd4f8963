"""The runs of a study: each is one `nestnet train` in a folder of its own, with a record of the versions that trained it."""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import timm
import torch

import nestnet
from nestnet import Mode
from nestnet.config.parsing import parse
from nestnet.config.schema import Config, dotted
from nestnet.config.validation import validate
from nestnet.storage.atomic import write_atomically
from nestnet.storage.lock import Lock

ROOT = Path(__file__).parent.parent

CONFIG = ROOT / "configs" / "cifar10_folder_resnet20_32.yaml"

RECIPE = ("--channels_last", "true", "--model.zero_init_last", "false")
"""Settings of all runs that are not in the configuration file.

Residual branches that start at zero, timm's default for ResNets, hold back such small networks in short runs, and blocks
that join late hardly begin to learn: the ways `*_zero_start` show by how much.
"""

NESTNET = [sys.executable, "-m", "nestnet"]
"""Command of each run's process."""


@dataclass(frozen=True)
class Way:
    """Way of training the two networks.

    Attributes:
        name: name in the folders of runs and in the results.
        title: description for tables and figures.
        overrides: arguments of `nestnet train` that make it this way.
        networks: networks that it trains; the other one keeps its initial weights where only one is trained.
    """

    name: str
    title: str
    overrides: tuple[str, ...]
    networks: tuple[Mode, ...] = tuple(Mode)


@dataclass(frozen=True)
class StudyRun:
    """Run of a way, for a number of epochs, with a seed.

    Attributes:
        way: way of training.
        epochs: number of epochs.
        seed: seed of initial weights and data order.
        folder: folder of the runs of this pair of networks.
    """

    way: Way
    epochs: int
    seed: int
    folder: Path

    @property
    def key(self) -> tuple[str, int, int]:
        """Way, epochs and seed, which a run is known by in the results."""
        return self.way.name, self.epochs, self.seed

    @property
    def path(self) -> Path:
        """Run directory."""
        return self.folder / f"{self.way.name}-{self.epochs}epochs-seed{self.seed}"

    @property
    def log(self) -> Path:
        """What its processes printed, one after the other."""
        return self.path.with_name(f"{self.path.name}.log")

    @property
    def sessions(self) -> Path:
        """Command and versions of each of its processes."""
        return self.path.with_name(f"{self.path.name}.json")

    @property
    def is_finished(self) -> bool:
        return (self.path / "motivated.safetensors").is_file()

    @property
    def is_started(self) -> bool:
        # A run that was killed before this file was written has nothing to resume.
        return (self.path / "config.yaml").is_file()

    @property
    def is_held(self) -> bool:
        """Whether another process trains it at present."""
        if not self.path.is_dir():
            return False
        try:
            lock = Lock(self.path, "train")
        except ValueError:
            return True
        lock.close()
        return False

    def __str__(self) -> str:
        return f"{self.way.name}, {self.epochs} epochs, seed {self.seed}"


@dataclass(frozen=True)
class Training:
    """What all runs of a study have in common.

    Attributes:
        base: timm's name of the base.
        motivated: timm's name of the motivated network.
        root: folder of the images.
        device: device that the runs train on.
        precision: value of the field `precision`.
        overrides: further arguments of `nestnet train`.
    """

    base: str
    motivated: str
    root: Path
    device: str
    precision: str
    overrides: tuple[str, ...] = ()

    def command(self, run: StudyRun) -> list[str]:
        """Return the command that starts a run, or resumes it."""
        if run.is_started:
            return [*NESTNET, "resume", str(run.path)]
        return [*NESTNET, "train", *self.arguments(run)]

    def arguments(self, run: StudyRun) -> list[str]:
        """Return the arguments of `nestnet train` for a run."""
        arguments = ["--config", str(CONFIG), "--model.base", self.base, "--model.motivated", self.motivated]
        arguments += ["--data.root", str(self.root), "--epochs", str(run.epochs), "--seed", str(run.seed)]
        arguments += ["--run_dir", str(run.path), "--device", self.device, "--precision", self.precision]
        # A later argument takes precedence over an earlier one.
        return [*arguments, *RECIPE, *self.overrides_of(run.way)]

    def overrides_of(self, way: Way) -> list[str]:
        """Return the arguments of a way, and those of this study."""
        return [*way.overrides, *self.overrides]

    def check(self, run: StudyRun) -> None:
        """Check the configuration of a run before anything is trained.

        Raises:
            ValueError: If an argument is unknown, or a value is refused.
        """
        validate(parse(self.arguments(run)))

    def check_config(self, run: StudyRun, found: Config) -> None:
        """Check that a configuration is that of a run.

        Args:
            run: run of the study.
            found: configuration in its folder, in which the trainer has replaced some null and automatic values.

        Raises:
            ValueError: If another value differs.
        """
        recorded = dotted(asdict(found))
        for name, value in dotted(asdict(parse(self.arguments(run)))).items():
            # The folder may have been moved since.
            if name == "run_dir" or value in (None, "auto"):
                continue
            if recorded[name] != value:
                raise ValueError(
                    f"{run.path} has another run: {name} = {recorded[name]!r} in place of {value!r}; move it away"
                )


def note_session(run: StudyRun, command: list[str]) -> None:
    """Add a process of a run to the record of them beside its folder."""
    session = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "command": " ".join(command[len(NESTNET) :]),
        "commit": read_commit(),
        "nestnet": nestnet.__version__,
        "torch": torch.__version__,
        "timm": timm.__version__,
    }
    write_atomically(run.sessions, json.dumps([*read_sessions(run), session], indent=1) + "\n")


def read_sessions(run: StudyRun) -> list[dict[str, str]]:
    """Return command and versions of each process of a run; an empty list if it was started by hand."""
    if not run.sessions.is_file():
        return []
    return json.loads(run.sessions.read_text())


def read_commit() -> str:
    """Return the commit of this repository, with `-dirty` if what trains differs from it; empty outside of one."""
    git = ["git", "-C", str(ROOT)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        # The result file itself changes with every run, and is left out.
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "nestnet", "configs"], check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    name = commit.stdout.strip()
    if changed.returncode:
        name += "-dirty"
    return name
