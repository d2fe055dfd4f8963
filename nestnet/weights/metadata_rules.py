"""The encoding of an exported file's metadata, and the rules that its entries must satisfy."""

import json
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nestnet.models.registry import is_known
from nestnet.models.timm_options import RESERVED
from nestnet.nn.mode import Mode
from nestnet.text.arguments import is_number, is_whole
from nestnet.text.commands import format_command

TEXTS = ("architecture", "mode", "preprocessing", "image_reading", "nestnet_version")
"""Entries that are stored as they are. The others are stored as JSON, and a `crop_pct` of `None` as an empty string."""

CASCADE_ENTRY = "base_tensors"
"""Entry of a cascade's file, which the file of one network does not have. It is stored as JSON."""

MAX_SIZE = 1_000_000
"""Largest number of classes, and of pixels a side, that a file may name."""

MAX_NUMBER = 3e38
"""Bound of the numbers of `mean`, `std` and `crop_pct`: about the largest float32."""

COUNTED_IMAGES = ("calibration_images", "test_images")
"""Parts of the entry `quantization` that are numbers of images."""

MEASURED_ACCURACIES = {False: ("float32_top1", "int8_top1"), True: ("float32_map", "int8_map")}
"""Parts of the entry `quantization` that are accuracies in percent, by whether images may have several labels: top-1, or mean
average precision."""


def encode_entry(name: str, value: Any) -> str:
    """Return the text that a file stores for a value of its metadata.

    >>> encode_entry("mean", [0.5]), encode_entry("mode", "base"), encode_entry("crop_pct", None)
    ('[0.5]', 'base', '')
    """
    if name in TEXTS:
        return str(value)
    if name == "crop_pct" and value is None:
        return ""
    return json.dumps(value)


def decode_entry(name: str, text: str) -> Any:
    """Return the value that `encode_entry` stored, without checking it.

    Args:
        name: name of the entry.
        text: string that the file stores.

    Returns:
        The value; `None` for an empty string.

    Raises:
        ValueError: If it is not JSON.
        RecursionError: If it is nested too deeply.
    """
    if name in TEXTS or (name == "crop_pct" and not text):
        return text or None
    return json.loads(text)


def find_broken_rule(values: Mapping[str, Any], *, must_be_known: bool = True) -> tuple[str, str] | None:
    """Return the first entry that breaks its rule.

    Args:
        values: decoded entries by name, of any type.
        must_be_known: whether timm must be able to build the network.

    Returns:
        The name of the entry and a description of its rule; `None` if all entries satisfy their rules.
    """
    # Two rules need the number of channels. If the input size is malformed, its own rule is checked before them.
    num_classes = values["num_classes"]
    size = values["input_size"]
    channels = size[0] if _is_input_size(size) else 0
    accuracies = MEASURED_ACCURACIES[values["multi_label"] is True]
    rules = (
        (
            "architecture",
            not must_be_known or (isinstance(values["architecture"], str) and is_known(values["architecture"])),
            "a network that timm builds; the module that registers a network of your own must be imported first",
        ),
        ("mode", values["mode"] in list(Mode), "base or motivated"),
        ("num_classes", _is_size(num_classes), f"a whole number from 1 to {MAX_SIZE:,}"),
        (
            "class_names",
            _are_class_names(values["class_names"], num_classes),
            f"a list of {reprlib.repr(num_classes)} strings, or empty",
        ),
        (
            "input_size",
            _is_input_size(size),
            f"three whole numbers from 1 to {MAX_SIZE:,}: channels, height and width",
        ),
        ("mean", _are_numbers(values["mean"], channels), f"a list of {channels} numbers, one for each channel"),
        ("std", _are_positive_numbers(values["std"], channels), f"a list of {channels} numbers above 0"),
        ("preprocessing", values["preprocessing"] in ("inside", "outside"), "inside or outside"),
        ("multi_label", isinstance(values["multi_label"], bool), "true or false"),
        ("image_reading", values["image_reading"] is not None, "how image files are read, in words"),
        ("nestnet_version", values["nestnet_version"] is not None, "a version"),
        (
            "model_args",
            _are_arguments(values["model_args"]),
            "a mapping from names of arguments of the network to values",
        ),
        ("crop_pct", _is_crop(values["crop_pct"]), "empty, or above 0 and at most 1"),
        (
            "quantization",
            _is_quantization(values["quantization"], accuracies),
            f"empty, or calibration_images and test_images of at least 1 and {' and '.join(accuracies)} from 0 to 100",
        ),
    )
    for name, is_kept, rule in rules:
        if not is_kept:
            return name, rule
    return None


def describe_cascade(path: Path) -> str:
    """Return the message for a cascade where the export of one network is needed.

    Args:
        path: file or folder of the cascade.
    """
    command = format_command("predict", "IMAGES", cascade=path)
    return f"{path} holds a cascade of two networks, which `{command}` runs; name the export of one network"


def _is_size(value: Any) -> bool:
    return is_whole(value, 1) and value <= MAX_SIZE


def _is_input_size(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(_is_size(side) for side in value)


def _are_class_names(value: Any, num_classes: Any) -> bool:
    # Classes need not have names.
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        return False
    return len(value) in (0, num_classes)


def _are_arguments(value: Any) -> bool:
    # The arguments that are left out here load files, or are stated by other entries.
    return isinstance(value, dict) and all(isinstance(name, str) and name not in RESERVED for name in value)


def _is_crop(value: Any) -> bool:
    # `None` stands for images that are used whole.
    if value is None:
        return True
    return _are_numbers([value], 1) and 0 < value <= 1


def _is_quantization(value: Any, accuracy_names: Sequence[str]) -> bool:
    # It is empty for networks in float32.
    if value == {}:
        return True
    if not isinstance(value, dict) or set(value) != {*COUNTED_IMAGES, *accuracy_names}:
        return False
    accuracies = [value[name] for name in accuracy_names]
    are_percentages = _are_numbers(accuracies, len(accuracies)) and all(0 <= number <= 100 for number in accuracies)
    return are_percentages and all(is_whole(value[name], 1) for name in COUNTED_IMAGES)


def _are_positive_numbers(values: Any, count: int) -> bool:
    return _are_numbers(values, count) and all(value > 0 for value in values)


def _are_numbers(values: Any, count: int) -> bool:
    """Return whether this is a list of `count` finite numbers."""
    if not isinstance(values, list) or len(values) != count:
        return False
    for value in values:
        if not is_number(value):
            return False
        # No comparison holds for NaN, and infinity is too large.
        if not abs(value) < MAX_NUMBER:
            return False
    return True
