"""One run that beats two? Ways of training a nested network, and each network alone, on CIFAR-10.

    python benchmarks/study.py --root FOLDER [--pair resnet8:resnet20] [--jobs 2] [--runs runs/study] [--minutes M]
    python benchmarks/study.py --root FOLDER --ways base_alone both_k2 --epochs 10 20 --seeds 0 1 2
    python benchmarks/study.py --root FOLDER --plan     # show which runs are done, and train nothing
    python benchmarks/study.py --quick                  # tiny runs on generated images, in a minute

FOLDER holds your copy of CIFAR-10 as images: train/<class>/*.jpg (or png) and test/<class>/*.

A run is a way of training (`WAYS`), a number of epochs and a seed. The runs of a pair of networks train in the order of
`PLAN`, the most important first; `--ways` takes some ways only, and `--epochs` or `--seeds` take all their combinations
in place of the plan. Each run is one `nestnet train` with one thread in a folder of its own below `--runs`, and
`--jobs` of them train side by side. Further arguments go to `nestnet train`; such runs need folders and a result file
of their own (`--runs`, `--output`).

The program can be stopped and called again at any time: on Ctrl-C, SIGTERM, or after `--minutes` its runs write a
checkpoint and end; later, unfinished runs are resumed, finished ones are measured, and those in the result file are
left alone. A run that fails is named, and the others go on.

The result file has a line for each finished run: top-1 of both networks after each epoch, batches by what they trained,
cost, agreement of both networks on the test images, versions. The cost is the arithmetic of all forward passes in
units of training the base alone for the same epochs. `study_report.py` turns it into a table, figures and sentences.
"""

import argparse
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from common import make_images, show
from study_headlines import CONTROLS
from study_results import Results
from study_runner import Runner
from study_runs import StudyRun, Training, Way

from nestnet import Mode

BOTH = ("--motivation.trains", "both")
DISTILLED = ("--motivation.distillation", "0.5")
EVERY_BATCH = ("--motivation.name", "always", *BOTH)
FALLING_LOSSES = ("--motivation.name", "loss_decrease", "--motivation.k")
PERIODIC = ("--motivation.name", "periodic", "--motivation.period")
ALTERNATE = (*PERIODIC, "2")
SECOND_HALF = ("--motivation.start", "0.5")
FINISH = ("--finish_lr", "0.1", "--finish_epochs")
ZERO_START = ("--model.zero_init_last", "true")

WAYS = (
    # The controls: each network alone, which together are two separate runs.
    Way(CONTROLS["base"], "base alone", ("--motivation.name", "never"), (Mode.BASE,)),
    Way(CONTROLS["motivated"], "motivated alone", ("--motivation.name", "always"), (Mode.MOTIVATED,)),
    # The motivated network instead of the base on motivated batches: the first is the paper's way.
    Way("replace_k2", "instead, k = 2 (the paper's)", (*FALLING_LOSSES, "2")),
    Way("replace_third", "instead, every third batch", (*PERIODIC, "3")),
    Way("replace_alternate", "instead, every second batch", ALTERNATE),
    Way("replace_alternate_late", "instead, every second batch of the second half", (*ALTERNATE, *SECOND_HALF)),
    # Variations: each network has its own scales and shifts of BatchNorm; the differential weights learn twice as fast.
    Way(
        "replace_alternate_separate",
        "instead, every second batch, separate BatchNorm",
        (*ALTERNATE, "--model.batch_norm", "separate"),
    ),
    Way(
        "replace_alternate_faster",
        "instead, every second batch, differential learning rate x 2",
        (*ALTERNATE, "--optimizer.differential_lr_scale", "2"),
    ),
    # Both networks on motivated batches.
    Way("both_k2", "both, k = 2", (*FALLING_LOSSES, "2", *BOTH)),
    Way("both_second_half", "both, second half", (*EVERY_BATCH, *SECOND_HALF)),
    Way("both_second_half_distilled", "both, second half, distilled", (*EVERY_BATCH, *SECOND_HALF, *DISTILLED)),
    Way(
        "both_last_third_distilled",
        "both, last third, distilled",
        (*EVERY_BATCH, "--motivation.start", "0.67", *DISTILLED),
    ),
    Way("both_always", "both, every batch", EVERY_BATCH),
    Way("both_always_distilled", "both, every batch, distilled", (*EVERY_BATCH, *DISTILLED)),
    # The bigger network grows out of the base: its further blocks start at zero, and learn ten times as fast.
    Way(
        "both_second_half_grown",
        "both, second half, distilled, grown from zero",
        (
            *EVERY_BATCH,
            *SECOND_HALF,
            *DISTILLED,
            *("--model.differential_init", "zero", "--optimizer.differential_lr_scale", "10"),
        ),
    ),
    # Two variations: each network has its own scales and shifts of BatchNorm; the base learns mostly from the other's output.
    Way(
        "both_second_half_separate",
        "both, second half, distilled, separate BatchNorm",
        (*EVERY_BATCH, *SECOND_HALF, *DISTILLED, "--model.batch_norm", "separate"),
    ),
    Way(
        "both_second_half_softened",
        "both, second half, distilled by 0.9 at temperature 4",
        (*EVERY_BATCH, *SECOND_HALF, "--motivation.distillation", "0.9", "--motivation.temperature", "4"),
    ),
    # The base, alone or with some motivated batches, and then the differential weights alone.
    Way("finish", "base alone, then 5 epochs of the rest", ("--motivation.name", "never", *FINISH, "5")),
    Way("finish_10", "base alone, then 10 epochs of the rest", ("--motivation.name", "never", *FINISH, "10")),
    Way("both_k2_finish", "both, k = 2, then 5 epochs of the rest", (*FALLING_LOSSES, "2", *BOTH, *FINISH, "5")),
    # All residual branches start at zero, as timm's do.
    Way("base_alone_zero_start", "base alone, zero start", ("--motivation.name", "never", *ZERO_START), (Mode.BASE,)),
    Way(
        "motivated_alone_zero_start",
        "motivated alone, zero start",
        ("--motivation.name", "always", *ZERO_START),
        (Mode.MOTIVATED,),
    ),
    Way(
        "both_second_half_distilled_zero_start",
        "both, second half, distilled, zero start",
        (*EVERY_BATCH, *SECOND_HALF, *DISTILLED, *ZERO_START),
    ),
)

BY_NAME = {way.name: way for way in WAYS}
ALL = tuple(BY_NAME)
ALONE = tuple(CONTROLS.values())
BEST = ("replace_alternate", "both_second_half_distilled", "finish")
"""The ways that train with every seed for several lengths."""

MAIN = (
    *ALONE,
    *BEST,
    "replace_k2",
    "both_k2",
    "replace_third",
    "replace_alternate_late",
    "both_last_third_distilled",
)
"""The controls, and the ways that train with every seed."""


@dataclass(frozen=True)
class Stage:
    """Part of the plan: all combinations of ways, numbers of epochs and seeds, by seed, then by epochs."""

    ways: tuple[str, ...]
    epochs: tuple[int, ...]
    seeds: tuple[int, ...]


MAIN_EPOCHS = 20
"""Number of epochs at which all ways are compared."""

PLAN = (
    Stage((*ALONE, *BEST), (MAIN_EPOCHS,), (0, 1, 2)),
    # Two separate runs of other lengths reach other accuracies: shorter ones are as good as the cheapest nested runs, and
    # longer ones as good as the best.
    Stage((*ALONE, *BEST), (10, 5), (0,)),
    Stage(MAIN, (MAIN_EPOCHS,), (0, 1, 2)),
    Stage((*ALONE, *BEST), (10, 5, 40), (0, 1, 2)),
    Stage(ALL, (MAIN_EPOCHS,), (0,)),
    Stage((CONTROLS["base"],), (80,), (0, 1, 2)),
)

PAIR = "resnet8:resnet20"
RUNS = Path("runs/study")

QUICK_PLAN = (Stage((*ALONE, "both_second_half"), (1,), (0,)),)
QUICK_PAIR = "resnet8:resnet14"
QUICK_OVERRIDES = ("--data.batch_size", "20")
QUICK_IMAGES = 120  # six batches: with fewer, falling losses could motivate none


def list_runs(plan: tuple[Stage, ...], ways: list[str], folder: Path) -> list[StudyRun]:
    """Return the runs of a plan in their order, each once.

    Args:
        plan: plan.
        ways: names of the ways that are taken.
        folder: folder of the runs of the pair.
    """
    runs: dict[StudyRun, None] = {}
    for stage in plan:
        for seed in stage.seeds:
            for epochs in stage.epochs:
                for name in stage.ways:
                    if name in ways:
                        runs[StudyRun(BY_NAME[name], epochs, seed, folder)] = None
    return list(runs)


def choose_plan(options: argparse.Namespace) -> tuple[Stage, ...]:
    """Return the plan that the options ask for."""
    if options.quick:
        return QUICK_PLAN
    if options.epochs is None and options.seeds is None:
        return PLAN
    epochs = tuple(options.epochs or (MAIN_EPOCHS,))
    seeds = tuple(options.seeds or (0,))
    return (Stage(tuple(options.ways), epochs, seeds),)


def show_plan(runs: list[StudyRun], results: Results) -> None:
    """Print each run with its state."""
    rows = []
    for run in runs:
        rows.append([run.way.name, str(run.epochs), str(run.seed), find_state(run, results)])
    show(f"{len(runs)} runs", ["way", "epochs", "seed", "state"], rows)


def find_state(run: StudyRun, results: Results) -> str:
    """Return how far a run is, in words."""
    if run.key in results.rows:
        return "in the results"
    if run.is_finished:
        return "finished, not measured"
    if run.is_held:
        return "another process trains it"
    if run.is_started:
        return "unfinished"
    return "to do"


def train(options: argparse.Namespace, overrides: list[str]) -> Path:
    """Train and measure the runs that are asked for, and return the path of the result file.

    Raises:
        SystemExit: If runs failed, or a signal ended the program.
    """
    base, motivated = options.pair.split(":")
    training = Training(base, motivated, options.root.resolve(), options.device, options.precision, tuple(overrides))
    results = Results(training, options.output, WAYS)
    runs = list_runs(choose_plan(options), options.ways, options.runs.resolve() / f"{base}-{motivated}")
    try:
        for run in runs:
            training.check(run)
    except ValueError as error:
        raise SystemExit(f"{run}: {error}") from None
    if options.plan:
        show_plan(runs, results)
        return results.path

    def add(run: StudyRun) -> None:
        row = results.add(run)
        top1 = ", ".join(f"{mode} {row['top1'][mode]:.2f} %" for mode in run.way.networks)
        print(f"{run}: {top1}; cost {row['cost']:.3f}; {len(results.rows)} runs in {results.path.name}", flush=True)

    runner = Runner(training, options.jobs, 60 * options.minutes, add)
    left = runner.train([run for run in runs if run.key not in results.rows])
    if left:
        print(f"stopped: {len(left)} of {len(runs)} runs are left; the same command continues them", flush=True)
    if runner.signal:
        raise SystemExit(128 + runner.signal)
    if runner.failed:
        raise SystemExit(f"{len(runner.failed)} of {len(runs)} runs failed: {', '.join(map(str, runner.failed))}")
    return results.path


def train_quickly(options: argparse.Namespace, overrides: list[str]) -> Path:
    """Train tiny runs on generated images, whose accuracies mean nothing, to see whether it works."""
    options.output = options.output or Path(tempfile.gettempdir()) / "study-quick.json"
    # The runs of an earlier call are gone, and would be taken for these.
    options.output.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_images(folder / "images", QUICK_IMAGES, 32)
        options.root = folder / "images"
        options.runs = folder / "runs"
        options.pair = QUICK_PAIR
        return train(options, [*QUICK_OVERRIDES, *overrides])


def parse_options() -> tuple[argparse.Namespace, list[str]]:
    """Return the options, and the arguments for `nestnet train`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--root", type=Path, help="CIFAR-10 as a folder of images")
    parser.add_argument("--pair", help=f"BASE:MOTIVATED, timm's names (default: {PAIR})")
    parser.add_argument("--ways", nargs="+", choices=ALL, default=list(ALL), metavar="WAY", help=", ".join(ALL))
    parser.add_argument("--epochs", type=int, nargs="+", help="numbers of epochs, in place of the plan's")
    parser.add_argument("--seeds", type=int, nargs="+", help="seeds, in place of the plan's")
    parser.add_argument("--jobs", type=int, default=2, help="number of runs that train side by side")
    parser.add_argument("--runs", type=Path, help=f"folder of the run directories (default: {RUNS})")
    parser.add_argument("--minutes", type=float, default=math.inf, help="time after which unfinished runs are stopped")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto", help="the runs' field `precision`")
    parser.add_argument("--plan", action="store_true", help="show the runs and their states, and train nothing")
    parser.add_argument("--quick", action="store_true", help="tiny runs on generated images, to see whether it works")
    parser.add_argument("--output", type=Path, help="the result file")
    options, overrides = parser.parse_known_args()
    if options.jobs < 1:
        parser.error(f"--jobs {options.jobs}: it must be at least 1")
    if options.quick:
        for name in ("root", "pair", "runs"):
            if getattr(options, name) is not None:
                parser.error(f"--{name}: --quick has its own; leave either out")
        if options.output is not None and options.output.exists():
            parser.error(f"--output {options.output}: it exists, and --quick begins a new file; name another one")
        return options, overrides
    if options.root is None:
        parser.error("--root: name the folder of images (or try --quick)")
    if not (options.root / "train").is_dir():
        parser.error(f"--root {options.root}: there is no folder train/ in it")
    # Runs with further arguments are other runs, and must not be taken for those of the study.
    if overrides and (options.runs is None or options.output is None):
        parser.error(f"{' '.join(overrides)}: runs with further arguments need --runs and --output of their own")
    options.pair = options.pair or PAIR
    options.runs = options.runs or RUNS
    if options.pair.count(":") != 1:
        parser.error(f"--pair {options.pair}: give two networks as BASE:MOTIVATED")
    return options, overrides


def main() -> None:
    options, overrides = parse_options()
    # The runs are measured beside those that still train, and threads that spin on the same cores slow each other down.
    torch.set_num_threads(1)
    path = train_quickly(options, overrides) if options.quick else train(options, overrides)
    print(path)


if __name__ == "__main__":
    main()
