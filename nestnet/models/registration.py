"""The table of all architectures, and the decorator by which a family adds its own.

The families import this file. What looks up an architecture imports `nestnet.models.registry`, which imports the
families first.
"""

from collections.abc import Callable
from typing import TypeVar

from nestnet.models.architecture import Architecture

ARCHITECTURES: dict[str, Architecture] = {}
"""All registered architectures by timm's name, those of a family from small to big."""

Variant = TypeVar("Variant", bound=Callable[[], Architecture])


def register_architecture(name: str) -> Callable[[Variant], Variant]:
    """Make an architecture known under a name.

    Args:
        name: timm's name of the network; `timm.create_model` must know it too.

    Returns:
        A decorator for a function, or a class, that returns the `Architecture` when it is called without
        arguments. The decorator returns the function or class as it is.

    Raises:
        ValueError: If there is an architecture of this name already; from the decorator, if the function or
            class returns something else than an `Architecture`.

    Example:
        >>> import nestnet
        >>> from nestnet.models.resnet import ResNetArchitecture
        >>> @nestnet.register_architecture("resnet26")
        ... def resnet26():
        ...     return ResNetArchitecture((2, 2, 2, 2), bottleneck=True)
        >>> nestnet.list_models("resnet26")
        ['resnet26']
        >>> del ARCHITECTURES["resnet26"]
    """
    if name in ARCHITECTURES:
        raise ValueError(f"architecture {name!r}: there is one of this name already")

    def register(variant: Variant) -> Variant:
        architecture = variant()
        if not isinstance(architecture, Architecture):
            raise ValueError(
                f"architecture {name!r}: {variant!r} must return a nestnet.Architecture, not {architecture!r}"
            )
        ARCHITECTURES[name] = architecture
        return variant

    return register
