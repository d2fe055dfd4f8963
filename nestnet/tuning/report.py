"""What the runs of a cross-validation say of k: a table a k, the runs behind it, and a figure."""

import csv
import io
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nestnet.analysis.figures import COLOURS, save_figure, tidy
from nestnet.cost.network import average_cost
from nestnet.nn.mode import Mode, PerMode
from nestnet.storage.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, order=True)
class FoldResult:
    """A run with one k that was tested on one fold.

    Attributes:
        k: of the condition.
        fold: from 1.
        base_top1: on the fold after the last epoch, in percent.
        motivated_top1: likewise.
        motivated_fraction: of the batches of all epochs, from 0 to 1.
        expected_fraction: by the forecast for epochs of this length, as if losses were independent; `None` where the condition
            gives none.
        average_cost: multiply-accumulates of a forward pass of one training image, averaged over all batches.
        base_cost: the same of the base network alone.
        motivated_cost: the same of the motivated network alone.
        seconds: that the run took.
    """

    k: int
    fold: int
    base_top1: float
    motivated_top1: float
    motivated_fraction: float
    expected_fraction: float | None
    average_cost: float
    base_cost: int
    motivated_cost: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"k = {self.k}, fold {self.fold}: top-1 base {self.base_top1:.2f} %, motivated {self.motivated_top1:.2f} %; "
            f"motivated batches {self.motivated_fraction:.1%}; {self.seconds:.0f} s"
        )


@dataclass(frozen=True)
class Summary:
    """A k over its folds: means, and standard deviations `std` of the accuracies.

    Attributes:
        relative_cost: the average cost of a forward pass in training, against that of the base trained alone.
        expected_cost: the same with the expected fraction of motivated batches.
    """

    k: int
    folds: int
    base_top1: float
    base_std: float
    motivated_top1: float
    motivated_std: float
    motivated_fraction: float
    expected_fraction: float | None
    relative_cost: float
    expected_cost: float | None

    def top1(self, mode: Mode) -> tuple[float, float]:
        """Mean and standard deviation of a subnet's accuracy, in percent."""
        return PerMode((self.base_top1, self.base_std), (self.motivated_top1, self.motivated_std)).of(mode)


def summarised(results: Sequence[FoldResult]) -> list[Summary]:
    """A summary a k of results that are sorted by k."""
    summaries = []
    for k, group in groupby(results, key=lambda result: result.k):
        runs = list(group)
        base, motivated = [run.base_top1 for run in runs], [run.motivated_top1 for run in runs]
        alone, bigger, expected = runs[0].base_cost, runs[0].motivated_cost, runs[0].expected_fraction
        forecast = None if expected is None else average_cost(alone, bigger, motivated_fraction=expected)
        summaries.append(
            Summary(
                k,
                folds=len(runs),
                base_top1=statistics.fmean(base),
                base_std=statistics.stdev(base),
                motivated_top1=statistics.fmean(motivated),
                motivated_std=statistics.stdev(motivated),
                motivated_fraction=statistics.fmean(run.motivated_fraction for run in runs),
                expected_fraction=expected,
                relative_cost=statistics.fmean(run.average_cost for run in runs) / alone,
                expected_cost=None if forecast is None else forecast / alone,
            )
        )
    return summaries


def best(summaries: Sequence[Summary], mode: Mode) -> Summary:
    """The k with which this subnet is most accurate; of equal ones the cheapest. The paper goes by the base."""
    return max(summaries, key=lambda summary: (summary.top1(mode)[0], -summary.relative_cost))


def write_report(results: Sequence[FoldResult], folder: Path) -> str:
    """Write `tune-k.md`, `tune-k.csv`, `tune-k-folds.csv` and `tune-k.png` of results that are sorted by k.

    Returns:
        The text of the first.
    """
    summaries = summarised(results)
    choices = PerMode(*(best(summaries, mode).k for mode in Mode))
    rows = [asdict(s) | {f"best_{mode}": int(s.k == choices.of(mode)) for mode in Mode} for s in summaries]
    write_atomically(folder / "tune-k.csv", _csv(rows))
    write_atomically(folder / "tune-k-folds.csv", _csv([asdict(result) for result in results]))
    text = markdown(summaries)
    write_atomically(folder / "tune-k.md", text)
    save_figure(tuning_figure(summaries), folder / "tune-k.png", dpi=200)
    return text


def markdown(summaries: Sequence[Summary]) -> str:
    """The table, with each subnet's best accuracy in bold, and a line below that tells the best k."""
    choices = {mode: best(summaries, mode) for mode in Mode}
    lines = [[" k", "base top-1, %", "motivated top-1, %", "motivated batches, %", "expected, %", "cost / base alone"]]
    for summary in summaries:
        accuracies = []
        for mode, chosen in choices.items():
            mean, std = summary.top1(mode)
            mark = "**" if summary is chosen else ""
            accuracies.append(f"{mark}{mean:.2f} ± {std:.2f}{mark}")
        expected = "" if summary.expected_fraction is None else f"{100 * summary.expected_fraction:.2f}"
        fraction, cost = f"{100 * summary.motivated_fraction:.2f}", f"{summary.relative_cost:.3f}"
        lines.append([str(summary.k), *accuracies, fraction, expected, cost])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, [":".rjust(width, "-") for width in widths])
    table = [" | ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    names = ", ".join(f"k = {choices[mode].k} for the {mode}" for mode in Mode)
    note = f"Best: {names}. Mean and standard deviation over {summaries[0].folds} folds of the training images."
    return "".join(f"| {line} |\n" for line in table) + f"\n{note}\n"


def tuning_figure(summaries: Sequence[Summary]) -> "Figure":
    """Over k: each subnet's accuracy with its standard deviation over the folds, the best one filled; and the cost.

    The subnets have axes of their own: a motivated network that is seldom trained lies far below the base.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(8.4, 2.9), layout=ConstrainedLayoutEngine(wspace=0.06))
    *subnets, cost = figure.subplots(1, 3)
    ks = [summary.k for summary in summaries]
    for axes, mode in zip(subnets, Mode, strict=True):
        means, stds = zip(*(summary.top1(mode) for summary in summaries), strict=True)
        chosen, colour = best(summaries, mode), COLOURS[mode]
        axes.errorbar(ks, means, stds, fmt="o-", color=colour, mfc="white", capsize=3, linewidth=1)
        axes.plot(chosen.k, chosen.top1(mode)[0], "o", color=colour, zorder=3)
        axes.set_title(f"{mode}: best at k = {chosen.k}", fontsize="medium")
        axes.set_ylabel("top-1 on the held-out fold, %")
    cost.plot(ks, [summary.relative_cost for summary in summaries], "o-", color="0.2", linewidth=1, label="measured")
    expected = [(s.k, s.expected_cost) for s in summaries if s.expected_cost is not None]
    if expected:
        cost.plot(*zip(*expected, strict=True), "--", color="0.5", linewidth=1, label="expected", zorder=1)
    cost.set_title("average forward cost", fontsize="medium")
    cost.set_ylabel("relative to the base alone")
    cost.legend(frameon=False)
    for axes in figure.axes:
        axes.set(xlabel="k", xticks=ks)
        tidy(axes)
    return figure


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: f"{v:.8g}" if isinstance(v, float) else v for name, v in row.items()})
    return text.getvalue()
