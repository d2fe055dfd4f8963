"""Figures of a run. matplotlib is imported when one is drawn."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nestnet.conditions.base import JOINT
from nestnet.nn.mode import Mode
from nestnet.runs.history import Steps, read_course
from nestnet.storage.files import check_output, write_atomically
from nestnet.storage.paths import real_path
from nestnet.text.escape import for_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"base": "#4477aa", "motivated": "#ee6677", JOINT: "#228833"}
"""Of batches by what they train, a mode or both subnets; from Paul Tol's bright scheme, distinct to the colour-blind."""
MANY = 2000
"""From so many batches on, dots are drawn as pixels in figures that are otherwise drawn as lines."""


def draw_run(run_dir: Path, output: Path) -> Path:
    """Each batch's loss with the motivated batches marked, and both subnets' top-1 after each epoch.

    Args:
        output: its ending decides the format (PNG, SVG, PDF).

    Raises:
        ValueError: if the folder is no run with at least one finished epoch, the format is unknown, or no file can be written
            under this name.
    """
    _, steps, epochs = read_course(run_dir)
    check_output(output)
    if not len(epochs["epoch"]):
        raise ValueError(f"{run_dir} has no finished epoch to draw")
    from matplotlib.figure import Figure

    with plain_text():
        figure = Figure(figsize=(11, 4), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        draw_losses(left, steps)
        left.set_xlabel("batch")
        draw_top1(right, epochs)
        for axes in (left, right):
            axes.legend(frameon=False)
        figure.suptitle(for_figure(real_path(run_dir).name), fontsize=11)
        save_figure(figure, output, dpi=120)
    return output


def save_figure(figure: "Figure", path: Path, **options: Any) -> None:
    """Write a figure in the format of the file's ending, PNG without one.

    Args:
        options: as for matplotlib's `savefig`.

    Raises:
        ValueError: if the format is unknown.
        OSError: with one line, if the file cannot be written.
    """
    content = BytesIO()
    figure.savefig(content, format=path.suffix.removeprefix(".") or "png", **options)
    write_atomically(path, content.getvalue())


@contextmanager
def plain_text() -> Iterator[None]:
    """Within, text is drawn as it is: a name with `$` is no formula, and a script that the font lacks gives no warning."""
    from matplotlib import rc_context

    with rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
        yield


def draw_losses(axes: "Axes", steps: Steps) -> None:
    """Each batch's loss as a dot, coloured by what it trained, with running medians of many; crosses mark skipped batches."""
    finite, many = np.isfinite(steps.loss), len(steps) > MANY
    size = float(np.clip(4000 / max(len(steps), 1), 0.4, 8))
    alpha = float(np.clip(20 / max(len(steps), 1) ** 0.5, 0.06, 0.8))  # hundreds of thousands lie on top of each other
    for trained, colour in COLOURS.items():
        if not (chosen := steps.mode == trained).any():
            continue
        x, y = steps.number[chosen & finite], steps.loss[chosen & finite]
        area = 1.7 * size if trained == Mode.MOTIVATED else size
        axes.scatter(x, y, area, colour, alpha=alpha, linewidths=0, rasterized=many)
        if many:
            width = 1.2 if trained == Mode.MOTIVATED else 3  # both are to be seen where they are the same
            axes.plot(*running_median(x, y), color=colour, linewidth=width)
        label = f"{trained}: {chosen.sum():,} of {len(steps):,} batches"
        axes.scatter([], [], 16, colour, linewidths=0, label=label)  # dots of a legend are to be seen
    if not finite.all():
        x, ground = steps.number[~finite], axes.get_xaxis_transform()
        axes.plot(
            x, np.full(len(x), 0.02), "x", color="0.5", transform=ground, markersize=4, label=f"skipped: {len(x):,}"
        )
    axes.set_ylabel("training loss")
    tidy(axes)
    if finite.any() and (steps.loss[finite] > 0).all():
        number_decades(axes)


def draw_top1(axes: "Axes", epochs: dict[str, np.ndarray]) -> None:
    """Both subnets' top-1 after each epoch."""
    style = ".-" if len(epochs["epoch"]) <= 60 else "-"
    for mode in Mode:
        accuracies = epochs[f"{mode}_top1"]
        label = f"{mode}: {accuracies[-1]:.2f} %"
        axes.plot(epochs["epoch"], accuracies, style, color=COLOURS[mode], label=label)
    axes.set_ylabel("top-1 on the test images, %")
    over_epochs(axes)


def over_epochs(axes: "Axes") -> None:
    """An x-axis of whole epochs."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    tidy(axes)


def running_median(x: np.ndarray, y: np.ndarray, points: int = 150) -> tuple[np.ndarray, np.ndarray]:
    """The medians of about so many equal parts of a series, each over the middle of its part.

    >>> running_median(np.arange(6), np.array([3.0, 1.0, 2.0, 8.0, 9.0, 7.0]), points=2)
    (array([1., 4.]), array([2., 8.]))
    """
    parts = [part for part in np.array_split(np.arange(len(x)), points) if len(part)]
    return np.array([np.median(x[part]) for part in parts]), np.array([np.median(y[part]) for part in parts])


def number_decades(axes: "Axes") -> None:
    """A logarithmic y-axis labelled 0.1, 0.2, 0.5, 1 ..., or evenly where that would be too few labels."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    few = high < 5 * low
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]) if few else LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def tidy(axes: "Axes") -> None:
    """A faint grid, and no frame but the two axes."""
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
