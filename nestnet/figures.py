"""Figures of a run. matplotlib is imported when one is drawn."""

from pathlib import Path
from typing import TYPE_CHECKING

from nestnet.mode import Mode
from nestnet.motivation import JOINT
from nestnet.run_directory import read_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"base": "#4477aa", "motivated": "#ee6677", JOINT: "#228833"}
"""Of batches by what they train, a mode or both subnets; from Paul Tol's bright scheme, distinct to the colour-blind."""


def draw_run(run_dir: Path, output: Path) -> Path:
    """Each batch's loss with the motivated batches marked, and both subnets' top-1 after each epoch.

    Args:
        output: its ending decides the format (PNG, SVG, PDF).

    Raises:
        ValueError: if the folder is no run with at least one finished epoch, or the format is unknown.
    """
    steps, epochs = read_table(run_dir / "steps.csv"), read_table(run_dir / "metrics.csv")
    if not epochs:
        raise ValueError(f"{run_dir} has no finished epoch to draw")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for trained, colour in COLOURS.items():
        rows = [row for row in steps if row["mode"] == trained]
        if not rows:
            continue
        size = 7 if trained == Mode.MOTIVATED else 4
        label = f"{trained}: {len(rows)} of {len(steps)} batches"
        left.scatter(
            [int(row["step"]) for row in rows], [float(row["loss"]) for row in rows], size, colour, label=label
        )
    for mode in Mode:
        accuracies = [float(row[f"{mode}_top1"]) for row in epochs]
        label = f"{mode}: {accuracies[-1]:.2f} %"
        right.plot([int(row["epoch"]) for row in epochs], accuracies, ".-", color=COLOURS[mode], label=label)
    left.set(xlabel="batch", ylabel="training loss", yscale="log")
    right.set(xlabel="epoch", ylabel="top-1 on the test images, %")
    right.xaxis.get_major_locator().set_params(integer=True)
    for axes in (left, right):
        tidy(axes)
        axes.legend(frameon=False)
    figure.suptitle(f"{run_dir.name}", fontsize=11)
    figure.savefig(output, dpi=120)
    return output


def tidy(axes: "Axes") -> None:
    """A faint grid, and no frame but the two axes."""
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
