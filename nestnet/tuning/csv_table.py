"""Tables of numbers as CSV, with as many digits as float32 has."""

from typing import Any

from nestnet.text.escape import csv_row


def to_csv(rows: list[dict[str, Any]]) -> str:
    """Return rows, which must all have the same columns, as CSV with a header.

    Args:
        rows: numbers by the names of their columns, at least one row; `None` for an empty cell.
    """
    lines = [csv_row(rows[0])]
    for row in rows:
        lines.append(csv_row(map(_csv_cell, row.values())))
    return "\n".join([*lines, ""])


def _csv_cell(value: float | None) -> str:
    if value is None:
        return ""
    # Integers keep all their digits.
    if isinstance(value, int):
        return str(value)
    return f"{value:.8g}"
