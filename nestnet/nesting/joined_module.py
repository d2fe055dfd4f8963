"""Plain modules whose weights are joined from blocks, such as an `nn.Linear` of the motivated network.

Such a module keeps its own code. Its class is replaced by a subclass in which the name of the weight is a property, so
that `self.weight` in the author's forward pass returns the joined weight. The blocks are in a child module, a
`NestedParameter` with the name `weight_blocks`: it could not be called `weight`, because `torch.func.functional_call`
and `torch.export` look up modules by attribute, and would find the property. A property of a class is also what
pickles, deep-copies, and compiles without recompiling when the modes alternate.
"""

import functools
from typing import Any

from torch import Tensor, nn

from nestnet.nn.mode import Mode
from nestnet.nn.module import NestedModule
from nestnet.nn.parameter import BLOCKS_SUFFIX, NestedParameter


class JoinedModule(NestedModule):
    """Base class of modules with joined weights. Its subclasses are made by `join_weights`, one for each class of modules.

    Attributes:
        plain_class: the author's class.
        joined_names: names of the joined weights.
    """

    plain_class: type[nn.Module]
    joined_names: tuple[str, ...]

    def __reduce_ex__(self, protocol: Any) -> Any:
        # The class has no name by which pickle could find it.
        return _create_empty, (self.plain_class, self.joined_names), self.__getstate__()

    def __getstate__(self) -> Any:
        return self.__dict__

    def _get_name(self) -> str:
        return self.plain_class.__name__


def join_weights(module: nn.Module) -> None:
    """Turn the nested parameters of a plain module into attributes with the names of its weights, in place.

    Args:
        module: module with a child `NAME_blocks` in place of the parameter `NAME`.
    """
    names = []
    for child_name, child in module._modules.items():
        if isinstance(child, NestedParameter):
            names.append(child_name.removesuffix(BLOCKS_SUFFIX))
    plain_class: Any = type(module)
    module.__class__ = _joined_class(plain_class, tuple(names))


def separate_weights(module: nn.Module) -> None:
    """Turn a module with joined weights into a plain one of the author's class, in place.

    Args:
        module: module with joined weights, whose values its new parameters copy.
    """
    assert isinstance(module, JoinedModule)
    nested = dict(module.nested_parameters())
    plain_class = module.plain_class
    module.__class__ = plain_class  # type: ignore[assignment]  # the author's class is no JoinedModule
    for name, weight in nested.items():
        joined = weight(Mode.MOTIVATED).detach()
        del module._modules[name + BLOCKS_SUFFIX]
        # An `nn.LSTM` keeps a list of its parameters, which setting the attribute brings up to date.
        setattr(module, name, nn.Parameter(joined, weight.base.requires_grad))


@functools.cache
def _joined_class(plain_class: Any, names: tuple[str, ...]) -> type[nn.Module]:
    """Return the subclass of a class of modules in which these weights are joined."""
    attributes: dict[str, Any] = {
        "plain_class": plain_class,
        "joined_names": names,
        "__module__": plain_class.__module__,
    }
    for name in names:
        attributes[name] = property(functools.partial(_join, name + BLOCKS_SUFFIX))
    if issubclass(plain_class, nn.RNNBase):
        attributes["_flat_weights"] = property(_flat_weights, _ignore)
    return type(plain_class.__name__, (JoinedModule, plain_class), attributes)


def _join(child_name: str, module: nn.Module) -> Tensor:
    weight = module._modules[child_name]
    assert isinstance(weight, NestedParameter)
    return weight(Mode.MOTIVATED)


def _flat_weights(module: nn.RNNBase) -> list[Tensor]:
    """Return the weights of a recurrent layer, which otherwise keeps a list of its parameters."""
    return [getattr(module, name) for name in module._flat_weights_names]


def _ignore(module: nn.Module, value: Any) -> None: ...


def _create_empty(plain_class: Any, names: tuple[str, ...]) -> nn.Module:
    joined_class = _joined_class(plain_class, names)
    return joined_class.__new__(joined_class)
