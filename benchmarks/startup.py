"""The time until nestnet is imported, and until a command has answered a question or reported a mistake.

    python benchmarks/startup.py [--rounds 10]

Each command runs as a process of its own, and all commands run in turn, so that other load on the machine affects all
equally. The program measures the CPU seconds of the process (user and system) and its duration. For comparison it
measures the interpreter alone, the lower limit of every command, and the import of torch, timm and all of nestnet,
which each command would take if it imported them first.

Writes a table, and the raw samples in benchmarks/results/startup-cpu.json.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import quantiles
from typing import Any

import torch
from common import show, spread, write

PYTHON = {
    "python -c pass": "pass",
    "import nestnet": "import nestnet",
    "import nestnet, every public name": "from nestnet import *",
    "import timm": "import timm",
}
"""Programs by the name that the table gives them."""

COMMANDS = (
    "--help",
    "--version",
    "train --help",
    "evaluate --help",
    "tune-k --help",
    "train --epoch 3",
    "cost --data.rot images",
    "evaluate run --mod base",
    "resume run --epoch 3",
)
"""What follows `nestnet`: questions and mistakes."""

WARM_UP = 1
"""Number of rounds before those that are measured, which fill the caches."""


def command_lines() -> dict[str, list[str]]:
    """Return the arguments of Python for each command, by the command's name."""
    lines = {name: ["-c", code] for name, code in PYTHON.items()}
    for command in COMMANDS:
        lines[f"nestnet {command}"] = ["-m", "nestnet", *command.split()]
    return lines


def run(arguments: list[str]) -> tuple[float, float]:
    """Run Python, and return the CPU seconds and the seconds that it took.

    Raises:
        RuntimeError: If it ended with a traceback instead of an answer.
    """
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    error = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    taken = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode not in (0, 2) or "Traceback" in error:
        raise RuntimeError(f"{' '.join(arguments)} ended with {process.returncode}: {error}")
    return usage.ru_utime + usage.ru_stime, taken


def measure(rounds: int) -> list[dict[str, Any]]:
    """Return the samples of each command, without those of the rounds that fill the caches."""
    lines = command_lines()
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in lines}
    for round_number in range(-WARM_UP, rounds):
        for name, arguments in lines.items():
            sample = run(arguments)
            if round_number >= 0:
                samples[name].append(sample)
    results = []
    for name, pairs in samples.items():
        cpu_seconds = [pair[0] for pair in pairs]
        seconds = [pair[1] for pair in pairs]
        results.append({"command": name, "cpu_seconds": cpu_seconds, "seconds": seconds})
    return results


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Return the median, and the first and third quartiles."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return middle, low, high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="measurements of each command (10)")
    parser.add_argument("--output", type=Path, help="the result file")
    options = parser.parse_args()
    results = measure(options.rounds)
    rows = []
    for result in results:
        cpu_seconds = spread(quartiles(result["cpu_seconds"]))
        rows.append([result["command"], cpu_seconds, spread(quartiles(result["seconds"]))])
    show(f"Median and quartiles of {options.rounds} runs", ["command", "CPU seconds", "seconds"], rows)
    path = write("startup", {"rounds": options.rounds, "results": results}, options.output, torch.device("cpu"))
    print(f"\nwritten to {path}")


if __name__ == "__main__":
    main()
