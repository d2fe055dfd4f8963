"""Motivation against the obvious alternatives on CIFAR-10: ResNet-20, ResNet-32, and both in one.

    python benchmarks/cifar10.py --root FOLDER [--epochs 10] [--images 20000] [--seeds 0 1 2] [--jobs 2] [--runs DIR]

FOLDER holds your copy of CIFAR-10 as images: train/<class>/*.jpg (or png) and test/<class>/*. `--images` limits the
number of training images, equally for each class, if all would take too long; all test images are always used.

Every method is one `nestnet train` with the same recipe, data order and initial weights: classical ResNet-20 and
ResNet-32, motivated (k = 2) with private and with shared BatchNorm statistics, the paper's Experiment A (random
batches), and both networks at every batch. Afterwards each trained subnet is evaluated as it is and, unless
`--recalibration-batches` is 0, with its BatchNorm statistics recalibrated on training batches.

`--jobs` runs train in parallel, on equal shares of the cores, all methods of a seed before those of the next. Finished
runs are not repeated, so the program can be stopped, and called again for more seeds. After `--seconds` unfinished
runs are stopped. The result file is rewritten every few seconds, with the epochs that are finished. Further arguments
go to `nestnet train`, such as `--precision bfloat16` (with a separate `--runs` folder). On a GPU the paper's schedule
is `--device cuda --epochs 200 --seeds 0 1 2 --jobs 6`.

The reported cost is that of an average forward pass in training, in the paper's convention.
"""

import argparse
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import show, write

from nestnet import Mode, recalibrate
from nestnet.cost.network import forward_cost
from nestnet.data.image_data import load_data
from nestnet.data.loaders import create_eval_loader, create_train_loader
from nestnet.device import DeviceContext, choose_device
from nestnet.runs.reading import read_config, read_run, read_table
from nestnet.training.evaluation import recalibration_images, top1

EVERY = 5.0
"""Seconds between two writes of the result file while runs train."""

CONFIG = Path(__file__).parent.parent / "configs" / "cifar10_folder_resnet20_32.yaml"


@dataclass(frozen=True)
class Method:
    """Method of training, and the subnets that it trains."""

    name: str
    title: str
    overrides: tuple[str, ...]
    modes: tuple[Mode, ...] = tuple(Mode)


METHODS = (  # the longest first, so that jobs end at about the same time
    Method("both", "both at every batch", ("--motivation.name", "always", "--motivation.trains", "both")),
    Method("resnet32", "ResNet-32 alone", ("--motivation.name", "always"), (Mode.MOTIVATED,)),
    Method("experiment_a", "Experiment A", ("--motivation.name", "random")),
    Method("private", "motivated, private statistics", ()),
    Method("shared", "motivated, shared statistics", ("--model.batch_norm", "shared")),
    Method("resnet20", "ResNet-20 alone", ("--motivation.name", "never"), (Mode.BASE,)),
)


@dataclass(frozen=True)
class Job:
    """Run of a method with a seed, in its own folder."""

    way: Method
    seed: int
    path: Path

    @property
    def finished(self) -> bool:
        return (self.path / "motivated.safetensors").is_file()


def train(job: Job, options: argparse.Namespace) -> None:
    """Train a run in a separate process, unless it is finished already, until it ends or the time is over."""
    left = options.deadline - time.monotonic()
    if job.finished or left <= 0:
        return
    shutil.rmtree(job.path, ignore_errors=True)
    command = [sys.executable, "-m", "nestnet", "train", "--config", str(CONFIG)]
    command += ["--data.root", str(options.root), "--epochs", str(options.epochs), "--seed", str(job.seed)]
    command += ["--run_dir", str(job.path), "--device", str(options.device), "--channels_last", "true"]
    command += [*job.way.overrides, *options.overrides]
    threads = str(max(1, (os.cpu_count() or 1) // options.jobs))
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    print(f"training {job.path}", flush=True)
    limit = None if math.isinf(left) else left
    try:
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, timeout=limit)
    except subprocess.TimeoutExpired:
        print(f"stopped {job.path}: the time is over", flush=True)


def part(root: Path, images: int, folder: Path) -> Path:
    """Create a folder of links to the first `images` training images, equally for each class, and to all test images."""
    classes = sorted(path for path in (root / "train").iterdir() if path.is_dir())
    for path in classes:
        (folder / "train" / path.name).mkdir(parents=True, exist_ok=True)
        for file in sorted(path.iterdir())[: images // len(classes)]:
            link = folder / "train" / path.name / file.name
            if not link.exists():
                link.symlink_to(file.resolve())
    if not (folder / "test").exists():
        (folder / "test").symlink_to((root / "test").resolve(), target_is_directory=True)
    return folder


def measure(job: Job, options: argparse.Namespace, *, ended: bool) -> list[dict[str, Any]]:
    """Return accuracy and cost of each subnet of a run so far; an empty list before the end of its first epoch."""
    if not (job.path / "metrics.csv").is_file():
        return []
    steps, epochs = read_table(job.path / "steps.csv"), read_table(job.path / "metrics.csv")
    if not epochs:
        return []
    fraction = sum(row["mode"] != "base" for row in steps) / len(steps)
    config = read_config(job.path)
    base, motivated = (
        forward_cost(name, img_size=32, num_classes=10, convention="paper")
        for name in (config.model.base, config.model.motivated)
    )
    cost = base + motivated if job.way.name == "both" else base + (motivated - base) * fraction
    recalibrated: dict[Mode, float] = {}
    if ended and job.finished and options.recalibration_batches:
        recalibrated = measure_recalibrated_top1(job, options)
    return [
        {
            "way": job.way.name,
            "mode": str(mode),
            "seed": job.seed,
            "epochs": len(epochs),
            "finished": job.finished,
            "top1": float(epochs[-1][f"{mode}_top1"]),
            "top1_recalibrated": recalibrated.get(mode),
            "top1_by_epoch": [float(row[f"{mode}_top1"]) for row in epochs],
            "motivated_fraction": fraction,
            "average_cost": cost,
            "training_seconds": sum(float(row["seconds"]) for row in epochs),
            "train_loss": float(epochs[-1]["train_loss"]),
        }
        for mode in job.way.modes
    ]


def measure_recalibrated_top1(job: Job, options: argparse.Namespace) -> dict[Mode, float]:
    """Return the accuracy of each trained subnet with BatchNorm statistics of training batches in a different order."""
    run, device_context = read_run(job.path), DeviceContext(choose_device(options.device), torch.channels_last)
    images = load_data(run.config.data, run.config.model)
    net = run.net.to(device_context.device).to(memory_format=torch.channels_last)
    batches = create_eval_loader(images, run.config.data, device_context)
    training = create_train_loader(images, run.config.data, run.config.seed, device_context)
    found: dict[Mode, float] = {}
    for mode in job.way.modes:
        pixels = recalibration_images(training, run.config.epochs, options.recalibration_batches, mode)
        ready = recalibrate(net, mode, pixels).eval()
        found |= top1(ready, batches, [mode])
    return found


def spread(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="CIFAR-10 as a folder of images")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--images", type=int, default=50_000, help="number of training images")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--jobs", type=int, default=2, help="number of runs that train in parallel")
    parser.add_argument("--runs", type=Path, default=Path("runs/cifar10"), help="folder of the run directories")
    parser.add_argument(
        "--ways", nargs="+", choices=[way.name for way in METHODS], default=[way.name for way in METHODS]
    )
    parser.add_argument(
        "--recalibration-batches", type=int, default=100, help="number of batches for recalibration; 0 for none"
    )
    parser.add_argument("--seconds", type=float, default=math.inf, help="time after which unfinished runs are stopped")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, help="the result file")
    options, overrides = parser.parse_known_args()
    options.overrides = overrides
    options.deadline = time.monotonic() + options.seconds

    if options.images < 50_000:
        options.root = part(options.root, options.images, options.runs / f"{options.images}-images")
    jobs = [
        Job(way, seed, options.runs / f"{way.name}-{options.images}images-{options.epochs}epochs-seed{seed}")
        for seed in options.seeds
        for way in METHODS
        if way.name in options.ways
    ]
    measured: dict[Job, list[dict[str, Any]]] = {job: [] for job in jobs}
    failed: list[Path] = []
    with ThreadPoolExecutor(options.jobs) as pool:
        running = {pool.submit(train, job, options): job for job in jobs}
        while running:
            ended, _ = wait(running, EVERY, FIRST_COMPLETED)
            for future, job in running.items():
                measured[job] = measure(job, options, ended=future in ended)
            path = save(measured, options)
            for future in ended:
                job = running.pop(future)
                if future.exception() is not None:
                    print(f"failed {job.path}: {future.exception()}", flush=True)
                    failed.append(job.path)
    report([row for rows in measured.values() for row in rows], options)
    print(path)
    if failed:
        raise SystemExit(f"{len(failed)} of {len(jobs)} runs failed")


def save(measured: dict[Job, list[dict[str, Any]]], options: argparse.Namespace) -> Path:
    """Write the result file with all results so far."""
    content = {
        "images": options.images,
        "epochs": options.epochs,
        "seeds": options.seeds,
        "jobs": options.jobs,
        "overrides": options.overrides,
        "results": [row for rows in measured.values() for row in rows],
    }
    return write("cifar10", content, options.output, choose_device(options.device))


def report(results: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Print the table of finished runs, and a line for each of the others."""
    table = []
    for way in METHODS:
        for mode in way.modes:
            rows = [row for row in results if (row["way"], row["mode"]) == (way.name, mode) and row["finished"]]
            if not rows:
                continue
            recalibrated = [row["top1_recalibrated"] for row in rows if row["top1_recalibrated"] is not None]
            table.append(
                [
                    way.title,
                    str(mode),
                    str(len(rows)),
                    spread([row["top1"] for row in rows]),
                    spread(recalibrated) if recalibrated else "",
                    f"{statistics.mean(row['motivated_fraction'] for row in rows):.1%}",
                    f"{statistics.mean(row['average_cost'] for row in rows) / 1e6:.1f}",
                    f"{statistics.mean(row['training_seconds'] for row in rows):.0f}",
                ]
            )
    title = f"CIFAR-10, {options.images} training images, {options.epochs} epochs, {options.jobs} run(s) at a time"
    columns = ["trained", "subnet", "seeds", "top-1, %", "recalibrated, %", "motivated batches", "forward cost, M"]
    show(title, [*columns, "training, s"], table)
    for row in results:
        if not row["finished"]:
            print(
                f"not finished: {row['way']}, {row['mode']}, seed {row['seed']}: {row['top1']} % after {row['epochs']} epochs"
            )


if __name__ == "__main__":
    main()
