"""Fields of a configuration that follow from the trained weights that a run starts from."""

from collections.abc import Mapping
from typing import Any

from nestnet.config.schema_rules import as_img_size
from nestnet.config.schema_sections import SLICE
from nestnet.models.pairs import complete_pair
from nestnet.nn.mode import Mode
from nestnet.text.units import format_size
from nestnet.weights.described_source import describe_source
from nestnet.weights.source import TIMM, HubName, TimmName, parse_source
from nestnet.weights.timm_folder import TimmConfig, is_timm_folder


def read_config_fields(model: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the networks and the image size that are not configured but known from the initial weights.

    Args:
        model: fields of the section `model` that are set.
        data: fields of the section `data` that are set.

    Returns:
        Fields of `model` and `data` as nested dictionaries; empty if both networks are configured, or if no
        weights are given that name their network.

    Raises:
        ValueError: For weights that cannot be read, and for those whose images have different sizes.
    """
    # Of files only safetensors can be exports, and a configured network is not looked up in one.
    sources: dict[Mode, TimmConfig] = {}
    for mode in Mode:
        source = _describe_weights_of(mode, model)
        if source is not None:
            sources[mode] = source
    if not sources:
        return {}

    # A network that neither the weights nor the configuration names is chosen next to the other one in size.
    architectures: list[str | None] = []
    for mode in Mode:
        architectures.append(sources[mode].architecture if mode in sources else model.get(str(mode)))
    base, motivated = complete_pair(*architectures)
    fields: dict[str, Any] = {"model": {"base": base, "motivated": motivated}}
    # A configured image size takes precedence over that of the weights.
    if data.get("img_size") is None:
        img_size = _img_size(sources)
        if img_size is not None:
            fields["data"] = {"img_size": img_size}
    return fields


def _describe_weights_of(mode: Mode, model: Mapping[str, Any]) -> TimmConfig | None:
    """Return what is known of the weights that a network starts from, if the network is not configured."""
    source = model.get(f"{mode}_weights")
    is_network_named = bool(model.get(str(mode)))
    if source in (None, "", TIMM, SLICE) or is_network_named:
        return None
    parsed = parse_source(source)
    if isinstance(parsed, TimmName):
        # For the size of the images, timm's weights are the same under any name: the recipe or the user chooses.
        return TimmConfig(parsed.architecture, num_classes=None, class_names=None, size=None)
    if not isinstance(parsed, HubName) and not is_timm_folder(parsed) and parsed.suffix != ".safetensors":
        return None
    try:
        return describe_source(parsed)
    except ValueError as error:
        raise ValueError(f"model.{mode}_weights: {error}") from error


def _img_size(sources: Mapping[Mode, TimmConfig]) -> int | list[int] | None:
    """Return height and width, in pixels, of the images that the weights are for; `None` if none of them says so."""
    sizes: dict[Mode, tuple[int, int]] = {}
    for mode, source in sources.items():
        if source.size is not None:
            sizes[mode] = source.size
    if not sizes:
        return None
    if len(set(sizes.values())) > 1:
        raise ValueError(
            f"model.base_weights is for images of {format_size(sizes[Mode.BASE])} pixels, and model.motivated_weights of "
            f"{format_size(sizes[Mode.MOTIVATED])}; give data.img_size"
        )
    return as_img_size(next(iter(sizes.values())))
