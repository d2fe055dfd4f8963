"""Programs that are run one after another in a limited time, with a note of what became of each."""

import contextlib
import os
import re
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

ROOT = Path(__file__).parent.parent

LAST_WORDS = 8.0
"""Seconds that a program has to end after it is asked to."""

LONGEST_LOG = 60_000
"""Characters of a part's output that gpu.json keeps, from its end."""


@dataclass(frozen=True)
class Part:
    """A program that is run for itself.

    Attributes:
        name: of the part; its result file is NAME.json in the output folder.
        command: arguments of Python, without the output file.
        seconds: after which it is stopped.
        least: seconds without which it is not begun.
        has_result: whether it takes a device and the path of a result file.
        environment: variables that it gets besides.
    """

    name: str
    command: list[str]
    seconds: float
    least: float = 5.0
    has_result: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Ended:
    """What became of a part.

    Attributes:
        status: `"done"`, `"failed"`, `"stopped"` or `"skipped"`.
        reason: why it is not done.
        seconds: that it took.
        log: end of what it printed.
    """

    status: str
    reason: str = ""
    seconds: float = 0.0
    log: str = ""


class Session:
    """Runs the parts, and keeps gpu.json.

    Args:
        output: folder of the result files.
        device: that the parts run on.
        seconds: for all of them together.
    """

    def __init__(self, output: Path, device: torch.device, seconds: float) -> None:
        self.output = output
        self.device = device
        self.begun = time.monotonic()
        self.deadline = self.begun + seconds
        self.ended: dict[str, Ended] = {}
        self.driver = driver()

    @property
    def left(self) -> float:
        """Seconds until the time is over."""
        return self.deadline - time.monotonic()

    def run(self, part: Part, *, reserve: float = 0.0) -> None:
        """Run a part for as long as it may, and note what became of it.

        Args:
            part: that is run.
            reserve: seconds that it must leave.
        """
        limit = min(part.seconds, self.left - reserve)
        if limit < part.least:
            self.skip(part.name, f"it takes {part.least:.0f} s, and {max(limit, 0):.0f} s were left")
            return
        print(f"{part.name} (at most {limit:.0f} s) ...", flush=True)
        # what gpu.json says if this program is killed now
        self.ended[part.name] = Ended("stopped", "the program was ended during it")
        self.save()
        begun = time.monotonic()
        command = [sys.executable, *part.command]
        if part.has_result:
            command += ["--device", str(self.device), "--output", str(self.result(part.name))]
        with tempfile.TemporaryFile("w+", errors="replace") as log:
            code = finished(command, log, limit, part.environment)
            log.seek(0)
            printed = log.read()
        ended = Ended("done", seconds=round(time.monotonic() - begun, 1), log=printed[-LONGEST_LOG:])
        if code is None:
            ended.status = "stopped"
            ended.reason = f"after {limit:.0f} s"
        elif code:
            ended.status = "failed"
            ended.reason = last_words(printed) or f"exit code {code}"
        self.note(part.name, ended)

    def skip(self, name: str, reason: str) -> None:
        self.note(name, Ended("skipped", reason))

    def note(self, name: str, ended: Ended) -> None:
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


def finished(command: list[str], log: Any, seconds: float, environment: Mapping[str, str]) -> int | None:
    """Run a command with all the processes that it starts; its exit code, or `None` where it was stopped."""
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
        process.send_signal(signal.SIGINT)  # upon which pytest tells what failed until now
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LAST_WORDS)
        return None
    finally:  # also of what a program that ended has left running, and when this one is interrupted
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def last_words(printed: str) -> str:
    """The last line of a program that says something."""
    lines = [line.strip() for line in printed.splitlines() if re.search(r"\w", line)]
    return lines[-1][:300] if lines else ""


def driver() -> str | None:
    """The version of the GPU's driver, where its tool is there."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
