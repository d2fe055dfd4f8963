"""Fields of a configuration that follow from the exports that a run starts from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nestnet.models.pairs import complete_pair
from nestnet.nn.mode import Mode
from nestnet.weights.metadata import Metadata
from nestnet.weights.pretrained import TIMM
from nestnet.weights.weights_file import read_file_metadata


def read_config_fields(model: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the networks and the image size that are not configured but known from the initial exports.

    Args:
        model: fields of the section `model` that are set.
        data: fields of the section `data` that are set.

    Returns:
        Fields of `model` and `data` as nested dictionaries; empty if both networks are configured, or if no
        export is given.

    Raises:
        ValueError: For a file that cannot be read, and for exports whose images have different sizes.
    """
    # Only safetensors files can be exports, and a configured network is not looked up in one.
    exports: dict[Mode, Metadata] = {}
    for mode in Mode:
        metadata = _read_export_of(mode, model)
        if metadata is not None:
            exports[mode] = metadata
    if not exports:
        return {}

    # A network that neither an export nor the configuration names is chosen next to the other one in size.
    architectures: list[str | None] = []
    for mode in Mode:
        architectures.append(exports[mode].architecture if mode in exports else model.get(str(mode)))
    base, motivated = complete_pair(*architectures)
    fields: dict[str, Any] = {"model": {"base": base, "motivated": motivated}}
    # A configured image size takes precedence over that of the exports.
    if data.get("img_size") is None:
        fields["data"] = {"img_size": _img_size(exports)}
    return fields


def _read_export_of(mode: Mode, model: Mapping[str, Any]) -> Metadata | None:
    """Return the metadata of the export that a network starts from, if the network is not configured."""
    source = model.get(f"{mode}_weights")
    is_network_named = bool(model.get(str(mode)))
    if not source or source == TIMM or is_network_named:
        return None
    if Path(source).suffix != ".safetensors":
        return None
    try:
        return read_file_metadata(Path(source))
    except ValueError as error:
        raise ValueError(f"model.{mode}_weights: {error}") from error


def _img_size(exports: Mapping[Mode, Metadata]) -> int:
    """Return height and width, in pixels, of the images that the exports are for."""
    # `data.img_size` is one number.
    sides: dict[Mode, int] = {}
    for mode, metadata in exports.items():
        height, width = metadata.size
        if height != width:
            raise ValueError(f"model.{mode}_weights: it is for images of {height} x {width} pixels; give data.img_size")
        sides[mode] = height
    if len(set(sides.values())) > 1:
        raise ValueError(
            f"model.base_weights is for images of {sides[Mode.BASE]} pixels a side, and model.motivated_weights of "
            f"{sides[Mode.MOTIVATED]}; give data.img_size"
        )
    return next(iter(sides.values()))
