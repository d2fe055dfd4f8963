"""Figures of a run. matplotlib is imported when one is drawn."""

from pathlib import Path

from nestnet.mode import Mode
from nestnet.run_directory import read_table

COLOURS = {Mode.BASE: "#4477aa", Mode.MOTIVATED: "#ee6677"}  # Paul Tol's bright scheme, distinct to the colour-blind


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
    for mode in Mode:
        rows = [row for row in steps if row["mode"] == mode]
        size = 7 if mode is Mode.MOTIVATED else 4
        label = f"{mode}: {len(rows)} of {len(steps)} batches"
        left.scatter(
            [int(row["step"]) for row in rows], [float(row["loss"]) for row in rows], size, COLOURS[mode], label=label
        )
        accuracies = [float(row[f"{mode}_top1"]) for row in epochs]
        label = f"{mode}: {accuracies[-1]:.2f} %"
        right.plot([int(row["epoch"]) for row in epochs], accuracies, ".-", color=COLOURS[mode], label=label)
    left.set(xlabel="batch", ylabel="training loss", yscale="log")
    right.set(xlabel="epoch", ylabel="top-1 on the test images, %")
    right.xaxis.get_major_locator().set_params(integer=True)
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{run_dir.name}", fontsize=11)
    figure.savefig(output, dpi=120)
    return output
