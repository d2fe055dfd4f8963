"""Draws docs/weight.svg: how a weight is divided into blocks, and what each mode uses.

python docs/draw_weight.py [FILE]
"""

import sys
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

BASE, DIFFERENTIAL, SKIPPED = "#4477aa", "#ee6677", "#dddddd"


def matrix(axes: Axes, title: str, blocks: list[tuple[str, tuple[float, float, float, float], str]]) -> None:
    for text, (x, y, width, height), colour in blocks:
        axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, edgecolor="white", linewidth=3))
        dark = colour == SKIPPED
        axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", color="#888888" if dark else "white")
    axes.set(xlim=(-1.4, 8.2), ylim=(8.2, -1.2), aspect="equal")
    axes.set_title(title, fontsize=11)
    axes.axis("off")


def side(axes: Axes, start: float, end: float, text: str, *, vertical: bool) -> None:
    ends = ((-0.35, start), (-0.35, end)) if vertical else ((start, -0.35), (end, -0.35))
    axes.annotate("", *ends, arrowprops={"arrowstyle": "<->", "color": "#555555", "shrinkA": 0, "shrinkB": 0})
    middle = (-0.75, (start + end) / 2) if vertical else ((start + end) / 2, -0.75)
    axes.text(*middle, text, ha="center", va="center", color="#555555")


def main() -> None:
    figure = Figure(figsize=(9, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    base, row, rows = (0, 0, 4.5, 4.5), (4.5, 0, 3.5, 4.5), (0, 4.5, 8, 3.5)
    matrix(
        left,
        "base mode uses the base block as it lies;\nthe others have no gradient and stay as they are",
        [("base\n[o, i]", base, BASE), ("right", row, SKIPPED), ("below", rows, SKIPPED)],
    )
    matrix(
        right,
        "motivated mode assembles the whole;\nautograd hands each block its own gradient",
        [("base\n[o, i]", base, BASE), ("right\n[o, I-i]", row, DIFFERENTIAL), ("below\n[O-o, I]", rows, DIFFERENTIAL)],
    )
    for axes, end, names in ((left, 4.5, "io"), (right, 8.0, "IO")):
        side(axes, 0, end, names[0], vertical=False)
        side(axes, 0, end, names[1], vertical=True)
    figure.savefig(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "weight.svg", dpi=110)


if __name__ == "__main__":
    main()
