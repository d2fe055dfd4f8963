"""Images per second of the loaders compared with a training step: the share of a run that waits for images.

    python benchmarks/loaders.py [--workers 0 2] [--device cpu] [--root FOLDER] [--case resnet20:resnet32:32:128 ...]

Images of up to 64 pixels: the resident loader (`data.loader: resident`), and torch's loader of files (`files`) with
each number of workers, both with the augmentation `crop` and Cutout. Larger images: files with `resized_crop`. The
images are JPEG files that the program generates in a temporary folder, or those of `--root` (`train/` and `test/` with
a folder per class). Small images have the size that is trained, larger ones twice the height and width, because
photographs are larger. After the first epoch the files come from the system's cache, not from a disk.

The loaders and a base step of `nestnet.TrainStep`, on one of their batches, are timed in turn. The medians give the
share of time that a run waits: resident images, and files without workers, are loaded between the steps; workers read
during the steps, so a run only waits for the excess. On a CPU workers and training share the cores, and both slow
down.

Prints a table, and writes benchmarks/results/loaders-DEVICE.json with the raw samples, in seconds per epoch or step,
and a figure beside it.
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
from common import Case, add_common_options, make_images, sgd, show, time_in_turn, write
from torch import Tensor
from torch.nn.functional import cross_entropy

from nestnet import Mode, TrainStep
from nestnet.analysis.plotting import MODE_COLOURS, style_axes
from nestnet.config.schema_sections import DataConfig, ModelConfig
from nestnet.data.image_data import ImageData, load_data
from nestnet.data.loaders import TrainLoader, create_train_loader
from nestnet.data.preprocessing import MAX_SMALL_IMG_SIZE
from nestnet.device import DeviceContext
from nestnet.step.views import BatchTensor
from nestnet.training.views import views_by_mode

CASES = [Case("resnet20", "resnet32", 32, 128), Case("resnet50", "resnet101", 224, 16)]
STEP, RESIDENT = "base step", "resident"


def files(workers: int) -> str:
    return f"files, {workers or 'no'} worker{'s' * (workers != 1)}"


def draw_images(case: Case, root: Path, count: int) -> tuple[ImageData, DataConfig]:
    """Return `count` random training images of a folder, and the configuration of their loader."""
    small = case.img_size <= MAX_SMALL_IMG_SIZE
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
    return images.resplit(kept, []), config


def measure(
    case: Case, root: Path, options: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, float], int]:
    """Measure the seconds per epoch of each loader and of the steps, the start of each loader, and the images per epoch."""
    images, config = draw_images(case, root, options.images)
    device_context = DeviceContext(
        options.device, torch.channels_last if options.channels_last else torch.preserve_format
    )
    kinds: dict[str, dict[str, Any]] = {
        files(workers): {"loader": "files", "workers": workers} for workers in options.workers
    }
    if images.reason_not_resident is None:
        kinds = {RESIDENT: {"loader": "resident"}, **kinds}
    loaders: dict[str, TrainLoader] = {}
    started: dict[str, float] = {}
    for name, settings in kinds.items():
        begun = time.perf_counter()
        loaders[name] = create_train_loader(images, replace(config, **settings), 0, device_context)
        started[name] = time.perf_counter() - begun
    functions: dict[str, Callable[[], Any]] = {name: partial(read, loader) for name, loader in loaders.items()}
    pixels, labels = next(loaders[next(iter(kinds))].epoch(0))
    batch = (views_by_mode(pixels), labels)
    functions[STEP] = partial(train, create_step(case, device_context, options), batch, options.steps)
    count = len(images.train) // config.images_per_batch * config.images_per_batch
    return time_in_turn(functions, options.rounds, warmup=1), started, count


def read(loader: TrainLoader) -> None:
    """Read an epoch without training."""
    for _ in loader.epoch(0):
        pass


def create_step(case: Case, device_context: DeviceContext, options: argparse.Namespace) -> TrainStep:
    torch.manual_seed(0)
    net = case.nested(device_context.device).to(memory_format=device_context.memory_format)
    return TrainStep(net, sgd(net), cross_entropy, precision=options.precision, cuda_graphs=options.cuda_graphs)


def train(step: TrainStep, batch: tuple[BatchTensor, Tensor], steps: int) -> None:
    for _ in range(steps):
        step(*batch, Mode.BASE).loss()


def waiting_share(loading: float, training: float, *, meanwhile: bool) -> float:
    """Return the share of time that a run waits, from the seconds per image of loading and training.

    >>> waiting_share(1.0, 3.0, meanwhile=False), waiting_share(1.0, 3.0, meanwhile=True)
    (0.25, 0.0)
    >>> waiting_share(4.0, 3.0, meanwhile=True)
    0.25
    """
    return max(0.0, 1 - training / loading) if meanwhile else loading / (loading + training)


def summary(case: Case, samples: dict[str, list[float]], images: int, steps: int) -> dict[str, dict[str, float]]:
    """Return the images per second of each loader and of the steps, and the share of time that a run waits."""
    training = median(samples[STEP]) / (steps * case.batch_size)
    found: dict[str, dict[str, float]] = {}
    for name, taken in samples.items():
        if name == STEP:
            found[name] = {"images_per_second": 1 / training}
            continue
        loading, meanwhile = median(taken) / images, name not in (RESIDENT, files(0))
        found[name] = {
            "images_per_second": 1 / loading,
            "waited": waiting_share(loading, training, meanwhile=meanwhile),
        }
    return found


def draw(results: list[dict[str, Any]], path: Path) -> Path:
    """Draw the images per second of each loader as bars and those of the step as a line, with a panel per case."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1 + 5.5 * len(results), 3.2), layout="constrained")
    for axes, result in zip(figure.subplots(1, len(results), squeeze=False)[0], results, strict=True):
        loaders = {name: found for name, found in result["summary"].items() if name != STEP}
        trained_images = result["summary"][STEP]["images_per_second"]
        rates = [found["images_per_second"] for found in loaders.values()]
        axes.barh(list(loaders), rates, 0.6, color=MODE_COLOURS[Mode.BASE])
        for place, found in enumerate(loaders.values()):
            label = f" waits {found['waited']:.0%}" if found["waited"] >= 0.001 else " no wait"
            axes.text(found["images_per_second"], place, label, va="center", fontsize=9)
        axes.axvline(
            trained_images,
            color=MODE_COLOURS[Mode.MOTIVATED],
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
        style_axes(axes)
        axes.grid(visible=False, axis="y")
        axes.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.25))
    figure.savefig(path, dpi=120)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder of your own images, on which all cases are measured")
    parser.add_argument("--images", type=int, default=2048, help="number of images of an epoch")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="processes that read files")
    parser.add_argument("--rounds", type=int, default=5, help="number of timed epochs of each loader")
    parser.add_argument("--steps", type=int, default=3, help="number of training steps between them, timed together")
    parser.add_argument(
        "--precision", choices=["float32", "bfloat16"], default="float32", help="precision of the training step"
    )
    parser.add_argument("--cuda-graphs", action="store_true", help="capture the training step")
    parser.add_argument(
        "--channels-last", action="store_true", help="use channels last as the memory format of images and network"
    )
    add_common_options(parser, CASES)
    options = parser.parse_args()

    rows, results = [], []
    for case in options.case:
        with tempfile.TemporaryDirectory() as folder:
            if options.root is None:
                make_images(
                    Path(folder), options.images, case.img_size * (1 if case.img_size <= MAX_SMALL_IMG_SIZE else 2)
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
