"""Cross-validation of a whole configuration on its training images, and its report.

For each fold, a run trains on the other folds and is tested on this fold; the test images are never used.
"""

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from nestnet.config.schema import Config
from nestnet.data.image_data import load_data
from nestnet.nn.mode import Mode
from nestnet.storage.atomic import write_atomically
from nestnet.text.tables import markdown_table
from nestnet.text.units import format_mean_std
from nestnet.tuning.csv_table import to_csv
from nestnet.tuning.fold_result import FoldResult
from nestnet.tuning.study import Study
from nestnet.tuning.study_run import StudyRun
from nestnet.tuning.summary import summarize
from nestnet.tuning.train_study import Tell, check_arguments, fix_precision, study_rules, train_study

REPORT_FILES = ("cross-validate.md", "cross-validate.csv", "cross-validate.json")

# In Markdown, the rule of a right-aligned column needs at least two characters.
COLUMNS = ("fold", "base top-1, %", "motivated top-1, %", "difference", "motivated batches, %", "cost / base alone")


@dataclass(frozen=True)
class CrossValidation(Study):
    """Runs of one configuration, one for each fold, such as `fold-1`."""

    name = "cross-validate"
    purpose = "cross-validate"
    report_files = REPORT_FILES

    def run_dir(self, run: StudyRun) -> Path:
        return self.folder / f"fold-{run.fold}"

    def find_runs(self) -> Iterator[StudyRun]:
        for fold in range(1, self.folds + 1):
            yield StudyRun(fold)

    def write_report(self, results: list[FoldResult]) -> str:
        return write_report(results, self.folder)


def cross_validate(
    config: Config, folder: Path, *, folds: int = 5, jobs: int | None = 1, tell: Tell | None = None
) -> list[FoldResult]:
    """Train a configuration on each fold of its training images, and write the accuracies of both networks.

    The same call resumes: finished runs are kept, and an interrupted one starts again.

    Args:
        config: configuration of the runs. Its `run_dir` is not used.
        folder: folder for the runs, as `fold-1`, and in the end for `cross-validate.md` and `cross-validate.csv` with a
            row per fold, and `cross-validate.json` with means and standard deviations.
        folds: number of parts of the training images, at least 2, with equal shares of each class; the same for every
            seed.
        jobs: number of runs that train in parallel, as for `nestnet.tuning.tune_k.tune_k`.
        tell: function, such as `print`, that is called with lines on the progress and with the report; `None` for no
            output.

    Returns:
        The result of each fold, in order.

    Raises:
        ValueError: For an argument out of range, a configuration that cannot be trained, or one that differs from the
            folder's. In these cases nothing is trained.
        FloatingPointError: When a loss is NaN or infinite.
        ChildProcessError: If one of the processes is killed.
    """
    check_arguments(study_rules(config, folds, jobs))
    config = fix_precision(config)
    images = load_data(config.data, config.model)
    study = CrossValidation(config, folder, folds)
    # Creating a trainer checks the settings. The first fold leaves the fewest images for training.
    study.create_trainer(images, StudyRun(fold=1))
    runs = [StudyRun(fold) for fold in range(1, folds + 1)]
    return train_study(study, images, runs, jobs=jobs, tell=tell)


def write_report(results: Sequence[FoldResult], folder: Path) -> str:
    """Write `cross-validate.md`, `cross-validate.csv` and `cross-validate.json`.

    Args:
        results: result of each fold, in order; at least two.
        folder: folder for the files.

    Returns:
        The text of `cross-validate.md`.
    """
    rows = []
    for result in results:
        row = asdict(result)
        # The configuration has one k.
        del row["k"]
        rows.append(row)
    write_atomically(folder / "cross-validate.csv", to_csv(rows))
    summary = asdict(summarize(results))
    # The configuration has one k, and its forecast is in the runs.
    for name in ("k", "expected_fraction", "expected_cost"):
        del summary[name]
    differences = _differences(results)
    summary["difference"] = statistics.fmean(differences)
    summary["difference_std"] = statistics.stdev(differences)
    write_atomically(folder / "cross-validate.json", json.dumps(summary, indent=1) + "\n")
    text = render_markdown(results)
    write_atomically(folder / "cross-validate.md", text)
    return text


def render_markdown(results: Sequence[FoldResult]) -> str:
    """Render a table with a row per fold, and a last row with the mean and the standard deviation of each column.

    Args:
        results: result of each fold, in order; at least two.

    Returns:
        The Markdown text.
    """
    summary = summarize(results)
    rows = [list(COLUMNS)]
    for result, difference in zip(results, _differences(results), strict=True):
        rows.append(
            [
                str(result.fold),
                f"{result.base_top1:.2f}",
                f"{result.motivated_top1:.2f}",
                f"{difference:+.2f}",
                f"{100 * result.motivated_fraction:.2f}",
                f"{result.average_cost / result.base_cost:.3f}",
            ]
        )
    differences = _differences(results)
    last_row = ["mean"]
    for mode in Mode:
        last_row.append(format_mean_std(summary.top1(mode), summary.std(mode)))
    last_row.append(format_mean_std(statistics.fmean(differences), statistics.stdev(differences)))
    last_row += [f"{100 * summary.motivated_fraction:.2f}", f"{summary.relative_cost:.3f}"]
    rows.append(last_row)
    note = (
        "Accuracies after the last epoch, on the fold that was left out. "
        f"Mean and standard deviation over {len(results)} folds of the training images."
    )
    return f"{markdown_table(rows, align_right=True)}\n{note}\n"


def _differences(results: Sequence[FoldResult]) -> list[float]:
    """Return by how many percentage points the motivated network is better than the base, on each fold."""
    return [result.motivated_top1 - result.base_top1 for result in results]
