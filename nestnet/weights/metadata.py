"""The metadata of an exported file: everything that its users and `nestnet predict` need to know."""

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import to_2tuple
from torch import Tensor, nn

from nestnet.data.class_names import validate_class_names
from nestnet.data.image_decoding import DECODING_RULE
from nestnet.data.preprocessing import choose_crop_pct
from nestnet.models.registry import find_architecture
from nestnet.models.timm_networks import build_network
from nestnet.models.timm_options import structural_options
from nestnet.nn.meta_device import meta_device
from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel
from nestnet.version import __version__
from nestnet.weights.metadata_rules import CASCADE_ENTRY, decode_entry, describe_cascade, encode_entry, find_broken_rule


@dataclass(frozen=True)
class Metadata:
    """The metadata of an exported network.

    Attributes:
        architecture: timm's name of the network.
        mode: mode of the subnet that was exported.
        num_classes: number of outputs, at least 1.
        class_names: names of the outputs, in order; empty if they have no names.
        input_size: channels, height and width of the images, in pixels.
        mean: number for each channel that is subtracted from images with values from 0 to 1.
        std: number above 0 for each channel by which the difference is divided.
        crop_pct: part of an image's shorter side that is kept, above 0 and at most 1; `None` if images are
            used whole.
        model_args: further keyword arguments with which timm builds the network, such as `window_size`; empty for most.
        quantization: how the network was quantised to 8-bit integers, and what that cost: `calibration_images`,
            `test_images`, `float32_top1` and `int8_top1`, or `float32_map` and `int8_map` for several labels; empty for a
            network in float32.
        preprocessing: `"outside"` if the network takes normalised images `[B, C, H, W]`; `"inside"` if it resizes, crops and
            normalises raw pixels itself, uint8 `[B, H, W, C]` of any size.
        multi_label: whether an image may have any number of labels: the probability of each class is then the sigmoid of
            its logit, and otherwise the probabilities are the softmax of the logits.
        image_reading: how `nestnet predict` and a run's own evaluation read image files, in words.
        nestnet_version: version that wrote the file.
    """

    architecture: str
    mode: Mode
    num_classes: int
    class_names: list[str]
    input_size: tuple[int, int, int]
    mean: list[float]
    std: list[float]
    crop_pct: float | None
    model_args: dict[str, Any] = field(default_factory=dict)
    quantization: dict[str, Any] = field(default_factory=dict)
    preprocessing: str = "outside"
    multi_label: bool = False
    image_reading: str = DECODING_RULE
    nestnet_version: str = __version__

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images, in pixels."""
        return self.input_size[1:]

    @property
    def precision(self) -> str:
        """Number format of the weights and of most computations: `"float32"` or `"int8"`."""
        if self.quantization:
            return "int8"
        return "float32"

    @property
    def timm_arguments(self) -> dict[str, Any]:
        """Keyword arguments, besides the name, with which `timm.create_model` builds the network."""
        # Options that have timm's default values are left out: not every model of timm takes them.
        channels, height, width = self.input_size
        arguments: dict[str, Any] = {"num_classes": self.num_classes}
        if channels != 3:
            arguments["in_chans"] = channels
        if find_architecture("architecture", self.architecture).takes_img_size:
            # Square images are given as one number, which every family with this option accepts.
            arguments["img_size"] = height if height == width else (height, width)
        return {**arguments, **self.model_args}

    def create_model(self, **options: Any) -> nn.Module:
        """Return timm's network of this architecture in evaluation mode.

        Args:
            options: further keyword arguments of `timm.create_model`.

        Returns:
            The network, with initial weights unless `options` name a checkpoint.

        Raises:
            ValueError: If timm refuses an argument.
        """
        return build_network(self.architecture, **self.timm_arguments, **options).eval()

    def skeleton(self) -> nn.Module:
        """Return the network on the meta device: names and shapes without memory.

        Returns:
            The network, without values.
        """
        with meta_device():
            return self.create_model()

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probabilities of the classes, in float32.

        Args:
            logits: outputs of the network `[B, K]`.

        Returns:
            The probabilities `[B, K]`: of each class by itself if an image may have several, otherwise with the sum 1.
        """
        if self.multi_label:
            return logits.float().sigmoid()
        return logits.float().softmax(dim=1)

    def class_name(self, index: int) -> str:
        """Return the name of a class, or its number if the classes have no names.

        Args:
            index: index of the class, from 0.

        Returns:
            The name.
        """
        if not self.class_names:
            return str(index)
        return self.class_names[index]

    def to_entries(self) -> dict[str, str]:
        """Return the metadata as a file stores it: strings as they are, and other values as JSON.

        Returns:
            The string of each entry by name.
        """
        return {field.name: encode_entry(field.name, getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_network(
        cls,
        net: NestedModel,
        mode: Mode,
        *,
        class_names: Sequence[str] | None = None,
        input_size: Sequence[int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        crop_pct: float | None = None,
        preprocessing: str = "outside",
        multi_label: bool = False,
    ) -> "Metadata":
        """Return the metadata of a subnet. Arguments, defaults and errors are those of `nestnet.export`.

        Args:
            net: nested network.
            mode: mode of the subnet.
            class_names: names of the outputs, in order.
            input_size: channels, height and width of the images.
            mean: mean of each channel.
            std: standard deviation of each channel.
            crop_pct: part of an image's shorter side that is kept.
            preprocessing: whether the network prepares images itself, `"inside"` or `"outside"`.
            multi_label: whether an image may have any number of labels.

        Returns:
            The metadata.

        Raises:
            ValueError: If a value breaks its rule.
        """
        names = validate_class_names(class_names, net.num_classes)
        size = _checked_input_size(net, mode, input_size)
        for name, values in {"mean": mean, "std": std}.items():
            if values is not None and len(values) != net.in_chans:
                raise ValueError(f"{name} = {list(values)}: it must have a number for each of {net.in_chans} channels")
        default_mean, default_std = _default_normalisation(net, mode)
        metadata = cls(
            architecture=net.architectures.of(mode),
            mode=mode,
            num_classes=net.num_classes,
            class_names=names,
            input_size=size,
            mean=_floats(default_mean if mean is None else mean),
            std=_floats(default_std if std is None else std),
            crop_pct=choose_crop_pct(net.architectures.motivated, size[1:], crop_pct),
            model_args=structural_options(net.timm_options.of(mode)),
            preprocessing=preprocessing,
            multi_label=multi_label,
        )
        # Write only what `from_entries` accepts. A network of your own need not be registered to be exported, but to
        # be read.
        values_by_name = vars(metadata) | {"input_size": list(size)}
        broken_rule = find_broken_rule(values_by_name, must_be_known=False)
        if broken_rule is not None:
            name, rule = broken_rule
            raise ValueError(f"{name} = {reprlib.repr(values_by_name[name])}: it must be {rule}")
        return metadata

    @classmethod
    def from_entries(cls, entries: Mapping[str, str], path: Path) -> "Metadata":
        """Parse the metadata that a file stores. Each entry is checked before it is used.

        Args:
            entries: entries of the file's metadata.
            path: file, for error messages.

        Returns:
            The metadata.

        Raises:
            ValueError: Naming the file, the entry, and what it must be.
        """
        # Do not trust the file: its entries may be absent, malformed, or of any type and size.
        values = {}
        for name in [entry.name for entry in fields(cls)]:
            if name not in entries:
                raise ValueError(_explain_absence(name, entries, path))
            try:
                values[name] = decode_entry(name, entries[name])
            except (ValueError, RecursionError) as error:
                text = reprlib.repr(entries[name])
                raise ValueError(f"{path}: {name} = {text} in its metadata is not JSON") from error
        broken_rule = find_broken_rule(values)
        if broken_rule is not None:
            name, rule = broken_rule
            raise ValueError(f"{path}: {name} = {reprlib.repr(values[name])} in its metadata: it must be {rule}")
        values["mode"] = Mode(values["mode"])
        values["input_size"] = tuple(values["input_size"])
        return cls(**values)


def _explain_absence(name: str, entries: Mapping[str, str], path: Path) -> str:
    """Return what a file is whose metadata does not have an entry."""
    if CASCADE_ENTRY in entries:
        return describe_cascade(path)
    version = entries.get("nestnet_version", __version__)
    if version != __version__:
        return (
            f"{path} was exported by nestnet {reprlib.repr(version)}, whose metadata has no {name}; export it again with "
            f"nestnet {__version__}"
        )
    return f"{path} is not an export of nestnet: its metadata has no {name}"


def _default_normalisation(net: NestedModel, mode: Mode) -> tuple[Sequence[float], Sequence[float]]:
    """Return timm's mean and standard deviation for a subnet, or 0.5 for images that do not have timm's 3 channels."""
    if net.in_chans != 3:
        return [0.5] * net.in_chans, [0.5] * net.in_chans
    config = pretrained_config(net, mode)
    return config.get("mean", IMAGENET_DEFAULT_MEAN), config.get("std", IMAGENET_DEFAULT_STD)


def pretrained_config(net: NestedModel, mode: Mode) -> Mapping[str, Any]:
    """Return what timm knows about a network: its image size, its normalisation, and where its head is.

    Args:
        net: nested network.
        mode: mode of the network in it.

    Returns:
        The entries of timm's `pretrained_cfg`; none for a network that timm did not build.
    """
    return getattr(net.skeleton(mode), "pretrained_cfg", None) or {}


def _floats(values: Sequence[float]) -> list[float]:
    """Return the values, also those of an array, as plain floats for JSON."""
    return [float(value) for value in values]


def _checked_input_size(net: NestedModel, mode: Mode, input_size: Sequence[int] | None) -> tuple[int, int, int]:
    """Return channels, height and width of a subnet's images, after checking that the network accepts them."""
    # By default the size for which the network was built, or that of timm's weights.
    architecture = net.architectures.of(mode)
    img_size = net.timm_options.of(mode).get("img_size")
    sides = pretrained_config(net, mode).get("input_size", ())[1:]
    expected_sides = "height, width"
    # A network with this option is built for one size of images and takes no other.
    if img_size is not None:
        sides = to_2tuple(img_size)
        expected_sides = f"{sides[0]}, {sides[1]}"
    if not input_size and not sides:
        raise ValueError(
            f"{architecture} does not say for which images it is; give input_size (channels, height, width)"
        )
    size = tuple(input_size or (net.in_chans, *sides))
    has_other_sides = img_size is not None and size[1:] != tuple(sides)
    if size[0] != net.in_chans or has_other_sides:
        raise ValueError(f"input_size = {size}: {architecture} was made for ({net.in_chans}, {expected_sides})")
    return (size[0], size[1], size[2])
