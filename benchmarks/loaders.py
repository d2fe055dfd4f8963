"""Images per second of the loaders, beside what a training step takes: how much of a run would wait for images.

    python benchmarks/loaders.py [--workers 0 2] [--device cpu] [--root FOLDER] [--case resnet20:resnet32:32:128 ...]

Images of up to 64 pixels: the resident loader (`data.loader: resident`), and torch's reading files (`files`) with each number
of workers, both with the augmentation `crop` and Cutout. Larger ones: files with `resized_crop`. The images are JPEG files
that the program makes up in a temporary folder, or those of `--root` (`train/` and `test/` with a folder a class). Small ones
have the size that is trained, larger ones twice as many pixels a side, as photographs have more. After the first epoch the
files come from the system's cache, not from a disk.

The loaders and a base step of `nestnet.TrainStep`, on one of their batches, are timed in turn. From the medians follows the
share of a run's time that it waits: resident images, and files without workers, come between the steps; workers read
meanwhile, so that only what they take longer is waited for. On a CPU workers and training share the cores, and both slow down.

Prints a table, and writes benchmarks/results/loaders-DEVICE.json with the raw samples, in seconds an epoch or step, and a
figure beside it.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from common import Case, add_common_options, interleaved, make_images, sgd, show, write
from torch.nn.functional import cross_entropy

from nestnet import Mode, TrainStep
from nestnet.analysis.figures import COLOURS, tidy
from nestnet.config.schema import DataConfig, ModelConfig
from nestnet.data.image_data import ImageData, load_data
from nestnet.data.loaders import Batch, TrainBatches, train_batches
from nestnet.data.preprocessing import SMALL_IMAGE_SIDE
from nestnet.device import DeviceContext

CASES = [Case("resnet20", "resnet32", 32, 128), Case("resnet50", "resnet101", 224, 16)]
STEP, RESIDENT = "base step", "resident"


def files(workers: int) -> str:
    return f"files, {workers or 'no'} worker{'s' * (workers != 1)}"


def some_images(case: Case, root: Path, count: int) -> tuple[ImageData, DataConfig]:
    """So many of a folder's training images, drawn at random, and how they are to be loaded."""
    small = case.img_size <= SMALL_IMAGE_SIDE
    config = DataConfig(
        name="folder",
        root=str(root),
        img_size=case.img_size,
        batch_size=case.batch_size,
        augment="crop" if small else "resized_crop",
        cutout=case.img_size // 4 if small else 0,
    )
    images = load_data(config, ModelConfig(case.base, case.motivated))
    every = range(len(images.train))
    kept = sorted(random.Random(0).sample(every, min(count, len(every))))
    return images.split(kept, []), config


def measure(
    case: Case, root: Path, options: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, float], int]:
    """Seconds of an epoch of each loader and of the steps, seconds that each loader takes to start, and images an epoch."""
    images, config = some_images(case, root, options.images)
    place = DeviceContext(options.device, torch.channels_last if options.channels_last else torch.preserve_format)
    kinds: dict[str, dict[str, Any]] = {
        files(workers): {"loader": "files", "workers": workers} for workers in options.workers
    }
    if images.not_resident is None:
        kinds = {RESIDENT: {"loader": "resident"}, **kinds}
    loaders: dict[str, TrainBatches] = {}
    started: dict[str, float] = {}
    for name, settings in kinds.items():
        begun = time.perf_counter()
        loaders[name] = train_batches(images, replace(config, **settings), 0, place)
        started[name] = time.perf_counter() - begun
    functions: dict[str, Callable[[], Any]] = {name: partial(read, loader) for name, loader in loaders.items()}
    batch = next(loaders[next(iter(kinds))].epoch(0))
    functions[STEP] = partial(train, trained(case, place, options), batch, options.steps)
    count = len(images.train) // config.batch_size * config.batch_size
    return interleaved(functions, options.rounds, warmup=1), started, count


def read(loader: TrainBatches) -> None:
    """An epoch, without training on it."""
    for _ in loader.epoch(0):
        pass


def trained(case: Case, device_context: DeviceContext, options: argparse.Namespace) -> TrainStep:
    torch.manual_seed(0)
    net = case.nested(device_context.device).to(memory_format=device_context.memory_format)
    return TrainStep(net, sgd(net), cross_entropy, precision=options.precision, cuda_graphs=options.cuda_graphs)


def train(step: TrainStep, batch: Batch, steps: int) -> None:
    for _ in range(steps):
        step(*batch, Mode.BASE).loss()


def waited(loading: float, training: float, *, meanwhile: bool) -> float:
    """The share of a run's time that it waits, from the seconds an image that loading and training take.

    >>> waited(1.0, 3.0, meanwhile=False), waited(1.0, 3.0, meanwhile=True), waited(4.0, 3.0, meanwhile=True)
    (0.25, 0.0, 0.25)
    """
    return max(0.0, 1 - training / loading) if meanwhile else loading / (loading + training)


def summary(case: Case, samples: dict[str, list[float]], images: int, steps: int) -> dict[str, dict[str, float]]:
    """Images per second of each loader and of the steps, and the share of time that a run with the loader waits."""
    training = median(samples[STEP]) / (steps * case.batch_size)
    found: dict[str, dict[str, float]] = {}
    for name, taken in samples.items():
        if name == STEP:
            found[name] = {"images_per_second": 1 / training}
            continue
        loading, meanwhile = median(taken) / images, name not in (RESIDENT, files(0))
        found[name] = {"images_per_second": 1 / loading, "waited": waited(loading, training, meanwhile=meanwhile)}
    return found


def draw(results: list[dict[str, Any]], path: Path) -> Path:
    """Bars of the loaders' images per second, with the training step's as a line, a panel a case."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1 + 5.5 * len(results), 3.2), layout="constrained")
    for axes, result in zip(figure.subplots(1, len(results), squeeze=False)[0], results, strict=True):
        loaders = {name: found for name, found in result["summary"].items() if name != STEP}
        trained_images = result["summary"][STEP]["images_per_second"]
        rates = [found["images_per_second"] for found in loaders.values()]
        axes.barh(list(loaders), rates, 0.6, color=COLOURS[Mode.BASE])
        for place, found in enumerate(loaders.values()):
            label = f" waits {found['waited']:.0%}" if found["waited"] >= 0.001 else " no wait"
            axes.text(found["images_per_second"], place, label, va="center", fontsize=9)
        axes.axvline(
            trained_images,
            color=COLOURS[Mode.MOTIVATED],
            linestyle="--",
            label=f"trained by base steps: {trained_images:.0f}",
        )
        axes.set_xscale("log")
        lowest, highest = min(*rates, trained_images), max(*rates, trained_images)
        axes.set_xlim(lowest / 3, highest * 6)
        axes.invert_yaxis()
        axes.set_xlabel("images per second")
        axes.set_title(Case(**result["case"]).name, fontsize=10)
        axes.set_axisbelow(True)
        tidy(axes)
        axes.grid(visible=False, axis="y")
        axes.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.25))
    figure.savefig(path, dpi=120)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="a folder of images of your own; the cases are all measured on it")
    parser.add_argument("--images", type=int, default=2048, help="of an epoch")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="processes that read files")
    parser.add_argument("--rounds", type=int, default=5, help="epochs of each loader that are timed")
    parser.add_argument("--steps", type=int, default=3, help="training steps between them, timed together")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32", help="of the training step")
    parser.add_argument("--cuda-graphs", action="store_true", help="capture the training step")
    parser.add_argument("--channels-last", action="store_true", help="the memory format of images and network")
    add_common_options(parser, CASES)
    options = parser.parse_args()

    rows, results = [], []
    for case in options.case:
        with tempfile.TemporaryDirectory() as folder:
            if options.root is None:
                make_images(
                    Path(folder), options.images, case.img_size * (1 if case.img_size <= SMALL_IMAGE_SIDE else 2)
                )
            samples, started, images = measure(case, options.root or Path(folder), options)
        found = summary(case, samples, images, options.steps)
        for name, numbers in found.items():
            row = [case.name, name, f"{numbers['images_per_second']:.0f}"]
            row += ["", ""] if name == STEP else [f"{started[name]:.2f}", f"{numbers['waited']:.1%}"]
            rows.append(row)
        results.append(
            {"case": vars(case), "images": images, "summary": found, "seconds_to_start": started, "seconds": samples}
        )
    title = f"loading and training, {options.precision}, n = {options.rounds}"
    show(title, ["networks and batch", "", "images / s", "start, s", "a run waits"], rows)
    settings = {"rounds": options.rounds, "steps": options.steps, "results": results}
    path = write("loaders", settings, options.output, options.device)
    print(path)
    print(draw(results, path.with_suffix(".png")))


if __name__ == "__main__":
    main()
