"""The training of all runs of a study, which a second call continues, and the report at the end."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import torch

from nestnet.config.schema import Config
from nestnet.data.image_data import ImageData
from nestnet.device import choose_device
from nestnet.precision import choose_precision
from nestnet.runtime.interrupts import Interrupted, create_interrupted
from nestnet.text.arguments import is_whole
from nestnet.text.escape import for_terminal
from nestnet.tuning.fold_result import FoldResult
from nestnet.tuning.run_processes import Results, train_in_turn, train_side_by_side
from nestnet.tuning.study import Study
from nestnet.tuning.study_run import StudyRun

Tell = Callable[[str], None]

ArgumentRule = tuple[str, Any, bool, str]
"""The name of an argument, its value, whether that is valid, and the rule."""


def check_arguments(rules: Sequence[ArgumentRule]) -> None:
    """Refuse the first argument that breaks a rule.

    Args:
        rules: rules, in the order in which they are checked.

    Raises:
        ValueError: If an argument is not valid.
    """
    for name, value, is_valid, rule in rules:
        if not is_valid:
            raise ValueError(f"{name} = {value!r}: it must be {rule}")


def study_rules(config: Config, folds: int, jobs: int | None) -> list[ArgumentRule]:
    """Return the rules for the number of folds, the number of parallel runs, and what a fold takes the place of.

    Args:
        config: configuration of the runs.
        folds: number of parts of the training images.
        jobs: number of runs that train in parallel.
    """
    batch_size = config.data.batch_size
    val_fraction = config.data.val_fraction
    patience = config.early_stopping.patience
    return [
        ("folds", folds, is_whole(folds, 2), "a whole number of at least 2; the paper has 5"),
        ("jobs", jobs, jobs is None or is_whole(jobs, 1), "a whole number of at least 1"),
        ("data.batch_size", batch_size, batch_size != "auto", "a number, the same for all runs of a study"),
        ("data.val_fraction", val_fraction, val_fraction == 0, "0, because each run is evaluated on its fold alone"),
        (
            "early_stopping.patience",
            patience,
            patience is None,
            "null, because the fold that judges a run must not choose its last epoch",
        ),
    ]


def fix_precision(config: Config) -> Config:
    """Return a configuration with the precision that `auto` stands for on this machine.

    All runs of a study have one precision, also those that are added later on another machine.

    Args:
        config: configuration of the runs.
    """
    precision = choose_precision(config.precision, choose_device(config.device))
    return replace(config, precision=precision)


def train_study(
    study: Study, images: ImageData, runs: Sequence[StudyRun], *, jobs: int | None, tell: Tell | None
) -> list[FoldResult]:
    """Train the runs of a study that are not finished, and write the report.

    Args:
        study: study that the runs belong to.
        images: images of the study.
        runs: runs of the study, in the order in which they are trained.
        jobs: number of runs that train in parallel, each in its own process; `None` for one per core on a CPU,
            otherwise one.
        tell: function that is called with lines on the progress and with the report; `None` for no output.

    Returns:
        The results of every k whose folds are all finished, including those of earlier calls, by k and fold.

    Raises:
        ValueError: If the folder is of another study, or cannot be used. In this case nothing is trained.
        FloatingPointError: When a loss is NaN or infinite.
        ChildProcessError: If one of the processes is killed.
    """
    with closing(study.lock()):
        study.begin(images)
        return _train_all(study, images, runs, jobs, tell or _tell_nothing)


def _tell_nothing(line: str) -> None:
    pass


def _train_all(
    study: Study, images: ImageData, runs: Sequence[StudyRun], jobs: int | None, tell: Tell
) -> list[FoldResult]:
    pending = [run for run in runs if not study.is_finished(run)]
    tell(f"{len(pending)} of {len(runs)} runs to train in {for_terminal(study.folder)}")
    results = _train_runs(study, images, pending, jobs)
    try:
        with closing(results):
            for number, result in enumerate(results, start=1):
                tell(f"{result} ({number} of {len(pending)})")
    except Interrupted as error:
        # The remedy of a single run would be to resume it, but this command starts an interrupted run again.
        message = "; finished runs are kept, and the same command continues with the others"
        raise create_interrupted(error.number, message) from None
    all_results = study.read_results()
    tell(study.write_report(all_results).rstrip("\n"))
    return all_results


def _train_runs(study: Study, images: ImageData, runs: Sequence[StudyRun], jobs: int | None) -> Results:
    """Return a generator that trains runs, in as many processes as there are jobs."""
    is_on_cpu = choose_device(study.config.device).type == "cpu"
    threads = torch.get_num_threads()
    if jobs is None:
        jobs = threads if is_on_cpu else 1
    # Use one thread per run: the last bits of a sum depend on the number of threads, and parallel runs use the
    # cores better.
    threads_per_run = 1 if is_on_cpu else max(1, threads // jobs)
    jobs = min(jobs, len(runs))
    if jobs > 1:
        return train_side_by_side(study, images.record(), runs, jobs, threads_per_run)
    return train_in_turn(study, images, runs, threads_per_run)
