"""The layers into which timm divides the parameters of a network, for learning rates that decay from layer to layer."""

from collections.abc import Iterator
from typing import Any

from timm.models._manipulate import group_with_matcher
from timm.optim._param_groups import _layer_map
from torch import nn

from nestnet.nn.module import NestedModule
from nestnet.nn.parameter import NestedParameter


def group_weights(network: nn.Module, *, coarse: bool) -> dict[str, int]:
    """Return the number of the layer of each weight.

    Args:
        network: plain network of timm's or your own, whose weights may be joined from blocks.
        coarse: whether a layer is a whole stage instead of a block.

    Returns:
        The numbers by the names of the whole weights, as timm gives them to the plain network.
    """
    names = list(_whole_names(network))
    if hasattr(network, "group_matcher"):
        matcher: Any = network.group_matcher(coarse)  # type: ignore[operator]  # torch takes it for a module
        layers: dict[str, int] = group_with_matcher(iter([(name, None) for name in names]), matcher, reverse=True)
        return layers
    layers = _layer_map(_Named(network, names))
    return layers


class _Named:
    """What timm's automatic grouping asks for."""

    def __init__(self, network: nn.Module, names: list[str]) -> None:
        self.names = names
        self.pretrained_cfg = getattr(network, "pretrained_cfg", None) or {}

    def named_parameters(self) -> Iterator[tuple[str, None]]:
        for name in self.names:
            yield name, None


def _whole_names(module: nn.Module, prefix: str = "") -> Iterator[str]:
    """Yield the names of a plain network's parameters, in order."""
    if isinstance(module, NestedModule):
        names = list(module.weight_names())
    else:
        names = [name for name, parameter in module._parameters.items() if parameter is not None]
    for name in names:
        yield prefix + name
    for name, child in module.named_children():
        if not isinstance(child, NestedParameter):
            yield from _whole_names(child, f"{prefix}{name}.")
