"""The command `nestnet cascade`: run the base first, and the motivated network only where it is needed."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nestnet.cli.parser import Parser, path
from nestnet.cli.terminal import print_result, print_text
from nestnet.text.escape import for_terminal

if TYPE_CHECKING:
    from nestnet.cascade.targets import Target


def cascade(arguments: list[str]) -> None:
    """Choose the confidence below which images of the base are passed on to the motivated network, and judge the cascade.

    The threshold is chosen on held-out images, and the test images judge it. The run directory gets cascade.csv (the
    whole curve), cascade.json and cascade.png.
    """
    parser = Parser("nestnet cascade", cascade.__doc__)
    parser.add_argument("run_dir", type=path, metavar="RUN_DIR", help="folder of a run with held-out images")
    targets = parser.add_mutually_exclusive_group()
    targets.add_argument(
        "--accuracy",
        nargs="+",
        metavar=("within", "POINTS"),
        help="the cheapest cascade within so many points of the motivated network (default: within 0.1), or of so many percent",
    )
    targets.add_argument(
        "--cost",
        type=float,
        metavar="TIMES",
        help="the best cascade of at most so many times the base's multiply-accumulates",
    )
    targets.add_argument(
        "--milliseconds",
        type=float,
        metavar="MS",
        help="the best cascade of at most so many measured milliseconds per image",
    )
    parser.add_argument(
        "--output", type=path, metavar="FILE", help="export the cascade there: a file, or a folder for onnx"
    )
    parser.add_argument("--format", choices=("safetensors", "onnx"), default="safetensors")
    parser.add_argument("--batch_size", type=int, default=64, metavar="N", help="images per batch (default: 64)")
    parser.add_argument(
        "--seconds", type=float, default=60.0, metavar="S", help="time that may be spent on timing (default: 60)"
    )
    parser.add_argument("--best", choices=("base", "motivated"), help="the weights after this network's best epoch")
    parser.add_argument(
        "--recalibrate", type=int, metavar="N", help="recompute the BatchNorm statistics on N training batches"
    )
    options = parser.parse_args(arguments)
    target = choose_target(options)

    from nestnet.cascade.deployment import choose_cascade_destination, deploy_cascade
    from nestnet.cascade.figure import draw_cascade
    from nestnet.cascade.networks import CascadeNetworks
    from nestnet.cascade.report import curve_as_csv, describe_break_even, describe_study, study_as_json
    from nestnet.cascade.study import study_cascade
    from nestnet.nn.mode import Mode
    from nestnet.runs.reading import read_run
    from nestnet.storage.atomic import write_atomically

    run = read_run(options.run_dir, best=None if options.best is None else Mode(options.best))
    if options.output is not None:
        choose_cascade_destination(options.output, options.format)
    networks = CascadeNetworks(run, options.recalibrate)
    print_text(for_terminal(describe_break_even(networks)), file=sys.stderr)
    study = study_cascade(networks, target, batch_size=options.batch_size, seconds=options.seconds)
    print_text(describe_study(study))
    folder: Path = options.run_dir
    write_atomically(folder / "cascade.csv", curve_as_csv(study))
    write_atomically(folder / "cascade.json", study_as_json(study))
    print_result(draw_cascade(study, folder / "cascade.png", run.path.resolve().name))
    if options.output is not None:
        written = deploy_cascade(networks, study, options.output, options.format)
        print_text(for_terminal(f"wrote {options.output} and {written.card}"), file=sys.stderr)


def choose_target(options: Any) -> "Target":
    """Return the target that the options of the command name.

    Args:
        options: parsed options, of which at most one names a target.

    Raises:
        ValueError: If a value is out of range.
    """
    from nestnet.cascade.targets import AccuracyTarget, CostTarget, TimeTarget

    if options.cost is not None:
        if not options.cost >= 1:
            raise ValueError(f"--cost {options.cost:g}: it must be at least 1, the cost of the base alone")
        return CostTarget(options.cost)
    if options.milliseconds is not None:
        if not options.milliseconds > 0:
            raise ValueError(f"--milliseconds {options.milliseconds:g}: it must be above 0")
        return TimeTarget(options.milliseconds)
    words = options.accuracy or ["within", "0.1"]
    given = f"--accuracy {' '.join(words)}"
    try:
        value = float(words[-1])
    except ValueError:
        value = float("nan")
    is_within = len(words) == 2 and words[0] == "within"
    # A comparison with NaN is false.
    if not 0 <= value <= 100 or not (is_within or len(words) == 1):
        raise ValueError(f"{given}: write `within 0.1` for a loss in points, or a top-1 in percent from 0 to 100")
    if is_within:
        return AccuracyTarget(within=value)
    return AccuracyTarget(within=None, percent=value)
