"""The report of a study: a table with a row per k, the runs behind it, and a figure."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from nestnet.analysis.plotting import save_figure
from nestnet.nn.mode import Mode
from nestnet.storage.atomic import write_atomically
from nestnet.text.tables import markdown_table
from nestnet.text.units import format_mean_std
from nestnet.tuning.csv_table import to_csv
from nestnet.tuning.figure import plot_summaries
from nestnet.tuning.fold_result import FoldResult
from nestnet.tuning.summary import FoldSummary, find_best, summarize_by_k

REPORT_FILES = ("tune-k.md", "tune-k.csv", "tune-k-folds.csv", "tune-k.png")

# In Markdown, the rule of a right-aligned column needs at least two characters, hence the space before k.
COLUMNS = (
    " k",
    "base top-1, %",
    "motivated top-1, %",
    "motivated batches, %",
    "expected, %",
    "cost / base alone",
)


def write_study_report(results: Sequence[FoldResult], folder: Path) -> str:
    """Write `tune-k.md`, `tune-k.csv`, `tune-k-folds.csv` and `tune-k.png`.

    Args:
        results: results of all folds of each k, sorted by k.
        folder: folder for the files.

    Returns:
        The text of `tune-k.md`.
    """
    summaries = summarize_by_k(results)
    # Write a row per k, with flags for the best one.
    rows = []
    for summary in summaries:
        row = asdict(summary)
        for mode in Mode:
            row[f"best_{mode}"] = int(summary is find_best(summaries, mode))
        rows.append(row)
    write_atomically(folder / "tune-k.csv", to_csv(rows))
    write_atomically(folder / "tune-k-folds.csv", to_csv(list(map(asdict, results))))
    text = render_markdown(summaries)
    write_atomically(folder / "tune-k.md", text)
    save_figure(plot_summaries(summaries), folder / "tune-k.png", dpi=200)
    return text


def render_markdown(summaries: Sequence[FoldSummary]) -> str:
    """Render the table with each subnet's best accuracy in bold, and a line below it that names the best k.

    Args:
        summaries: summary of each k, at least one.

    Returns:
        The Markdown text.
    """
    rows = [list(COLUMNS)]
    for summary in summaries:
        accuracies = []
        for mode in Mode:
            accuracy = format_mean_std(summary.top1(mode), summary.std(mode))
            if summary is find_best(summaries, mode):
                accuracy = f"**{accuracy}**"
            accuracies.append(accuracy)
        fraction = f"{100 * summary.motivated_fraction:.2f}"
        expected = ""
        if summary.expected_fraction is not None:
            expected = f"{100 * summary.expected_fraction:.2f}"
        rows.append([str(summary.k), *accuracies, fraction, expected, f"{summary.relative_cost:.3f}"])

    names = ", ".join(f"k = {find_best(summaries, mode).k} for the {mode}" for mode in Mode)
    folds = summaries[0].folds
    note = f"Best: {names}. Mean and standard deviation over {folds} folds of the training images."
    return f"{markdown_table(rows, align_right=True)}\n{note}\n"
