"""Any network that timm builds, as one of a pair that `nestnet.nest` nests.

The facts that other rooms ask of a family are read from the network itself: which kind of layers it has, whether it is
made for one image size, and where its head is.
"""

import functools
import inspect
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
from timm.layers import to_2tuple
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nestnet.models.architecture import Architecture, TrainingDefaults
from nestnet.models.own_networks import OWN_NETWORKS
from nestnet.models.timm_networks import build_network, build_skeleton, module_tree
from nestnet.models.timm_options import split_options
from nestnet.nesting.matching import Matching, match_networks
from nestnet.nesting.nest import nest
from nestnet.nesting.nested_pair import NestedPair
from nestnet.nn.batch_norm import STATISTICS
from nestnet.nn.mode import Mode, PerMode, parse_rates
from nestnet.nn.stage import DEPTH_MAPS
from nestnet.text.arguments import check_choice

ATTENTION_WORDS = ("attention", "attn")
"""Parts of the names of classes of attention over tokens or windows."""

CHANNEL_ATTENTION_WORDS = ("eca", "squeeze", "channel", "split", "selective", "cbam", "gather", "lightweight")
"""Parts of the names of classes that weight the channels of a convolutional network, and are no attention over tokens."""

TRANSFORMER_DEFAULTS = TrainingDefaults(
    "adamw", lr=5e-4, lr_batch=512, weight_decay=0.05, lr_scaling=0.5, channels_last=False
)
"""DeiT's: Touvron et al. 2021, arXiv 2012.12877, table 9."""


@dataclass(frozen=True)
class TimmArchitecture(Architecture):
    """A network of timm's, or one that is registered with it.

    Attributes:
        name: timm's name of the network.
        family: name of the module that defines it, such as `"convnext"`.
        kind: `"convolutional"` or `"transformer"`.
        takes_images_of_one_size: whether the network is built for one size of images, `img_size`.
        fixed_img_size: height and width of the images in pixels if the network takes no others and cannot be built for
            others; otherwise `None`.
    """

    name: str
    family: str = ""
    kind: str = "convolutional"
    takes_images_of_one_size: bool = False
    fixed_img_size: tuple[int, int] | None = None
    has_batch_norm: bool = True
    img_size_divisor: int = 1
    training_defaults: TrainingDefaults = field(default=Architecture.training_defaults)
    registered_by: str | None = None

    @property
    def option_names(self) -> list[str]:
        names = super().option_names
        if not self.takes_images_of_one_size:
            names.remove("img_size")
        return names

    def contains(self, base: Any) -> bool:
        return not self.match(base).misfits

    def match(self, base: "TimmArchitecture", depth_map: str = "last") -> Matching:
        """Match the names and shapes of a base network with those of this one.

        Args:
            base: base network.
            depth_map: motivated block that holds a stage's last base block.

        Returns:
            The matching, with the reasons why the base does not fit, if it does not.
        """
        return match_networks(module_tree(base.name), module_tree(self.name), depth_map=depth_map)

    def create(self, names: PerMode[str], architectures: PerMode[Any], **options: Any) -> NestedPair:
        # The networks are initialised as they are built.
        return self.nest(names, architectures, **options)

    @staticmethod
    def nest(
        names: PerMode[str],
        architectures: PerMode["TimmArchitecture"],
        *,
        num_classes: int,
        in_chans: int,
        img_size: int | tuple[int, int] | None = None,
        depth_map: str = "last",
        groups: dict[str, Any] | None = None,
        batch_norm: str = "private",
        drop_rate: float | list[float] | None = None,
        drop_path_rate: float | list[float] | None = None,
        options: dict[str, Any] | None = None,
    ) -> NestedPair:
        """Return the nested network of a pair, with the weights with which timm initialises the motivated network.

        Args:
            names: timm's name of each mode's network.
            architectures: each mode's network.
            num_classes: number of outputs of the head.
            in_chans: number of channels of the images.
            img_size: side of the images in pixels, or their height and width, for networks that are built for one size.
            depth_map: motivated blocks that hold the base's blocks of a stage: see `nestnet.nest`.
            groups: groups of rows and of columns of packed weights: see `nestnet.nest`.
            batch_norm: what the modes share of BatchNorm: see `nestnet.nest`.
            drop_rate: dropout before the head, one number for both modes or a pair `[base, motivated]`.
            drop_path_rate: stochastic depth, in the same form.
            options: further keyword arguments of timm's networks, for both; those of one of them are below `base` or
                `motivated`.

        Returns:
            The nested network.

        Raises:
            ValueError: If an option has a value that is not allowed, or the networks do not nest.
        """
        check_choice("depth_map", depth_map, DEPTH_MAPS)
        check_choice("batch_norm", batch_norm, STATISTICS)
        arguments = split_options("options", options or {})
        for mode in Mode:
            for name, rate in {"drop_rate": drop_rate, "drop_path_rate": drop_path_rate}.items():
                if rate is not None:
                    arguments.of(mode)[name] = parse_rates(name, rate).of(mode)
            if img_size is not None:
                arguments.of(mode)["img_size"] = to_2tuple(img_size)
        head = {"num_classes": num_classes, "in_chans": in_chans}
        # The motivated network draws its weights as it would alone, and the base's are replaced by a part of them.
        motivated = build_network(names.motivated, **head, **arguments.motivated)
        with torch.random.fork_rng(devices=[]):
            base = build_network(names.base, **head, **arguments.base)
        net = nest(base, motivated, depth_map=depth_map, groups=as_groups(groups), batch_norm=batch_norm)
        # The names with which the networks can be built again.
        net.architectures = names
        net.num_classes = num_classes
        net.in_chans = in_chans
        net.timm_options = arguments
        return net


def as_groups(groups: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the groups of a configuration, whose lists become tuples."""
    if groups is None:
        return None
    tuples: dict[str, Any] = {}
    for pattern, pair in groups.items():
        is_pair = isinstance(pair, (list, tuple)) and len(pair) == 2
        if not is_pair:
            raise ValueError(f"groups.{pattern} = {pair!r}: it must be a pair, the groups of rows and of columns")
        tuples[pattern] = tuple(_tuple_of(entry) for entry in pair)
    return tuples


def _tuple_of(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_tuple_of(entry) for entry in value)
    return value


@functools.cache
def timm_architecture(name: str) -> TimmArchitecture:
    """Return the facts about a network that timm builds.

    Args:
        name: timm's name of the network, which timm knows.

    Returns:
        The facts.
    """
    network = build_skeleton(name)
    config = getattr(network, "pretrained_cfg", None) or {}
    modules = list(network.modules())
    kind = "transformer" if any(map(_is_attention, modules)) else "convolutional"
    takes_img_size = _takes_img_size(name, network)
    fixed_img_size = None
    if config.get("fixed_input_size") and not takes_img_size:
        fixed_img_size = tuple(config["input_size"][1:])
    entrypoint = timm.models.model_entrypoint(name)
    is_timms = entrypoint.__module__.startswith("timm.")
    return TimmArchitecture(
        name,
        family=entrypoint.__module__.rpartition(".")[2],
        kind=kind,
        takes_images_of_one_size=takes_img_size,
        fixed_img_size=fixed_img_size,
        has_batch_norm=any(isinstance(module, _BatchNorm) for module in modules),
        img_size_divisor=_patch_size(network),
        training_defaults=TRAINING_DEFAULTS[kind],
        registered_by=None if is_timms else entrypoint.__module__,
    )


TRAINING_DEFAULTS = {"convolutional": Architecture.training_defaults, "transformer": TRANSFORMER_DEFAULTS}
"""Usual settings for each kind of network: see `Architecture.training_defaults`."""


def _is_attention(module: nn.Module) -> bool:
    kind = type(module).__name__.lower()
    is_named_so = any(word in kind for word in ATTENTION_WORDS)
    return is_named_so and not any(word in kind for word in CHANNEL_ATTENTION_WORDS)


def _takes_img_size(name: str, network: nn.Module) -> bool:
    """Return whether a network is built for one size of images, which it takes as `img_size`."""
    # A network of your own is built by a function, whose arguments count.
    if name in OWN_NETWORKS:
        return "img_size" in inspect.signature(OWN_NETWORKS[name]).parameters
    # A class may pass its arguments on to the one that it derives from.
    kinds = [kind for kind in type(network).__mro__ if issubclass(kind, nn.Module)]
    return any("img_size" in inspect.signature(kind).parameters for kind in kinds)


def _patch_size(network: Any) -> int:
    """Return the side of a transformer's patch in pixels, of which its images are whole multiples; otherwise 1."""
    projection = getattr(getattr(network, "patch_embed", None), "proj", None)
    # Patches that overlap, as in a PVT, need no multiples.
    if isinstance(projection, nn.Conv2d) and projection.kernel_size == projection.stride:
        height, width = projection.kernel_size
        if height == width:
            return height
    return 1
