"""Programs that run one after another in a limited time, with a record of the outcome of each."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from common import write

from nestnet.text.messages import last_line

ROOT = Path(__file__).parent.parent

LAST_WORDS = 8.0
"""Seconds that a program has to end after the signal to stop."""

LONGEST_LOG = 60_000
"""Number of characters at the end of a part's output that gpu.json keeps."""


@dataclass(frozen=True)
class Part:
    """Program that runs as one part of a session.

    Attributes:
        name: name of the part; its result file is NAME.json in the output folder.
        command: arguments of Python, without the output file.
        seconds: time limit in seconds, after which the part is stopped.
        least: smallest remaining time in seconds with which the part is started.
        has_result: whether the program takes a device and the path of a result file.
        environment: additional environment variables.
    """

    name: str
    command: list[str]
    seconds: float
    least: float = 5.0
    has_result: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Outcome:
    """Outcome of a part.

    Attributes:
        status: `"done"`, `"failed"`, `"stopped"` or `"skipped"`.
        reason: reason why it is not done.
        seconds: duration in seconds.
        log: end of its output.
    """

    status: str
    reason: str = ""
    seconds: float = 0.0
    log: str = ""


class Session:
    """Session that runs the parts, and records their outcomes in gpu.json.

    Args:
        output: folder of the result files.
        device: device that the parts run on.
        seconds: time limit in seconds for all parts together.
    """

    def __init__(self, output: Path, device: torch.device, seconds: float) -> None:
        self.output = output
        self.device = device
        self.begun = time.monotonic()
        self.deadline = self.begun + seconds
        self.ended: dict[str, Outcome] = {}
        self.driver = read_driver_version()

    @property
    def left(self) -> float:
        """Remaining time in seconds."""
        return self.deadline - time.monotonic()

    def run(self, part: Part, *, reserve: float = 0.0) -> None:
        """Run a part within its time limit, and record its outcome.

        Args:
            part: part to run.
            reserve: seconds that must remain afterwards.
        """
        limit = min(part.seconds, self.left - reserve)
        if limit < part.least:
            self.skip(part.name, f"it takes {part.least:.0f} s, and {max(limit, 0):.0f} s were left")
            return
        print(f"{part.name} (at most {limit:.0f} s) ...", flush=True)
        # gpu.json says this if the program is killed now
        self.ended[part.name] = Outcome("stopped", "the program was ended during it")
        self.save()
        begun = time.monotonic()
        command = [sys.executable, *part.command]
        if part.has_result:
            command += ["--device", str(self.device), "--output", str(self.result(part.name))]
        with tempfile.TemporaryFile("w+", errors="replace") as log:
            code = run_command(command, log, limit, part.environment)
            log.seek(0)
            printed = without_paths(log.read(), self.output)
        ended = Outcome("done", seconds=round(time.monotonic() - begun, 1), log=printed[-LONGEST_LOG:])
        if code is None:
            ended.status = "stopped"
            ended.reason = f"after {limit:.0f} s"
        elif code:
            ended.status = "failed"
            ended.reason = last_line(printed)[:300] or f"exit code {code}"
        self.note(part.name, ended)

    def skip(self, name: str, reason: str) -> None:
        self.note(name, Outcome("skipped", reason))

    def note(self, name: str, ended: Outcome) -> None:
        self.ended[name] = ended
        self.save()
        print(f"{name}: {ended.status}{', ' if ended.reason else ''}{ended.reason} ({ended.seconds:.0f} s)", flush=True)

    def result(self, name: str) -> Path:
        return self.output / f"{name}.json"

    def save(self) -> None:
        content = {
            "driver": self.driver,
            "seconds": round(time.monotonic() - self.begun, 1),
            "parts": {name: asdict(ended) for name, ended in self.ended.items()},
        }
        write("gpu", content, self.output / "gpu.json", self.device)


def run_command(command: list[str], log: Any, seconds: float, environment: Mapping[str, str]) -> int | None:
    """Run a command, and return its exit code, or `None` if it was stopped with all the processes that it started."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **environment, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # on this signal pytest reports the failures so far
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LAST_WORDS)
        return None
    finally:  # also for processes that an ended program has left running, and when this program is interrupted
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def without_paths(printed: str, output: Path) -> str:
    """Return the output of a part without the folders of this machine, so that it can be published."""
    for folder, name in ((output, "OUTPUT"), (ROOT, "."), (Path(sys.prefix), "PREFIX"), (Path.home(), "~")):
        printed = printed.replace(str(folder), name)
    return printed


def read_driver_version() -> str | None:
    """Return the version of the GPU's driver, if its tool is installed."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
