"""The rendering of results as in the paper's tables (arXiv 2602.21064, tables 1 to 7), in Markdown, CSV or LaTeX."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from nestnet.paper.results import ResultRow, collect_rows
from nestnet.text.arguments import check_choice
from nestnet.text.escape import csv_row, for_latex, for_markdown
from nestnet.text.tables import markdown_table
from nestnet.text.units import format_if_known, format_mean_std

# Columns of Markdown and LaTeX. ACC/FLOPs is in hundredths of a percentage point per unit of the row's cost.
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

# Operations below which a cost is written in M instead of G, as the paper writes those of the CIFAR ResNets.
LARGEST_COST_IN_MILLIONS = 0.3e9


def render_table(run_dirs: Sequence[Path], format: str = "markdown") -> str:
    """Render the results of some runs as a table.

    A row is a network with the data it was trained on, the number of runs, top-1 after the last epoch
    (mean and sample standard deviation), operations of an average forward pass in training, ACC/FLOPs with
    F_Ratio, and the paper's result. ACC/FLOPs needs runs that trained the base alone
    (condition `never`) on the same data for as many epochs. F_Ratio also needs such runs of the motivated
    network (`always`).

    Args:
        run_dirs: run directories; an unfinished run is left out with a notice.
        format: `"markdown"`, `"latex"`, or `"csv"`, which has a column for each number: costs in the
            row's `unit`, ACC/FLOPs in hundredths of a percentage point per such unit.

    Returns:
        The table, with a line break at its end.

    Raises:
        ValueError: For another format, a folder that is not a run directory, or if no run has a row.
    """
    check_choice("format", format, tuple(TABLE_FORMATS))
    return TABLE_FORMATS[format](collect_rows(run_dirs))


@dataclass(frozen=True)
class CostUnit:
    """Unit in which a row's costs are written.

    Attributes:
        operations: number of operations in the unit.
        name: name of the unit.
        digits: number of decimals of a cost in Markdown and LaTeX.
    """

    operations: float
    name: str
    digits: int


@dataclass(frozen=True)
class RowNumbers:
    """Numbers of a row, measured or published; `None` for missing ones.

    Attributes:
        top1: mean accuracy in percent.
        std: standard deviation of the accuracy in percentage points.
        cost: operations of an average forward pass, in the row's unit.
        acc_flops: ACC/FLOPs in hundredths of a percentage point per such unit.
        f_ratio: F_Ratio.
    """

    top1: float | None = None
    std: float | None = None
    cost: float | None = None
    acc_flops: float | None = None
    f_ratio: float | None = None


def _cost_unit(row: ResultRow) -> CostUnit:
    operation = "FLOPs" if row.convention == "paper" else "MACs"
    if row.cost < LARGEST_COST_IN_MILLIONS:
        return CostUnit(1e6, f"M {operation}", digits=2)
    return CostUnit(1e9, f"G {operation}", digits=3)


def _measured_numbers(row: ResultRow) -> RowNumbers:
    scale = _cost_unit(row).operations
    # A single run has no standard deviation.
    std = None
    if len(row.top1) > 1:
        std = statistics.stdev(row.top1)
    acc_flops = None
    if row.acc_flops is not None:
        acc_flops = 100 * scale * row.acc_flops
    return RowNumbers(statistics.fmean(row.top1), std, row.cost / scale, acc_flops, row.f_ratio)


def _published_numbers(row: ResultRow) -> RowNumbers:
    published = row.published
    if published is None:
        return RowNumbers()
    scale = _cost_unit(row).operations
    cost = None
    if published.cost is not None:
        cost = published.cost / scale
    acc_flops = None
    # Here a network trained alone may be compared with another network than in the paper.
    if published.acc_flops is not None and published.pair == row.pair:
        acc_flops = 100 * scale * published.acc_flops * published.acc_flops_unit
    return RowNumbers(published.accuracy, published.std, cost, acc_flops, published.f_ratio)


# Tables for programs


def _to_csv(rows: list[ResultRow]) -> str:
    names = list(asdict(RowNumbers()))
    published_names = [f"published_{name}" for name in names]
    lines = [csv_row(["network", "data", "setting", "runs", "unit", *names, *published_names])]
    for row in rows:
        numbers = [*asdict(_measured_numbers(row)).values(), *asdict(_published_numbers(row)).values()]
        cells = [format_if_known(number, ".8g") for number in numbers]
        unit = _cost_unit(row).name
        lines.append(csv_row([row.name, row.dataset, row.setting, len(row.top1), unit, *cells]))
    return "\n".join([*lines, ""])


# Tables for people


def _to_markdown(rows: list[ResultRow]) -> str:
    lines = []
    for cells in _text_cells(rows):
        lines.append([for_markdown(cell) for cell in cells])
    return markdown_table(lines)


def _to_latex(rows: list[ResultRow]) -> str:
    lines = []
    for cells in _text_cells(rows):
        lines.append(" & ".join(map(for_latex, cells)) + r" \\")
    head, *body = lines
    alignment = "l" * (head.count(" & ") + 1)
    begin = rf"\begin{{tabular}}{{{alignment}}}"
    return "\n".join([begin, r"\hline", head, r"\hline", *body, r"\hline", r"\end{tabular}", ""])


def _text_cells(rows: list[ResultRow]) -> list[list[str]]:
    """Return the heads of the columns and the cells of each row, without empty columns."""
    lines = [list(COLUMNS)]
    for row in rows:
        unit = _cost_unit(row)
        measured = _text_numbers(_measured_numbers(row), unit)
        published = _text_numbers(_published_numbers(row), unit)
        lines.append([row.name, row.dataset, row.setting, str(len(row.top1)), *measured, *published])

    # Drop columns that are empty in every row: no setting differs, or none of the networks is in the paper.
    columns = []
    for column in zip(*lines, strict=True):
        if any(column[1:]):
            columns.append(column)
    return [list(line) for line in zip(*columns, strict=True)]


def _text_numbers(numbers: RowNumbers, unit: CostUnit) -> list[str]:
    """Return top-1, cost, and ACC/FLOPs with F_Ratio, each empty where there is none."""
    top1 = ""
    if numbers.top1 is not None:
        top1 = format_mean_std(numbers.top1, numbers.std)
    cost = ""
    if numbers.cost is not None:
        cost = f"{numbers.cost:.{unit.digits}f} {unit.name}"
    # The paper writes F_Ratio in parentheses after ACC/FLOPs.
    efficiency = format_if_known(numbers.acc_flops, ".2f")
    if numbers.f_ratio is not None:
        efficiency = f"{efficiency} ({numbers.f_ratio:.2f})"
    return [top1, cost, efficiency]


# Functions from rows to the text of a table, by the name of the format.
TABLE_FORMATS: dict[str, Callable[[list[ResultRow]], str]] = {
    "markdown": _to_markdown,
    "csv": _to_csv,
    "latex": _to_latex,
}
