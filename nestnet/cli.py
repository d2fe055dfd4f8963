"""The command line: `nestnet <verb>`. Each verb is a few lines over the library."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from nestnet.version import __version__

USAGE = """\
usage: nestnet <verb> ...

  train     --config FILE [--epochs N] [--seed N] [--run_dir DIR] [--section.key value ...]
  cost      --config FILE [--section.key value ...]
  tune-k    --config FILE --k K [K ...] [--folds N] [--jobs N] [--output DIR] [--section.key value ...]
  evaluate  RUN_DIR --mode base|motivated [--recalibrate BATCHES]
  export    RUN_DIR --mode base|motivated --output FILE [--recalibrate BATCHES]
  plot      RUN_DIR [--output FILE]
  table     RUN_DIR [RUN_DIR ...] [--format markdown|csv|latex] [--output FILE]
  dynamics  RUN_DIR [RUN_DIR ...] [--epochs E [E ...]] [--output DIR]
  check     --config FILE [--steps N] [--sequence condition|random] [--section.key value ...]

`nestnet <verb> --help` says more; `nestnet --version` prints the version.
"""


class Parser(argparse.ArgumentParser):
    """Leaves it to `main` to print what is wrong, in one line."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see `{self.prog} --help`")


# Verbs import what they need when they run, so that --help and mistakes answer at once.


def train(arguments: list[str]) -> None:
    """Train a nested network and export both subnets."""
    from nestnet import config
    from nestnet.processes import leave
    from nestnet.training import Trainer

    trainer = Trainer(config.parse(arguments))
    run_dir = trainer.fit()
    leave()
    if trainer.processes.first:
        print(f"exported {run_dir / 'base.safetensors'} and {run_dir / 'motivated.safetensors'}")


def cost(arguments: list[str]) -> None:
    """Print what a run will cost, before any of it is trained."""
    from nestnet import config
    from nestnet.budget import budget

    print(budget(config.parse(arguments, prog="nestnet cost")))


def tune_k(arguments: list[str]) -> None:
    """Find k by cross-validation on the training images. The same command goes on where it was interrupted."""
    parser = Parser("nestnet tune-k", description=tune_k.__doc__, allow_abbrev=False)
    parser.add_argument("--k", type=int, nargs="+", required=True, metavar="K", help="the values to try")
    parser.add_argument("--folds", type=int, default=5, help="parts of the training images (5)")
    parser.add_argument("--jobs", type=int, help="runs side by side; by default one a core on a CPU, one on a GPU")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="by default a folder in runs/, named after the networks"
    )
    options, rest = parser.parse_known_args(arguments)

    from nestnet import config
    from nestnet.tuning import tune_k as tune

    run = config.parse(rest, prog="nestnet tune-k")
    folder = options.output or Path("runs") / f"tune-k-{run.model.base}-{run.model.motivated}-{run.data.name}"
    tune(run, options.k, folder, folds=options.folds, jobs=options.jobs)


def evaluate(arguments: list[str]) -> None:
    """Print a subnet's top-1 on the test images of its run."""
    parser = Parser("nestnet evaluate", description=evaluate.__doc__)
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    parser.add_argument("--mode", required=True, choices=("base", "motivated"))
    _add_recalibration(parser)
    options = parser.parse_args(arguments)

    from nestnet.build import torch_device
    from nestnet.data import load_data
    from nestnet.evaluation import ready, top1
    from nestnet.loaders import eval_batches
    from nestnet.mode import Mode
    from nestnet.place import Place
    from nestnet.run_directory import read_run

    run, device = read_run(options.run_dir), torch_device("auto")
    images, mode, number = load_data(run.config.data, run.config.model), Mode(options.mode), options.recalibrate
    net = ready(run, mode, images, device, run.config.recalibration_batches if number is None else number)
    batches = eval_batches(images, run.config.data, Place(device))
    accuracies = top1(net.eval(), batches, [mode], precision=run.config.precision)
    print(f"{run.net.architectures.of(mode)} ({mode}): top-1 {accuracies[mode]:.2f} %")


def export(arguments: list[str]) -> None:
    """Write a subnet of a run as a safetensors file that timm loads."""
    parser = Parser("nestnet export", description=export.__doc__)
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    parser.add_argument("--mode", required=True, choices=("base", "motivated"))
    parser.add_argument("--output", required=True, type=Path, metavar="FILE")
    _add_recalibration(parser)
    options = parser.parse_args(arguments)

    from nestnet.export import export as write
    from nestnet.mode import Mode
    from nestnet.run_directory import read_run

    run, mode = read_run(options.run_dir), Mode(options.mode)
    net, batches = run.net, options.recalibrate
    if batches := run.config.recalibration_batches if batches is None else batches:
        from nestnet.build import torch_device
        from nestnet.data import load_data
        from nestnet.evaluation import ready

        net = ready(run, mode, load_data(run.config.data, run.config.model), torch_device("auto"), batches)
    write(
        net,
        mode,
        options.output,
        class_names=run.checkpoint["class_names"],
        input_size=tuple(run.checkpoint["input_size"]),
        mean=run.config.data.mean,
        std=run.config.data.std,
    )
    name, channels = run.net.architectures.of(mode), run.net.in_chans
    settings = [f'"{name}"', f"num_classes={run.net.num_classes}", *([f"in_chans={channels}"] if channels != 3 else [])]
    if "img_size" in run.net.timm_options.base:
        settings.append(f"img_size={run.config.data.img_size}")
    print(f'timm.create_model({", ".join(settings)}, checkpoint_path="{options.output}")')


def _add_recalibration(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--recalibrate",
        type=int,
        metavar="BATCHES",
        help="compute the BatchNorm statistics anew on so many training batches; 0: not; by default as the run did",
    )


def plot(arguments: list[str]) -> None:
    """Draw a run: the loss of each batch with the motivated ones marked, and both subnets' top-1."""
    parser = Parser("nestnet plot", description=plot.__doc__)
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    parser.add_argument("--output", type=Path, metavar="FILE", help="a PNG, SVG or PDF; by default RUN_DIR/run.png")
    options = parser.parse_args(arguments)

    from nestnet.figures import draw_run

    print(draw_run(options.run_dir, options.output or options.run_dir / "run.png"))


def table(arguments: list[str]) -> None:
    """Print the paper's table of some runs: those that differ in the seed alone make one row."""
    parser = Parser("nestnet table", description=table.__doc__)
    parser.add_argument("run_dirs", type=Path, nargs="+", metavar="RUN_DIR")
    parser.add_argument("--format", choices=("markdown", "csv", "latex"), default="markdown")
    parser.add_argument("--output", type=Path, metavar="FILE", help="instead of printing it")
    options = parser.parse_args(arguments)

    from nestnet.table import table as make

    text = make(options.run_dirs, options.format)
    if options.output is None:
        print(text.rstrip("\n"))
    else:
        options.output.write_text(text)
        print(options.output)


def dynamics(arguments: list[str]) -> None:
    """Draw runs side by side: losses, their variance, motivated batches, and the path of the weights."""
    parser = Parser("nestnet dynamics", description=dynamics.__doc__)
    parser.add_argument("run_dirs", type=Path, nargs="+", metavar="RUN_DIR")
    parser.add_argument(
        "--epochs", type=int, nargs="+", default=(), metavar="E", help="by default the middle and the last"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", default=Path("dynamics"), help="for the figures: dynamics/"
    )
    options = parser.parse_args(arguments)

    from nestnet.dynamics import draw_dynamics

    print(*draw_dynamics(options.run_dirs, options.output, options.epochs), sep="\n")


def check(arguments: list[str]) -> None:
    """Train the nested network and the copy-based reference side by side and print the largest differences."""
    parser = Parser("nestnet check", description=check.__doc__, allow_abbrev=False)
    parser.add_argument("--steps", type=int, default=60, help="batches to train (60)")
    parser.add_argument(
        "--sequence",
        choices=("condition", "random"),
        default="condition",
        help="modes by the configured condition, or drawn at random for many switches",
    )
    options, rest = parser.parse_known_args(arguments)

    from nestnet import config
    from nestnet.check import check_config

    if options.steps < 1:
        raise ValueError(f"--steps {options.steps}: it must be at least 1")
    print(check_config(config.parse(rest, prog="nestnet check"), steps=options.steps, sequence=options.sequence))


VERBS: dict[str, Callable[[list[str]], None]] = {
    "train": train,
    "cost": cost,
    "tune-k": tune_k,
    "evaluate": evaluate,
    "export": export,
    "plot": plot,
    "table": table,
    "dynamics": dynamics,
    "check": check,
}


def main(arguments: list[str] | None = None) -> int:
    """Run a verb. A user's mistake gives one line on standard error and 2; a run that cannot go on gives 1."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    if arguments[0] == "--version":
        print(f"nestnet {__version__}")
        return 0
    verb, *rest = arguments
    if verb not in VERBS:
        print(f"nestnet: error: {verb!r} is no verb; there are {', '.join(VERBS)}", file=sys.stderr)
        return 2
    try:
        VERBS[verb](rest)
    except (FloatingPointError, ChildProcessError) as error:
        return _failed(verb, f"stopped: {error}", 1)
    except KeyboardInterrupt:
        return _failed(verb, "interrupted", 130)
    except RuntimeError as error:
        from nestnet.processes import is_loss_of_another

        if not is_loss_of_another(error):
            raise
        return _failed(verb, "stopped: another process has failed, and says why", 1)
    except (ValueError, OSError) as error:
        # an error in a loader's worker carries that process's traceback; its last line is the message
        return _failed(verb, f"error: {str(error).strip().splitlines()[-1]}", 2)
    return 0


def _failed(verb: str, what: str, code: int) -> int:
    """Say it once. Of several processes, all of a machine find the same mistake before they meet, and each its own after."""
    rank = os.environ.get("LOCAL_RANK", "0")
    if rank != "0":
        from nestnet.processes import met

        if code != 2 or not met():
            return code
        what = f"process {os.environ['RANK']}: {what}"
    print(f"nestnet {verb}: {what}", file=sys.stderr, flush=True)
    return code
