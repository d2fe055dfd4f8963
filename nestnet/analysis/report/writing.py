"""A report of runs: one HTML page that opens anywhere, and its figures as PNGs beside it."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import timm
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from nestnet.analysis.report.figures import (
    Drawn,
    comparison_figure,
    confusion_figure,
    cost_figure,
    drawn,
    fraction_figure,
    losses_figure,
    top1_figure,
)
from nestnet.analysis.report.images import Judged, Picture
from nestnet.analysis.report.page import Section, page
from nestnet.analysis.report.predictions import RULES, Kind, Predictions, file_name, predict, seen
from nestnet.analysis.report.summary import RunSummary, grouped, read_summary
from nestnet.data.image_data import ImageData
from nestnet.data.loaders import Batch
from nestnet.device import choose_device
from nestnet.nn.mode import Mode
from nestnet.runs.contents import TABLE_REMEDY
from nestnet.runs.reading import read_run
from nestnet.storage.files import check_output_folder, make_output_folder, write_atomically
from nestnet.storage.paths import real_path
from nestnet.storage.read_back import read_text
from nestnet.text.escape import for_terminal
from nestnet.text.messages import message_of
from nestnet.version import __version__
from nestnet.weights.exporting import read_metadata

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 12
"""Images of each kind."""


def write_report(run_dirs: Sequence[Path], output: Path | None = None, *, images: bool = True) -> Path:
    """Write `report.html`, which needs no other file, and its figures as PNGs.

    Unfinished runs are reported as far as they are. Where a run's test images or its checkpoint cannot be read, the page says
    so in place of what needs them.

    Args:
        run_dirs: one run or more; several are also set side by side.
        output: a folder; it is made if it is absent, and files of the same names in it are replaced. By default `report` in
            the run's folder, or in the present one for several.
        images: whether to judge the test images, which takes a forward pass of both networks over all of them.

    Returns:
        The page.

    Raises:
        ValueError: if a folder is no run, or `output` cannot be made.
        OSError: if a file cannot be written.
    """
    runs = read_summaries(run_dirs)
    output = output or (runs[0].path / "report" if len(runs) == 1 else Path("report"))
    check_output_folder(output, "output", ["report.html"])
    make_output_folder(output, "output")
    sections = [_section(run, number, images=images) for number, run in enumerate(runs, start=1)]
    groups, comparison = grouped(runs), None
    if len(runs) > 1 and any(run.epochs_done for run in runs):
        comparison = drawn(partial(comparison_figure, groups), "comparison")
    for number, section in enumerate(sections, start=1):
        # names of files have at most 255 bytes, and a letter up to 4
        plain = re.sub(r"[^\w.-]+", "-", section.run.name)[:40]
        start = "" if len(runs) == 1 else f"{number}-{plain}-"
        for name, figure in section.figures.items():
            write_atomically(output / f"{start}{name}.png", figure.png)
    if comparison:
        write_atomically(output / "comparison.png", comparison.png)
    versions = f"nestnet {__version__}, torch {torch.__version__}, timm {timm.__version__}"
    made = f"Made on {datetime.now():%Y-%m-%d at %H:%M} with {versions}."
    write_atomically(output / "report.html", page(sections, groups, comparison, made))
    return output / "report.html"


def read_summaries(run_dirs: Sequence[Path]) -> list[RunSummary]:
    """The runs in these folders, each once, named after its folder, or by its path where folders share a name.

    Raises:
        ValueError: if there is none, or a folder is no run.
    """
    paths = list({real_path(path): path for path in run_dirs}.values())
    if not paths:
        raise ValueError("run_dirs is empty: name the folder of at least one run")
    count = Counter(real_path(path).name for path in paths)
    return [read_summary(path, None if count[real_path(path).name] == 1 else str(path)) for path in paths]


def _section(run: RunSummary, number: int, *, images: bool) -> Section:
    found = judged(run) if images else "they were not asked for."
    wanted: dict[str, Callable[[], Figure]] = {}
    if len(run.steps):
        wanted |= {"loss": partial(losses_figure, run)}
    if run.epochs_done:
        wanted |= {"top1": partial(top1_figure, run), "motivated_fraction": partial(fraction_figure, run)}
    if len(run.steps):
        wanted |= {"cost": partial(cost_figure, run)}
    if isinstance(found, Judged):
        wanted |= {f"confusion_{mode}": partial(confusion_figure, found.predictions, mode) for mode in Mode}
    figures: dict[str, Drawn] = {name: drawn(draw, f"{number}-{name}") for name, draw in wanted.items()}
    configuration = read_text(run.path / "config.yaml", TABLE_REMEDY)
    return Section(run, figures, found, configuration, _version(run.path / "base.safetensors"))


def judged(run: RunSummary) -> Judged | str:
    """What both subnets say of the test images, or why that cannot be had."""
    try:
        read = read_run(run.path)
        # a report fetches nothing: what is not there is said to be absent
        images = read.images(download=False)
        batches = -(-len(images.test) // read.config.data.eval_batch_size)
        predictions = predict(read, images, choose_device("auto"), partial(_tracked, run.name, batches))
        return Judged(predictions, read.checkpoint["steps_done"], _pictures(predictions, images))
    except (ValueError, OSError, RuntimeError) as error:  # RuntimeError: torch's, of a device without memory left
        return message_of(error)


def _tracked(name: str, batches: int, source: Iterable[Batch]) -> Iterable[Batch]:
    console = Console(stderr=True)
    # a text of its own, because a description would be taken for rich's markup
    columns = TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield from progress.track(source, batches, description=f"test images of {for_terminal(name)}")


def _pictures(predictions: Predictions, images: ImageData) -> dict[Kind, list[Picture]]:
    return {
        kind: [
            Picture(int(index), seen(images, int(index)), file_name(images, int(index)))
            for index in predictions.clearest(kind, SHOWN)
        ]
        for kind in RULES
    }


def _version(export: Path) -> str | None:
    """Of nestnet, as an export tells it."""
    try:
        return read_metadata(export).get("nestnet_version")
    except ValueError:
        return None
