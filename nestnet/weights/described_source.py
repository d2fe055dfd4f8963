"""What a source of trained weights says about itself, and the file that has the weights."""

from dataclasses import replace
from pathlib import Path

from nestnet.data.class_names import imagenet_class_names
from nestnet.weights.hub import fetch_config, fetch_weights
from nestnet.weights.source import HubName
from nestnet.weights.timm_folder import (
    CONFIG_NAME,
    TimmConfig,
    find_weights_file,
    is_timm_folder,
    read_timm_config,
)
from nestnet.weights.weights_file import read_file_metadata

TIMMS_OWNER = "timm/"
"""Beginning of the names of timm's own repositories."""


def describe_source(source: Path | HubName) -> TimmConfig | None:
    """Return what a source of weights says about itself, without reading its weights.

    Args:
        source: safetensors or torch file, folder of timm's format, or repository of the Hugging Face Hub.

    Returns:
        The network, its classes and its images; `None` for a file that says nothing, which only exports do.

    Raises:
        ValueError: If it cannot be read, or a file is damaged.
    """
    if isinstance(source, HubName):
        return _name_classes_of_timm(read_timm_config(fetch_config(source)), source)
    if is_timm_folder(source):
        return read_timm_config(source / CONFIG_NAME)
    if source.is_dir():
        raise ValueError(
            f"{source} cannot be read as weights: it is a folder, not a file, and no folder of timm's format, which has a "
            f"{CONFIG_NAME}"
        )
    metadata = read_file_metadata(source)
    if metadata is None:
        return None
    return TimmConfig(metadata.architecture, metadata.num_classes, metadata.class_names or None, metadata.size)


def find_file(source: Path | HubName) -> Path:
    """Return the file that has the weights of a source, after checking that it is not damaged.

    Args:
        source: source that `describe_source` accepts.

    Raises:
        ValueError: If there is none, or it is damaged.
    """
    if isinstance(source, HubName):
        file = fetch_weights(source)
    elif is_timm_folder(source):
        file = find_weights_file(source)
    else:
        # `describe_source` has checked it.
        return source
    read_file_metadata(file)
    return file


def _name_classes_of_timm(config: TimmConfig, name: HubName) -> TimmConfig:
    """Name the classes of timm's own weights for ImageNet-1k, whose configurations do not name them."""
    names = list(imagenet_class_names().values())
    is_unnamed = config.class_names is None and config.num_classes == len(names)
    if is_unnamed and name.repository.startswith(TIMMS_OWNER):
        return replace(config, class_names=names)
    return config
