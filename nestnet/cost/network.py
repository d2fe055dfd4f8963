"""The cost of a single network: operations, parameters and activation memory."""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import nn

from nestnet.config.schema_rules import as_img_size
from nestnet.cost.activation_memory import count_saved_bytes
from nestnet.cost.operations import CONVENTIONS, Convention, count_operations
from nestnet.models.registry import find_architecture
from nestnet.models.timm_networks import build_uninitialised
from nestnet.text.arguments import check_choice, is_whole


def forward_cost(
    name: str | nn.Module,
    *,
    img_size: int | Sequence[int],
    num_classes: int = 1000,
    in_chans: int = 3,
    convention: Convention = "macs",
    options: Mapping[str, Any] | None = None,
) -> int:
    """Return the cost of a forward pass of one image through a network.

    Args:
        name: timm's name of the network, or a network of your own, such as `net.standalone("base")`.
        img_size: height and width of the image in pixels, each at least 1; one number for a square image.
        num_classes: number of outputs of the head, at least 1; ignored for a network of your own.
        in_chans: number of channels of the image, at least 1.
        convention: `"macs"` counts multiply-accumulates of convolutions, linear layers and attention's two
            matrix products, and nothing else: no norms, activations, pooling or additions. `"paper"` is the
            convention of arXiv 2602.21064 (tables 8 to 11): for the CIFAR ResNets twice the sum of
            multiply-accumulates, 2 per output of BatchNorm, 1 per output of ReLU and 2 per input of the
            pooling; for all other families it is `"macs"`. Two of its figures are not those of the networks
            as trained: ResNet-50 and 101 have those of the ResNet paper, whose blocks stride in their first
            convolution, and each EfficientNet has that of the EfficientNet paper (arXiv 1905.11946, table 2)
            at a resolution of its own from 224 to 456 pixels, although all were trained at 224.
        options: further keyword arguments with which timm builds a network of this name.

    Returns:
        Number of operations.

    Raises:
        ValueError: For an unknown name or convention, or a size that is not a whole number, or is too small.

    Example:
        >>> import nestnet.cost
        >>> nestnet.cost.forward_cost("resnet20", img_size=32, num_classes=10)
        40813184
        >>> nestnet.cost.forward_cost("resnet20", img_size=32, num_classes=10, convention="paper")
        82822400
    """
    check_choice("convention", convention, CONVENTIONS)
    size = _check_sizes(img_size, num_classes, in_chans)
    if isinstance(name, nn.Module):
        return count_operations(_copy(name), (1, in_chans, *size), elementwise=False)
    _check_name(name, size)
    return _forward_cost(name, size, num_classes, in_chans, convention, _as_key(options))


@dataclass(frozen=True)
class Cost:
    """Cost of training a single network.

    Attributes:
        parameters: number of parameters.
        macs: number of multiply-accumulates of a forward pass of one image.
        activation_bytes: float32 memory that one more image in a batch keeps from its forward pass, up to the
            logits, for the backward pass. It is that of every tensor that autograd saves, shared memory
            counted once, without dropout. It leaves out what does not grow with the batch (weights,
            BatchNorm's statistics), and the loss. Attention is taken as fused, which does not keep its
            matrix.
    """

    parameters: int
    macs: int
    activation_bytes: int


def network_cost(
    name: str | nn.Module,
    *,
    img_size: int | Sequence[int],
    num_classes: int = 1000,
    in_chans: int = 3,
    options: Mapping[str, Any] | None = None,
) -> Cost:
    """Return the parameters, multiply-accumulates and activation memory of a network.

    Args:
        name: timm's name of the network, or a network of your own, such as `net.standalone("base")`.
        img_size: height and width of the images in pixels, each at least 1; one number for square images.
        num_classes: number of outputs of the head, at least 1; ignored for a network of your own.
        in_chans: number of channels of the images, at least 1.
        options: further keyword arguments with which timm builds a network of this name.

    Returns:
        The costs.

    Raises:
        ValueError: For an unknown name, or a size that is not a whole number, or is too small.

    Example:
        >>> import nestnet.cost
        >>> nestnet.cost.network_cost("resnet20", img_size=32, num_classes=10)
        Cost(parameters=272474, macs=40813184, activation_bytes=1569024)
    """
    size = _check_sizes(img_size, num_classes, in_chans)
    if isinstance(name, nn.Module):
        own = _copy(name)
        macs = count_operations(own, (1, in_chans, *size), elementwise=False)
        return _cost_of(own, macs, size, in_chans)
    _check_name(name, size)
    return _network_cost(name, size, num_classes, in_chans, _as_key(options))


@cache
def _network_cost(name: str, size: tuple[int, int], num_classes: int, in_chans: int, options: str) -> Cost:
    macs = _forward_cost(name, size, num_classes, in_chans, "macs", options)
    network = _build_network(name, size, num_classes, in_chans, options)
    return _cost_of(network, macs, size, in_chans)


def _cost_of(network: nn.Module, macs: int, size: tuple[int, int], in_chans: int) -> Cost:
    """Return the cost of a network, which is put into training mode."""
    # The difference leaves out what does not depend on the batch size. A batch of one image would fail in a
    # BatchNorm over a single pixel.
    bytes_of_three = count_saved_bytes(network, (3, in_chans, *size))
    bytes_of_two = count_saved_bytes(network, (2, in_chans, *size))
    parameters = sum(p.numel() for p in network.parameters())
    return Cost(parameters, macs, bytes_of_three - bytes_of_two)


def _check_sizes(img_size: int | Sequence[int], num_classes: int, in_chans: int) -> tuple[int, int]:
    """Return height and width, after checking all sizes."""
    # Anything else than a pair is taken for one number.
    sides: list[Any] = [img_size, img_size]
    if isinstance(img_size, (list, tuple)):
        sides = list(img_size)
    if len(sides) != 2 or not all(is_whole(side, 1) for side in sides):
        raise ValueError(f"img_size = {img_size!r}: it must be a whole number of at least 1, or two of them")
    for field, value in {"num_classes": num_classes, "in_chans": in_chans}.items():
        if not is_whole(value, 1):
            raise ValueError(f"{field} = {value!r}: it must be a whole number of at least 1")
    height, width = sides
    return height, width


def _check_name(name: str, size: tuple[int, int]) -> None:
    architecture = find_architecture("name", name)
    # An image smaller than the divisor has no patch, which timm's message would not say.
    smallest = architecture.img_size_divisor
    if min(size) < smallest:
        raise ValueError(f"img_size = {as_img_size(size)}: {name} needs at least {smallest} pixels a side")


def _copy(network: nn.Module) -> nn.Module:
    """Return a copy of a network on the CPU, because counting changes its mode."""
    return copy.deepcopy(network).cpu()


def _as_key(options: Mapping[str, Any] | None) -> str:
    """Return the options as text, by which results are cached."""
    return json.dumps(dict(options or {}), sort_keys=True)


def _build_network(name: str, size: tuple[int, int], num_classes: int, in_chans: int, options: str) -> nn.Module:
    arguments: dict[str, Any] = json.loads(options)
    if find_architecture("name", name).takes_img_size:
        # Square images are given as one number, which every family with this option accepts.
        arguments["img_size"] = size[0] if size[0] == size[1] else size
    return build_uninitialised(name, num_classes=num_classes, in_chans=in_chans, **arguments)


@cache
def _forward_cost(
    name: str, size: tuple[int, int], num_classes: int, in_chans: int, convention: Convention, options: str
) -> int:
    # The results are cached, because a run asks for the same few networks many times.
    network = _build_network(name, size, num_classes, in_chans, options)
    elementwise = convention == "paper" and find_architecture("name", name).paper_counts_flops
    return count_operations(network, (1, in_chans, *size), elementwise=elementwise)
