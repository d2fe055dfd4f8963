"""Building timm's networks, with their weights or without memory."""

import functools
from typing import Any

import timm
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nestnet.nesting.module_tree import ModuleTree
from nestnet.nn.meta_device import meta_device
from nestnet.text.messages import first_line


def build_network(name: str, **options: Any) -> nn.Module:
    """Build a network of timm's.

    Args:
        name: timm's name of the network.
        options: keyword arguments of `timm.create_model`.

    Returns:
        The network.

    Raises:
        ValueError: If timm refuses an argument.
    """
    try:
        return timm.create_model(name, **options)
    except (TypeError, ValueError, AssertionError, RuntimeError, KeyError) as error:  # timm's, for arguments
        given = ", ".join(f"{key}={value!r}" for key, value in options.items())
        raise ValueError(f"{name} cannot be built with {given}: {first_line(error)}") from error


def build_on_meta(name: str, **options: Any) -> Any:
    """Build a network of timm's without memory, for its names, shapes and facts.

    Args:
        name: timm's name of the network.
        options: keyword arguments of `timm.create_model`.

    Returns:
        The network on the meta device, or on the CPU if it computes with values while it is built.

    Raises:
        ValueError: If timm refuses an argument.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            with meta_device():
                return build_network(name, **options)
        except ValueError:
            # An argument that timm refuses raises the same error again.
            return build_network(name, **options)


def build_uninitialised(name: str, **options: Any) -> nn.Module:
    """Build a network of timm's whose weights have any values, without drawing random numbers.

    Args:
        name: timm's name of the network.
        options: keyword arguments of `timm.create_model`.

    Returns:
        The network on the CPU.

    Raises:
        ValueError: If timm refuses an argument.
    """
    network: nn.Module = build_on_meta(name, **options)
    # Other buffers than statistics, such as tables of positions, need their values.
    has_tables = any(module._buffers and not isinstance(module, _BatchNorm) for module in network.modules())
    if has_tables:
        with torch.random.fork_rng(devices=[]):
            return build_network(name, **options)
    return network.to_empty(device="cpu")


@functools.cache
def build_skeleton(name: str) -> Any:
    """Return a network of timm's without memory, for its names, shapes and facts.

    Args:
        name: timm's name of the network.
    """
    return build_on_meta(name)


@functools.cache
def module_tree(name: str) -> ModuleTree:
    """Return the names and shapes of a network of timm's.

    Args:
        name: timm's name of the network.
    """
    return ModuleTree.of(build_skeleton(name))
