"""Runs that are killed with SIGKILL at random and chosen times, resumed, and compared with an uninterrupted run.

    python benchmarks/kills.py [--kills 25] [--seed 0] [--case resnet vit]

Trains on the digits, with Mixup, a moving average of the weights, dropout, and two processes that read images. Each
kill ends the whole process group: at a random time; within the n-th write, sync or rename of a file; just after a
change of mode; or at the end of an epoch, between its row and its checkpoint. `nestnet resume` then resumes the run,
and is sometimes killed too. In the end the last checkpoint with weights, optimizer state and everything else,
`steps.csv`, `cost.json` and both exports must equal those of the uninterrupted run byte for byte, and so must
`metrics.csv` except for its timings.

Prints a table, and writes benchmarks/results/kills-cpu.json. It takes a quarter of an hour on two cores, and exits
with 1 if any run differs.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import show, write

from nestnet.runs.checkpoint_file import write_checkpoint
from nestnet.runs.checkpoints import Checkpoints
from nestnet.runs.reading import read_table

COMMON = "--epochs 3 --data.batch_size 128 --data.loader files --data.workers 2 --data.mixup 0.2 --ema_decay 0.9"
CASES = {
    "resnet": f"{COMMON} --motivation.k 1 --model.base resnet20 --model.motivated resnet32 "
    "--model.drop_rate 0.1 --checkpoint_steps 4",
    "vit": f"{COMMON} --motivation.k 1 --model.base vit_tiny_patch16_224 --model.motivated vit_small_patch16_224 "
    "--data.img_size 16 --optimizer.lr 0.01 --model.drop_path_rate 0.1 --checkpoint_steps 8",
}
TIMINGS = {"images_per_second", "data_wait", "seconds"}

STEPS = 33
"""Number of steps of a complete run."""

EVENTS = {"write": 30, "fsync": 30, "rename": 12, "switch": 8, "edge": 3}
"""Events at which a run can be killed, besides a random time, each with its largest occurrence."""


def child(event: str, number: int, arguments: list[str]) -> None:
    """Train or resume, and end with SIGKILL at a given occurrence of an event."""
    from nestnet.cli import main as cli
    from nestnet.runs.directory import RunDirectory
    from nestnet.storage import atomic

    seen, last = 0, ""

    def occurs() -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            os.killpg(0, signal.SIGKILL)

    def before(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def wrapped(*arguments: Any) -> Any:
            if name == "write" and seen + 1 == number:  # half of the data is still written
                original(arguments[0], bytes(arguments[1][: len(arguments[1]) // 2]))
            occurs()
            return original(*arguments)

        setattr(owner, name, wrapped)

    if event == "switch":
        add = RunDirectory.add_step

        def add_step(self: RunDirectory, row: Any) -> None:
            nonlocal last
            add(self, row)
            if last and row["mode"] != last:
                occurs()
            last = row["mode"]

        RunDirectory.add_step = add_step  # type: ignore[method-assign]  # only in this process, which is killed
    elif event == "edge":
        before(RunDirectory, "save_cost")
    elif event in ("write", "fsync", "rename"):
        before(atomic.os, "replace" if event == "rename" else event)
    sys.exit(cli.main(arguments))


@dataclass(frozen=True)
class Instant:
    """Time that is given as seconds after a run's table has reached a number of rows."""

    path: Path
    rows: int
    seconds: float

    def wait(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait for the time, and return whether the process is still running."""
        while process.poll() is None:
            if count_rows(self.path) >= self.rows:
                time.sleep(self.seconds)
                return process.poll() is None
            time.sleep(0.01)
        return False


def count_rows(path: Path) -> int:
    """Return the present number of rows of a run's steps.csv."""
    table = path / "steps.csv"
    return len(table.read_bytes().splitlines()) - 1 if table.exists() else -1


def run(arguments: list[str], event: str = "", number: int = 0, at: Instant | None = None) -> bool:
    """Train or resume in a separate process group, and return whether the run was finished."""
    command = [sys.executable, __file__, "--child", event or "none", str(number), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, env=environment) as process:
        if at is not None and at.wait(process):
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
    if code not in (0, -signal.SIGKILL):
        raise SystemExit(f"{' '.join(arguments)}: exit code {code}")
    return code == 0


def content(path: Path, scratch: Path) -> dict[str, Any]:
    """Return the contents that must be identical."""
    last = Checkpoints(path / "checkpoints").newest()
    assert last is not None
    last["epoch"] = {name: value for name, value in last["epoch"].items() if name not in ("waited", "seconds")}
    del last["config"]["run_dir"]
    write_checkpoint(scratch, last)
    epochs = [
        {name: value for name, value in row.items() if name not in TIMINGS} for row in read_table(path / "metrics.csv")
    ]
    files = ("steps.csv", "cost.json", "base.safetensors", "motivated.safetensors")
    return {
        "last checkpoint": scratch.read_bytes(),
        "metrics.csv": epochs,
        **{n: (path / n).read_bytes() for n in files},
    }


def kill_and_resume(case: str, path: Path, draw: random.Random, event: str) -> dict[str, Any]:
    """Kill a run, and resume it; every third time the resumed run is killed too."""
    train = ["train", *CASES[case].split(), "--run_dir", str(path)]
    number = draw.randint(1, EVENTS.get(event, 1))
    instants = [Instant(path, row, draw.uniform(0, 0.5)) for row in sorted(draw.sample(range(STEPS), 2))]
    kills = int(not run(train, event, number, instants[0] if event == "random" else None))
    at = [count_rows(path)]
    if kills and draw.random() < 1 / 3 and (path / "config.yaml").exists():
        kills += not run(["resume", str(path)], at=instants[1])
        at.append(count_rows(path))
    run(["resume", str(path)] if (path / "config.yaml").exists() else train)
    return {"case": case, "event": event, "number": number, "kills": kills, "rows_at_kills": at[:kills]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=25, help="number of runs that are killed, over all cases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--output", type=Path, help="the result file")
    options = parser.parse_args()
    draw, results = random.Random(options.seed), []
    with tempfile.TemporaryDirectory() as folder:
        scratch, wanted, seconds = Path(folder) / "state", {}, {}
        for case in options.case:
            started, path = time.perf_counter(), Path(folder) / case
            run(["train", *CASES[case].split(), "--run_dir", str(path)])
            seconds[case], wanted[case] = time.perf_counter() - started, content(path, scratch)
            print(f"{case}: {seconds[case]:.0f} s uninterrupted", flush=True)
        events = [event for event in EVENTS for _ in range(2)]
        events += ["random"] * max(options.kills - len(events), 0)
        for index, event in enumerate(events[: options.kills]):
            case = options.case[index % len(options.case)]
            path = Path(folder) / f"{case}-{index}"
            result = kill_and_resume(case, path, draw, event)
            found = content(path, scratch)
            result["differs"] = [name for name in found if found[name] != wanted[case][name]]
            results.append(result)
            print(f"{index + 1}: {result}", flush=True)
            subprocess.run(["rm", "-rf", str(path)], check=True)
    lines = []
    for case in options.case:
        for event in (*EVENTS, "random"):
            of = [result for result in results if (result["case"], result["event"]) == (case, event)]
            if of:
                same = sum(not result["differs"] for result in of)
                lines.append(
                    [case, event, str(len(of)), str(sum(result["kills"] for result in of)), f"{same} of {len(of)}"]
                )
    show("killed and resumed", ["run", "killed at", "runs", "kills", "identical"], lines)
    print(write("kills", {"cases": CASES, "seconds": seconds, "results": results}, options.output, torch.device("cpu")))
    if any(result["differs"] for result in results):
        raise SystemExit(1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], int(sys.argv[3]), sys.argv[4:])
    main()
