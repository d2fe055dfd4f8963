"""The commands that take the configuration of a run: train, extend, resume, cost, tune-k, cross-validate and check.

Each imports what it needs only when it runs, so that its help and errors in its arguments are printed at once.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from nestnet.cli.parser import Parser, parse_configuration, path, split_settings
from nestnet.cli.terminal import print_text
from nestnet.config.names import check_option_names
from nestnet.runtime.torchrun import is_first_process
from nestnet.text.escape import for_terminal

if TYPE_CHECKING:
    from nestnet.config.schema import Config

DRY_RUN = "--dry_run"


def train(arguments: list[str]) -> None:
    """Train a nested network and export both subnets.

    Without --config, --data.root FOLDER trains on a folder of images. With --dry_run, only a few steps are
    taken, the memory and the time that the run will need are printed, and nothing is written.
    """
    # The parser of the configuration knows its fields only.
    settings = [argument for argument in arguments if argument != DRY_RUN]
    tell = print_text if is_first_process() else None
    config = parse_configuration(settings, "nestnet train", train.__doc__, ("dry_run",), tell)

    from nestnet.distributed.rendezvous import destroy_process_group
    from nestnet.training.trainer import Trainer

    trainer = Trainer(config)
    if DRY_RUN in arguments:
        from nestnet.planning.dry_run import dry_run

        description = dry_run(trainer)
        destroy_process_group()
        if is_first_process():
            print_text(description)
        return
    run_dir = trainer.fit()
    destroy_process_group()
    if is_first_process():
        _say_exported(run_dir)


def extend(arguments: list[str]) -> None:
    """Make a bigger network out of a finished base, which stays as it is.

    SOURCE is the directory of a finished run, whose data and settings are used, or a file of weights that timm
    loads. Only what the bigger network has beside the base is trained. The options of `nestnet train` replace
    the settings, except those of the base's own training.
    """
    parser = Parser("nestnet extend", extend.__doc__)
    parser.add_argument("source", type=path, metavar="SOURCE", help="directory of a run, or file of weights")
    parser.add_argument("--motivated", required=True, metavar="NAME", help="timm's name of the bigger network")
    own_options = ("motivated",)
    settings, own = split_settings(arguments, own_options)
    # Checked first, so that a misspelt option is reported before one that is missing.
    check_option_names(settings, own_options)
    options = parser.parse_args(own)

    from nestnet.distributed.rendezvous import destroy_process_group
    from nestnet.recipes.extension import parse_extension
    from nestnet.training.trainer import Trainer

    config = parse_extension(options.source, options.motivated, settings, others=own_options)
    run_dir = Trainer(config).fit()
    destroy_process_group()
    if is_first_process():
        _say_exported(run_dir)


def resume(arguments: list[str]) -> None:
    """Resume a run that was killed, interrupted or stopped, exactly from its last checkpoint.

    Fields that do not change what is trained can be overridden, such as --data.root FOLDER, --device cpu or
    --non_finite skip. With more --epochs than before the run trains further, also if it was finished.
    """
    parser = Parser("nestnet resume", resume.__doc__)
    parser.add_argument("run_dir", type=path, metavar="RUN_DIR", help="folder of a run")
    changes, own = split_settings(arguments)
    options = parser.parse_args(own)
    check_option_names(changes)

    from nestnet.distributed.rendezvous import destroy_process_group
    from nestnet.training.resume import resume as resume_run

    run_dir = resume_run(options.run_dir, changes)
    destroy_process_group()
    if is_first_process():
        _say_exported(run_dir)


def _say_exported(run_dir: Path) -> None:
    base = for_terminal(run_dir / "base.safetensors")
    motivated = for_terminal(run_dir / "motivated.safetensors")
    print_text(f"exported {base} and {motivated}")


def cost(arguments: list[str]) -> None:
    """Print what a run will cost, before any of it is trained."""
    config = parse_configuration(arguments, "nestnet cost", cost.__doc__)

    from nestnet.planning.forecast import forecast_run

    print_text(forecast_run(config))


def tune_k(arguments: list[str]) -> None:
    """Find k by cross-validation on the training images.

    The same command continues a search that was interrupted. It also takes the options of `nestnet train`.
    """
    parser = Parser("nestnet tune-k", tune_k.__doc__)
    parser.add_argument("--k", type=int, nargs="+", required=True, metavar="K", help="values of k to try")
    _add_study_options(parser)
    own_options = ("k", "folds", "jobs", "output")
    settings, own = split_settings(arguments, own_options)
    options = parser.parse_args(own)
    config = parse_configuration(settings, "nestnet tune-k", tune_k.__doc__, own_options, needs_k=True)

    from nestnet.tuning.tune_k import tune_k as tune

    folder = options.output or _default_folder("tune-k", config)
    tune(config, options.k, folder, folds=options.folds, jobs=options.jobs, tell=print_text)


def cross_validate(arguments: list[str]) -> None:
    """Train a configuration on each fold of its training images, and print both networks' accuracies.

    The same command continues after an interruption. It also takes the options of `nestnet train`.
    """
    parser = Parser("nestnet cross-validate", cross_validate.__doc__)
    _add_study_options(parser)
    own_options = ("folds", "jobs", "output")
    settings, own = split_settings(arguments, own_options)
    options = parser.parse_args(own)
    config = parse_configuration(settings, "nestnet cross-validate", cross_validate.__doc__, own_options)

    from nestnet.tuning.cross_validation import cross_validate as validate

    folder = options.output or _default_folder("cross-validate", config)
    validate(config, folder, folds=options.folds, jobs=options.jobs, tell=print_text)


def _add_study_options(parser: Parser) -> None:
    """Add the options of commands that train on each fold of the training images."""
    parser.add_argument("--folds", type=int, default=5, metavar="N", help="number of folds (default: 5)")
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="runs side by side; by default one per core on a CPU, one on a GPU"
    )
    parser.add_argument(
        "--output",
        type=path,
        metavar="DIR",
        help="folder for the runs; by default one in runs/, named after the networks",
    )


def _default_folder(study: str, config: "Config") -> Path:
    return Path("runs") / f"{study}-{config.model.base}-{config.model.motivated}-{config.data.name}"


def check(arguments: list[str]) -> None:
    """Train the nested network and the copy-based reference side by side, and print the largest differences.

    It also takes the options of `nestnet train`.
    """
    parser = Parser("nestnet check", check.__doc__)
    parser.add_argument("--steps", type=int, default=60, metavar="N", help="number of batches to train (default: 60)")
    parser.add_argument(
        "--sequence",
        choices=("condition", "random"),
        default="condition",
        help="whether the condition chooses the modes within the limits of the run, or they are drawn at random, "
        "which switches often",
    )
    own_options = ("steps", "sequence")
    settings, own = split_settings(arguments, own_options)
    options = parser.parse_args(own)
    # Checked here too, so that a misspelt option is reported before a wrong number.
    check_option_names(settings, own_options)
    if options.steps < 1:
        raise ValueError(f"--steps {options.steps}: it must be at least 1")
    config = parse_configuration(settings, "nestnet check", check.__doc__, own_options)

    from nestnet.verification.check import check_nested_training

    print_text(check_nested_training(config, steps=options.steps, sequence=options.sequence))
