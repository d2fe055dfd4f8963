"""The figures of a study's report."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from study_headlines import CONTROLS, Headline, Study

from nestnet.analysis.plotting import save_figure, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Paul Tol's muted scheme, which people with colour blindness can tell apart; the marker tells them apart twice.
COLOURS = ("#cc6677", "#332288", "#ddcc77", "#117733", "#88ccee", "#882255", "#44aa99", "#999933", "#aa4499")
MARKERS = "osD^vP<X>*"
CONTROL_COLOUR = "0.3"


def draw_pareto(study: Study, headlines: list[Headline], output: Path) -> None:
    """Draw the accuracy of both networks against the cost of the run, with each network alone as a curve.

    Args:
        study: study.
        headlines: headline of each way and length.
        output: file to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6.2), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, network, name in zip(panels, CONTROLS, study.pair, strict=True):
        _draw_control(axes, network, headlines)
        for number, way in enumerate(list_ways(headlines)):
            # Another start of a network alone trains one network only.
            lines = [line for line in headlines if line.way == way and network in line.networks]
            if not lines:
                continue
            points = [(line.cost.mean * line.epochs, line.top1[network]) for line in lines]
            errors = [top1.standard_error or 0 for _, top1 in points]
            style = way_style(number)
            costs, means = [cost for cost, _ in points], [top1.mean for _, top1 in points]
            axes.errorbar(costs, means, yerr=errors, label=label(lines[0]), **style)
        axes.set_title(f"{name} ({network})", fontsize=11)
        axes.set_ylabel("top-1, % (mean and standard error over seeds)")
        axes.set_xlabel(f"cost of the run, epochs of {study.pair[0]} alone")
        _set_log_ticks(axes)
        style_axes(axes)
    _add_legend(figure, panels[0])
    save_figure(figure, output, dpi=120)


def draw_updates(study: Study, headlines: list[Headline], output: Path) -> None:
    """Draw how far the gap is closed against the number of batches that trained the motivated network.

    Args:
        study: study.
        headlines: headline of each way and length.
        output: file to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6.2), layout="constrained")
    axes = figure.subplots()
    # The axis is logarithmic, so a way that never trained the motivated network has no place on it.
    shown = [line for line in headlines if line.gap_closed is not None and line.motivated_batches.mean > 0]
    for number, way in enumerate(list_ways(headlines)):
        lines = [line for line in shown if line.way == way]
        gaps = [line.gap_closed for line in lines if line.gap_closed is not None]
        if not gaps:
            continue
        batches = [line.motivated_batches.mean for line in lines]
        errors = [100 * (gap.standard_error or 0) for gap in gaps]
        axes.errorbar(
            batches, [100 * gap.mean for gap in gaps], yerr=errors, label=label(lines[0]), **way_style(number)
        )
    axes.axhline(0, color=CONTROL_COLOUR, lw=1)
    axes.axhline(100, color=CONTROL_COLOUR, lw=1, ls="--")
    axes.set_title(f"0 %: {study.pair[0]} alone; 100 %: {study.pair[1]} alone, for the same epochs", fontsize=11)
    axes.set_ylabel("gap closed, % (mean and standard error over seeds)")
    axes.set_xlabel(f"number of batches that trained {study.pair[1]}")
    _set_log_ticks(axes)
    style_axes(axes)
    _add_legend(figure, axes)
    save_figure(figure, output, dpi=120)


def list_ways(headlines: list[Headline]) -> list[str]:
    """Return the names of the nested ways, in the order of the file."""
    return list(dict.fromkeys(line.way for line in headlines if not line.is_alone))


def way_style(number: int) -> dict[str, Any]:
    """Return the keyword arguments of matplotlib for the points of a way."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "ms": 7,
        "lw": 1,
        "elinewidth": 1,
        "capsize": 2,
        "alpha": 0.9,
    }


def label(line: Headline) -> str:
    return f"{line.way}: {line.title}"


def _draw_control(axes: "Axes", network: str, headlines: list[Headline]) -> None:
    lines = sorted((line for line in headlines if line.way == CONTROLS[network]), key=lambda line: line.epochs)
    if not lines:
        return
    costs = [line.cost.mean * line.epochs for line in lines]
    errors = [line.top1[network].standard_error or 0 for line in lines]
    means = [line.top1[network].mean for line in lines]
    axes.errorbar(
        costs,
        means,
        yerr=errors,
        color=CONTROL_COLOUR,
        marker=".",
        ls="--",
        lw=1.3,
        capsize=2,
        label="alone, by number of epochs",
    )
    for line, cost, mean in zip(lines, costs, means, strict=True):
        axes.annotate(
            f"{line.epochs}", (cost, mean), (0, -14), textcoords="offset points", ha="center", fontsize=8, color="0.3"
        )


def _set_log_ticks(axes: "Axes") -> None:
    """Make the x-axis logarithmic, with a tick at each doubling."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _add_legend(figure: "Figure", axes: "Axes") -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
