"""The figure of a cascade: accuracy against multiply-accumulates, and against measured time."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nestnet.analysis.plotting import MODE_COLOURS, plain_text, save_figure, style_axes
from nestnet.cascade.study import CascadeStudy
from nestnet.cost.cascade import CascadeCosts
from nestnet.nn.mode import BOTH, Mode
from nestnet.text.escape import for_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_cascade(study: CascadeStudy, output: Path, name: str) -> Path:
    """Draw the curve of a cascade over its average cost, and over its time with the measured points.

    Args:
        study: study of the cascade.
        output: file to write, whose suffix decides the format (PNG, SVG, PDF).
        name: name of the run, for the title.

    Returns:
        The file that was written.

    Raises:
        ValueError: If matplotlib does not know the format.
    """
    from matplotlib.figure import Figure

    with plain_text():
        figure = Figure(figsize=(11, 4.2), layout="constrained")
        macs_axes, time_axes = figure.subplots(1, 2, sharey=True)
        macs_unit = 1e6
        if study.macs.motivated >= 1e9:
            macs_unit = 1e9
        macs = CascadeCosts(study.macs.base / macs_unit, study.macs.motivated / macs_unit)
        _draw_curve(macs_axes, study, macs)
        macs_axes.set_xlabel(f"multiply-accumulates per image, {'G' if macs_unit == 1e9 else 'M'}")
        macs_axes.set_ylabel("top-1 on the held-out images, %")

        milliseconds = CascadeCosts(1000 * study.timing.seconds.base, 1000 * study.timing.seconds.motivated)
        _draw_curve(time_axes, study, milliseconds)
        _draw_measured(time_axes, study)
        time_axes.set_xlabel(f"time per image in batches of {study.timing.batch_size}, ms")
        macs_axes.legend(frameon=False, loc="lower right")
        time_axes.legend(frameon=False, loc="lower right")
        pair = f"{study.networks[Mode.BASE]}, then {study.networks[Mode.MOTIVATED]}"
        figure.suptitle(f"{for_figure(name)}: cascade of {pair}", fontsize=11)
        save_figure(figure, output, dpi=120)
    return output


def _draw_curve(axes: "Axes", study: CascadeStudy, costs: CascadeCosts) -> None:
    """Draw the accuracy over a cost, with both networks alone, the chosen point, and the cost from which no cascade pays."""
    curve = study.curve
    x = costs.of_share(curve.passed_on)
    axes.plot(x, curve.accuracy, color=MODE_COLOURS[BOTH], label="cascade")
    axes.plot(
        costs.base,
        curve.base_accuracy,
        "o",
        color=MODE_COLOURS["base"],
        label=f"{study.networks[Mode.BASE]} alone",
    )
    axes.plot(
        costs.motivated,
        curve.motivated_accuracy,
        "o",
        color=MODE_COLOURS["motivated"],
        label=f"{study.networks[Mode.MOTIVATED]} alone",
    )
    axes.axvline(costs.motivated, color="0.7", linewidth=1, linestyle="--", label="break-even")
    point = study.recommendation.point
    if point is not None and study.recommendation.refusal is None:
        label = f"chosen: {curve.passed_on[point]:.1%} passed on"
        axes.plot(np.asarray(x)[point], curve.accuracy[point], "D", color="black", markersize=6, label=label)
    style_axes(axes)


def _draw_measured(axes: "Axes", study: CascadeStudy) -> None:
    """Draw the measured points of the cascade."""
    milliseconds: list[float] = []
    accuracies: list[float] = []
    for timed in study.timing.points:
        index = int(np.abs(study.curve.thresholds - timed.threshold).argmin())
        milliseconds.append(1000 * timed.seconds)
        accuracies.append(float(study.curve.accuracy[index]))
    axes.plot(milliseconds, accuracies, "x", color=MODE_COLOURS[BOTH], label="measured")
