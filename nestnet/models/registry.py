"""Architectures by name: which there are, which pairs nest, and how a pair is created."""

import difflib
from typing import Any

import timm

# The families register themselves when they are imported, so that whoever looks up a name here finds the networks of
# all of them. The package's `__init__` must not import them: importing timm imports `cifar_resnet` (see
# `nestnet/__init__.py`), and where `nestnet.nn` is what imports timm first, the families would need `nestnet.nn` before
# it is ready.
from nestnet.models import cifar_resnet, efficientnet, resnet, vit  # noqa: F401  # they register themselves
from nestnet.models.architecture import Architecture
from nestnet.models.registration import ARCHITECTURES as ARCHITECTURES
from nestnet.models.registration import register_architecture as register_architecture
from nestnet.models.timm_architecture import timm_architecture
from nestnet.nn.mode import PerMode
from nestnet.nn.model import NestedModel
from nestnet.text.arguments import is_whole


def list_models(motivated: str | None = None) -> list[str]:
    """Return the names of all architectures, or of those that fit inside a given one.

    Args:
        motivated: name of the network inside which the listed networks fit; `None` lists all networks.

    Returns:
        timm's names. Those of a family are in order from small to big.

    Raises:
        ValueError: If `motivated` is not a known network.

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

    Its weights are those with which timm initialises the motivated network. The base is a part of them. ResNet, ViT and
    EfficientNet are families of nestnet's own, whose one forward pass has a mode. Any other pair that timm builds is
    nested by `nestnet.nest`.

    Args:
        base: timm's name of the small network, such as `"resnet20"` or `"convnextv2_atto"`.
        motivated: timm's name of the big network. Any base fits inside any network of its family that is at
            least as big.
        num_classes: number of outputs of the head, at least 1.
        in_chans: number of channels of the images, at least 1.
        options: options of the pair. All pairs have `drop_rate` (dropout before the head) and
            `drop_path_rate` (stochastic depth), each one number for both modes or a pair `[base, motivated]`,
            and `batch_norm`: `"private"` (the default; each mode has its own running statistics), `"shared"`
            or `"separate"` (each mode also has its own scale and shift); a ViT has no BatchNorm. ResNet and
            EfficientNet: `depth_map`, the motivated blocks that hold a stage's base blocks: `"last"`, `"first"` or
            `"uniform"` (see `nestnet.nn.stage.depth_map`). ResNet: `zero_init_last`, whether each block's last BatchNorm starts
            at 0. ViT: `img_size`, `qkv_map` (`"heads"` or `"prefix"`), `pos_drop_rate`, `proj_drop_rate` and
            `attn_drop_rate`. Any other pair: `depth_map`, `groups` (see `nestnet.nest`), `img_size` if its networks are
            built for one size of images, and `options`, further keyword arguments of timm's networks for both; those
            of one of them are below `base` or `motivated`.

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
    return architectures.motivated.create(names, architectures, num_classes=num_classes, in_chans=in_chans, **options)


def check_pair(base: str, motivated: str) -> PerMode[Architecture]:
    """Return the architectures of a pair whose names are known.

    Args:
        base: timm's name of the base network.
        motivated: timm's name of the motivated network.

    Returns:
        The architecture of each mode: of a family of nestnet's own if both are of the same one, and otherwise
        as any networks of timm's.

    Raises:
        ValueError: If a name is unknown, or two networks of nestnet's own families do not nest; the message lists
            networks that do. Whether any other pair nests is found when it is built, because it depends on options.
    """
    inner = find_architecture("base", base)
    outer = find_architecture("motivated", motivated)
    if base in ARCHITECTURES and motivated in ARCHITECTURES:
        if _fits(inner, outer):
            return PerMode(inner, outer)
        # The message lists the networks that nest with either of the two.
        outers = [name for name, architecture in ARCHITECTURES.items() if _fits(inner, architecture)]
        raise ValueError(
            f"base = {base!r} ({inner.family}) does not fit inside motivated = {motivated!r} ({outer.family}): inside "
            f"{motivated} fit {', '.join(list_models(motivated))}; {base} fits inside {', '.join(outers)}"
        )
    return PerMode(timm_architecture(base), timm_architecture(motivated))


def find_architecture(field: str, name: str) -> Architecture:
    """Return the architecture of a name.

    Args:
        field: what the name was given as, for the message.
        name: timm's name of the network.

    Returns:
        That of a family of nestnet's own if there is one, and otherwise what timm's network tells.

    Raises:
        ValueError: If there is no such network; the message suggests a known one.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    if is_known(name):
        return timm_architecture(name)
    # timm knows far more networks than a message can list.
    near = difflib.get_close_matches(name, [*ARCHITECTURES, *timm.list_models()], n=1)
    hint = f"did you mean {near[0]}?" if near else "`nestnet models PATTERN` lists those whose names match"
    raise ValueError(f"{field} = {name!r} is not a network of timm's; {hint}")


def is_known(name: str) -> bool:
    """Return whether there is a network of a name.

    Args:
        name: name that may be timm's, or one that is registered with it.
    """
    # timm would look up a name like `hf-hub:...` elsewhere, and a tag after a dot names weights.
    return name in ARCHITECTURES or ("." not in name and ":" not in name and timm.is_model(name))


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
