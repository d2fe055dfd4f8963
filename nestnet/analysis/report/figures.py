"""The figures of a report: each as an SVG that takes on the page's colours, and as a PNG. matplotlib is imported late."""

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from nestnet.analysis.figures import COLOURS, draw_losses, draw_top1, over_epochs, plain_text, tidy
from nestnet.analysis.report.predictions import Predictions
from nestnet.analysis.report.summary import RunSummary
from nestnet.nn.mode import Mode
from nestnet.text.escape import for_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1b1e23"
"""Of text and axes in PNGs; in SVGs it is the page's own colour of text."""
GROUP_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")
"""Paul Tol's bright scheme: distinct to the colour-blind, and to be seen on a light page and on a dark one."""
NAMED = 20
"""Up to so many classes a confusion matrix has their names and its numbers, above it only colours."""
NAME_LENGTH = 14
"""Letters of a class name along a matrix."""
SVG, XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
"""Namespaces, as ElementTree puts them before names."""


@dataclass(frozen=True)
class Drawn:
    """A figure in both formats.

    Attributes:
        svg: an element to put into a page; its ink is the page's colour of text, its ground is transparent.
        png: on white.
    """

    svg: str
    png: bytes


def drawn(draw: "Callable[[], Figure]", name: str) -> Drawn:
    """A figure, in both formats.

    Args:
        name: sets its ids apart from those of other figures on a page.
    """
    with _style(name):
        figure = draw()
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # one layout for both
        png, svg = BytesIO(), BytesIO()
        figure.savefig(png, dpi=150, format="png")
        none = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(svg, dpi=150, format="svg", transparent=True, metadata=none)
    return Drawn(_inline(svg.getvalue()), png.getvalue())


@contextmanager
def _style(name: str) -> Iterator[None]:
    from matplotlib import rc_context

    coloured = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    style: dict[Any, Any] = {**dict.fromkeys(coloured, INK), "grid.color": "#808080", "font.size": 10}
    # text stays text, to be searched and read aloud
    style |= {"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}
    with rc_context(style), plain_text():
        yield


def _inline(svg: bytes) -> str:
    """The `<svg>` element of a file, as wide as its place, without ids that nothing refers to.

    Only elements and attributes change: a name in the figure's text may look like either.
    """
    root = ElementTree.fromstring(svg)
    del root.attrib["width"]
    del root.attrib["height"]
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{SVG}metadata", f"{SVG}style"):
                parent.remove(child)
    used = set()
    for element in root.iter():
        for value in element.attrib.values():
            used.update(re.findall(r"(?:^|url\()#([^)]+)", value))
    for element in root.iter():
        # HTML knows no namespaces: the prefix of links stays, that of elements goes
        element.tag = element.tag.removeprefix(SVG)
        element.attrib = {
            name.replace(XLINK, "xlink:"): value.replace(INK, "currentColor")
            for name, value in element.attrib.items()
            if name != "id" or value in used
        }
    root.set("xmlns", SVG.strip("{}"))
    root.set("xmlns:xlink", XLINK.strip("{}"))
    return ElementTree.tostring(root, encoding="unicode")


def losses_figure(run: RunSummary) -> "Figure":
    """Each batch's loss over the whole run, and the learning rate below."""
    from matplotlib.figure import Figure

    has_lr = bool(np.isfinite(run.steps.lr).any())
    figure = Figure(figsize=(9, 4.2 if has_lr else 3.5), layout="constrained")
    panels = figure.subplots(1 + has_lr, 1, sharex=True, squeeze=False, height_ratios=(5, 1)[: 1 + has_lr])[:, 0]
    draw_losses(panels[0], run.steps)
    if has_lr:
        panels[1].plot(run.steps.number, run.steps.lr, color="0.5", linewidth=1)
        panels[1].set(ylabel="learning\nrate", ylim=(0, None))
        tidy(panels[1])
    panels[-1].set_xlabel("batch")
    panels[-1].xaxis.set_major_formatter("{x:,.0f}")
    _legend(panels[0])
    return figure


def top1_figure(run: RunSummary) -> "Figure":
    """Both subnets' top-1 after each finished epoch, with a ring at the best."""
    figure, axes = _panel()
    draw_top1(axes, run.epochs)
    for mode in run.trained:
        best, epoch = run.best(mode)
        axes.plot(epoch, best, "o", markersize=9, markerfacecolor="none", color=COLOURS[mode])
    _legend(axes)
    return figure


def fraction_figure(run: RunSummary) -> "Figure":
    """The motivated part of each finished epoch's batches, and its forecast."""
    figure, axes = _panel()
    percents = 100 * run.epochs["motivated_fraction"]
    mean = f"measured: {percents.mean():.3g} %"
    axes.plot(
        run.epochs["epoch"], percents, "." if len(percents) > 60 else ".-", color=COLOURS["motivated"], label=mean
    )
    if run.expected_fraction is not None:
        forecast = 100 * run.expected_fraction
        axes.axhline(forecast, color=INK, linestyle="--", linewidth=1, label=f"forecast: {forecast:.3g} %")
    axes.set(ylabel="motivated batches, %", ylim=(min(0, axes.get_ylim()[0]), None))
    over_epochs(axes)
    _legend(axes)
    return figure


def cost_figure(run: RunSummary) -> "Figure":
    """An average forward pass of the run, by forecast and in fact, beside those of training each network alone, and both."""
    base, motivated, actual = run.networks.base.macs, run.networks.motivated.macs, run.cost
    rows = [
        (f"{run.names.base} alone", base, COLOURS["base"]),
        ("this run, forecast", run.expected_cost, "0.7"),
        ("this run", actual, "#ccbb44"),
        (f"{run.names.motivated} alone", motivated, COLOURS["motivated"]),
        ("both, in turn", base + motivated, "0.5"),
    ]
    shown = [(label, cost, colour) for label, cost, colour in rows if cost is not None]
    figure, axes = _panel()
    labels, costs, colours = zip(*shown, strict=True)
    places = np.arange(len(shown))
    bars = axes.barh(places, [cost / base for cost in costs], color=colours, height=0.65)
    axes.bar_label(bars, fmt="%.2f", padding=4)
    axes.set_yticks(places, labels)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel(f"cost of training / {run.names.base} alone")
    tidy(axes)
    axes.grid(visible=False, axis="y")
    return figure


def confusion_figure(predictions: Predictions, mode: Mode) -> "Figure":
    """Of each true class (row), the share of images that got each answer (column).

    With many classes neighbours share a point, so that it can still be seen.
    """
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm
    from matplotlib.figure import Figure

    counts = predictions.confusion(mode)
    grouped, group = pooled(counts)
    shares = grouped / np.maximum(grouped.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(5.2, 5.2), layout="constrained")
    axes = figure.subplots()
    clear = LinearSegmentedColormap.from_list("", [COLOURS[mode] + "00", COLOURS[mode]])  # the page shows through
    axes.imshow(shares, cmap=clear, norm=PowerNorm(0.5 if len(counts) <= NAMED else 0.35, 0, 1), interpolation="none")
    if (number := len(counts)) <= NAMED:
        size = 9 if number <= 12 else 6
        strong = {Mode.BASE: "white", Mode.MOTIVATED: "black"}[mode]  # on the full colour, light page or dark
        names = [for_figure(name, NAME_LENGTH) for name in predictions.class_names]
        axes.set_xticks(range(number), names, rotation=90)
        axes.set_yticks(range(number), names)
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = strong if shares[row, column] > 0.8 else INK
                centred = axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=size)
                centred.set_in_layout(False)  # it lies within its cell, and hundreds would be measured
    else:
        number_classes(axes, number, group)
    of = f"{predictions.top1(mode):.2f} % right"
    axes.set_title(f"{mode}: {of}", fontsize=11)
    axes.set(xlabel="answer", ylabel="true class")
    return figure


def number_classes(axes: "Axes", number: int, group: int) -> None:
    """Number the rows and columns of a matrix of so many classes, of which a group shares a row."""
    from matplotlib.ticker import MaxNLocator

    for axis in (axes.xaxis, axes.yaxis):
        ticks = [tick for tick in MaxNLocator(8, integer=True).tick_values(0, number - 1) if 0 <= tick < number]
        axis.set_ticks([(tick - (group - 1) / 2) / group for tick in ticks], [f"{tick:.0f}" for tick in ticks])


def pooled(counts: np.ndarray, most: int = 200) -> tuple[np.ndarray, int]:
    """A matrix of at most so many rows and columns, in which neighbours are summed, and how many of them.

    >>> pooled(np.eye(5, dtype=int), most=3)
    (array([[2, 0, 0],
           [0, 2, 0],
           [0, 0, 1]]), 2)
    """
    group = math.ceil(len(counts) / most)
    starts = np.arange(0, len(counts), group)
    return np.add.reduceat(np.add.reduceat(counts, starts, axis=0), starts, axis=1), group


def comparison_figure(groups: Sequence[Sequence[RunSummary]]) -> "Figure":
    """Each subnet's top-1 over the epochs, a line a run; the runs of a group share a colour."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    handles = []
    labels = []
    for number, group in enumerate(groups):
        rounds, place = divmod(number, len(GROUP_COLOURS))
        colour, line = GROUP_COLOURS[place], ("-", "--", ":")[rounds % 3]
        for axes, mode in zip(panels, Mode, strict=True):
            for run in group:
                if mode in run.trained and run.epochs_done:
                    dots = "." if run.epochs_done <= 60 else ""
                    axes.plot(
                        run.epochs["epoch"], run.top1(mode), dots + line, color=colour, linewidth=1.2, markersize=4
                    )
        seeds = f" and {len(group) - 1} more" if len(group) > 1 else ""
        handles += panels[0].plot([], [], line, color=colour)
        labels.append(for_figure(group[0].name, 30) + seeds)
    for axes, mode in zip(panels, Mode, strict=True):
        axes.set_title(mode, fontsize=11)
        over_epochs(axes)
    panels[0].set_ylabel("top-1 on the test images, %")
    rows = math.ceil(len(groups) / 3)
    figure.set_figheight(3.6 + 0.22 * rows)
    # given, because matplotlib itself leaves out labels that begin with an underscore
    figure.legend(handles, labels, loc="outside upper center", ncols=min(3, len(groups)), frameon=False)
    return figure


def _panel() -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.3, 3.2), layout="constrained")
    return figure, figure.subplots()


def _legend(axes: "Axes") -> None:
    """Above the panel, where it covers nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, borderaxespad=0.2, handletextpad=0.4)
