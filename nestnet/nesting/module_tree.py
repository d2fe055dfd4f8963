"""A network as the matching sees it: kinds, names, shapes and settings of its modules, without their values."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

Shape = tuple[int, ...]

SIMPLE_TYPES = (bool, int, float, str)


@dataclass(frozen=True)
class ModuleTree:
    """A module and its children.

    Attributes:
        kind: name of the module's class.
        parameters: shape of each parameter of the module itself, by name.
        settings: simple attributes of the module itself, such as the stride of a convolution, by name.
        children: trees of the children by name.
    """

    kind: str
    parameters: dict[str, Shape]
    settings: dict[str, Any]
    children: dict[str, "ModuleTree"]

    @classmethod
    def of(cls, module: nn.Module) -> "ModuleTree":
        """Return the tree of a module.

        Args:
            module: network, or a part of it.
        """
        # The private dictionaries also hold entries that are `None`, such as an absent bias.
        parameters = {}
        for name, parameter in module._parameters.items():
            if parameter is not None:
                parameters[name] = tuple(parameter.shape)
        settings = {}
        for name, value in vars(module).items():
            if not name.startswith("_") and name != "training" and _is_simple(value):
                settings[name] = tuple(value) if isinstance(value, list) else value
        children = {}
        for name, child in module._modules.items():
            if child is not None:
                children[name] = cls.of(child)
        return cls(type(module).__name__, parameters, settings, children)

    @property
    def is_empty(self) -> bool:
        """Whether neither the module nor any module below it has parameters."""
        return not self.parameters and all(child.is_empty for child in self.children.values())

    def shape(self, path: str) -> Shape | None:
        """Return the shape of a parameter below this module.

        Args:
            path: names of the modules and of the parameter, with dots between them.

        Returns:
            The shape; `None` if there is no such parameter.
        """
        first, dot, rest = path.partition(".")
        if not dot:
            return self.parameters.get(path)
        if first not in self.children:
            return None
        return self.children[first].shape(rest)

    def named_shapes(self, prefix: str = "") -> Iterator[tuple[str, Shape]]:
        """Yield the path and the shape of each parameter of this module and the modules below it.

        Args:
            prefix: start of the paths, with its trailing dot.
        """
        for name, shape in self.parameters.items():
            yield prefix + name, shape
        for name, child in self.children.items():
            yield from child.named_shapes(f"{prefix}{name}.")


def _is_simple(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(isinstance(entry, SIMPLE_TYPES) for entry in value)
    return isinstance(value, SIMPLE_TYPES)
