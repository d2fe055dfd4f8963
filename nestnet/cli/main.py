"""The command line: `nestnet <verb>`. Each verb is a few lines over the library."""

import argparse
import difflib
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from nestnet.runtime.interrupts import CommandSignals, command_signals
from nestnet.runtime.terminal import accept_any_text, drop_unwritten_output, flush, give, say
from nestnet.runtime.torchrun import is_first_of_machine, is_first_process, launch
from nestnet.storage.paths import expand_home
from nestnet.text.escape import for_terminal, quoted
from nestnet.version import __version__

USAGE = """\
usage: nestnet <verb> ...

  train     --config FILE | --data.root FOLDER [--epochs N] [--seed N] [--run_dir DIR] [--section.key value ...] [--dry_run]
  resume    RUN_DIR [--section.key value ...]
  cost      --config FILE [--section.key value ...]
  tune-k    --config FILE --k K [K ...] [--folds N] [--jobs N] [--output DIR] [--section.key value ...]
  evaluate  RUN_DIR --mode base|motivated [--best] [--recalibrate N]
  export    RUN_DIR --mode base|motivated --output FILE [--format safetensors|onnx|torch-export] [--best] [--recalibrate N]
  predict   FILE|FOLDER [FILE|FOLDER ...] --model FILE [--top N] [--batch_size N] [--format text|csv|json]
  plot      RUN_DIR [--output FILE]
  report    RUN_DIR [RUN_DIR ...] [--output DIR] [--no_images]
  table     RUN_DIR [RUN_DIR ...] [--format markdown|csv|latex] [--output FILE]
  dynamics  RUN_DIR [RUN_DIR ...] [--epochs E [E ...]] [--output DIR]
  check     --config FILE [--steps N] [--sequence condition|random] [--section.key value ...]

`nestnet <verb> --help` says more; `nestnet --version` prints the version. A mistake is told in one line; with
NESTNET_TRACEBACK=1 in the environment the whole stack comes before it.
"""

TEXTS = {"-h": USAGE.rstrip("\n"), "--help": USAGE.rstrip("\n"), "--version": f"nestnet {__version__}"}
"""What is printed in place of running a verb."""

GRACE = 3.0
"""Seconds in which the first process of a machine should have said what ends another one of it too."""


class Parser(argparse.ArgumentParser):
    """Leaves it to `main` to print what is wrong, in one line."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **{"allow_abbrev": False} | settings)  # a short name would hide a misspelt one

    def parse_args(self, *arguments: Any, **settings: Any) -> Any:
        """As argparse does, with the name that an unknown one may stand for."""
        options, unknown = self.parse_known_args(*arguments, **settings)
        if unknown:
            if not unknown[0].startswith("-"):
                raise ValueError(f"unrecognized arguments: {' '.join(unknown)}; see `{self.prog} --help`")
            near = difflib.get_close_matches(unknown[0].partition("=")[0], self._option_string_actions, n=1)
            meant = f"; did you mean {near[0]}?" if near else f"; see `{self.prog} --help`"
            raise ValueError(f"{unknown[0]} is no option of {self.prog}{meant}")
        return options

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see `{self.prog} --help`")


def path(text: str) -> Path:
    """The type of arguments that name a file or folder."""
    try:
        return Path(expand_home(text, "path"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


# Verbs import what they need when they run, so that --help and mistakes answer at once.


def train(arguments: list[str]) -> None:
    """Train a nested network and export both subnets."""
    from nestnet.distributed.rendezvous import destroy_process_group
    from nestnet.recipes.command_line import parse_with_recipe
    from nestnet.training.trainer import Trainer

    tell = say if is_first_process() else None
    settings = [argument for argument in arguments if argument != "--dry_run"]
    trainer = Trainer(parse_with_recipe(settings, others=["dry_run"], tell=tell))
    if settings != arguments:
        from nestnet.training.dry_run import dry_run

        text = dry_run(trainer)
        destroy_process_group()
        if is_first_process():
            say(text)
        return
    run_dir = trainer.fit()
    destroy_process_group()
    if is_first_process():
        _say_exported(run_dir)


def resume(arguments: list[str]) -> None:
    """Go on with a run that was killed, interrupted or stopped, exactly from its last checkpoint.

    Settings that do not change what is trained may be given anew, such as --data.root, --device or --non_finite skip.
    """
    from nestnet.config import parsing

    parser = Parser("nestnet resume", description=resume.__doc__)
    parser.add_argument("run_dir", type=path, metavar="RUN_DIR")
    changes, own = parsing.split(arguments)
    options = parser.parse_args(own)

    from nestnet.distributed.rendezvous import destroy_process_group
    from nestnet.training.resume import resume as go_on

    run_dir = go_on(options.run_dir, changes)
    destroy_process_group()
    if is_first_process():
        _say_exported(run_dir)


def _say_exported(run_dir: Path) -> None:
    base, motivated = (for_terminal(run_dir / f"{mode}.safetensors") for mode in ("base", "motivated"))
    say(f"exported {base} and {motivated}")


def cost(arguments: list[str]) -> None:
    """Print what a run will cost, before any of it is trained."""
    from nestnet.recipes.command_line import parse_with_recipe
    from nestnet.training.forecast import forecast_run

    say(forecast_run(parse_with_recipe(arguments, prog="nestnet cost")))


def tune_k(arguments: list[str]) -> None:
    """Find k by cross-validation on the training images. The same command goes on where it was interrupted."""
    from nestnet.config import parsing
    from nestnet.recipes.command_line import parse_with_recipe

    parser = Parser("nestnet tune-k", description=tune_k.__doc__)
    parser.add_argument("--k", type=int, nargs="+", required=True, metavar="K", help="the values to try")
    parser.add_argument("--folds", type=int, default=5, help="parts of the training images (5)")
    parser.add_argument("--jobs", type=int, help="runs side by side; by default one a core on a CPU, one on a GPU")
    parser.add_argument(
        "--output", type=path, metavar="DIR", help="by default a folder in runs/, named after the networks"
    )
    others = ("k", "folds", "jobs", "output")
    settings, own = parsing.split(arguments, others)
    options = parser.parse_args(own)

    from nestnet.tuning.tune_k import tune_k as tune

    run = parse_with_recipe(settings, prog="nestnet tune-k", others=others)
    folder = options.output or Path("runs") / f"tune-k-{run.model.base}-{run.model.motivated}-{run.data.name}"
    tune(run, options.k, folder, folds=options.folds, jobs=options.jobs)


def evaluate(arguments: list[str]) -> None:
    """Print a subnet's top-1 on the test images of its run."""
    parser = Parser("nestnet evaluate", description=evaluate.__doc__)
    parser.add_argument("run_dir", type=path, metavar="RUN_DIR")
    parser.add_argument("--mode", required=True, choices=("base", "motivated"))
    _add_state(parser)
    options = parser.parse_args(arguments)

    from nestnet.data.loaders import eval_batches
    from nestnet.device import DeviceContext, choose_device
    from nestnet.nn.mode import Mode
    from nestnet.runs.reading import read_run
    from nestnet.runtime.notices import log_notice
    from nestnet.training.evaluation import memory_format, prepare_for_eval, top1
    from nestnet.training.subnet_warnings import subnet_warnings

    mode, device = Mode(options.mode), choose_device("auto")
    run = read_run(options.run_dir, best=mode if options.best else None)
    images = run.images()
    number = run.config.recalibration_batches if options.recalibrate is None else options.recalibrate
    net = prepare_for_eval(run, mode, images, device, number)
    batches = eval_batches(images, run.config.data, DeviceContext(device, memory_format(run)))
    accuracies = top1(net.eval(), batches, [mode], precision=run.config.precision)
    say(f"{run.net.architectures.of(mode)} ({mode}): top-1 {accuracies[mode]:.2f} %")
    output = f"{mode}.safetensors"
    found = subnet_warnings(
        net, mode, run.trained, recalibrated=number, run_dir=run.path, output=output, best=options.best
    )
    for shortcoming in found:
        log_notice(shortcoming)


def export(arguments: list[str]) -> None:
    """Write a subnet of a run for a device, checked against the network, with a model card beside it.

    How to load it goes to standard output, what was checked to standard error.
    """
    parser = Parser("nestnet export", description=export.__doc__)
    parser.add_argument("run_dir", type=path, metavar="RUN_DIR")
    parser.add_argument("--mode", required=True, choices=("base", "motivated"))
    parser.add_argument("--output", required=True, type=path, metavar="FILE")
    parser.add_argument(
        "--format",
        choices=("safetensors", "onnx", "torch-export"),
        help="by default by the ending of FILE (.safetensors, .onnx, .pt2), else safetensors, which timm loads",
    )
    _add_state(parser)
    options = parser.parse_args(arguments)

    from nestnet.deploy.deploy import deploy
    from nestnet.deploy.formats import format_of
    from nestnet.nn.mode import Mode
    from nestnet.runs.reading import read_run

    format_of(options.output, options.format).check_packages()
    mode = Mode(options.mode)
    run = read_run(options.run_dir, best=mode if options.best else None)
    done = deploy(run, mode, options.output, format_name=options.format, recalibrate=options.recalibrate)
    say(for_terminal(f"wrote {done.path} and {done.card}; checked with {done.check}"), file=sys.stderr)
    say(done.usage)


def predict(arguments: list[str]) -> None:
    """Print the likeliest classes of image files, by an exported network.

    A file that cannot be read is named on standard error, the others are answered, and the exit code is 2.
    """
    parser = Parser("nestnet predict", description=predict.__doc__)
    parser.add_argument("paths", type=path, nargs="+", metavar="FILE|FOLDER", help="images, or folders of them")
    parser.add_argument("--model", required=True, type=path, metavar="FILE", help="a .safetensors or .onnx export")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="classes an image (5)")
    parser.add_argument("--batch_size", type=int, default=32, metavar="N", help="images at a time (32)")
    parser.add_argument("--format", choices=("text", "csv", "json"), default="text")
    options = parser.parse_args(arguments)

    from nestnet.deploy.predict import predict as run

    run(options.paths, options.model, top=options.top, batch_size=options.batch_size, layout=options.format)


def _add_state(parser: argparse.ArgumentParser) -> None:
    """Which of a network's states is meant."""
    parser.add_argument(
        "--best", action="store_true", help="as it was after the epoch with its highest top-1, instead of the last"
    )
    parser.add_argument(
        "--recalibrate",
        type=int,
        metavar="N",
        help="compute the BatchNorm statistics anew on so many training batches; 0: not; by default as the run did",
    )


def plot(arguments: list[str]) -> None:
    """Draw a run: the loss of each batch with the motivated ones marked, and both subnets' top-1."""
    parser = Parser("nestnet plot", description=plot.__doc__)
    parser.add_argument("run_dir", type=path, metavar="RUN_DIR")
    parser.add_argument("--output", type=path, metavar="FILE", help="a PNG, SVG or PDF; by default RUN_DIR/run.png")
    options = parser.parse_args(arguments)

    from nestnet.analysis.figures import draw_run

    give(draw_run(options.run_dir, options.output or options.run_dir / "run.png"))


def report(arguments: list[str]) -> None:
    """Write a page on runs, finished or not: what came of them, what both subnets confuse, and where they differ."""
    parser = Parser("nestnet report", description=report.__doc__)
    parser.add_argument("run_dirs", type=path, nargs="+", metavar="RUN_DIR")
    parser.add_argument(
        "--output",
        type=path,
        metavar="DIR",
        help="for report.html and its figures as PNGs; by default RUN_DIR/report, of several runs report/",
    )
    parser.add_argument("--no_images", action="store_true", help="do not evaluate the test images, which takes a while")
    options = parser.parse_args(arguments)

    from nestnet.analysis.report.writing import write_report

    give(write_report(options.run_dirs, options.output, images=not options.no_images))


def table(arguments: list[str]) -> None:
    """Print the paper's table of some runs: those that differ in the seed alone make one row."""
    parser = Parser("nestnet table", description=table.__doc__)
    parser.add_argument("run_dirs", type=path, nargs="+", metavar="RUN_DIR")
    parser.add_argument("--format", choices=("markdown", "csv", "latex"), default="markdown")
    parser.add_argument("--output", type=path, metavar="FILE", help="instead of printing it")
    options = parser.parse_args(arguments)

    from nestnet.paper.table import table as make
    from nestnet.storage.files import check_output, write_atomically

    if options.output is not None:
        check_output(options.output)
    text = make(options.run_dirs, options.format)
    if options.output is None:
        give(text.rstrip("\n"))
    else:
        write_atomically(options.output, text)
        give(options.output)


def dynamics(arguments: list[str]) -> None:
    """Draw runs side by side: losses, their variance, motivated batches, and the path of the weights."""
    parser = Parser("nestnet dynamics", description=dynamics.__doc__)
    parser.add_argument("run_dirs", type=path, nargs="+", metavar="RUN_DIR")
    parser.add_argument(
        "--epochs", type=int, nargs="+", default=(), metavar="E", help="by default the middle and the last"
    )
    parser.add_argument(
        "--output", type=path, metavar="DIR", default=Path("dynamics"), help="for the figures: dynamics/"
    )
    options = parser.parse_args(arguments)

    from nestnet.analysis.dynamics import draw_dynamics

    for figure in draw_dynamics(options.run_dirs, options.output, options.epochs):
        give(figure)


def check(arguments: list[str]) -> None:
    """Train the nested network and the copy-based reference side by side and print the largest differences."""
    from nestnet.config import parsing
    from nestnet.recipes.command_line import parse_with_recipe

    parser = Parser("nestnet check", description=check.__doc__)
    parser.add_argument("--steps", type=int, default=60, help="batches to train (60)")
    parser.add_argument(
        "--sequence",
        choices=("condition", "random"),
        default="condition",
        help="modes by the configured condition, or drawn at random for many switches",
    )
    others = ("steps", "sequence")
    settings, own = parsing.split(arguments, others)
    options = parser.parse_args(own)

    from nestnet.verification.check import check_config

    if options.steps < 1:
        raise ValueError(f"--steps {options.steps}: it must be at least 1")
    run = parse_with_recipe(settings, prog="nestnet check", others=others)
    say(check_config(run, steps=options.steps, sequence=options.sequence))


VERBS: dict[str, Callable[[list[str]], None]] = {
    "train": train,
    "resume": resume,
    "cost": cost,
    "tune-k": tune_k,
    "evaluate": evaluate,
    "export": export,
    "predict": predict,
    "plot": plot,
    "report": report,
    "table": table,
    "dynamics": dynamics,
    "check": check,
}


class Failure(NamedTuple):
    """How a verb ended that did not end well.

    Attributes:
        what: one line on it.
        exit_code: of the command.
        is_agreed: whether all of several processes end for the same reason, so that one of them can say so for all.
    """

    what: str
    exit_code: int
    is_agreed: bool = False


def main(arguments: list[str] | None = None) -> int:
    """Run a verb.

    A user's mistake gives one line on standard error and 2, a run that cannot go on gives 1, and a signal 128 and its number.
    With NESTNET_TRACEBACK=1 in the environment the stack comes before the line.
    """
    accept_any_text()
    verb, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if verb not in VERBS and verb not in TEXTS:
        say(f"nestnet: error: {quoted(verb)} is no verb; there are {', '.join(VERBS)}", file=sys.stderr)
        return 2
    with command_signals("nestnet" if verb in TEXTS else f"nestnet {verb}") as signals:
        failure = _run(verb, rest, signals)
        if failure is None:
            return 0
        _say(failure, signals)
        return failure.exit_code


def _run(verb: str, arguments: list[str], signals: CommandSignals) -> Failure | None:
    """Run a verb; an error that is no one's mistake but ours is raised."""
    try:
        if verb in TEXTS:
            say(TEXTS[verb])
        else:
            launch()  # what torchrun says is known to be right before anything relies on it
            with suppress(SystemExit):  # argparse's, once it has printed the help
                VERBS[verb](arguments)
        flush()
        failure = None
    except (Exception, KeyboardInterrupt) as error:
        failure = _failure(error)
        if failure is None and signals.number is None:
            raise
        if os.environ.get("NESTNET_TRACEBACK", "0") not in ("", "0"):
            traceback.print_exc()
    if signals.number is not None and (failure is None or failure.exit_code != 128 + signals.number):
        # the interruption was lost in, or taken for, an error of the code that it came upon
        return Failure(signals.message, 128 + signals.number)
    return failure


def _failure(error: BaseException) -> Failure | None:
    """What to say of an error, `None` where it is a mistake of ours."""
    if isinstance(error, KeyboardInterrupt):
        number = getattr(error, "number", signal.SIGINT)
        return Failure(str(error) or "interrupted", 128 + number, getattr(error, "agreed", False))
    if isinstance(error, BrokenPipeError) and _reader_is_gone():
        return Failure("", 0)

    from nestnet.distributed.rendezvous import describe_lost_process
    from nestnet.runs.stopped import Stopped
    from nestnet.text.messages import message_of
    from nestnet.training.failures import explain_shortage

    if isinstance(error, (FloatingPointError, ChildProcessError, Stopped)):
        return Failure(f"stopped: {error}", 1, isinstance(error, FloatingPointError))
    lost = explain_shortage(error) or describe_lost_process(error)
    if lost is not None:
        return Failure(f"stopped: {lost}", 1)
    if isinstance(error, (ValueError, OSError)):
        return Failure(f"error: {message_of(error)}", 2)
    return None


def _say(failure: Failure, signals: CommandSignals) -> None:
    """Say it once. Of several processes, all of a machine find the same mistake before they meet, and each its own after."""
    drop_unwritten_output()
    if not failure.what:
        return
    if not is_first_of_machine():
        from nestnet.distributed.rendezvous import is_initialized

        if failure.is_agreed:
            return
        if not is_initialized():
            # torchrun ends this process as soon as the first one has said it, if it has; then there is nothing to add
            signals.exit_code = failure.exit_code
            time.sleep(GRACE)
    signals.say(failure.what, failure.exit_code)


def _reader_is_gone() -> bool:
    """Whether nobody reads standard output any more, as after `| head`."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), select.POLLOUT)
    return any(events & select.POLLERR for _, events in poll.poll(0))
