"""Classes of unequal size: plain training, `data.class_weights: balanced` and `data.sampler: balanced`.

    python benchmarks/imbalanced.py --root FOLDER [--classes cat dog deer] [--largest 1500] [--ratio 50]
                                    [--test-images 300] [--epochs 8] [--seeds 0 1 2] [--runs DIR]
    python benchmarks/imbalanced.py --quick            # generated images, one short run of each way

FOLDER holds your copy of CIFAR-10 as images: train/<class>/*.jpg (or png) and test/<class>/*. A folder of links to some
of them is made in DIR: of the first class `--largest` training images, of the last one `--ratio` times fewer, of those
between them as many as a geometric series gives; and of each the same number of test images.

Each way trains ResNet-8 in ResNet-20 by the same recipe (k = 2), and each subnet is evaluated on the test images, as
`nestnet evaluate` does it. Finished runs are not repeated. Further arguments go to `nestnet train`. Prints a table, and
writes benchmarks/results/imbalanced-DEVICE.json.
"""

import argparse
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from common import show, write
from PIL import Image

from nestnet import Mode
from nestnet.config.parsing import parse
from nestnet.device import choose_device
from nestnet.runs.reading import read_run
from nestnet.training.classification_metrics import ClassificationMetrics
from nestnet.training.run_evaluation import evaluate_run
from nestnet.training.trainer import Trainer

CONFIG = Path(__file__).parent.parent / "configs" / "cifar10_folder_resnet20_32.yaml"

WAYS = {
    "plain": [],
    "class weights": ["--data.class_weights=balanced"],
    "sampler": ["--data.sampler=balanced"],
}
"""Arguments of each way of training."""

QUICK = {"largest": 64, "test_images": 8, "ratio": 4.0, "epochs": 1, "batch_size": 16, "img_size": 16, "seeds": [0]}
"""Settings of a short run, whose figures mean nothing."""


def count_images(classes: int, largest: int, ratio: float) -> list[int]:
    """Return the number of training images of each class.

    >>> count_images(3, 1500, 50)
    [1500, 212, 30]
    """
    return [round(largest * ratio ** (-index / (classes - 1))) for index in range(classes)]


def link_images(root: Path, folder: Path, counts: dict[str, int], test_images: int) -> None:
    """Make a folder of links to the first images of some classes, for training and for testing."""
    if folder.exists():
        shutil.rmtree(folder)
    for name, count in counts.items():
        for part, number in (("train", count), ("test", test_images)):
            images = sorted((root / part / name).iterdir())
            if len(images) < number:
                raise SystemExit(f"{root / part / name} has {len(images)} images, and {number} are needed")
            (folder / part / name).mkdir(parents=True)
            for image in images[:number]:
                (folder / part / name / image.name).symlink_to(image.resolve())


def generate_images(root: Path, classes: list[str], count: int) -> None:
    """Make a folder of noisy images, each class with a brightness of its own."""
    generator = torch.Generator().manual_seed(0)
    for part, number in (("train", count), ("test", 8)):
        for label, name in enumerate(classes):
            (root / part / name).mkdir(parents=True)
            for index in range(number):
                pixels = 60 * label + torch.randint(120, (16, 16, 3), generator=generator)
                Image.fromarray(pixels.byte().numpy()).save(root / part / name / f"{index:03}.png")


def train(path: Path, way: str, seed: int, folder: Path, options: argparse.Namespace) -> None:
    """Train a run, unless it is finished."""
    if (path / "motivated.safetensors").is_file():
        return
    if path.exists():
        shutil.rmtree(path)
    arguments = [f"--config={CONFIG}", "--model.base=resnet8", "--model.motivated=resnet20", "--channels_last=true"]
    arguments += [f"--data.root={folder}", f"--epochs={options.epochs}", f"--seed={seed}"]
    arguments += [f"--data.batch_size={options.batch_size}", f"--data.img_size={options.img_size}"]
    # The recipe's rate of 0.1 is for batches of 128.
    arguments.append(f"--optimizer.lr={0.1 * (options.batch_size / 128) ** 0.5}")
    arguments += [f"--device={options.device}", f"--run_dir={path}", *WAYS[way], *options.overrides]
    Trainer(parse(arguments)).fit()


def measure(path: Path, way: str, seed: int, device: torch.device) -> list[dict[str, Any]]:
    """Return the metrics of both subnets of a run."""
    rows = []
    for mode in Mode:
        metrics = evaluate_run(read_run(path), mode, device).metrics
        assert isinstance(metrics, ClassificationMetrics)
        rows.append(
            {
                "way": way,
                "seed": seed,
                "mode": str(mode),
                "top1": metrics.top1,
                "balanced_accuracy": metrics.balanced_accuracy,
                "macro_f1": metrics.macro_f1,
                "recall": dict(zip(metrics.class_names, metrics.recall.tolist(), strict=True)),
                "confusion": metrics.confusion.tolist(),
            }
        )
    return rows


def spread(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def report(results: list[dict[str, Any]], counts: dict[str, int], epochs: int) -> None:
    """Print a table of both subnets' metrics, as mean and standard deviation over the seeds."""
    table = []
    for mode in Mode:
        for way in WAYS:
            rows = [row for row in results if (row["way"], row["mode"]) == (way, str(mode))]
            if rows:
                cells = [str(mode), way, str(len(rows))]
                cells.append(spread([row["balanced_accuracy"] for row in rows]))
                cells.append(spread([row["macro_f1"] for row in rows]))
                cells += [spread([row["recall"][name] for row in rows]) for name in counts]
                table.append(cells)
    columns = ["subnet", "way", "seeds", "balanced accuracy, %", "macro F1, %"]
    columns += [f"recall of {name} ({count:,} images), %" for name, count in counts.items()]
    show(f"ResNet-8 in ResNet-20, {sum(counts.values()):,} training images, {epochs} epochs", columns, table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="CIFAR-10 as a folder of images")
    parser.add_argument("--classes", nargs="+", default=["cat", "dog", "deer"], help="at least 2, the largest first")
    parser.add_argument("--largest", type=int, default=1500, help="number of training images of the first class")
    parser.add_argument("--test-images", type=int, default=300, help="number of test images of each class")
    parser.add_argument("--ratio", type=float, default=50, help="how many times fewer the last class has")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--img-size", type=int, default=32)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, help="folder of the runs; by default a temporary one")
    parser.add_argument("--quick", action="store_true", help="generated images and short runs, to try the program")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, help="the result file")
    options, overrides = parser.parse_known_args()
    options.overrides = overrides
    if options.quick:
        vars(options).update(QUICK)
    elif options.root is None:
        parser.error("give --root FOLDER, or --quick")

    counts = dict(zip(options.classes, count_images(len(options.classes), options.largest, options.ratio), strict=True))
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        runs = options.runs or Path(temporary) / "runs"
        root = options.root
        if options.quick:
            root = Path(temporary) / "generated"
            generate_images(root, options.classes, options.largest)
        link_images(root, runs / "images", counts, options.test_images)
        device = choose_device(options.device)
        for seed in options.seeds:
            for way in WAYS:
                path = runs / f"{way.replace(' ', '-')}-seed{seed}"
                train(path, way, seed, runs / "images", options)
                results += measure(path, way, seed, device)
                content = {"train_images": counts, "test_images": options.test_images, "epochs": options.epochs}
                content |= {"batch_size": options.batch_size, "results": results}
                written = write("imbalanced", content, options.output, device)
    report(results, counts, options.epochs)
    print(written)


if __name__ == "__main__":
    main()
