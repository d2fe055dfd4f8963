"""Which runs belong together: those that train the same and differ in their seed alone."""

from dataclasses import asdict
from typing import Any

from nestnet.config.schema import Config, dotted
from nestnet.runs.resumable import RESUMABLE_FIELDS, differences


def training_fields(config: Config) -> dict[str, Any]:
    """The fields of a configuration that decide what is trained, but for the seed, by dotted name.

    Where images lie changes nothing, except that another folder of images holds other images.
    """
    left_out = RESUMABLE_FIELDS | {"seed"}
    if config.data.name == "folder":
        left_out = left_out - {"data.root"}
    return {name: value for name, value in dotted(asdict(config)).items() if name not in left_out}


def apart(config: Config, other: Config) -> dict[str, Any]:
    """The fields in which a configuration trains other than another one, by dotted name; their seeds may differ."""
    decisive = training_fields(config).keys() | training_fields(other).keys()
    found = differences(asdict(other), asdict(config))
    return {name: value for name, _, value in found if name in decisive}
