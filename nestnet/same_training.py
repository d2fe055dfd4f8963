"""Which runs belong together: those that train the same and differ in their seed alone."""

from dataclasses import asdict
from typing import Any

from nestnet.config import Config, dotted
from nestnet.restore import FREE


def what_is_trained(config: Config) -> dict[str, Any]:
    """The fields of a configuration that decide what is trained, but for the seed, by dotted name.

    Where images lie changes nothing, except that another folder of images holds other images.
    """
    left_out = FREE | {"seed"}
    if config.data.name == "folder":
        left_out = left_out - {"data.root"}
    return {name: value for name, value in dotted(asdict(config)).items() if name not in left_out}


def apart(config: Config, other: Config) -> dict[str, Any]:
    """The fields in which a configuration trains other than another one, by dotted name; their seeds may differ."""
    fields = what_is_trained(config)
    others = what_is_trained(other)
    return {name: fields.get(name) for name in {**others, **fields} if fields.get(name) != others.get(name)}
