"""Architectures by name: which there are, which pairs nest, and how a pair is created."""

import difflib
from typing import Any

import timm
import torch

# The families register themselves when they are imported, so that whoever looks up a name here finds the networks of
# all of them. The package's `__init__` must not import them: importing timm imports `cifar_resnet` (see
# `nestnet/__init__.py`), and where `nestnet.nn` is what imports timm first, the families would need `nestnet.nn` before
# it is ready.
from nestnet.models import cifar_resnet, efficientnet, resnet, vit  # noqa: F401  # they register themselves
from nestnet.models.architecture import Architecture
from nestnet.models.registration import ARCHITECTURES as ARCHITECTURES
from nestnet.models.registration import register_architecture as register_architecture
from nestnet.nn.mode import PerMode
from nestnet.nn.model import NestedModel
from nestnet.text.arguments import is_whole
from nestnet.text.suggestions import suggest_known


def list_models(motivated: str | None = None) -> list[str]:
    """Return the names of all architectures, or of those that fit inside a given one.

    Args:
        motivated: name of the network inside which the listed networks fit; `None` lists all networks.

    Returns:
        timm's names. Those of a family are in order from small to big.

    Raises:
        ValueError: If `motivated` is not a known architecture.

    Example:
        >>> import nestnet
        >>> nestnet.list_models("resnet32")
        ['resnet8', 'resnet14', 'resnet20', 'resnet32']
    """
    if motivated is None:
        return list(ARCHITECTURES)
    outer = find_architecture("motivated", motivated)
    return [name for name, inner in ARCHITECTURES.items() if _fits(inner, outer)]


def create_model(
    base: str, motivated: str, *, num_classes: int = 1000, in_chans: int = 3, **options: Any
) -> NestedModel:
    """Create a nested network: a base network inside a motivated one of the same family.

    Its weights are those with which timm initialises the motivated network. The base is a part of them.

    Args:
        base: timm's name of the small network, such as `"resnet20"`; `nestnet.list_models()` lists them.
        motivated: timm's name of the big network. Any base fits inside any network of its family that is at
            least as big.
        num_classes: number of outputs of the head, at least 1.
        in_chans: number of channels of the images, at least 1.
        options: options of the family. All families have `drop_rate` (dropout before the head) and
            `drop_path_rate` (stochastic depth), each one number for both modes or a pair `[base, motivated]`,
            and `batch_norm`: `"private"` (the default; each mode has its own running statistics), `"shared"`
            or `"separate"` (each mode also has its own scale and shift); a ViT has no BatchNorm. ResNet and
            EfficientNet: `depth_map`, the motivated block that holds a stage's last base block: `"last"` or
            `"first"`, the first free one. ResNet: `zero_init_last`, whether each block's last BatchNorm starts
            at 0. ViT: `img_size`, `qkv_map` (`"heads"` or `"prefix"`), `pos_drop_rate`, `proj_drop_rate` and
            `attn_drop_rate`.

    Returns:
        The nested network, in training mode, on torch's default device.

    Raises:
        ValueError: If a name is unknown, the pair does not nest, or the family does not have an option or
            refuses a value. The message says what is possible.

    Example:
        >>> import nestnet, torch
        >>> net = nestnet.create_model("resnet20", "resnet32", num_classes=10)
        >>> net(torch.zeros(2, 3, 32, 32), mode="base").shape
        torch.Size([2, 10])
    """
    # All arguments are checked before anything is built.
    architectures = check_pair(base, motivated)
    for field, value in {"num_classes": num_classes, "in_chans": in_chans}.items():
        if not is_whole(value, 1):
            raise ValueError(f"{field} = {value!r}: it must be a whole number of at least 1")
    _check_options(architectures.motivated, options)
    names = PerMode(base, motivated)
    # timm draws the weights below, so that they are the same as those of timm's motivated network.
    with torch.device("meta"):
        net = architectures.motivated.nest(names, architectures, num_classes=num_classes, in_chans=in_chans, **options)
    initial = timm.create_model(motivated, num_classes=num_classes, in_chans=in_chans, **net.timm_options.motivated)
    net.load_state_dict(initial.state_dict(), assign=True)
    return net


def check_pair(base: str, motivated: str) -> PerMode[Architecture]:
    """Return the architectures of a pair, if the base nests in the motivated network.

    Args:
        base: timm's name of the base network.
        motivated: timm's name of the motivated network.

    Returns:
        The architecture of each mode.

    Raises:
        ValueError: If a name is unknown, or the pair does not nest. The message lists networks that do.
    """
    inner = find_architecture("base", base)
    outer = find_architecture("motivated", motivated)
    if not _fits(inner, outer):
        # The message lists the networks that nest with either of the two.
        outers = [name for name, architecture in ARCHITECTURES.items() if _fits(inner, architecture)]
        raise ValueError(
            f"base = {base!r} ({inner.family}) does not fit inside motivated = {motivated!r} ({outer.family}): inside "
            f"{motivated} fit {', '.join(list_models(motivated))}; {base} fits inside {', '.join(outers)}"
        )
    return PerMode(inner, outer)


def complete_pair(base: str | None, motivated: str | None) -> tuple[str | None, str | None]:
    """Return both networks of a pair of which at least one is named.

    The other one is the next bigger or smaller network of its family. A network without such a neighbour is
    paired with itself. An unknown name is paired with itself: `check_pair` refuses it later.

    Args:
        base: timm's name of the base network, or `None` if it is not named.
        motivated: timm's name of the motivated network, or `None` if it is not named.

    Returns:
        Names of the base and of the motivated network, both `None` if neither is named.

    Example:
        >>> complete_pair("resnet20", None)
        ('resnet20', 'resnet32')
        >>> complete_pair(None, "resnet44")
        ('resnet32', 'resnet44')
    """
    if base and not motivated:
        return base, _next_bigger(base)
    if motivated and not base:
        return _next_smaller(motivated), motivated
    return base, motivated


def _next_bigger(base: str) -> str:
    # A family's networks are registered from small to big, so that the first one that fits is the next bigger.
    for name in list_models():
        if name != base and base in list_models(name):
            return name
    return base


def _next_smaller(motivated: str) -> str:
    if motivated not in ARCHITECTURES:
        return motivated
    for name in reversed(list_models(motivated)):
        if name != motivated:
            return name
    return motivated


def find_architecture(field: str, name: str) -> Architecture:
    """Return the architecture of a name.

    Args:
        field: what the name was given as, for the message.
        name: timm's name of the network.

    Raises:
        ValueError: If there is no such architecture; the message suggests a known one.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    raise ValueError(f"{field} = {name!r} is not a known architecture; {suggest_known(name, ARCHITECTURES)}")


def _fits(inner: Architecture, outer: Architecture) -> bool:
    # `contains` compares fields that only networks of the same family have.
    return inner.family == outer.family and outer.contains(inner)


def _check_options(architecture: Architecture, options: dict[str, Any]) -> None:
    known = architecture.option_names
    for option, value in options.items():
        if option not in known:
            # The option is misspelt, or it is one of another family.
            near = difflib.get_close_matches(option, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}"
            raise ValueError(f"{option} = {value!r}: {architecture.family} has no such option; {hint}")
