"""Keyword arguments of timm's networks that a user gives, for both networks of a pair or for one of them."""

from collections.abc import Mapping
from typing import Any

from nestnet.nn.mode import Mode, PerMode

RESERVED = frozenset(
    (
        "cache_dir",
        "checkpoint_path",
        "exportable",
        "features_only",
        "img_size",
        "in_chans",
        "no_jit",
        "num_classes",
        "pretrained",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "scriptable",
    )
)
"""Arguments of `timm.create_model` that have fields of their own, or that load files."""


INITIALISATION = frozenset(("zero_init_last", "weight_init", "head_init_scale"))
"""Arguments that decide the initial weights alone."""


def split_options(field: str, options: Any) -> PerMode[dict[str, Any]]:
    """Return the keyword arguments of each network.

    Args:
        field: name of the setting, for the error message.
        options: arguments by name, which both networks get; those below `base` or `motivated` are for one of them.

    Returns:
        The arguments of each network.

    Raises:
        ValueError: If they are no mapping, or name an argument that must not be given.

    Example:
        >>> split_options("options", {"window_size": 4, "motivated": {"drop_path_rate": 0.2}}).motivated
        {'window_size': 4, 'drop_path_rate': 0.2}
    """
    _check_mapping(field, options)
    common = {name: value for name, value in options.items() if name not in list(Mode)}
    per_mode: list[dict[str, Any]] = []
    for mode in Mode:
        own = options.get(str(mode), {})
        _check_mapping(f"{field}.{mode}", own)
        arguments = {**common, **own}
        for name in arguments:
            if name in RESERVED:
                raise ValueError(f"{field}: {name} is no argument of a network here; it has a field of its own or none")
        per_mode.append(arguments)
    return PerMode(*per_mode)


def _check_mapping(field: str, options: Any) -> None:
    is_mapping = isinstance(options, Mapping) and all(isinstance(name, str) for name in options)
    if not is_mapping:
        raise ValueError(f"{field} = {options!r}: it must be a mapping from names of arguments to values")


def structural_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that decide the shapes and the computation of a trained network.

    Args:
        options: keyword arguments of a network.

    Returns:
        The arguments without the image size, which files state themselves, rates of dropout, and initial values.
    """
    structural = {}
    for name, value in options.items():
        is_for_training = name in INITIALISATION or name.endswith("_rate")
        if name != "img_size" and not is_for_training:
            structural[name] = value
    return structural
