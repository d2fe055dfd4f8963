"""Motivation against the obvious alternatives on CIFAR-10: ResNet-20, ResNet-32, and both in one.

    python benchmarks/cifar10.py --root FOLDER [--epochs 10] [--images 20000] [--seeds 0 1 2] [--jobs 2] [--runs DIR]

FOLDER holds your copy of CIFAR-10 as images: train/<class>/*.jpg (or png) and test/<class>/*. `--images` takes the first so
many for training, of each class alike, where all would take too long; all test images are used in any case.

Every way of training is one `nestnet train` with the same recipe, data order and initial weights: classical ResNet-20 and
ResNet-32, motivated (k = 2) with private and with shared BatchNorm statistics, the paper's Experiment A (random batches), and
joint training. Afterwards each subnet that was trained is evaluated as it is, and with its BatchNorm statistics
recalibrated on training batches.

Runs go side by side, as many as `--jobs`, on equal shares of the cores. A run that is finished is not repeated, so that the
program can be stopped, and called again for more seeds. Further arguments go to `nestnet train`, such as `--precision bfloat16`
(with a `--runs` folder of their own). On a GPU the paper's schedule is `--device cuda --epochs 200 --seeds 0 1 2 --jobs 6`.

The cost is that of an average forward pass in training, in the paper's convention.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from common import show, write

from nestnet import Mode, recalibrate
from nestnet.build import torch_device
from nestnet.cost import forward_cost
from nestnet.data import load_data
from nestnet.evaluation import top1
from nestnet.loaders import eval_batches, train_batches
from nestnet.place import Place
from nestnet.run_directory import read_run, read_table

CONFIG = Path(__file__).parent.parent / "configs" / "cifar10_folder_resnet20_32.yaml"


@dataclass(frozen=True)
class Way:
    """A way of training, and the subnets that it trains."""

    name: str
    title: str
    overrides: tuple[str, ...]
    modes: tuple[Mode, ...] = tuple(Mode)


WAYS = (  # the longest first, so that jobs end at about the same time
    Way("joint", "joint training", ("--motivation.name", "joint")),
    Way("resnet32", "ResNet-32 alone", ("--motivation.name", "always"), (Mode.MOTIVATED,)),
    Way("experiment_a", "Experiment A", ("--motivation.name", "random")),
    Way("private", "motivated, private statistics", ()),
    Way("shared", "motivated, shared statistics", ("--model.batch_norm", "shared")),
    Way("resnet20", "ResNet-20 alone", ("--motivation.name", "never"), (Mode.BASE,)),
)


def train(way: Way, seed: int, options: argparse.Namespace) -> Path:
    """Train one run in a process of its own, unless it is there already."""
    path = options.runs / f"{way.name}-{options.images}images-{options.epochs}epochs-seed{seed}"
    if (path / "motivated.safetensors").is_file():
        return path
    shutil.rmtree(path, ignore_errors=True)
    command = [sys.executable, "-m", "nestnet", "train", "--config", str(CONFIG)]
    command += ["--data.root", str(options.root), "--epochs", str(options.epochs), "--seed", str(seed)]
    command += ["--run_dir", str(path), "--device", str(options.device), "--channels_last", "true", *way.overrides]
    command += options.overrides
    threads = str(max(1, (os.cpu_count() or 1) // options.jobs))
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    print(f"training {path}", flush=True)
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return path


def part(root: Path, images: int, folder: Path) -> Path:
    """A folder of links to the first training images of each class, so many in all, and to all test images."""
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


def measure(way: Way, seed: int, path: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The accuracy of each trained subnet as it is and recalibrated, and what the run cost."""
    run, place = read_run(path), Place(torch_device(options.device), torch.channels_last)
    images = load_data(run.config.data, run.config.model)
    net = run.net.to(place.device).to(memory_format=torch.channels_last)
    batches = eval_batches(images, run.config.data, place)
    # an order and augmentation of its own
    training = train_batches(images, run.config.data, run.config.seed, place).epoch(run.config.epochs)
    steps, epochs = read_table(path / "steps.csv"), read_table(path / "metrics.csv")
    fraction = sum(row["mode"] != "base" for row in steps) / len(steps)
    base, motivated = (
        forward_cost(name, img_size=32, num_classes=10, convention="paper")
        for name in (run.config.model.base, run.config.model.motivated)
    )
    cost = base + motivated if way.name == "joint" else base + (motivated - base) * fraction
    rows = []
    for mode in way.modes:
        ready = recalibrate(net, mode, islice(training, options.recalibration_batches)).eval()
        rows.append(
            {
                "way": way.name,
                "mode": str(mode),
                "seed": seed,
                "top1": float(epochs[-1][f"{mode}_top1"]),
                "top1_recalibrated": top1(ready, batches, [mode])[mode],
                "motivated_fraction": fraction,
                "average_cost": cost,
                "training_seconds": sum(float(row["seconds"]) for row in epochs),
                "train_loss": float(epochs[-1]["train_loss"]),
            }
        )
    return rows


def spread(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="CIFAR-10 as a folder of images")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--images", type=int, default=50_000, help="for training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    parser.add_argument("--runs", type=Path, default=Path("runs/cifar10"), help="where the run directories are kept")
    parser.add_argument("--ways", nargs="+", choices=[way.name for way in WAYS], default=[way.name for way in WAYS])
    parser.add_argument("--recalibration-batches", type=int, default=100)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, help="the result file")
    options, overrides = parser.parse_known_args()
    options.overrides = overrides

    if options.images < 50_000:
        options.root = part(options.root, options.images, options.runs / f"{options.images}-images")
    plan = [(way, seed) for seed in options.seeds for way in WAYS if way.name in options.ways]
    with ThreadPoolExecutor(options.jobs) as pool:
        paths = list(pool.map(lambda job: train(job[0], job[1], options), plan))
    results = [row for (way, seed), path in zip(plan, paths, strict=True) for row in measure(way, seed, path, options)]
    table = []
    for way in WAYS:
        for mode in way.modes:
            rows = [row for row in results if (row["way"], row["mode"]) == (way.name, mode)]
            if rows:
                table.append(
                    [
                        way.title,
                        str(mode),
                        spread([row["top1"] for row in rows]),
                        spread([row["top1_recalibrated"] for row in rows]),
                        f"{statistics.mean(row['motivated_fraction'] for row in rows):.1%}",
                        f"{statistics.mean(row['average_cost'] for row in rows) / 1e6:.1f}",
                        f"{statistics.mean(row['training_seconds'] for row in rows):.0f}",
                    ]
                )
    title = (
        f"CIFAR-10, {options.images} training images, {options.epochs} epochs, {len(options.seeds)} seed(s), "
        f"{options.jobs} run(s) at a time"
    )
    columns = [
        "trained",
        "subnet",
        "top-1, %",
        "recalibrated, %",
        "motivated batches",
        "forward cost, M",
        "training, s",
    ]
    show(title, columns, table)
    content = {
        "images": options.images,
        "epochs": options.epochs,
        "seeds": options.seeds,
        "jobs": options.jobs,
        "results": results,
    }
    print(write("cifar10", json.loads(json.dumps(content)), options.output, torch_device(options.device)))


if __name__ == "__main__":
    main()
