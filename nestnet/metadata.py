"""What an exported file says of itself: all that `nestnet predict`, and a reader, must know to use it."""

import json
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from nestnet.escape import for_terminal, is_utf8
from nestnet.mode import Mode
from nestnet.models.registry import ARCHITECTURES
from nestnet.models.vit import ViTArchitecture
from nestnet.motivation import is_whole
from nestnet.nested import NestedModel
from nestnet.preprocessing import eval_crop
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
        if isinstance(ARCHITECTURES[self.architecture], ViTArchitecture):
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
        names, architecture = list(class_names or ()), net.architectures.of(mode)
        if names and len(names) != net.num_classes:
            raise ValueError(f"class_names has {len(names)} names for a network of num_classes = {net.num_classes}")
        for index, name in enumerate(names):
            if not is_utf8(str(name)):
                raise ValueError(
                    f"class_names[{index}] = '{for_terminal(name)}': it must be a text that UTF-8 can hold; rename that class"
                )
        defaults, own = net.skeleton(mode).pretrained_cfg, net.timm_options.of(mode).get("img_size")
        size = tuple(input_size or (net.in_chans, *(own or defaults["input_size"][1:])))
        if size[0] != net.in_chans or (own and size[1:] != tuple(own)):
            wanted = f"({net.in_chans}, {', '.join(map(str, own or ('height', 'width')))})"
            raise ValueError(f"input_size = {size}: {architecture} was made for {wanted}")
        for name, values in {"mean": mean, "std": std}.items():
            if values is not None and len(values) != net.in_chans:
                raise ValueError(f"{name} = {list(values)}: it must have a number for each of {net.in_chans} channels")
        grey = net.in_chans != 3
        return cls(
            architecture=architecture,
            mode=mode,
            num_classes=net.num_classes,
            class_names=names,
            input_size=(size[0], size[1], size[2]),
            mean=list(mean or ([0.5] * net.in_chans if grey else defaults["mean"])),
            std=list(std or ([0.5] * net.in_chans if grey else defaults["std"])),
            crop_pct=eval_crop(net.architectures.motivated, (size[1], size[2]), crop_pct),
        )

    @classmethod
    def read(cls, entries: Mapping[str, str], path: Path) -> "Metadata":
        """From a file's entries; none of them is believed before it is checked.

        Raises:
            ValueError: naming the file, the entry, and what it must be.
        """
        texts = ("architecture", "mode", "nestnet_version")
        found = {name: _value(entries, name, path, text=name in texts) for name in (*cls.__dataclass_fields__,)}
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
            "nestnet_version": (found["nestnet_version"] is not None, "a version"),
            "crop_pct": (crop is None or (_numbers([crop], 1) and 0 < crop <= 1), "empty, or above 0 and at most 1"),
        }
        for name, (fine, rule) in rules.items():
            if not fine:
                raise ValueError(f"{path}: {name} = {reprlib.repr(found[name])} in its metadata: it must be {rule}")
        return cls(**found | {"mode": Mode(found["mode"]), "input_size": tuple(size)})


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
