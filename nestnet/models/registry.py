"""Architectures by name, and the one function that nests a pair of them."""

import difflib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import timm
import torch

from nestnet.nn.mode import PerMode
from nestnet.nn.model import NestedModel
from nestnet.text.arguments import is_whole


@dataclass(frozen=True)
class Architecture(ABC):
    """One network of a family: the numbers its builder needs. Each family is a subclass."""

    family: ClassVar[str]

    @abstractmethod
    def contains(self, base: Any) -> bool:
        """Whether `base`, of the same family, fits inside."""

    @staticmethod
    @abstractmethod
    def nest(*architectures: Any, **options: Any) -> NestedModel:
        """The nested network of `(names, architectures)`, both per mode, its weights uninitialised.

        A family's options are the keyword arguments of its own `nest`.
        """


ARCHITECTURES: dict[str, Architecture] = {}

Variant = TypeVar("Variant", bound=Callable[[], Architecture])


def register_architecture(name: str) -> Callable[[Variant], Variant]:
    """Make an architecture known under a name.

    Args:
        name: timm's name of the network; `timm.create_model` must know it too.

    Returns:
        A decorator for a function, or a class, that returns the `Architecture` when it is called without arguments.

    Raises:
        ValueError: if there is an architecture of this name already.
    """
    if name in ARCHITECTURES:
        raise ValueError(f"architecture {name!r}: there is one of this name already")

    def register(variant: Variant) -> Variant:
        ARCHITECTURES[name] = variant()
        return variant

    return register


def list_models(motivated: str | None = None) -> list[str]:
    """All architectures, or those that fit inside `motivated`.

    >>> import nestnet
    >>> nestnet.list_models("resnet44")
    ['resnet20', 'resnet32', 'resnet44']
    """
    if motivated is None:
        return list(ARCHITECTURES)
    outer = _architecture("motivated", motivated)
    return [name for name, inner in ARCHITECTURES.items() if _fits(inner, outer)]


def create_model(
    base: str, motivated: str, *, num_classes: int = 1000, in_chans: int = 3, **options: Any
) -> NestedModel:
    """A base network nested in a motivated one of the same family, with timm's initialisation of the motivated one.

    Args:
        base: timm's name of the small network, such as `"resnet20"`; `nestnet.list_models()` lists them.
        motivated: of the big one. Any base fits in any network of its family that is at least as big.
        num_classes: outputs of the head.
        in_chans: channels of the images.
        options: all families: `batch_norm="private" | "shared"` (running statistics; a ViT has none), `drop_rate` (before the
            head) and `drop_path_rate` (stochastic depth), each one number or one a mode `[base, motivated]`.
            ResNets and EfficientNets: `depth_map="last" | "first"`, where a stage's last base block lies.
            ViT: `img_size`, `qkv_map="heads" | "prefix"`, `pos_drop_rate`, `proj_drop_rate`, `attn_drop_rate`.

    Raises:
        ValueError: for an unknown name, a pair that does not nest, or an option that the family does not have; it says
            what would work.

    >>> import nestnet, torch
    >>> net = nestnet.create_model("resnet20", "resnet32", num_classes=10)
    >>> net(torch.zeros(2, 3, 32, 32), mode="base").shape
    torch.Size([2, 10])
    """
    architectures = check_pair(base, motivated)
    outer = architectures.motivated
    for field, value in {"num_classes": num_classes, "in_chans": in_chans}.items():
        if not is_whole(value, 1):
            raise ValueError(f"{field} = {value!r}: it must be a whole number of at least 1")
    known = options_of(outer)
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            raise ValueError(
                f"{option} = {options[option]!r}: {outer.family} has no such option"
                + (f"; did you mean {near[0]}?" if near else f"; it has {', '.join(known)}")
            )
    with torch.device("meta"):
        net = outer.nest(PerMode(base, motivated), architectures, num_classes=num_classes, in_chans=in_chans, **options)
    initial = timm.create_model(motivated, num_classes=num_classes, in_chans=in_chans, **net.timm_options.motivated)
    net.load_state_dict(initial.state_dict(), assign=True)
    return net


def check_pair(base: str, motivated: str) -> PerMode[Architecture]:
    """The architectures of a base and a motivated network, if the one nests in the other.

    Raises:
        ValueError: for an unknown name, or a pair that does not nest; it says what would.
    """
    inner, outer = _architecture("base", base), _architecture("motivated", motivated)
    if not _fits(inner, outer):
        outers = [name for name in ARCHITECTURES if _fits(inner, ARCHITECTURES[name])]
        raise ValueError(
            f"base = {base!r} ({inner.family}) does not fit inside motivated = {motivated!r} ({outer.family}): inside "
            f"{motivated} fit {', '.join(list_models(motivated))}; {base} fits inside {', '.join(outers)}"
        )
    return PerMode(inner, outer)


def complete_pair(base: str | None, motivated: str | None) -> tuple[str | None, str | None]:
    """Return both networks where at least one is named: the other is the next bigger or smaller one of its family.

    A network that has no such neighbour goes with itself. An unknown name is left alone, to be refused later with those that
    there are.

    >>> complete_pair("resnet20", None)
    ('resnet20', 'resnet32')
    >>> complete_pair(None, "resnet44")
    ('resnet32', 'resnet44')
    """
    if base and not motivated:
        bigger = (name for name in list_models() if name != base and base in list_models(name))
        return base, next(bigger, base)
    if motivated and not base:
        inside = list_models(motivated) if motivated in ARCHITECTURES else []
        smaller = (name for name in reversed(inside) if name != motivated)
        return next(smaller, motivated), motivated
    return base, motivated


def takes_img_size(name: str) -> bool:
    """Return whether a network is built for one size of images, which its family has as the option `img_size`.

    >>> takes_img_size("vit_tiny_patch16_224"), takes_img_size("resnet20")
    (True, False)
    """
    return "img_size" in options_of(ARCHITECTURES[name])


def _architecture(field: str, name: str) -> Architecture:
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    near = difflib.get_close_matches(str(name), ARCHITECTURES, n=1)
    hint = f"did you mean {near[0]}? Known are " if near else "known are "
    raise ValueError(f"{field} = {name!r} is no known architecture; {hint}{', '.join(ARCHITECTURES)}")


def _fits(inner: Architecture, outer: Architecture) -> bool:
    return inner.family == outer.family and outer.contains(inner)


def options_of(architecture: Architecture) -> list[str]:
    """The names of a family's options: the keyword arguments of its `nest`, less those of every family."""
    parameters = inspect.signature(architecture.nest).parameters.values()
    names = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    return [name for name in names if name not in ("num_classes", "in_chans")]
