"""What an exported file says of itself: all that `nestnet predict`, and a reader, must know to use it."""

import json
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import to_2tuple
from torch import nn

from nestnet.data.class_names import checked_class_names
from nestnet.data.image_files import READ_AS
from nestnet.data.preprocessing import eval_crop
from nestnet.models.registry import ARCHITECTURES, takes_img_size
from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel
from nestnet.text.arguments import is_whole
from nestnet.version import __version__

MOST = 1_000_000
"""Classes, and pixels a side, that a file may claim."""

LARGEST = 3e38
"""Number of a float32."""


@dataclass(frozen=True)
class Metadata:
    """Of an exported network.

    Attributes:
        architecture: timm's name.
        mode: which subnet of the nested network it was.
        num_classes: outputs.
        class_names: of the outputs, in order; empty where they have no names.
        input_size: channels, height and width of the images.
        mean: by which each channel of an image with values from 0 to 1 is normalised.
        std: likewise.
        crop_pct: the part of an image's shorter side that is kept; `None` where images are used whole.
        image_reading: how `nestnet predict` and a run's own evaluation make an image of a file, in words.
        nestnet_version: that wrote the file.
    """

    architecture: str
    mode: Mode
    num_classes: int
    class_names: list[str]
    input_size: tuple[int, int, int]
    mean: list[float]
    std: list[float]
    crop_pct: float | None
    image_reading: str = READ_AS
    nestnet_version: str = __version__

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.input_size[1:]

    @property
    def timm_arguments(self) -> dict[str, Any]:
        """What `timm.create_model` takes besides the name."""
        channels, height, width = self.input_size
        arguments: dict[str, Any] = {"num_classes": self.num_classes}
        if channels != 3:
            arguments["in_chans"] = channels
        if takes_img_size(self.architecture):
            arguments["img_size"] = height if height == width else (height, width)
        return arguments

    def model(self, **more: Any) -> nn.Module:
        """timm's network of this architecture, ready to evaluate."""
        return timm.create_model(self.architecture, **self.timm_arguments, **more).eval()

    def skeleton(self) -> nn.Module:
        """The same without memory: its names and shapes."""
        with torch.device("meta"):
            return self.model()

    def name_of(self, index: int) -> str:
        """Of a class; its number where the classes have no names."""
        return self.class_names[index] if self.class_names else str(index)

    def entries(self) -> dict[str, str]:
        """As they are stored: all strings, what is no text as JSON, and "" for a `crop_pct` of `None`."""
        return {
            "architecture": self.architecture,
            "mode": str(self.mode),
            "num_classes": str(self.num_classes),
            "class_names": json.dumps(self.class_names),
            "input_size": json.dumps(self.input_size),
            "mean": json.dumps(self.mean),
            "std": json.dumps(self.std),
            "crop_pct": "" if self.crop_pct is None else json.dumps(self.crop_pct),
            "image_reading": self.image_reading,
            "nestnet_version": self.nestnet_version,
        }

    @classmethod
    def of(
        cls,
        net: NestedModel,
        mode: Mode,
        *,
        class_names: Sequence[str] | None = None,
        input_size: Sequence[int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        crop_pct: float | None = None,
    ) -> "Metadata":
        """Of the subnet of `mode`; arguments and errors as `nestnet.export`."""
        names = checked_class_names(class_names, net.num_classes)
        architecture = net.architectures.of(mode)
        defaults = net.skeleton(mode).pretrained_cfg
        own = net.timm_options.of(mode).get("img_size")
        sides = defaults["input_size"][1:] if own is None else to_2tuple(own)
        size = tuple(input_size or (net.in_chans, *sides))
        if size[0] != net.in_chans or (own is not None and size[1:] != tuple(sides)):
            wanted = f"({net.in_chans}, {', '.join(map(str, ('height', 'width') if own is None else sides))})"
            raise ValueError(f"input_size = {size}: {architecture} was made for {wanted}")
        for name, values in {"mean": mean, "std": std}.items():
            if values is not None and len(values) != net.in_chans:
                raise ValueError(f"{name} = {list(values)}: it must have a number for each of {net.in_chans} channels")
        if net.in_chans == 3:
            usual_mean, usual_std = defaults["mean"], defaults["std"]
        else:
            usual_mean = usual_std = [0.5] * net.in_chans
        metadata = cls(
            architecture=architecture,
            mode=mode,
            num_classes=net.num_classes,
            class_names=names,
            input_size=(size[0], size[1], size[2]),
            mean=[float(value) for value in (usual_mean if mean is None else mean)],
            std=[float(value) for value in (usual_std if std is None else std)],
            crop_pct=eval_crop(net.architectures.motivated, (size[1], size[2]), crop_pct),
        )
        # what is written must be what a reader accepts
        for name, value, rule in _broken_rules(vars(metadata) | {"input_size": list(size)}):
            raise ValueError(f"{name} = {reprlib.repr(value)}: it must be {rule}")
        return metadata

    @classmethod
    def read(cls, entries: Mapping[str, str], path: Path) -> "Metadata":
        """From a file's entries; none of them is believed before it is checked.

        Raises:
            ValueError: naming the file, the entry, and what it must be.
        """
        texts = ("architecture", "mode", "image_reading", "nestnet_version")
        found = {name: _value(entries, name, path, text=name in texts) for name in cls.__dataclass_fields__}
        for name, value, rule in _broken_rules(found):
            raise ValueError(f"{path}: {name} = {reprlib.repr(value)} in its metadata: it must be {rule}")
        return cls(**found | {"mode": Mode(found["mode"]), "input_size": tuple(found["input_size"])})


def _broken_rules(found: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """The fields, as JSON has them, that are not what they must be: name, value, and what it must be."""
    classes, names, size, crop = (found[name] for name in ("num_classes", "class_names", "input_size", "crop_pct"))
    sizes = isinstance(size, list) and len(size) == 3 and all(is_whole(side, 1) and side <= MOST for side in size)
    channels = size[0] if sizes else 0
    named = isinstance(names, list) and all(isinstance(name, str) for name in names)
    mean, std = (_numbers(found[name], channels) for name in ("mean", "std"))
    rules = {
        "architecture": (found["architecture"] in ARCHITECTURES, "one of nestnet.list_models()"),
        "mode": (found["mode"] in list(Mode), "base or motivated"),
        "num_classes": (is_whole(classes, 1) and classes <= MOST, f"a whole number from 1 to {MOST:,}"),
        "class_names": (named and len(names) in (0, classes), f"a list of {reprlib.repr(classes)} texts, or empty"),
        "input_size": (sizes, f"three whole numbers from 1 to {MOST:,}: channels, height and width"),
        "mean": (mean, f"a list of {channels} numbers, one a channel"),
        "std": (std and all(value > 0 for value in found["std"]), f"a list of {channels} numbers above 0"),
        "image_reading": (found["image_reading"] is not None, "how image files are read, in words"),
        "nestnet_version": (found["nestnet_version"] is not None, "a version"),
        "crop_pct": (crop is None or (_numbers([crop], 1) and 0 < crop <= 1), "empty, or above 0 and at most 1"),
    }
    for name, (fine, rule) in rules.items():
        if not fine:
            yield name, found[name], rule


def _value(entries: Mapping[str, str], name: str, path: Path, *, text: bool) -> Any:
    if name not in entries:
        raise ValueError(f"{path} is no export of nestnet: its metadata has no {name}")
    if text or (name == "crop_pct" and not entries[name]):
        return entries[name] or None
    try:
        return json.loads(entries[name])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {name} = {reprlib.repr(entries[name])} in its metadata is no JSON") from error


def _numbers(values: Any, count: int) -> bool:
    """Whether this is a list of so many finite numbers."""
    kinds = isinstance(values, list) and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    return kinds and len(values) == count and all(abs(value) < LARGEST for value in values)  # NaN is not
