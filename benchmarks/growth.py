"""How the cost of nesting grows: a training step, nested against timm's, over depth, width, batch size and resolution.

    python benchmarks/growth.py [--rounds 20] [--device cpu] [--axis depth width batch resolution]

On each axis the cases differ in one property. For each case, nested and timm steps of both modes are timed in turn in
one process; the ratio is the median of nested / timm over the rounds, with its quartiles. Nesting adds the assembly of
the weights to a motivated step: its time grows with their number but not with the images, so its share falls as the
batch or the resolution grows.

Prints a table, and writes benchmarks/results/growth-DEVICE.json with the raw samples, in seconds, and a figure beside
it. The standard cases take about six minutes on two idle cores.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from common import Case, ratio, sgd, show, step, time_in_turn, write

from nestnet import Mode
from nestnet.analysis.plotting import MODE_COLOURS, style_axes

AXES = {
    "depth": {
        "20 / 32": Case("resnet20", "resnet32", 32, 64),
        "32 / 44": Case("resnet32", "resnet44", 32, 64),
        "44 / 56": Case("resnet44", "resnet56", 32, 64),
    },
    "width": {
        "tiny / small": Case("vit_tiny_patch16_224", "vit_small_patch16_224", 64, 8),
        "small / base": Case("vit_small_patch16_224", "vit_base_patch16_224", 64, 8),
    },
    "batch": {str(size): Case("resnet20", "resnet32", 32, size) for size in (16, 64, 256)},
    "resolution": {
        "64": Case("efficientnet_b0", "efficientnet_b1", 64, 8),
        "128": Case("efficientnet_b0", "efficientnet_b1", 128, 8),
        "224": Case("efficientnet_b0", "efficientnet_b1", 224, 4),
    },
}
"""The cases of each axis, by their label on it."""

LABELS = {
    "depth": "ResNet, layers",
    "width": "ViT, width",
    "batch": "ResNet-20 / 32, batch",
    "resolution": "EfficientNet-B0 / B1, pixels",
}


def measure(case: Case, rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Measure the seconds of each kind of step in each round."""
    torch.manual_seed(0)
    net, (images, labels) = case.nested(device), case.batch(device)
    optimizer = sgd(net)
    steps: dict[str, Callable[[], float]] = {}
    for mode in Mode:
        standalone = net.standalone(mode)
        steps[f"timm {mode}"] = partial(step, standalone, sgd(standalone), images, labels)
        steps[f"nested {mode}"] = partial(step, partial(net, mode=mode), optimizer, images, labels)
    return time_in_turn(steps, rounds)


def draw(results: list[dict[str, Any]], path: Path) -> Path:
    """Draw the ratios with their quartiles, with a panel per axis."""
    from matplotlib.figure import Figure

    axes_names = list(dict.fromkeys(result["axis"] for result in results))
    figure = Figure(figsize=(1 + 3 * len(axes_names), 3.6), layout="constrained")
    panels = figure.subplots(1, len(axes_names), sharey=True, squeeze=False)[0]
    for panel, name in zip(panels, axes_names, strict=True):
        rows = [result for result in results if result["axis"] == name]
        panel.axhline(1, color="0.5", linewidth=1)
        for mode, shift in zip(Mode, (-0.06, 0.06), strict=True):
            ratios = [row["ratios"][mode] for row in rows]
            middle = [found["median"] for found in ratios]
            spread = [
                [found["median"] - found["q1"] for found in ratios],
                [found["q3"] - found["median"] for found in ratios],
            ]
            places = [place + shift for place in range(len(rows))]
            panel.errorbar(places, middle, spread, fmt="o-", capsize=3, color=MODE_COLOURS[mode], label=f"{mode} step")
        panel.set_xticks(range(len(rows)), [row["place"] for row in rows])
        panel.set_xlim(-0.5, len(rows) - 0.5)
        panel.set_xlabel(LABELS[name])
        style_axes(panel)
    panels[0].set_ylabel("nested / timm, time of a step")
    panels[-1].legend(frameon=False)
    figure.savefig(path, dpi=120)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="number of measurements of each step")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--axis", nargs="+", choices=list(AXES), default=list(AXES), help="axes to vary")
    parser.add_argument("--scale", type=float, default=1, help="factor of the batch sizes, such as 8 for a GPU")
    parser.add_argument("--output", type=Path, help="the result file")
    options = parser.parse_args()

    rows, results = [], []
    for axis in options.axis:
        for place, standard in AXES[axis].items():
            batch = max(2, round(standard.batch_size * options.scale))  # BatchNorm needs two images
            case = Case(standard.base, standard.motivated, standard.img_size, batch)
            samples = measure(case, options.rounds, options.device)
            row, ratios = [axis, case.name], {}
            for mode in Mode:
                ours, theirs = samples[f"nested {mode}"], samples[f"timm {mode}"]
                middle, low, high = ratio(ours, theirs)
                ratios[str(mode)] = {"median": middle, "q1": low, "q3": high}
                row += [f"{1000 * median(theirs):.1f}", f"{middle:.3f} ({low:.3f}-{high:.3f})"]
            rows.append(row)
            place = str(batch) if axis == "batch" else place
            results.append({"axis": axis, "place": place, "case": vars(case), "ratios": ratios, "seconds": samples})
    columns = ["axis", "networks and batch"]
    columns += [f"{mode}: {what}" for mode in Mode for what in ("timm, ms", "nested / timm")]
    show(f"training step, float32, SGD, n = {options.rounds}", columns, rows)
    path = write("growth", {"rounds": options.rounds, "results": results}, options.output, options.device)
    print(path)
    print(draw(results, path.with_suffix(".png")))


if __name__ == "__main__":
    main()
