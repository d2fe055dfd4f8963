"""Writing a report of runs: one HTML page that opens anywhere, and its figures as PNGs beside it."""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import timm
import torch

from nestnet.analysis.report.comparison_figure import plot_comparison
from nestnet.analysis.report.confusion_figure import plot_confusion
from nestnet.analysis.report.evaluation import Evaluation, NoEvaluation, evaluate_test_images
from nestnet.analysis.report.page import build_page
from nestnet.analysis.report.rendering import RenderedFigure, render_figure
from nestnet.analysis.report.run_section import RunReport
from nestnet.analysis.report.summary import RunSummary, read_summaries
from nestnet.analysis.report.training_figures import plot_cost, plot_loss, plot_motivated_fraction, plot_top1
from nestnet.data.image_data import ImageData
from nestnet.nn.mode import Mode
from nestnet.runs.contents import TABLE_REMEDY
from nestnet.runs.grouping import group_by_training
from nestnet.storage.atomic import write_atomically
from nestnet.storage.outputs import check_output_folder, make_output_folder
from nestnet.storage.read_back import read_text
from nestnet.version import __version__
from nestnet.weights.export_file import read_metadata

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_report(run_dirs: Sequence[Path], output: Path | None = None, *, images: bool | ImageData = True) -> Path:
    """Write `report.html`, which needs no other file, and its figures as PNGs.

    For an unfinished run, the report shows the training so far. If a run's test images or its checkpoint cannot
    be read, the page says so in place of the parts that need them.

    Args:
        run_dirs: folders of one or more runs; several runs are also compared.
        output: folder to write to. It is created if it is absent, and files of the same names in it are
            replaced. By default it is `report` in the folder of a single run, or in the current folder for
            several runs.
        images: whether to evaluate the test images, which takes a forward pass of both networks over each; or the
            images of the runs, if they were given in Python.

    Returns:
        The path of the page.

    Raises:
        ValueError: If a folder is not a run directory, or `output` cannot be made.
        OSError: If a file cannot be written.
    """
    # Read, and thereby check, the tables of all runs before anything is written.
    runs = read_summaries(run_dirs)
    output = output or _default_output(runs)
    check_output_folder(output, "output", ["report.html"])
    make_output_folder(output, "output")
    # Evaluating the test images takes most of the time.
    reports = []
    for number, run in enumerate(runs, start=1):
        reports.append(_report_run(run, number, images=images))

    # Runs that differ only in their seed share a row of the comparison and a colour in its figure.
    groups = group_by_training(runs)
    comparison = None
    if len(runs) > 1 and any(run.finished_epochs for run in runs):
        comparison = render_figure(partial(plot_comparison, groups), "comparison")

    _write_pngs(reports, comparison, output)
    versions = f"nestnet {__version__}, torch {torch.__version__}, timm {timm.__version__}"
    footer = f"Made on {datetime.now():%Y-%m-%d at %H:%M} with {versions}."
    # Write the page last, so that a new page always has its figures beside it.
    page = output / "report.html"
    write_atomically(page, build_page(reports, groups, comparison, footer))
    return page


def _default_output(runs: Sequence[RunSummary]) -> Path:
    """Return the default folder of a report."""
    if len(runs) == 1:
        return runs[0].path / "report"
    return Path("report")


def _report_run(run: RunSummary, number: int, *, images: bool | ImageData) -> RunReport:
    """Collect everything that a report shows of a run.

    Args:
        run: numbers of the run.
        number: number of the run on the page, from 1.
        images: whether to evaluate the test images, or the images themselves.
    """
    # The reason is the end of a sentence on the page.
    evaluation: Evaluation | NoEvaluation = NoEvaluation("they were not requested.")
    if images is not False:
        evaluation = evaluate_test_images(run, None if images is True else images)
    # The number in a figure's name keeps its ids apart from those of the other runs on the page.
    figures = {}
    for name, plot in _choose_figures(run, evaluation).items():
        figures[name] = render_figure(plot, f"{number}-{name}")
    configuration = read_text(run.path / "config.yaml", TABLE_REMEDY)
    # The version is recorded in the exports, which a run writes at its end.
    version = _read_exporting_version(run.path / "base.safetensors")
    return RunReport(run, figures, evaluation, configuration, version)


def _choose_figures(run: RunSummary, evaluation: Evaluation | NoEvaluation) -> "dict[str, Callable[[], Figure]]":
    """Return the functions that plot the figures for which a run has data, by the name of the figure."""
    plots: dict[str, Callable[[], Figure]] = {}
    # The order is that of drawing the figures and writing their files.
    if len(run.steps):
        plots["loss"] = partial(plot_loss, run)
    if run.finished_epochs:
        plots["top1"] = partial(plot_top1, run)
        plots["motivated_fraction"] = partial(plot_motivated_fraction, run)
    if len(run.steps):
        plots["cost"] = partial(plot_cost, run)
    if isinstance(evaluation, Evaluation):
        for mode in Mode:
            plots[f"confusion_{mode}"] = partial(plot_confusion, evaluation.predictions, mode)
    return plots


def _write_pngs(reports: Sequence[RunReport], comparison: RenderedFigure | None, output: Path) -> None:
    """Write the figures of a report as PNGs, with the number and the name of their run if there are several runs."""
    for number, report in enumerate(reports, start=1):
        prefix = ""
        if len(reports) > 1:
            # A file name has at most 255 bytes, and a character up to 4.
            run_name = re.sub(r"[^\w.-]+", "-", report.run.name)[:40]
            prefix = f"{number}-{run_name}-"
        for name, rendered in report.figures.items():
            write_atomically(output / f"{prefix}{name}.png", rendered.png)
    if comparison is not None:
        write_atomically(output / "comparison.png", comparison.png)


def _read_exporting_version(export: Path) -> str | None:
    """Return the version of nestnet that wrote an export; `None` if it cannot be read from the file."""
    try:
        return read_metadata(export).get("nestnet_version")
    except ValueError:
        return None
