"""The evaluation of a run's test images for a report: predictions of both subnets, and images on which they differ."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from torch import Tensor

from nestnet.analysis.report.inference import predict_test_images
from nestnet.analysis.report.predictions import EXAMPLE_ORDER, Agreement, Predictions
from nestnet.analysis.report.summary import RunSummary
from nestnet.data.image_data import ImageData
from nestnet.data.loaders import Batch
from nestnet.device import choose_device
from nestnet.nn.mode import Mode
from nestnet.runs.reading import read_run
from nestnet.text.commands import format_command
from nestnet.text.escape import for_terminal
from nestnet.text.messages import message_of

EXAMPLES = 12
"""Largest number of images that are shown for each way in which the subnets disagree."""


@dataclass(frozen=True)
class ExampleImage:
    """Test image as a page shows it.

    Attributes:
        index: index among the test images, from 0.
        pixels: image in bytes [C, H, W].
        file_name: name of its file; empty if it is not stored as a file.
    """

    index: int
    pixels: Tensor
    file_name: str


@dataclass(frozen=True)
class Evaluation:
    """Both subnets' predictions for a run's test images.

    Attributes:
        predictions: predictions for all test images.
        steps_done: number of batches that the weights had been trained on.
        examples: images on which the subnets differ, by how they disagree.
    """

    predictions: Predictions
    steps_done: int
    examples: dict[Agreement, list[ExampleImage]]


@dataclass(frozen=True)
class NoEvaluation:
    """Placeholder for an evaluation that is not available.

    Attributes:
        reason: reason for its absence, as the end of a sentence.
    """

    reason: str


def evaluate_test_images(run: RunSummary, given_images: ImageData | None = None) -> Evaluation | NoEvaluation:
    """Evaluate the weights of a run's last checkpoint on its test images.

    Args:
        run: run whose folder is read.
        given_images: images of the run, if they were given in Python.

    Returns:
        The evaluation, or the reason for its absence: the images or the checkpoint cannot be read, or do not match.
    """
    try:
        trained_run = read_run(run.path, images=given_images)
        # Do not download images: a report is often made on another machine than the run.
        images = trained_run.images(download=False)
        if images.is_multi_label:
            command = format_command("evaluate", run.path, mode=Mode.BASE)
            return NoEvaluation(
                f"the images have several labels; `{command}` prints the average precision of each class."
            )
        batches = math.ceil(len(images.test) / trained_run.config.data.eval_batch_size)
        # Loaders of test images have no length.
        track = partial(show_progress, run_name=run.name, total=batches)
        predictions = predict_test_images(trained_run, images, choose_device("auto"), track)
        # Keep only the examples as images, because all test images may not fit into memory.
        examples = {}
        for agreement in EXAMPLE_ORDER:
            indices = predictions.find_examples(agreement, EXAMPLES)
            examples[agreement] = [_read_example(images, int(index)) for index in indices]
        return Evaluation(predictions, trained_run.checkpoint["steps_done"], examples)
    except (ValueError, OSError, RuntimeError) as error:
        # torch raises a RuntimeError if a device does not have enough memory.
        return NoEvaluation(message_of(error))


def show_progress(batches: Iterable[Batch], *, run_name: str, total: int) -> Iterable[Batch]:
    """Yield batches, and show on a terminal's standard error how many of them are done.

    Args:
        batches: batches of test images.
        run_name: name of the run, which may hold any character.
        total: number of batches.

    Yields:
        The batches.
    """
    console = Console(stderr=True)
    columns = (
        # Disable markup, because rich would interpret a name in brackets as a style.
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield from progress.track(batches, total, description=f"test images of {for_terminal(run_name)}")


def _read_example(images: ImageData, index: int) -> ExampleImage:
    """Return a test image with the name of its file."""
    return ExampleImage(index, denormalize_test_image(images, index), _find_file_name(images, index))


def denormalize_test_image(images: ImageData, index: int) -> Tensor:
    """Return a test image as the networks see it: resized and cropped, without their normalization.

    Args:
        images: images of a run.
        index: index among the test images, from 0.

    Returns:
        The image in bytes [C, H, W].
    """
    # Invert `Normalize` channel by channel [C, 1, 1].
    mean = torch.tensor(images.mean).view(-1, 1, 1)
    std = torch.tensor(images.std).view(-1, 1, 1)
    normalized, _ = images.test[index]
    pixels = normalized * std + mean
    # Rounding errors can slightly exceed the range from 0 to 1.
    return pixels.clamp(0, 1).mul(255).round().byte()


def _find_file_name(images: ImageData, index: int) -> str:
    """Return the name of a test image's file; empty if the image is part of a larger file."""
    # Only data sets with one file per image have a list of files.
    samples = getattr(images.test.dataset, "samples", None)
    if not samples:
        return ""
    path, _ = samples[index]
    return Path(path).name
