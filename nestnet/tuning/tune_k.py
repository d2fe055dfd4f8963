"""The choice of k by cross-validation on the training images, as in the paper (arXiv 2602.21064, section 4).

For each k and each fold, a run trains on the other folds and is tested on this fold; the test images are never
used.
"""

import inspect
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nestnet.conditions.registry import CONDITIONS
from nestnet.config.schema import Config
from nestnet.data.image_data import ImageData, load_data
from nestnet.device import choose_device
from nestnet.precision import choose_precision
from nestnet.runtime.interrupts import Interrupted, create_interrupted
from nestnet.text.arguments import is_whole
from nestnet.text.escape import for_terminal
from nestnet.training.condition_plan import plan_condition
from nestnet.tuning.fold_result import FoldResult
from nestnet.tuning.report import write_study_report
from nestnet.tuning.run_processes import Results, train_in_turn, train_side_by_side
from nestnet.tuning.study import Study

Tell = Callable[[str], None]


def tune_k(
    config: Config,
    ks: Sequence[int],
    folder: Path,
    *,
    folds: int = 5,
    jobs: int | None = 1,
    tell: Tell | None = None,
) -> list[FoldResult]:
    """Train a configuration with each k on each fold of the training images, and write a report.

    The runs proceed fold by fold over all k, so whenever they are stopped, every k has been tried on the same
    folds, except for the last one. The same call resumes: finished runs are kept, and an interrupted one
    starts again. Further values of k can be added later.

    Args:
        config: configuration of the runs. Its `motivation.k` and `run_dir` are not used.
        ks: values of k to try, each at least 1.
        folder: folder for the runs, as `k-2/fold-1`, and in the end for `tune-k.md` and `tune-k.csv` with
            a row per k, `tune-k-folds.csv` with a row per run, and `tune-k.png`.
        folds: number of parts of the training images, at least 2, with equal shares of each class; the
            same for every k and seed.
        jobs: number of runs that train in parallel, each in its own process; `None` for one per core on a CPU,
            otherwise one. On a CPU the results do not depend on it. With more than one, a script must call
            this function under `if __name__ == "__main__"`, because the processes import the script.
        tell: function, such as `print`, that is called with lines on the progress and with the report; `None`
            for no output.

    Returns:
        The results of every k whose folds are all finished, including those of earlier calls, by k and fold.

    Raises:
        ValueError: For an argument out of range, a condition without k, a configuration that cannot be
            trained, or one that differs from the folder's. In these cases nothing is trained.
        FloatingPointError: When a loss is NaN or infinite.
        ChildProcessError: If one of the processes is killed.
    """
    _check_arguments(config, ks, folds, jobs)
    # All runs have one precision, also those that are added later on another machine.
    precision = choose_precision(config.precision, choose_device(config.device))
    config = replace(config, precision=precision)
    images = load_data(config.data, config.model)
    study = Study(config, folder, folds)
    # Creating a trainer checks the other settings. The first fold leaves the fewest images for training.
    study.create_trainer(images, ks[0], fold=1)
    fewest_images = len(images.fold(0, folds).train)
    for k in ks:
        plan_condition(study.run_config(k, fold=1), fewest_images)
    with closing(study.lock()):
        study.begin(images)
        return _train_all(study, images, ks, jobs, tell or _tell_nothing)


def _tell_nothing(line: str) -> None:
    pass


def _train_all(study: Study, images: ImageData, ks: Sequence[int], jobs: int | None, tell: Tell) -> list[FoldResult]:
    """Train the runs that are not finished, and write the report."""
    # Proceed fold by fold, so that every k has been tried on the same folds.
    pending = []
    for fold in range(1, study.folds + 1):
        for k in ks:
            if not study.is_finished(k, fold):
                pending.append((k, fold))
    tell(f"{len(pending)} of {len(ks) * study.folds} runs to train in {for_terminal(study.folder)}")
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
    tell(write_study_report(all_results, study.folder).rstrip("\n"))
    return all_results


def _train_runs(study: Study, images: ImageData, runs: list[tuple[int, int]], jobs: int | None) -> Results:
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


def _check_arguments(config: Config, ks: Sequence[int], folds: int, jobs: int | None) -> None:
    # Users' own conditions are allowed too if their constructor has a k.
    condition = config.motivation.name
    tunable = []
    for name, factory in CONDITIONS.items():
        if "k" in inspect.signature(factory).parameters:
            tunable.append(name)
    # Each entry holds the name, the value, whether it is valid, and the rule.
    rules: list[tuple[str, Any, bool, str]] = [
        ("k", ks, len(ks) > 0, "at least one value to try"),
        ("k", ks, len(set(ks)) == len(ks), "values that differ; leave out the repeated ones"),
    ]
    for k in ks:
        rules.append(("k", k, is_whole(k, 1), "a whole number of at least 1"))
    rules += [
        ("folds", folds, is_whole(folds, 2), "a whole number of at least 2; the paper has 5"),
        ("jobs", jobs, jobs is None or is_whole(jobs, 1), "a whole number of at least 1"),
        ("motivation.name", condition, condition in tunable, f"a condition that has a k: {', '.join(tunable)}"),
    ]
    for name, value, is_valid, rule in rules:
        if not is_valid:
            raise ValueError(f"{name} = {value!r}: it must be {rule}")
