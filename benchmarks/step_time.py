"""Time of a training step: nested base and motivated against timm's standalone networks, interleaved in one process.

    python benchmarks/step_time.py [--rounds 20] [--device cpu] [--case resnet20:resnet32:32:128 ...]

Prints a table of medians and of ratios nested / timm (median and quartiles of the ratios round by round) and writes
benchmarks/results/step_time-DEVICE.json with the raw samples, in seconds.
"""

import argparse
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from common import Case, add_common_options, interleaved, ratio, sgd, show, step, write

from nestnet import Mode

CASES = [
    Case("resnet20", "resnet32", 32, 128),
    Case("resnet44", "resnet56", 32, 128),
    Case("resnet50", "resnet101", 96, 8),
    Case("vit_tiny_patch16_224", "vit_small_patch16_224", 224, 8),
    Case("efficientnet_b0", "efficientnet_b1", 96, 16),
    Case("efficientnet_b1", "efficientnet_b2", 96, 16),
    Case("efficientnet_b1", "efficientnet_b2", 224, 8),
]


def measure(case: Case, rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each kind of step, round by round."""
    torch.manual_seed(0)
    net, (images, labels) = case.nested(device), case.batch(device)
    optimizer = sgd(net)
    steps: dict[str, Callable[[], float]] = {}
    for mode in Mode:
        standalone = net.standalone(mode)
        steps[f"timm {mode}"] = partial(step, standalone, sgd(standalone), images, labels)
        steps[f"nested {mode}"] = partial(step, partial(net, mode=mode), optimizer, images, labels)
    return interleaved(steps, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="measurements of each step")
    add_common_options(parser, CASES)
    options = parser.parse_args()

    rows, results = [], []
    for case in options.case:
        samples = measure(case, options.rounds, options.device)
        row, ratios = [case.name], {}
        for mode in Mode:
            ours, theirs = samples[f"nested {mode}"], samples[f"timm {mode}"]
            ratios[str(mode)] = dict(zip(("median", "q1", "q3"), ratio(ours, theirs), strict=True))
            middle, low, high = ratios[str(mode)].values()
            row += [
                f"{1000 * median(theirs):.1f}",
                f"{1000 * median(ours):.1f}",
                f"{middle:.3f} ({low:.3f}-{high:.3f})",
            ]
        rows.append(row)
        results.append({"case": vars(case), "ratios": ratios, "seconds": samples})
    columns = ["networks and batch"]
    columns += [f"{mode}: {what}" for mode in Mode for what in ("timm, ms", "nested, ms", "nested / timm")]
    show(f"training step, float32, SGD, n = {options.rounds}", columns, rows)
    print(write("step_time", {"rounds": options.rounds, "results": results}, options.output, options.device))


if __name__ == "__main__":
    main()
