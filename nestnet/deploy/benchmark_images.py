"""The images on which the accuracy of exported files is measured, with their labels in the order of a file's outputs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nestnet.data.folder.evaluation_folder import read_evaluation_folder
from nestnet.data.image_files import ImageFiles
from nestnet.runs.reading import read_run
from nestnet.text.escape import quoted
from nestnet.text.suggestions import list_some
from nestnet.weights.metadata import Metadata


@dataclass(frozen=True)
class LabelledImages:
    """Images of known classes, as they are stored.

    Attributes:
        source: what the images are, for messages.
        dataset: gives a PIL image, or bytes `[C, H, W]`, and a label for an index.
        class_names: name of each class, in the order of the labels.
        channels: number of channels of each image.
        multi_label: whether an image may have several labels, which are then a vector `[K]` of zeros and ones.
    """

    source: str
    dataset: Any
    class_names: list[str]
    channels: int
    multi_label: bool = False

    def map_labels(self, path: Path, metadata: Metadata) -> list[int]:
        """Return the output of a file for each label. Classes are matched by name, in any order.

        Args:
            path: the file, for error messages.
            metadata: metadata of the file. If its classes have no names, they are assumed to be those of the images.

        Raises:
            ValueError: If the file is for other classes or other numbers of channels or labels.
        """
        if metadata.multi_label != self.multi_label:
            numbers = ("one label", "several labels")
            raise ValueError(
                f"{path}: it is for images of {numbers[metadata.multi_label]} each, and {self.source} have "
                f"{numbers[self.multi_label]}"
            )
        if metadata.input_size[0] != self.channels:
            raise ValueError(
                f"{path}: it takes images of {metadata.input_size[0]} channels, and {self.source} have {self.channels}"
            )
        outputs = metadata.class_names
        if not outputs and metadata.num_classes == len(self.class_names):
            return list(range(metadata.num_classes))
        if sorted(outputs) != sorted(self.class_names):
            raise ValueError(
                f"{path}: its classes ({_describe_classes(metadata)}) are not those of {self.source} "
                f"({list_some(self.class_names)})"
            )
        return [outputs.index(name) for name in self.class_names]

    def read_label(self, label: Any, outputs: list[int]) -> Tensor:
        """Return a label as the outputs of a file have it: a number `[]`, or a vector `[K]` of zeros and ones.

        Args:
            label: label of an image of the data set.
            outputs: output of the file for each label, as from `map_labels`.
        """
        if not self.multi_label:
            return torch.tensor(outputs[label])
        target = torch.zeros(len(outputs))
        target[outputs] = label
        return target


def read_run_images(run_dir: Path) -> LabelledImages:
    """Read the test images of a run.

    Args:
        run_dir: run directory.

    Raises:
        ValueError: If the folder is no run directory, or its images are absent.
    """
    run = read_run(run_dir)
    images = run.images(download=False)
    return LabelledImages(
        f"the test images of {run_dir}",
        images.test.dataset,
        images.class_names,
        images.input_size[0],
        multi_label=run.config.data.multi_label,
    )


def read_folder_images(root: str, path: Path, metadata: Metadata) -> LabelledImages:
    """Read the test images of a folder with a folder for each class.

    Args:
        root: the folder: `nestnet.data.folder.evaluation_folder.read_evaluation_folder` says which images count.
        path: a file, for error messages.
        metadata: metadata of the file, which names the classes.

    Raises:
        ValueError: If the folder has no images of these classes.
    """
    channels = metadata.input_size[0]
    if not metadata.class_names:
        raise ValueError(
            f"data.root = {quoted(root)}: its folders are matched to classes by name, and {path} names none"
        )
    samples = read_evaluation_folder(root, metadata.class_names)
    files = ImageFiles(samples, "L" if channels == 1 else "RGB", root=root)
    return LabelledImages(f"the images of {root}", files, metadata.class_names, channels)


def _describe_classes(metadata: Metadata) -> str:
    if not metadata.class_names:
        return f"{metadata.num_classes:,} without names"
    return list_some(metadata.class_names)
