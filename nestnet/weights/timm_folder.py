"""Folders in timm's own format, which timm loads as `local-dir:FOLDER`: a `config.json` and weights."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nestnet.data.class_names import imagenet_class_names
from nestnet.storage.read_back import read_plain_text
from nestnet.text.arguments import is_whole
from nestnet.text.messages import in_one_line

CONFIG_NAME = "config.json"
"""Name of the file that describes the network and its images."""

WEIGHTS_NAME = "model.safetensors"
"""Name of the file of the weights that timm takes first."""

WEIGHTS_NAMES = (WEIGHTS_NAME, "pytorch_model.bin")
"""Names of the file of the weights, in the order in which timm looks for them."""


@dataclass(frozen=True)
class TimmConfig:
    """What a `config.json` says about the weights beside it.

    Attributes:
        architecture: timm's name of the network.
        num_classes: number of outputs; `None` if it is not known.
        class_names: names of the outputs, in order; `None` if they are not known. WordNet ids of ImageNet-1k have
            been replaced by the names that nestnet gives to these classes.
        size: height and width in pixels of the images that the weights are for; `None` if it is not known.
    """

    architecture: str
    num_classes: int | None
    class_names: list[str] | None
    size: tuple[int, int] | None


def is_timm_folder(path: Path) -> bool:
    """Return whether a path is that of a folder in timm's own format.

    Args:
        path: any path.
    """
    return (path / CONFIG_NAME).is_file()


def find_weights_file(folder: Path) -> Path:
    """Return the file of the weights in a folder.

    Args:
        folder: folder in timm's own format.

    Raises:
        ValueError: If there is none.
    """
    for name in WEIGHTS_NAMES:
        if (folder / name).exists():
            return folder / name
    raise ValueError(f"{folder} has no weights: there must be a file {' or '.join(WEIGHTS_NAMES)} in it")


def read_timm_config(path: Path) -> TimmConfig:
    """Read a `config.json`. Nothing in it is executed.

    Args:
        path: path of the file.

    Returns:
        What is needed of its content.

    Raises:
        ValueError: If the file cannot be read, or names no network.
    """
    try:
        content = json.loads(read_plain_text(path))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no configuration of timm's: {in_one_line(error)}") from error
    if not isinstance(content, dict) or not isinstance(content.get("architecture"), str):
        raise ValueError(f"{path} is no configuration of timm's: it names no architecture")
    # In files of older releases, the entries about the weights are not in a dictionary of their own.
    weights = content.get("pretrained_cfg", content)
    if not isinstance(weights, dict):
        weights = {}
    num_classes = content.get("num_classes", weights.get("num_classes"))
    if not is_whole(num_classes, 0):
        num_classes = None
    labels = content.get("label_names", weights.get("label_names", weights.get("labels")))
    # The name of an architecture may be followed by that of its weights.
    architecture, _, _ = content["architecture"].partition(".")
    return TimmConfig(architecture, num_classes, _read_labels(labels, num_classes), _read_size(weights))


def _read_labels(labels: Any, num_classes: int | None) -> list[str] | None:
    """Return the names of the classes, from a list or a dictionary by the index of the output."""
    if isinstance(labels, Mapping):
        # The indices are the keys of a JSON object.
        labels = [labels.get(str(index)) for index in range(len(labels))]
    if not isinstance(labels, list) or len(labels) != num_classes:
        return None
    if not all(isinstance(label, str) for label in labels):
        return None
    imagenet = imagenet_class_names()
    if all(label in imagenet for label in labels):
        return [imagenet[label] for label in labels]
    return labels


def _read_size(weights: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return height and width of the images, from the entries about the weights."""
    size = weights.get("input_size")
    if not isinstance(size, list) or len(size) != 3:
        return None
    _, height, width = size
    if is_whole(height, 1) and is_whole(width, 1):
        return height, width
    return None
