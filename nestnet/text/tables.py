"""Tables of texts: as Markdown, and in columns."""

from collections.abc import Sequence


def markdown_table(rows: Sequence[Sequence[str]], *, align_right: bool = False) -> str:
    """Return a table in Markdown whose columns are also aligned in the source.

    Args:
        rows: cells of each row; the first row is the head of the table, and all rows have the same length.
            Cells are Markdown: untrusted text must be escaped before (`nestnet.text.escape.for_markdown`).
        align_right: whether cells are aligned to the right, as columns of numbers are, instead of the left.

    Returns:
        The lines of the table, each with its line break.

    Example:
        >>> print(markdown_table([["k", "top-1"], ["12", "9.5"]], align_right=True), end="")
        |  k | top-1 |
        | -: | ----: |
        | 12 |   9.5 |
    """
    # Markdown does not need columns to be aligned, but people read its source, in a terminal or a diff.
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    head, *body = rows
    rule = [_rule(width, align_right) for width in widths]
    lines = []
    for row in (head, rule, *body):
        cells = [_pad(cell, width, align_right) for cell, width in zip(row, widths, strict=True)]
        lines.append(f"| {' | '.join(cells)} |\n")
    return "".join(lines)


def align_columns(rows: list[list[str]]) -> list[str]:
    """Return the rows of a table as lines of text.

    Args:
        rows: rows with the same number of cells: a name, and values.

    Returns:
        A line per row, with names aligned to the left and values to the right.
    """
    # each column is as wide as its longest cell
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines: list[str] = []
    for name, *values in rows:
        cells = [name.ljust(widths[0])]
        for value, width in zip(values, widths[1:], strict=True):
            cells.append(value.rjust(width))
        lines.append("  ".join(cells).rstrip())
    return lines


def _rule(width: int, align_right: bool) -> str:
    """Return the cell below the head of a column, whose colon tells Markdown how the column is aligned."""
    if align_right:
        return ":".rjust(width, "-")
    return "-" * width


def _pad(cell: str, width: int, align_right: bool) -> str:
    if align_right:
        return cell.rjust(width)
    return cell.ljust(width)
