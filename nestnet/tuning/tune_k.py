"""The choice of k by cross-validation on the training images, as in the paper (arXiv 2602.21064, section 4).

For each k and each fold, a run trains on the other folds and is tested on this fold; the test images are never
used.
"""

import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nestnet.conditions.registry import CONDITIONS
from nestnet.config.schema import Config
from nestnet.data.image_data import load_data
from nestnet.text.arguments import is_whole
from nestnet.training.condition_plan import plan_condition
from nestnet.tuning.fold_result import FoldResult
from nestnet.tuning.report import REPORT_FILES, write_study_report
from nestnet.tuning.study import Study
from nestnet.tuning.study_run import StudyRun
from nestnet.tuning.train_study import (
    ArgumentRule,
    Tell,
    check_arguments,
    fix_precision,
    study_rules,
    train_study,
)

RUN_FOLDER = re.compile(r"k-([1-9]\d*)/fold-([1-9]\d*)", re.ASCII)


@dataclass(frozen=True)
class KStudy(Study):
    """Runs of one configuration with several values of k, such as `k-2/fold-1`."""

    name = "tune-k"
    purpose = "tune k"
    report_files = REPORT_FILES
    varied_fields = ("motivation.k",)

    def run_dir(self, run: StudyRun) -> Path:
        return self.folder / f"k-{run.k}" / f"fold-{run.fold}"

    def find_runs(self) -> Iterator[StudyRun]:
        for path in self.folder.glob("k-*/fold-*"):
            # A copy of a run, such as `fold-1 (copy)`, is no run of the study.
            numbers = RUN_FOLDER.fullmatch(f"{path.parent.name}/{path.name}")
            if numbers is not None:
                yield StudyRun(fold=int(numbers[2]), k=int(numbers[1]))

    def run_config(self, run: StudyRun) -> Config:
        config = super().run_config(run)
        assert run.k is not None
        return replace(config, motivation=replace(config.motivation, k=run.k))

    def write_report(self, results: list[FoldResult]) -> str:
        return write_study_report(results, self.folder)


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
    config = fix_precision(config)
    images = load_data(config.data, config.model)
    study = KStudy(config, folder, folds)
    # Creating a trainer checks the other settings. The first fold leaves the fewest images for training.
    study.create_trainer(images, StudyRun(fold=1, k=ks[0]))
    fewest_images = len(images.fold(0, folds).train)
    for k in ks:
        plan_condition(study.run_config(StudyRun(fold=1, k=k)), fewest_images)
    # Proceed fold by fold, so that every k has been tried on the same folds.
    runs = []
    for fold in range(1, folds + 1):
        for k in ks:
            runs.append(StudyRun(fold, k))
    return train_study(study, images, runs, jobs=jobs, tell=tell)


def _check_arguments(config: Config, ks: Sequence[int], folds: int, jobs: int | None) -> None:
    # Users' own conditions are allowed too if their constructor has a k.
    condition = config.motivation.name
    tunable = []
    for name, factory in CONDITIONS.items():
        if "k" in inspect.signature(factory).parameters:
            tunable.append(name)
    rules: list[ArgumentRule] = [
        ("k", ks, len(ks) > 0, "at least one value to try"),
        ("k", ks, len(set(ks)) == len(ks), "values that differ; leave out the repeated ones"),
    ]
    for k in ks:
        rules.append(("k", k, is_whole(k, 1), "a whole number of at least 1"))
    rules += study_rules(config, folds, jobs)
    rules += [
        ("motivation.name", condition, condition in tunable, f"a condition that has a k: {', '.join(tunable)}"),
        ("finish_epochs", config.finish_epochs, config.finish_epochs == 0, "0, because no condition chooses in them"),
    ]
    check_arguments(rules)
