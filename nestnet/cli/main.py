"""The command line: `nestnet <command>`. Each command is a few lines over the library."""

import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress

from nestnet.cli.cascade_command import cascade
from nestnet.cli.deploy_commands import benchmark
from nestnet.cli.failures import MISTAKE, SIGNALLED, Failure, describe_failure, report_failure
from nestnet.cli.log import show_notices
from nestnet.cli.models_command import models
from nestnet.cli.network_commands import evaluate, export, predict
from nestnet.cli.parser import TRACEBACK
from nestnet.cli.run_commands import dynamics, plot, report, table
from nestnet.cli.signals import CommandSignals
from nestnet.cli.terminal import accept_any_text, flush, print_text
from nestnet.cli.training_commands import check, cost, cross_validate, extend, resume, train, tune_k
from nestnet.runtime.torchrun import read_launch
from nestnet.text.escape import quoted
from nestnet.version import __version__

USAGE = """\
usage: nestnet <command> ...

Train one nested image classifier, deploy two.

  train     train a nested network and export both subnets
            --config FILE | --data.root FOLDER [--epochs N] [--seed N] [--run_dir DIR] [--section.key value ...] [--dry_run]
  extend    make a bigger network out of a finished base, which stays as it is
            RUN_DIR|FILE --motivated NAME [--finish_epochs N] [--data.root FOLDER] [--run_dir DIR] [--section.key value ...]
  resume    resume a run exactly from its last checkpoint, or train it further
            RUN_DIR [--epochs N] [--section.key value ...]
  models    list which networks nest in which
            [PATTERN] [--img_size N]
  cost      print what a run will cost, before any of it is trained
            --config FILE [--section.key value ...]
  tune-k    find k by cross-validation on the training images
            --config FILE --k K [K ...] [--folds N] [--jobs N] [--output DIR] [--section.key value ...]
  cross-validate
            train a configuration on each fold of its training images, and print both networks' accuracies
            --config FILE [--folds N] [--jobs N] [--output DIR] [--section.key value ...]
  evaluate  print the top-1 of a subnet on the test images, and metrics of each class
            RUN_DIR --mode base|motivated [--data.root FOLDER] [--format text|csv|json] [--best] [--recalibrate N]
  export    export a subnet for a device, checked against the network
            RUN_DIR --mode base|motivated --output FILE
            [--format safetensors|onnx|openvino|executorch|torch-export|timm] [--best] [--recalibrate N]
            [--preprocessing outside|inside] [--opset N]
            [--precision float32|int8] [--calibration_images N] [--tolerance POINTS]
  predict   print the most likely classes of image files
            FILE|FOLDER [FILE|FOLDER ...] --model FILE | --cascade FILE [--top N] [--batch_size N] [--format text|csv|json]
  cascade   run the base first, and the motivated network only where the base is unsure
            RUN_DIR [--accuracy within POINTS | --cost TIMES | --milliseconds MS] [--output FILE] [--format safetensors|onnx]
  benchmark time exported files on this device, and print one table of accuracy, milliseconds and megabytes
            FILE [FILE ...] [--batch_sizes B ...] [--threads N] [--seconds S] [--device DEVICE] [--run RUN_DIR]
            [--data.root FOLDER] [--no_images] [--format text|csv|json]
  plot      draw the losses and accuracies of a run
            RUN_DIR [--output FILE]
  report    write an HTML page about one or several runs
            RUN_DIR [RUN_DIR ...] [--output DIR] [--no_images]
  table     print the paper's table for some runs
            RUN_DIR [RUN_DIR ...] [--format markdown|csv|latex] [--output FILE]
  dynamics  draw the losses and the paths of the weights of several runs
            RUN_DIR [RUN_DIR ...] [--epochs E [E ...]] [--output DIR]
  check     compare nested training with the paper's copying between two models
            --config FILE [--steps N] [--sequence condition|random] [--section.key value ...]

train, extend, models, cost, tune-k, cross-validate, check, predict and benchmark take --import MODULE, a module of yours that
registers a condition or networks.
`nestnet <command> --help` describes the options of a command, and `nestnet --version` prints the version. An error is one
line; --traceback, or NESTNET_TRACEBACK=1 in the environment, prints its whole stack as well.
"""

TEXTS = {"-h": USAGE.rstrip("\n"), "--help": USAGE.rstrip("\n"), "--version": f"nestnet {__version__}"}
"""Texts that are printed for an option given in place of a command."""

COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "train": train,
    "extend": extend,
    "resume": resume,
    "models": models,
    "cost": cost,
    "tune-k": tune_k,
    "cross-validate": cross_validate,
    "evaluate": evaluate,
    "export": export,
    "predict": predict,
    "cascade": cascade,
    "benchmark": benchmark,
    "plot": plot,
    "report": report,
    "table": table,
    "dynamics": dynamics,
    "check": check,
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command.

    An error is one line on standard error. With --traceback, or NESTNET_TRACEBACK=1 in the environment, its
    stack is printed before that line.

    Args:
        arguments: name of the command and its arguments; `None` for those of this process, which then ends
            with the command.

    Returns:
        The exit code: 0 for success, 2 for an error that the user can correct, 1 for a run that cannot
        continue, and 128 plus the number of a signal that ended the command.
    """
    # Without a command, the help is printed.
    given = sys.argv[1:] if arguments is None else arguments
    name, *rest = given or ["--help"]
    command = "nestnet" if name in TEXTS else f"nestnet {name}"
    # A program that calls this function with arguments continues after it.
    ends_process = arguments is None
    with CommandSignals(command, ends_process=ends_process) as signals, show_notices():
        accept_any_text()
        if name not in COMMANDS and name not in TEXTS:
            print_text(
                f"nestnet: error: {quoted(name)} is not a command; the commands are {', '.join(COMMANDS)}",
                file=sys.stderr,
            )
            return MISTAKE
        failure = _run(name, rest, signals)
        if failure is None:
            return 0
        report_failure(failure, signals)
        return failure.exit_code


def _run(name: str, arguments: list[str], signals: CommandSignals) -> Failure | None:
    """Run a command and return how it failed, if it did. Errors that are bugs of nestnet are raised."""
    shows_stack, arguments = _take_traceback(arguments)
    failure = None
    try:
        if name in TEXTS:
            print_text(TEXTS[name])
        else:
            # A malformed environment of torchrun is reported before anything relies on it.
            read_launch()
            # argparse raises SystemExit once it has printed the help.
            with suppress(SystemExit):
                COMMANDS[name](arguments)
        flush()
    except (Exception, KeyboardInterrupt) as error:
        failure = describe_failure(error)
        # A bug of nestnet keeps its stack, unless a signal has caused the error.
        if failure is None and signals.number is None:
            raise
        if shows_stack:
            traceback.print_exc()
    if signals.number is not None and (failure is None or failure.exit_code != SIGNALLED + signals.number):
        # The code that was interrupted caught the exception, or turned it into another one.
        return Failure(signals.message, SIGNALLED + signals.number)
    return failure


def _take_traceback(arguments: list[str]) -> tuple[bool, list[str]]:
    """Return whether the stack is wanted, and the arguments without the option that asks for it."""
    is_wanted = os.environ.get("NESTNET_TRACEBACK", "0") not in ("", "0")
    # After `--` it may be the name of a file.
    end_of_options = arguments.index("--") if "--" in arguments else len(arguments)
    options = arguments[:end_of_options]
    if TRACEBACK in options:
        is_wanted = True
        options = [option for option in options if option != TRACEBACK]
    return is_wanted, [*options, *arguments[end_of_options:]]
