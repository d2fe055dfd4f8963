"""How far a cascade's measured time is from the prediction, and what the cascade of a trained run reaches.

    python benchmarks/cascade.py [--case resnet8:resnet20:32:64 ...] [--seconds 60]    # times, with initial weights
    python benchmarks/cascade.py --run RUN_DIR [--within 0.1]                          # also a trained run
    python benchmarks/cascade.py --case resnet8:resnet14:32:8 --seconds 1              # small, in seconds

A case is base, motivated network, image size and batch size. Its cascade passes on 0 to 100 % of random images, and
is timed beside both networks alone, by turns (`nestnet.cascade.timing`). The prediction for a share of images passed on
is base + share x motivated. `--run` adds what `nestnet cascade` finds for a run with held-out images.

Prints a table, and writes benchmarks/results/cascade-DEVICE.json.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from common import Case, add_common_options, show, write

from nestnet import Cascade, Mode
from nestnet.cascade.networks import CascadeNetworks
from nestnet.cascade.report import describe_study, study_as_json
from nestnet.cascade.study import TIMED_SHARES, study_cascade
from nestnet.cascade.targets import AccuracyTarget
from nestnet.cascade.timing import Timing, time_cascade
from nestnet.cost import forward_cost
from nestnet.cost.cascade import CascadeCosts
from nestnet.runs.reading import read_run
from nestnet.training.calibration import confidence

CASES = [
    Case("resnet8", "resnet20", 32, 64),
    Case("resnet8", "resnet32", 32, 64),
    Case("efficientnet_b0", "efficientnet_b4", 96, 64),
]
"""Pairs whose costs differ by a factor of 3 or more."""

BATCHES = 8
"""Number of batches of random images."""

ROWS = ["pair", "passed on", "measured, ms per image", "predicted, ms", "measured / predicted"]


@torch.inference_mode()
def time_case(case: Case, device: torch.device, seconds: float) -> tuple[Timing, CascadeCosts]:
    """Time the cascade of a pair with initial weights, whose thresholds are quantiles of the base's confidence."""
    torch.manual_seed(0)
    net = case.nested(device).eval()
    base = net.standalone(Mode.BASE).eval().to(device)
    motivated = net.standalone(Mode.MOTIVATED).eval().to(device)
    batches = [case.batch(device)[0] for _ in range(BATCHES)]
    confidences = torch.cat([confidence(base(images)) for images in batches])
    thresholds = [0.0, *confidences.quantile(torch.tensor(TIMED_SHARES[1:-1], device=device)).tolist(), 2.0]
    timing = time_cascade(Cascade(base, motivated, 0.0).eval(), thresholds, batches, case.batch_size, seconds)
    costs = [forward_cost(network, img_size=case.img_size) for network in (base, motivated)]
    return timing, CascadeCosts(*costs)


def describe_timing(timing: Timing) -> dict[str, Any]:
    """Return a timing as JSON can store it."""
    return vars(timing) | {"seconds": vars(timing.seconds), "points": [vars(point) for point in timing.points]}


def study_run(run_dir: Path, within: float, seconds: float) -> dict[str, Any]:
    """Return what `nestnet cascade` finds for a run."""
    networks = CascadeNetworks(read_run(run_dir))
    study = study_cascade(networks, AccuracyTarget(within=within), seconds=seconds)
    print(describe_study(study))
    return json.loads(study_as_json(study))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_options(parser, CASES)
    parser.add_argument("--seconds", type=float, default=60.0, help="time that the timing of a case may take")
    parser.add_argument("--run", type=Path, metavar="RUN_DIR", help="trained run with held-out images")
    parser.add_argument("--within", type=float, default=0.1, help="largest loss of accuracy in points, for --run")
    options = parser.parse_args()

    results: list[dict[str, Any]] = []
    rows: list[list[str]] = []
    for case in options.case:
        timing, macs = time_case(case, options.device, options.seconds)
        results.append({"case": vars(case), "macs": vars(macs), "timing": describe_timing(timing)})
        for point in timing.points:
            measured = 1000 * point.seconds
            predicted = 1000 * timing.seconds.of_share(point.passed_on)
            row = [case.name, f"{point.passed_on:.1%}", f"{measured:.3g}", f"{predicted:.3g}"]
            rows.append([*row, f"{point.over_predicted:.2f}"])
        write("cascade", {"results": results}, options.output, options.device)
    show("Cascades", ROWS, rows)
    document: dict[str, Any] = {"results": results}
    if options.run is not None:
        document["run"] = study_run(options.run, options.within, options.seconds)
    print(write("cascade", document, options.output, options.device))


if __name__ == "__main__":
    main()
