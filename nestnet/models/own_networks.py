"""Networks of a user's own, registered with timm, so that everything that takes timm's names takes theirs."""

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import timm
import torch
from timm.models import PretrainedCfg, build_model_with_cfg, register_model
from torch import nn

from nestnet.nn.meta_device import meta_device

Build = TypeVar("Build", bound=Callable[..., nn.Module])

OWN_NETWORKS: dict[str, Callable[..., nn.Module]] = {}
"""The function that builds each network that `register_network` has registered, by name."""

REQUIRED_ARGUMENTS = ("num_classes", "in_chans")
"""Arguments that such a function takes: the number of outputs, and the number of channels of the images."""


def register_network(name: str) -> Callable[[Build], Build]:
    """Make a network of your own known under a name, to nestnet and to timm.

    `timm.create_model(name)` then builds it, `nestnet.create_model` and the command line nest it in another one, and
    exports of it are loaded by name. The command imports the file of the function with `--import MODULE`.

    Args:
        name: name of the network, which timm must not have.

    Returns:
        A decorator for a function with the keyword arguments `num_classes` and `in_chans`, and any others, which returns
        the network. A network that is built for one size of images takes `img_size` too, in pixels. The decorator
        returns the function as it is.

    Raises:
        ValueError: If there is a network of this name already; from the decorator, if the function does not take the
            arguments.

    Example:
        >>> import nestnet
        >>> from torch import nn
        >>> @nestnet.register_network("tiny_net")
        ... def tiny_net(num_classes, in_chans):
        ...     pool = nn.AdaptiveAvgPool2d(1)
        ...     return nn.Sequential(nn.Conv2d(in_chans, 4, 3), pool, nn.Flatten(), nn.Linear(4, num_classes))
        >>> import timm
        >>> timm.is_model("tiny_net")
        True
    """
    if timm.is_model(name):
        raise ValueError(f"network {name!r}: timm knows one of this name already; take another name")

    def register(build: Build) -> Build:
        _check_arguments(name, build)

        def entrypoint(pretrained: bool = False, **options: Any) -> nn.Module:
            # timm passes `None`. By the names of two layers it loads weights of another head or number of channels.
            if options.get("pretrained_cfg") is None:
                options["pretrained_cfg"] = _describe(name)
            return build_model_with_cfg(build, name, pretrained, **options)

        # timm lists a network by the name and the module of its function, which code that is not imported does not have.
        entrypoint.__name__ = name
        if build.__module__ in sys.modules:
            entrypoint.__module__ = build.__module__
        OWN_NETWORKS[name] = build
        register_model(entrypoint)
        return build

    return register


def _check_arguments(name: str, build: Callable[..., nn.Module]) -> None:
    parameters = inspect.signature(build).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    taken = {parameter.name for parameter in parameters}
    for argument in REQUIRED_ARGUMENTS:
        if argument not in taken:
            raise ValueError(f"network {name!r}: its function must take the keyword argument {argument}")


@functools.cache
def _describe(name: str) -> PretrainedCfg:
    """Return what timm must know about a network: the names of its first convolution and of its classifier."""
    num_classes = 1000
    with torch.random.fork_rng(devices=[]), meta_device():
        network = OWN_NETWORKS[name](num_classes=num_classes, in_chans=3)
    first_convolution = None
    classifier = None
    for path, module in network.named_modules():
        if isinstance(module, nn.modules.conv._ConvNd) and first_convolution is None:
            first_convolution = path
        if isinstance(module, nn.Linear) and module.out_features == num_classes:
            classifier = path
    return PretrainedCfg(
        architecture=name, num_classes=num_classes, first_conv=first_convolution, classifier=classifier
    )
