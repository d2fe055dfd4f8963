"""Everything that needs a GPU in one program: tests, benchmarks, and CIFAR-10 in the remaining time.

    python benchmarks/gpu.py [--data FOLDER] [--output FOLDER] [--minutes 8]
    python benchmarks/gpu.py --device cpu --quick     # a small version on a CPU, in less than three minutes

The parts run one after another, each as a separate program, so that a failure of one does not end the others:

    tests             the tests that are marked `cuda`, in several processes on the GPU
    epochs            seconds per epoch of ResNet-20-32: eager, in bfloat16, and with CUDA graphs, beside timm's networks alone
    limits            the limit of its steps, and the bound of arithmetic and launches
    step_time         a step of each family relative to timm's, float32 and bfloat16, eager
    decision          the cost of reading each loss, with and without overlap
    memory            peak memory of each family's step
    epochs-compiled   seconds per epoch compiled, with and without CUDA graphs
    cifar10           ResNet-20-32 (k = 2) and the two classical trainings, side by side

`--data` is CIFAR-10 as images, train/<class>/* and test/<class>/*, as a folder or a .tar.gz of one; without it the
last part is skipped, or in a `--quick` run uses generated images. It trains as many of the paper's 200 epochs as the
remaining time allows for three seeds, or for fewer seeds if that would be less than 30 epochs, and all methods of a
seed before those of the next. `--parts cifar10` gives it all the time.

`--parts study` runs a part that is not among them by default: the best ways of `study.py` and its controls, for ResNet-20
in ResNet-32 for 20 epochs with three seeds, six runs side by side. It trains as many as the time allows, seed by seed.

Every part writes its own result file in the output folder as soon as there is a result, and gpu.json states the
outcome of each part: the program may be killed at any time. Its last lines are a table of the results, which `python
benchmarks/gpu_table.py FOLDER` prints again.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import torch
from gpu_images import Images, find_image_root, generate_images, link_some_images, unpack
from gpu_session import Part, Session
from gpu_table import epoch_seconds, table

CIFAR10_SECONDS = 100.0
"""Seconds that the other parts leave to CIFAR-10, if there is data for it."""

LONG = 300.0
"""Upper limit of the seconds of any part of a quick run, even on a busy machine."""

RESNET = "resnet20:resnet32:32:128"
FAMILIES = (RESNET, "vit_tiny_patch16_224:vit_small_patch16_224:224:64", "efficientnet_b0:efficientnet_b1:224:64")
SMALL_RESNET = "resnet8:resnet14:32:8"
SMALL_FAMILIES = (
    SMALL_RESNET,
    "vit_tiny_patch16_224:vit_small_patch16_224:32:2",
    "efficientnet_b0:efficientnet_b1:32:2",
)


def benchmark(name: str, program: str, seconds: float, *arguments: str, least: float = 5.0) -> Part:
    """Return a part that runs another program of this folder."""
    return Part(name, [f"benchmarks/{program}", "--no-figure", *arguments], seconds, least)


def tests(marker: str, processes: int, seconds: float, *paths: str) -> Part:
    """Return the part that runs the tests with a marker. Warnings of other releases of torch do not fail them."""
    command = ["-m", "pytest", *paths, "-m", marker, "-v", "--tb", "short", "-W", "default", "-p", "no:cacheprovider"]
    # one test at a time goes to each process: some take a minute to compile
    command += ["-n", str(processes), "--dist", "load", "--maxschedchunk", "1"]
    return Part("tests", command, seconds, has_result=False, environment={"TORCHINDUCTOR_COMPILE_THREADS": "4"})


def full_parts() -> list[Part]:
    """Return the parts before CIFAR-10."""
    epochs = ["--case", RESNET, "--batches", "64", "--rounds", "3", "--workers", "0", "--configurations"]
    limits = ["--precision", "bfloat16", "--ways", "captured", "eager", "--workers", "0"]
    compiled = ["cuda_graphs", "bfloat16_compile", "cuda_graphs_compile"]
    return [
        tests("cuda", min(os.cpu_count() or 1, 8), 150, "tests/on_gpu", "tests/distributed/test_process_group.py"),
        benchmark("epochs", "epochs.py", 120, *epochs, "resident", "bfloat16", "cuda_graphs"),
        benchmark("limits", "limits.py", 60, "--case", RESNET, *limits),
        benchmark("step_time", "step_time.py", 75, "--case", *FAMILIES, "--compile", "false", "--seconds", "2"),
        benchmark("decision", "decision.py", 60, "--case", RESNET, "--rounds", "3", "--steps", "30"),
        benchmark("memory", "memory.py", 40, "--case", *FAMILIES),
        benchmark("epochs-compiled", "epochs.py", 150, *epochs, *compiled, least=75),
    ]


def quick_parts(device: str) -> list[Part]:
    """Return small versions of the parts for a device, `cuda` or `cpu`. Their figures mean nothing."""
    # Without the name of the marker, the tests do not see a GPU.
    marker = "cuda and not slow" if device == "cuda" else "not slow"
    one = ["--rounds", "1"]
    steps = ["--precision", "float32", "--compile", "false", "--seconds", "1"]
    limits = ["--ways", "eager", "--steps", "1", "--matrix", "256", "--workers", "0"]
    return [
        tests(marker, 2, LONG, "tests/on_gpu/test_cuda_steps.py"),
        benchmark(
            "epochs", "epochs.py", LONG, "--case", SMALL_RESNET, "--batches", "6", "--configurations", "resident", *one
        ),
        benchmark("limits", "limits.py", LONG, "--case", SMALL_RESNET, *limits),
        benchmark("step_time", "step_time.py", LONG, "--case", *SMALL_FAMILIES, *steps, *one),
        benchmark("decision", "decision.py", LONG, "--case", SMALL_RESNET, "--steps", "6", *one),
        benchmark("memory", "memory.py", LONG, "--case", *SMALL_FAMILIES),
    ]


NAMES = [part.name for part in full_parts()] + ["cifar10"]
"""The parts of a run that is asked for nothing else."""

STUDY_RUNS = [
    *("--pair", "resnet20:resnet32", "--epochs", "20", "--seeds", "0", "1", "2", "--jobs", "6", "--ways"),
    *("base_alone", "motivated_alone", "replace_alternate", "both_second_half_distilled", "finish"),
]
QUICK_STUDY_RUNS = ["--pair", "resnet8:resnet14", "--epochs", "1", "--ways", "base_alone", "both_second_half"]


STOPPING = 30.0
"""Seconds that the runs of the study may take to write their checkpoints and end."""


def cifar10_part(root: Path, runs: Path, epochs: int, seeds: int, seconds: float, overrides: list[str]) -> Part:
    """Return the part that trains ResNet-20-32 and the two classical networks in parallel."""
    command = ["benchmarks/cifar10.py", "--root", str(root), "--runs", str(runs), "--epochs", str(epochs)]
    command += ["--seeds", *map(str, range(seeds)), "--ways", "resnet32", "private", "resnet20", "--jobs", "3"]
    command += ["--recalibration-batches", "0", "--seconds", str(round(seconds)), *overrides]
    return Part("cifar10", command, seconds + 30)


def study_part(root: Path, runs: Path, quick: bool, seconds: float, overrides: list[str]) -> Part:
    """Return the part that compares nested runs with each network alone."""
    command = ["benchmarks/study.py", "--root", str(root), "--runs", str(runs)]
    # It stops its runs by itself, and measures those that are finished.
    command += ["--minutes", f"{max(seconds - STOPPING, 0) / 60:.2f}", *(QUICK_STUDY_RUNS if quick else STUDY_RUNS)]
    return Part("study", [*command, *overrides], seconds)


ON_GPU = ["--precision", "bfloat16", "--cuda_graphs", "true", "--data.workers", "4", "--data.eval_batch_size", "2000"]

PAPER_EPOCHS = 200
FEW_EPOCHS = 30
"""Fewer seeds are better than fewer epochs than this."""

STARTING = 20.0
"""Seconds before the runs of the first seed train: imports, reading of the images, capturing."""

BETWEEN = 0.25
"""Seconds between two epochs of a run: its evaluation and its checkpoint."""

USED = 0.7
"""Share of the time that is planned for: a run that is stopped before its last epoch ends at too high a learning rate."""

UNKNOWN_EPOCH = 1.0
"""Seconds per epoch that are assumed if none were measured."""


def plan(seconds: float, epoch_seconds: list[float]) -> tuple[int, int]:
    """Return the number of epochs and seeds of CIFAR-10 that fit into a time.

    Args:
        seconds: available time.
        epoch_seconds: seconds per epoch of each method, alone on the GPU. In parallel the methods are assumed to take as
            long as one after another, because processes share a GPU by turns.

    >>> plan(300, [0.3, 0.3, 0.4])
    (36, 3)
    >>> plan(100, [0.3, 0.3, 0.4])
    (28, 1)
    >>> plan(5000, [0.3, 0.3, 0.4])
    (200, 3)
    """
    epoch = sum(taken + BETWEEN for taken in epoch_seconds)
    for seeds in (3, 2, 1):
        epochs = int((USED * seconds - STARTING) / (seeds * epoch))
        if epochs >= FEW_EPOCHS:
            break
    return max(min(epochs, PAPER_EPOCHS), 1), seeds


def read_epoch_seconds(result: Path) -> list[float]:
    """Return the seconds per epoch of the nested and the two classical runs with CUDA graphs, from the part `epochs`."""
    try:
        summary = json.loads(result.read_text())["results"][0]["summary"]["cuda_graphs"]
        return list(epoch_seconds(summary).values())
    except (OSError, LookupError, ValueError):
        return [UNKNOWN_EPOCH] * 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, help="CIFAR-10 as images: a folder with train/ and test/, or a .tar.gz of one"
    )
    parser.add_argument("--output", type=Path, help="folder of the result files; by default a new one below runs/")
    parser.add_argument("--minutes", type=float, default=8.0, help="time after which everything is stopped")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--quick", action="store_true", help="run small versions of all parts, to see whether they work"
    )
    names = [*NAMES, "study"]
    parser.add_argument(
        "--parts", nargs="+", choices=names, default=NAMES, help="parts to run; by default all but the study"
    )
    options = parser.parse_args()
    if options.device == "cpu" and not options.quick:
        parser.error("--device cpu: a CPU would take days; add --quick")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here; `--device cpu --quick` runs a small version")
    if options.data is not None and not options.data.exists():
        parser.error(f"--data {options.data}: there is no such file or folder")
    # the parts run in the repository's folder
    output = (options.output or Path("runs") / f"gpu-{datetime.now(UTC):%Y%m%d-%H%M%S}").resolve()
    output.mkdir(parents=True, exist_ok=True)
    known = [path.name for path in output.iterdir() if path.name in {f"{name}.json" for name in [*names, "gpu"]}]
    if known:
        parser.error(f"--output {options.output}: {known[0]} exists already; name another folder")

    # Both signals raise exceptions, so that the running part is stopped too. A shell may ignore SIGINT in background
    # processes, and the parts would inherit that.
    signal.signal(signal.SIGTERM, _exit)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    session = Session(output, torch.device(options.device), 60 * options.minutes)
    with tempfile.TemporaryDirectory() as temporary:
        images = prepare_images(options, Path(temporary) / "images")
        reserve = CIFAR10_SECONDS if images is not None and not options.quick else 0.0
        for part in quick_parts(options.device) if options.quick else full_parts():
            if part.name not in options.parts:
                continue
            if images is not None and part.name != "tests":  # nothing may run in parallel with timed parts
                images.wait()
            session.run(part, reserve=reserve)
        if "epochs-compiled" in options.parts and options.quick:
            session.skip("epochs-compiled", "compiling takes minutes: not in a quick run")
        if "cifar10" in options.parts:
            run_on_images(session, "cifar10", images, Path(temporary) / "runs", options)
        if "study" in options.parts:
            run_on_images(session, "study", images, Path(temporary) / "study", options)
        print(f"\n{table(output)}", flush=True)  # before 60,000 files are removed


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def prepare_images(options: argparse.Namespace, folder: Path) -> Images | None:
    """Return the images for CIFAR-10, which are being prepared; `None` if there are none."""
    if not {"cifar10", "study"}.intersection(options.parts):
        return None
    if options.data is None:
        return Images(generate_images, folder) if options.quick else None
    data = options.data.resolve()
    if data.is_dir():
        return Images(lambda _: find_image_root(data, data), folder)
    return Images(lambda folder: unpack(data, folder), folder)


def run_on_images(session: Session, name: str, images: Images | None, runs: Path, options: argparse.Namespace) -> None:
    """Run a part that trains on CIFAR-10 in the time that is left, or say why not."""
    if images is None:
        session.skip(name, "no --data was given")
        return
    images.wait()
    if images.root is None:
        session.skip(name, images.reason)
        return
    seconds = session.left - 15  # time for the table, and for stopping runs
    overrides = ON_GPU if options.device == "cuda" else ["--data.workers", "0"]
    root = images.root
    if options.quick:
        overrides = [*overrides, "--data.batch_size", "32"]  # in an epoch of one batch, none could be motivated
        root = link_some_images(root, runs.with_name(f"some-{name}"))
    if name == "study":
        session.run(study_part(root, runs, options.quick, seconds, overrides))
        return
    epochs, seeds = (1, 1) if options.quick else plan(seconds, read_epoch_seconds(session.result("epochs")))
    session.run(cifar10_part(root, runs, epochs, seeds, seconds, overrides))


if __name__ == "__main__":
    main()
