"""What a plain network says about itself: its name, its outputs, and the images that it takes."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

SIZES = (64, 32, 28, 128, 224, 96, 256, 384, 240)
"""Heights and widths of images that are tried in turn, if the networks do not tell for which size they are made."""

VECTORS = 16
"""Number of vectors for a network that takes no images. Two of them might not reach the negative side of an activation."""


def name_of(network: nn.Module) -> str:
    """Return timm's name of a network, or that of its class.

    Args:
        network: network of timm's or of your own.
    """
    config = getattr(network, "pretrained_cfg", None) or {}
    return config.get("architecture") or type(network).__name__


def img_size_of(network: nn.Module) -> tuple[int, int] | None:
    """Return the height and width of the images for whose patches a transformer is built, if it is one.

    Args:
        network: network of timm's or of your own.
    """
    img_size = getattr(getattr(network, "patch_embed", None), "img_size", None)
    return img_size if isinstance(img_size, tuple) else None


def count_classes(network: nn.Module) -> int:
    """Return the number of outputs that a network says it has, or that of its last layer; 0 if neither tells.

    Args:
        network: network of timm's or of your own.
    """
    num_classes = getattr(network, "num_classes", None)
    if isinstance(num_classes, int):
        return num_classes
    count = 0
    for module in network.modules():
        if isinstance(module, nn.Linear):
            count = module.out_features
        elif isinstance(module, nn.Conv2d):
            count = module.out_channels
    return count


def count_channels(network: nn.Module) -> int:
    """Return the number of input channels of the first layer; 0 if it is none that tells.

    Args:
        network: network of timm's or of your own.
    """
    for module in network.modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            return module.in_channels
        if isinstance(module, nn.Linear):
            return module.in_features
    return 0


def find_inputs(network: nn.Module, in_chans: int) -> Tensor | None:
    """Return two random images, or some vectors, that a network takes.

    Args:
        network: network, which is not changed.
        in_chans: number of channels of the images.

    Returns:
        Images `[2, C, H, W]`, or vectors `[N, D]` for a network that begins with a linear layer; `None` if the
        network takes no size that was tried.
    """
    first = next((module for module in network.modules() if not list(module.children())), None)
    shapes: list[tuple[int, ...]] = []
    for size in (*_own_sizes(network), *((size, size) for size in SIZES)):
        shapes.append((2, in_chans, *size))
    if isinstance(first, nn.Linear):
        shapes.insert(0, (VECTORS, first.in_features))
    # A copy that shares the parameters, because it changes to evaluation mode.
    shared: dict[int, Any] = {id(parameter): parameter for parameter in network.parameters()}
    probe = copy.deepcopy(network, shared).eval()
    parameter = next(network.parameters(), None)
    generator = torch.Generator().manual_seed(0)
    for shape in shapes:
        inputs = torch.randn(shape, generator=generator, dtype=torch.float64)
        try:
            with torch.no_grad():
                probe(inputs.to(parameter) if parameter is not None else inputs.float())
        except Exception:  # whatever the network raises for images of a size that it does not take
            continue
        return inputs
    return None


def _own_sizes(network: Any) -> list[tuple[int, int]]:
    """Return the image size for which a network says that it is made."""
    sizes: list[tuple[int, int]] = []
    img_size = img_size_of(network)
    if img_size is not None:
        sizes.append(img_size)
    config = getattr(network, "pretrained_cfg", None) or {}
    if config.get("fixed_input_size"):
        sizes.append(tuple(config["input_size"][1:]))
    return sizes
