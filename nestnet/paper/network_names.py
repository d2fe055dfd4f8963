"""The names of networks in arXiv 2602.21064: `ResNet-20-C`, `Res-20-32-B`, `ViT-tiny-small-M`."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["C", "B", "M"]
"""`C`: trained alone, classically. `B` and `M`: the base and the motivated network of one nested training."""


@dataclass(frozen=True)
class FamilyPrefix:
    """Prefixes of the names of a family.

    Attributes:
        timm: prefix in timm.
        alone: prefix in the paper for a network trained alone.
        pair: prefix in the paper for a network of a pair.
    """

    timm: str
    alone: str
    pair: str


FAMILY_PREFIXES = (
    FamilyPrefix(timm="resnet", alone="ResNet-", pair="Res-"),
    FamilyPrefix(timm="vit_", alone="ViT-", pair="ViT-"),
    FamilyPrefix(timm="efficientnet_b", alone="EfficientNet-B", pair="Eff-"),
)

# A family that is not in the paper keeps its own names.
OTHER_FAMILY = FamilyPrefix(timm="", alone="", pair="")


def format_network_name(network: str, role: Role, pair: tuple[str, str] | None = None) -> str:
    """Format the name of a network as in the paper.

    Args:
        network: timm's name of the network.
        role: how it was trained.
        pair: timm's names of the base and the motivated network; needed for the roles `"B"` and `"M"`.

    Returns:
        The paper's name of a network trained alone, or as part of a pair.

    Example:
        >>> format_network_name("vit_tiny_patch16_224", "C")
        'ViT-tiny-C'
        >>> format_network_name("efficientnet_b1", "M", ("efficientnet_b0", "efficientnet_b1"))
        'Eff-0-1-M'
    """
    # The paper writes out the family of a network trained alone, and abbreviates it in a pair.
    prefix = OTHER_FAMILY
    for family in FAMILY_PREFIXES:
        if network.startswith(family.timm):
            prefix = family
            break
    if role == "C":
        return f"{prefix.alone}{_size(network)}-C"
    assert pair is not None, "B and M are roles in a pair"
    base, motivated = pair
    return f"{prefix.pair}{_size(base)}-{_size(motivated)}-{role}"


def _size(network: str) -> str:
    """Return the part of a name that distinguishes the networks of a family, such as `20` or `tiny`."""
    # Every ViT of the paper has patches of 16 and images of 224 pixels.
    for family in FAMILY_PREFIXES:
        network = network.replace(family.timm, "")
    return network.replace("_patch16_224", "")
