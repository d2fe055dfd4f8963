"""Training in several processes: the bytes that they send at a step of each mode, and their speed together.

    python benchmarks/processes.py [--nproc 1 2] [--device cpu] [--case resnet20:resnet32:32:128 ...]

Several processes are started by torchrun (gloo on a CPU, NCCL on CUDA with a GPU for each process). They train a fixed
global batch, divided among the processes, with `nestnet.TrainStep`; networks with BatchNorm are trained with each
process's own statistics and with those of all processes (`nestnet.synchronise_batch_norm`). Every process has the same
number of threads (`--threads`); the efficiency is the images per second relative to one process, divided by the number
of processes. The numbers of processes are measured in turn, `--repeats` times, so that other load on the machine
affects all equally.

The bytes are those of the buckets that DistributedDataParallel reduces at a step, counted by a communication hook,
compared with the bytes of the mode's gradients: a base step sends the base's gradients and no others. In addition the
average of the loss is sent, one number per step, and with synchronised BatchNorm the statistics of each layer.

Prints two tables, and writes benchmarks/results/processes-DEVICE.json with the raw samples, in seconds per step of the
first process, and a figure beside it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from common import Case, add_common_options, seconds, sgd, show, write
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.functional import cross_entropy

from nestnet import Mode, NestedModel, TrainStep, synchronise_batch_norm
from nestnet.analysis.plotting import MODE_COLOURS, style_axes
from nestnet.device import choose_device
from nestnet.distributed.process_group import ProcessGroup
from nestnet.distributed.rendezvous import init_process_group
from nestnet.nn.batch_norm import BatchNorm2d
from nestnet.step.phases import EagerPhases

CASES = [
    Case("resnet20", "resnet32", 32, 128),
    Case("vit_tiny_patch16_224", "vit_small_patch16_224", 96, 16),
]
WARM_UP = 2
OWN, SYNCHRONISED = "own", "synchronised"
"""Statistics by which BatchNorm normalises."""


# In each process


def work(options: argparse.Namespace) -> None:
    """Measure all cases together with the other processes; the first one writes the results."""
    device = choose_device(str(options.device))
    process_group = init_process_group(device)
    found = []
    for case in options.case:
        has_batch_norm = any(isinstance(module, BatchNorm2d) for module in case.nested(device).modules())
        for statistics in [OWN, SYNCHRONISED] if has_batch_norm and process_group.size > 1 else [OWN]:
            found.append(
                {
                    "case": vars(case),
                    "batch_norm": statistics if has_batch_norm else None,
                    "processes": process_group.size,
                    "seconds": time_steps(case, statistics, options.steps, device, process_group),
                    "bytes": count_sent_bytes(case, device, process_group),
                }
            )
    if process_group.is_first:
        options.found.write_text(json.dumps(found))


def initial_network(case: Case, device: torch.device) -> NestedModel:
    torch.manual_seed(0)
    return case.nested(device)


def time_steps(
    case: Case, statistics: str, steps: int, device: torch.device, process_group: ProcessGroup
) -> dict[Mode, list[float]]:
    """Measure the seconds of each step of each mode, with the modes in turn."""
    net = initial_network(case, device)
    if statistics == SYNCHRONISED:
        synchronise_batch_norm(net)
    train, batch = (
        TrainStep(net, sgd(net), cross_entropy, process_group=process_group),
        share(case, device, process_group),
    )
    samples: dict[Mode, list[float]] = {mode: [] for mode in Mode}
    for number in range(-WARM_UP, steps):
        for mode in Mode:
            taken = seconds(partial(train_and_wait, train, *batch, mode))
            if number >= 0:
                samples[mode].append(taken)
    return samples


def train_and_wait(train: TrainStep, images: torch.Tensor, labels: torch.Tensor, mode: Mode) -> float:
    return train(images, labels, mode).loss()


def count_sent_bytes(case: Case, device: torch.device, process_group: ProcessGroup) -> dict[Mode, dict[str, int]]:
    """Return the bytes that a step of each mode reduces, and those of its gradients."""
    net = initial_network(case, device)
    train, batch = (
        TrainStep(net, sgd(net), cross_entropy, process_group=process_group),
        share(case, device, process_group),
    )
    reduced: list[int] = []

    def counted(group: dist.ProcessGroup, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        reduced.append(bucket.buffer().nbytes)
        return allreduce_hook(group, bucket)

    assert isinstance(train.phases, EagerPhases)
    for forward in train.phases.forward.values():
        if forward.parallel is not None:
            forward.parallel.register_comm_hook(dist.group.WORLD, counted)
    found = {}
    for mode in Mode:
        for _ in range(WARM_UP):  # DistributedDataParallel rebuilds its buckets after the first step
            reduced.clear()
            train(*batch, mode)
        gradients = [p.grad.nbytes for p in net.parameters() if p.grad is not None]
        found[mode] = {"reduced": sum(reduced), "gradients": sum(gradients), "buckets": len(reduced)}
    return found


def share(case: Case, device: torch.device, process_group: ProcessGroup) -> tuple[torch.Tensor, torch.Tensor]:
    """Return this process's share of the batch."""
    images, labels = case.batch(device)
    part = process_group.batch_slice(case.batch_size)
    return images[part], labels[part]


# In the process that starts them


def launch(size: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Start `size` processes, several of them with torchrun, and return their results."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "MKL_NUM_THREADS": str(options.threads)}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)] if size > 1 else []
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.json"
        command = [sys.executable, *torchrun, __file__, "--found", str(found), "--device", str(options.device)]
        cases = [f"{case.base}:{case.motivated}:{case.img_size}:{case.batch_size}" for case in options.case]
        subprocess.run([*command, "--steps", str(options.steps), "--case", *cases], check=True, env=environment)
        result: list[dict[str, Any]] = json.loads(found.read_text())
    return result


def merge_repeats(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Merge the repeats of each setting, with images per second and the efficiency relative to one process."""
    settings: dict[str, dict[str, Any]] = {}
    for run in runs:
        key = json.dumps([run["case"], run["processes"], run["batch_norm"]])
        setting = settings.setdefault(key, {**run, "seconds": {mode: [] for mode in Mode}})
        for mode in Mode:
            setting["seconds"][mode] += run["seconds"][mode]
    results = list(settings.values())
    for result in results:
        result["images_per_second"] = {
            mode: result["case"]["batch_size"] / median(result["seconds"][mode]) for mode in Mode
        }
    alone = {json.dumps(result["case"]): result["images_per_second"] for result in results if result["processes"] == 1}
    for result in results:
        one = alone[json.dumps(result["case"])]
        result["efficiency"] = {
            mode: result["images_per_second"][mode] / one[mode] / result["processes"] for mode in Mode
        }
    return results


def rows_of(results: list[dict[str, Any]]) -> tuple[list[list[str]], list[list[str]]]:
    """Return the rows of the table of speed, and those of the table of bytes."""
    speed, sizes = [], []
    for result in results:
        name, statistics = Case(**result["case"]).name, result["batch_norm"] or ""
        row = [name, str(result["processes"]), statistics]
        for mode in Mode:
            row += [f"{result['images_per_second'][mode]:.1f}", f"{result['efficiency'][mode]:.0%}"]
        speed.append(row)
        if result["processes"] > 1 and statistics != SYNCHRONISED:
            for mode in Mode:
                counts = result["bytes"][mode]
                numbers = [str(counts[kind]) for kind in ("reduced", "gradients", "buckets")]
                sizes.append([name, str(result["processes"]), str(mode), *numbers])
    return speed, sizes


def draw(results: list[dict[str, Any]], path: Path) -> Path:
    """Draw the speed relative to one process, with a panel per pair of networks, and the bytes that each mode sends."""
    from matplotlib.figure import Figure

    cases = list(dict.fromkeys(Case(**result["case"]) for result in results))
    sizes = sorted({result["processes"] for result in results})
    figure = Figure(figsize=(1 + 4 * (len(cases) + 1), 3.8), layout="constrained")
    *panels, last = figure.subplots(1, len(cases) + 1)
    for axes, case in zip(panels, cases, strict=True):
        ours = [result for result in results if Case(**result["case"]) == case]
        axes.plot(sizes, sizes, color="0.6", linewidth=1, label="ideal")
        for mode in Mode:
            for statistics, style in {OWN: "o-", SYNCHRONISED: "s--"}.items():
                rows = [row for row in ours if row["processes"] == 1 or row["batch_norm"] in (statistics, None)]
                if statistics == SYNCHRONISED and not any(row["batch_norm"] == SYNCHRONISED for row in ours):
                    continue
                label = f"{mode} step" + (", synchronised BatchNorm" if statistics == SYNCHRONISED else "")
                faster = [row["efficiency"][mode] * row["processes"] for row in rows]
                axes.plot([row["processes"] for row in rows], faster, style, color=MODE_COLOURS[mode], label=label)
        axes.set_xticks(sizes)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("processes")
        axes.set_title(case.name, fontsize=10)
        style_axes(axes)
        axes.legend(frameon=False, fontsize=8)
    panels[0].set_ylabel("images per second / one process's")
    most = [row for row in results if row["processes"] == sizes[-1] and row["batch_norm"] != SYNCHRONISED]
    for number, row in enumerate(most):
        for mode, shift in zip(Mode, (-0.2, 0.2), strict=True):
            reduced = row["bytes"][mode]["reduced"] / 2**20
            last.bar(
                number + shift, reduced, 0.36, color=MODE_COLOURS[mode], label=f"{mode} step" if not number else None
            )
            last.text(number + shift, reduced, f"{reduced:.2f}", ha="center", va="bottom", fontsize=9)
    names = [Case(**row["case"]).name.split(",")[0].replace(" in ", "\nin ") for row in most]
    last.set_xticks(range(len(most)), names)
    last.set_yscale("log")
    last.set_ylabel("gradients reduced at a step, MiB")
    last.margins(y=0.25)
    last.set_axisbelow(True)
    style_axes(last)
    last.grid(visible=False, axis="x")
    last.legend(frameon=False, fontsize=8, loc="upper left")
    figure.savefig(path, dpi=120)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nproc", type=int, nargs="+", default=[2], help="numbers of processes, in addition to one")
    parser.add_argument("--steps", type=int, default=10, help="number of measurements of each mode's step per start")
    parser.add_argument(
        "--repeats", type=int, default=3, help="number of times that each number of processes is started"
    )
    parser.add_argument(
        "--threads",
        type=int,
        help="threads of each process; by default the cores divided by the largest number of processes",
    )
    parser.add_argument("--found", type=Path, help=argparse.SUPPRESS)  # given to the processes: where their results go
    add_common_options(parser, CASES)
    options = parser.parse_args()
    if options.found:
        work(options)
        return

    sizes = sorted({1, *options.nproc})
    if options.device.type == "cuda" and sizes[-1] > torch.cuda.device_count():
        print(f"there are {torch.cuda.device_count()} GPUs: larger numbers of processes are left out")
        sizes = [size for size in sizes if size <= torch.cuda.device_count()]
    for case in options.case:
        if case.batch_size % sizes[-1] or case.batch_size < 2 * sizes[-1]:
            parser.error(f"{case.name}: {sizes[-1]} processes cannot have equal shares of at least two images")
    options.threads = options.threads or max(1, (os.cpu_count() or 1) // sizes[-1])
    results = merge_repeats(
        [found for _ in range(options.repeats) for size in sizes for found in launch(size, options)]
    )
    speed, reduced = rows_of(results)
    columns = ["networks and global batch", "processes", "BatchNorm"]
    columns += [f"{mode}: {what}" for mode in Mode for what in ("images / s", "efficiency")]
    title = f"float32, SGD, {options.threads} thread(s) per process, n = {options.repeats * options.steps}"
    show(title, columns, speed)
    columns = ["networks and global batch", "processes", "step", "bytes reduced", "bytes of gradients", "buckets"]
    show("gradients reduced at a step", columns, reduced)
    content = {"steps": options.steps, "repeats": options.repeats, "threads": options.threads, "results": results}
    path = write("processes", content, options.output, options.device)
    print(path)
    print(draw(results, path.with_suffix(".png")))


if __name__ == "__main__":
    main()
