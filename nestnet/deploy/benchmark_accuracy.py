"""The accuracies of exported files in a benchmark, on the test images of their runs or of a folder."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nestnet.data.preprocessing import Transform, create_eval_transform
from nestnet.deploy.accuracy import Measure, choose_measure, measure_accuracy
from nestnet.deploy.benchmark_images import LabelledImages, read_folder_images, read_run_images
from nestnet.deploy.loading import LoadedExport
from nestnet.deploy.raw_pixels import run_raw, to_raw_pixels
from nestnet.runs.contents import is_run_directory
from nestnet.runtime.log import log_notice
from nestnet.text.messages import message_of
from nestnet.weights.metadata import Metadata

# Number of images that pass through the networks at a time.
BATCH_SIZE = 64


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of one file.

    Attributes:
        measure: what the accuracy is.
        percent: the accuracy in percent; `None` if it is not known.
        images: number of images on which it was measured; 0 if it was not.
    """

    measure: Measure
    percent: float | None = None
    images: int = 0

    @classmethod
    def unknown(cls, metadata: Metadata) -> "Accuracy":
        """Return the accuracy of a file that was not measured.

        Args:
            metadata: metadata of the file.
        """
        return cls(choose_measure(multi_label=metadata.multi_label))

    def of(self, measure: Measure) -> float | None:
        """Return the accuracy in percent if it is of a kind, and `None` otherwise or if it is not known.

        Args:
            measure: kind of accuracy.
        """
        if self.measure is measure:
            return self.percent
        return None


@dataclass(frozen=True)
class ImageChoice:
    """Images on which the accuracies are measured. Without either, a file in a run directory has the test images of its run.

    Attributes:
        run_dir: run directory whose test images are used for all files.
        root: folder whose images are used for all files.

    Raises:
        ValueError: If both are given.
    """

    run_dir: Path | None = None
    root: str | None = None

    def __post_init__(self) -> None:
        if self.run_dir is not None and self.root is not None:
            raise ValueError("run and data.root both name test images; leave one of them out")


def measure_accuracies(exports: Mapping[Path, LoadedExport], choice: ImageChoice) -> dict[Path, Accuracy]:
    """Measure the accuracy of files: top-1, or the mean average precision where images may have several labels.

    Args:
        exports: loaded files by path.
        choice: images on which it is measured.

    Returns:
        The accuracy of each file. It is not known, and a notice says why, if no images are named and the file does not lie
        in a run directory whose test images can be read.

    Raises:
        ValueError: If images that are named cannot be read, or are not of a file's classes.
    """
    accuracies: dict[Path, Accuracy] = {}
    groups: dict[object, _Group] = {}
    finder = _ImageFinder(choice)
    for path, export in exports.items():
        accuracies[path] = Accuracy.unknown(export.metadata)
        try:
            images = finder.find(path, export.metadata)
            outputs = images.map_labels(path, export.metadata)
        except (ValueError, OSError) as error:
            if choice.run_dir is not None or choice.root is not None:
                raise
            log_notice(f"the accuracy of {path} is not measured: {message_of(error)}")
            continue
        key = (id(images), tuple(outputs), _describe_input(export))
        group = groups.setdefault(key, _Group(images, outputs, {}))
        group.exports[path] = export
    for group in groups.values():
        networks = [_as_classifier(export) for export in group.exports.values()]
        measure = choose_measure(multi_label=group.images.multi_label)
        percents = measure_accuracy(networks, _read_batches(group), measure)
        for path, percent in zip(group.exports, percents, strict=True):
            accuracies[path] = Accuracy(measure, percent, len(group.images.dataset))
    return accuracies


@dataclass(frozen=True)
class _Group:
    """Files that take the same images, prepared in the same way, so that these are read once.

    Attributes:
        images: images.
        outputs: output of the files for each label of the images.
        exports: loaded files by path.
    """

    images: LabelledImages
    outputs: list[int]
    exports: dict[Path, LoadedExport]


class _ImageFinder:
    """Finder of the images for a file, which reads those of a run once.

    Args:
        choice: images that the user has named.
    """

    def __init__(self, choice: ImageChoice) -> None:
        self.choice = choice
        self.images: dict[object, LabelledImages] = {}

    def find(self, path: Path, metadata: Metadata) -> LabelledImages:
        if self.choice.root is not None:
            # The folder is read for the classes of the file.
            key: object = (self.choice.root, metadata.input_size[0], tuple(metadata.class_names))
            if key not in self.images:
                self.images[key] = read_folder_images(self.choice.root, path, metadata)
            return self.images[key]
        run_dir = self.choice.run_dir
        if run_dir is None:
            run_dir = path.parent
            if not is_run_directory(run_dir):
                raise ValueError(
                    "it does not lie in a run directory; name its run with run, or a folder of test images with data.root"
                )
        if run_dir not in self.images:
            self.images[run_dir] = read_run_images(run_dir)
        return self.images[run_dir]


def _describe_input(export: LoadedExport) -> tuple[object, ...]:
    """Return all on which the preparation of images for a network depends."""
    metadata = export.metadata
    return (
        metadata.preprocessing,
        metadata.input_size,
        tuple(metadata.mean),
        tuple(metadata.std),
        metadata.crop_pct,
        export.device,
    )


def _as_classifier(export: LoadedExport) -> Any:
    """Return a function from what `_read_batches` yields to logits."""
    if export.metadata.preprocessing == "inside":
        return partial(run_raw, export.network)
    return export.network


def _read_batches(group: _Group) -> Iterator[tuple[Any, Tensor]]:
    """Yield images as the networks take them, and the right output for each, or the targets `[B, K]`.

    Networks that prepare images themselves take lists of raw pixels, because these may differ in size.
    """
    # The files of a group agree in all that matters here.
    export = next(iter(group.exports.values()))
    metadata = export.metadata
    dataset = group.images.dataset
    is_raw = metadata.preprocessing == "inside"
    transform: Transform = to_raw_pixels
    if not is_raw:
        transform = create_eval_transform(metadata.size, metadata.mean, metadata.std, metadata.crop_pct)
    for start in range(0, len(dataset), BATCH_SIZE):
        inputs = []
        labels = []
        for index in range(start, min(start + BATCH_SIZE, len(dataset))):
            image, label = dataset[index]
            inputs.append(transform(image))
            labels.append(group.images.read_label(label, group.outputs))
        if is_raw:
            yield inputs, torch.stack(labels)
        else:
            yield torch.stack(inputs).to(export.device), torch.stack(labels)
