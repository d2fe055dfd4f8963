"""The nested network of a configuration."""

from typing import Any

from nestnet.config.schema import Config
from nestnet.config.schema_rules import as_size
from nestnet.models.registry import create_model, find_architecture
from nestnet.models.timm_options import split_options, structural_options
from nestnet.nn.mode import PerMode
from nestnet.nn.model import NestedModel

PAIR_FIELDS = ("base", "motivated", "base_weights", "motivated_weights", "differential_init", "select", "freeze")
"""Fields of `model` that are not options of a family: the pair, and its initial weights."""


def build_model(config: Config) -> NestedModel:
    """Build the nested network of a configuration, newly initialised.

    Args:
        config: resolved configuration, in which the number of classes, the channels and the size of the
            images are set.

    Returns:
        The nested network, as `nestnet.create_model` returns it.

    Raises:
        ValueError: If `nestnet.create_model` refuses a name, an option or a value.
    """
    model = config.model
    options: dict[str, Any] = {}
    for name, value in vars(model).items():
        # The family has its own default for an option that is null.
        if value is not None and name not in PAIR_FIELDS:
            options[name] = value
    # `img_size` is a field of the data, because the images decide it.
    if find_architecture("model.motivated", model.motivated).takes_img_size:
        assert config.data.img_size is not None
        height, width = as_size(config.data.img_size)
        # Square images are given as one number, which every family with this option accepts.
        options["img_size"] = height if height == width else (height, width)
    return create_model(model.base, model.motivated, **options)


def structural_options_of(config: Config) -> PerMode[dict[str, Any]]:
    """Return the keyword arguments with which timm builds each network of a configuration, besides its sizes.

    Args:
        config: configuration of a run.

    Returns:
        The arguments of each network, without those for training.

    Raises:
        ValueError: If `model.options` is malformed.
    """
    options = split_options("model.options", config.model.options or {})
    return PerMode(structural_options(options.base), structural_options(options.motivated))
