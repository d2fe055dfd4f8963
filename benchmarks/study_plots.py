"""The figures of a study's report."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from study_headlines import CONTROLS, SAVING_AIM, Headline, Study

from nestnet.analysis.plotting import save_figure, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Paul Tol's muted scheme, which people with colour blindness can tell apart; the marker tells them apart twice.
COLOURS = ("#cc6677", "#332288", "#ddcc77", "#117733", "#88ccee", "#882255", "#44aa99", "#999933", "#aa4499")
MARKERS = "osD^vP<X>*"
CONTROL_COLOUR = "0.3"


def draw_pareto(study: Study, headlines: list[Headline], output: Path) -> None:
    """Draw the accuracy of both networks against the cost of the run, and that cost against the cost of two separate runs.

    The first two panels have each network alone as a curve. The third one says whether one run beats two.

    Args:
        study: study.
        headlines: headline of each way and length.
        output: file to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(17, 6.6), layout="constrained")
    *panels, last = figure.subplots(1, 3)
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
    _draw_saving(last, study, headlines)
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

    figure = Figure(figsize=(11, 7.2), layout="constrained")
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


def _draw_saving(axes: "Axes", study: Study, headlines: list[Headline]) -> None:
    """Draw the cost of two separate runs that are as good as a nested one against the cost of that one."""
    for number, way in enumerate(list_ways(headlines)):
        for line in headlines:
            if line.way != way or line.separate is None or line.separate.bound == "?":
                continue
            nested, separate = line.cost.mean * line.epochs, line.separate.value * line.epochs
            axes.errorbar(nested, separate, **way_style(number))
            if line.separate.bound:
                axes.annotate(
                    {">": "at least", "<": "at most"}[line.separate.bound],
                    (nested, separate),
                    (0, 7),
                    textcoords="offset points",
                    ha="center",
                    fontsize=7,
                    color="0.3",
                )
    axes.margins(0.1)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    right, top = axes.get_xlim()[1], axes.get_ylim()[1]
    for saving, style in ((1.0, "-"), (SAVING_AIM, ":")):
        axes.axline((0, 0), slope=saving, color=CONTROL_COLOUR, lw=1, ls=style)
        # Half-way to where the line leaves the panel.
        middle = 0.5 * min(right, top / saving)
        axes.annotate(
            f"saving {saving:g}",
            (middle, saving * middle),
            (-6, 4),
            textcoords="offset points",
            ha="right",
            fontsize=8,
            color=CONTROL_COLOUR,
        )
    axes.set_title("one run against two", fontsize=11)
    axes.set_xlabel(f"cost of the nested run, epochs of {study.pair[0]} alone")
    axes.set_ylabel("cost of two separate runs that are as good")
    style_axes(axes)


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
