"""The formatting of a benchmark as text, CSV or JSON."""

import json
from collections.abc import Callable, Sequence
from typing import Any, Literal

from nestnet.deploy.accuracy import MEASURES
from nestnet.deploy.benchmark import BenchmarkRow
from nestnet.deploy.turns import ROUNDS
from nestnet.text.escape import csv_row, for_data, for_terminal
from nestnet.text.tables import align_columns
from nestnet.text.units import format_if_known

Layout = Literal["text", "csv", "json"]

FIRST_COLUMNS = ["file", "network", "format", "precision", "device"]
"""Columns of the table for reading, before the accuracies."""

LAST_COLUMNS = ["MB", "batch", "ms", "quartiles", "ms/image"]
"""Columns after them."""


def as_text(rows: Sequence[BenchmarkRow]) -> list[str]:
    """Return a table, and a line on what its columns mean.

    Args:
        rows: measurements, at least one.

    Returns:
        The lines, without line breaks.
    """
    # A column for each kind of accuracy that a file has.
    used = {row.accuracy.measure for row in rows}
    measures = [measure for measure in MEASURES if measure in used]
    table = [[*FIRST_COLUMNS, *(f"{measure.short_name} %" for measure in measures), *LAST_COLUMNS]]
    for row in rows:
        timing = row.timing
        accuracies = [format_if_known(row.accuracy.of(measure), ".2f") or "-" for measure in measures]
        table.append(
            [
                for_terminal(row.file),
                f"{for_terminal(row.network)} ({row.mode})",
                row.format,
                row.precision,
                row.device,
                *accuracies,
                f"{row.size / 1e6:.2f}",
                str(row.batch_size),
                _format_ms(timing.median),
                f"{_format_ms(timing.lower)}-{_format_ms(timing.upper)}",
                _format_ms(timing.median / row.batch_size),
            ]
        )
    threads = f"{rows[0].threads} thread" if rows[0].threads == 1 else f"{rows[0].threads} threads"
    fewest = min(row.timing.count for row in rows)
    note = (
        f"ms: median time of a batch, and its quartiles, over at least {fewest} batches in {ROUNDS} rounds, in which all "
        f"files took turns; {threads} on a CPU; MB: 10^6 bytes"
    )
    return [*align_columns(table), note]


def as_csv(rows: Sequence[BenchmarkRow]) -> list[str]:
    """Return a header and a record per row, whose columns are the entries of `as_json`.

    Args:
        rows: measurements, at least one.

    Returns:
        The lines, without line breaks.
    """
    entries = [_describe(row) for row in rows]
    lines = [csv_row(entries[0])]
    for entry in entries:
        cells = ["" if value is None else value for value in entry.values()]
        lines.append(csv_row(cells))
    return lines


def as_json(rows: Sequence[BenchmarkRow]) -> list[str]:
    """Return one list with an object per row, indented.

    Args:
        rows: measurements.

    Returns:
        The lines, without line breaks.
    """
    return json.dumps([_describe(row) for row in rows], indent=2).split("\n")


def _describe(row: BenchmarkRow) -> dict[str, Any]:
    """Return the entries of a row for programs; an accuracy that is not known is `None`."""
    accuracies: dict[str, float | None] = {}
    for measure in MEASURES:
        percent = row.accuracy.of(measure)
        accuracies[measure.key] = None if percent is None else round(percent, 4)
    return {
        "file": for_data(row.file),
        "network": for_data(row.network),
        "mode": row.mode,
        "format": row.format,
        "precision": row.precision,
        "device": row.device,
        "threads": row.threads,
        **accuracies,
        "test_images": row.accuracy.images,
        "bytes": row.size,
        "batch_size": row.batch_size,
        "batches": row.timing.count,
        "median_ms": _milliseconds(row.timing.median),
        "lower_quartile_ms": _milliseconds(row.timing.lower),
        "upper_quartile_ms": _milliseconds(row.timing.upper),
        "median_ms_per_image": _milliseconds(row.timing.median / row.batch_size),
    }


def _milliseconds(seconds: float) -> float:
    return round(1000 * seconds, 6)


def _format_ms(seconds: float) -> str:
    """Return milliseconds with three significant digits, and all digits before the point."""
    milliseconds = 1000 * seconds
    if milliseconds >= 100:
        return f"{milliseconds:,.0f}"
    return f"{milliseconds:#.3g}"


# Functions from measurements to lines, by the name of the layout.
LAYOUTS: dict[Layout, Callable[[Sequence[BenchmarkRow]], list[str]]] = {
    "text": as_text,
    "csv": as_csv,
    "json": as_json,
}
