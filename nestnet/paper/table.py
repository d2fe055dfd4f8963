"""Tables of results as the paper prints them (arXiv 2602.21064, tables 1 to 7), in Markdown, CSV or LaTeX."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from nestnet.paper.results import Row, rows
from nestnet.text.arguments import choice
from nestnet.text.escape import csv_row, for_latex, for_markdown

COLUMNS = (
    "network",
    "data",
    "setting",
    "runs",
    "top-1, %",
    "forward pass",
    "ACC/FLOPs, 1e-2 per M or G (F_Ratio)",
    "paper: top-1, %",
    "paper: forward pass",
    "paper: ACC/FLOPs (F_Ratio)",
)
"""Of the tables to be read. ACC/FLOPs is in hundredths of a percentage point per M or G operations, as the row's cost is."""


def table(run_dirs: Sequence[Path], format: str = "markdown") -> str:
    """What the runs in these folders achieved, as a table in text.

    A row is a network with the data it was trained on, the number of runs, top-1 after the last epoch (mean and sample standard
    deviation), operations of an average forward pass in training, ACC/FLOPs with F_Ratio, and what the paper prints of it.
    ACC/FLOPs needs runs that trained the base alone (condition `never`) on the same data for as many epochs, F_Ratio also such
    of the motivated network (`always`).

    Args:
        run_dirs: folders of runs; an unfinished run is left out with a line on standard error.
        format: `"markdown"`, `"latex"`, or `"csv"`, which has every number in a column of its own: costs in the row's `unit`,
            ACC/FLOPs in hundredths of a percentage point by that unit.

    Raises:
        ValueError: for another format, a folder that is no run directory, or if no run is finished.
    """
    choice("format", format, tuple(FORMATS))
    return FORMATS[format](rows(run_dirs))


@dataclass(frozen=True)
class Figures:
    """The numbers of a row, measured or published; `cost` and `acc_flops` (in hundredths) by the row's unit."""

    top1: float | None = None
    std: float | None = None
    cost: float | None = None
    acc_flops: float | None = None
    f_ratio: float | None = None


def _scale(row: Row) -> tuple[float, str]:
    """The operations in a row's unit, and its name: M for networks as small as the CIFAR ResNets, G for bigger ones."""
    operations, prefix = (1e6, "M") if row.cost < 0.3e9 else (1e9, "G")
    return operations, f"{prefix} {'FLOPs' if row.convention == 'paper' else 'MACs'}"


def _measured(row: Row) -> Figures:
    scale, _ = _scale(row)
    return Figures(
        top1=statistics.fmean(row.top1),
        std=statistics.stdev(row.top1) if len(row.top1) > 1 else None,
        cost=row.cost / scale,
        acc_flops=None if row.acc_flops is None else 100 * scale * row.acc_flops,
        f_ratio=row.f_ratio,
    )


def _published(row: Row) -> Figures:
    found, (scale, _) = row.published, _scale(row)
    if found is None:
        return Figures()
    same_pair = found.pair == row.pair  # a network alone may be compared with another one here
    return Figures(
        top1=found.accuracy,
        std=found.std,
        cost=None if found.cost is None else found.cost / scale,
        acc_flops=100 * scale * found.acc_flops * found.unit if found.acc_flops is not None and same_pair else None,
        f_ratio=found.f_ratio,
    )


def _csv(rows: list[Row]) -> str:
    names = list(asdict(Figures()))
    records = [["network", "data", "setting", "runs", "unit", *names, *(f"published_{name}" for name in names)]]
    for row in rows:
        numbers = [*asdict(_measured(row)).values(), *asdict(_published(row)).values()]
        figures = ["" if number is None else f"{number:.8g}" for number in numbers]
        records.append([row.name, row.dataset, row.setting, str(len(row.top1)), _scale(row)[1], *figures])
    return "".join(f"{csv_row(record)}\n" for record in records)


def _markdown(rows: list[Row]) -> str:
    columns, *lines = [list(map(for_markdown, line)) for line in _cells(rows)]
    widths = [max(map(len, column)) for column in zip(columns, *lines, strict=True)]
    rule = ["-" * width for width in widths]
    return "".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |\n"
        for line in (columns, rule, *lines)
    )


def _latex(rows: list[Row]) -> str:
    columns, *lines = [" & ".join(map(for_latex, line)) + r" \\" for line in _cells(rows)]
    begin = rf"\begin{{tabular}}{{{'l' * (columns.count(' & ') + 1)}}}"
    return "\n".join([begin, r"\hline", columns, r"\hline", *lines, r"\hline", r"\end{tabular}", ""])


def _cells(rows: list[Row]) -> list[list[str]]:
    """The heads of the columns and the cells of each row, without columns that have nothing in them."""
    lines = []
    for row in rows:
        figures = [*_texts(_measured(row), row), *_texts(_published(row), row)]
        lines.append([row.name, row.dataset, row.setting, str(len(row.top1)), *figures])
    columns = [column for column in zip(COLUMNS, *lines, strict=True) if any(column[1:])]
    return [list(line) for line in zip(*columns, strict=True)]


def _texts(figures: Figures, row: Row) -> list[str]:
    """Top-1, cost, and ACC/FLOPs with F_Ratio, each as far as there is one."""
    scale, unit = _scale(row)
    top1 = "" if figures.top1 is None else f"{figures.top1:.2f}"
    cost = "" if figures.cost is None else f"{figures.cost:.{2 if scale == 1e6 else 3}f} {unit}"
    gain = "" if figures.acc_flops is None else f"{figures.acc_flops:.2f}"
    return [
        top1 if figures.std is None else f"{top1} ± {figures.std:.2f}",
        cost,
        gain if figures.f_ratio is None else f"{gain} ({figures.f_ratio:.2f})",
    ]


FORMATS: dict[str, Callable[[list[Row]], str]] = {"markdown": _markdown, "csv": _csv, "latex": _latex}
