"""Plain modules whose weights are joined from blocks, such as an `nn.Linear` of the motivated network.

Such a module keeps its own code. Its class is replaced by a subclass in which the name of the weight is a property, so
that `self.weight` in the author's forward pass returns the joined weight. The blocks are in a child module, a
`NestedParameter` with the name `weight_blocks`: it could not be called `weight`, because `torch.func.functional_call`
and `torch.export` look up modules by attribute, and would find the property. A property of a class is also what
pickles, deep-copies, and compiles without recompiling when the modes alternate.
"""

import functools
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from nestnet.nn.mode import Mode
from nestnet.nn.module import NestedModule
from nestnet.nn.parameter import BLOCKS_SUFFIX, NestedParameter
from nestnet.nn.sync_batch_norm import run_synchronised


class JoinedModule(NestedModule):
    """Base class of modules with joined weights. Its subclasses are made by `join_weights`, one for each class of modules.

    Attributes:
        plain_class: the author's class.
        joined_names: names of the joined weights.
        parameter_names: names of all parameters of a plain module, in its order.
        is_synchronised: whether it is a BatchNorm layer that normalises by the images of all processes.
    """

    plain_class: type[nn.Module]
    joined_names: tuple[str, ...]
    parameter_names: tuple[str, ...]
    is_synchronised: bool

    def __reduce_ex__(self, protocol: Any) -> Any:
        # The class has no name by which pickle could find it.
        arguments = (self.plain_class, self.joined_names, self.parameter_names, self.is_synchronised)
        return _create_empty, arguments, self.__getstate__()

    def weight_names(self) -> Iterator[str]:
        present = set(super().weight_names())
        yield from (name for name in self.parameter_names if name in present)

    def _get_name(self) -> str:
        return self.plain_class.__name__


def join_weights(module: nn.Module, parameter_names: tuple[str, ...]) -> None:
    """Turn the nested parameters of a plain module into attributes with the names of its weights, in place.

    Args:
        module: module with a child `NAME_blocks` in place of the parameter `NAME`.
        parameter_names: names of all its parameters from before, in order.
    """
    names = []
    for child_name, child in module._modules.items():
        if isinstance(child, NestedParameter):
            names.append(child_name.removesuffix(BLOCKS_SUFFIX))
    plain_class: Any = type(module)
    module.__class__ = _joined_class(plain_class, tuple(names), parameter_names)
    # The list that a recurrent layer keeps would hold the whole weights in memory.
    vars(module).pop("_flat_weights", None)


def synchronise(layer: nn.Module) -> None:
    """Make a BatchNorm layer normalise by the images of all processes in training, in place.

    Args:
        layer: layer whose forward pass calls `F.batch_norm`, such as torch's or one of timm's with an activation.
    """
    plain_class: Any = type(layer)
    names: tuple[str, ...] = ()
    parameter_names = tuple(layer._parameters)
    if isinstance(layer, JoinedModule):
        plain_class = layer.plain_class
        names = layer.joined_names
        parameter_names = layer.parameter_names
    layer.__class__ = _joined_class(plain_class, names, parameter_names, True)


def separate_weights(module: nn.Module) -> None:
    """Turn a module with joined weights into a plain one of the author's class, in place.

    Args:
        module: module with joined weights, whose values its new parameters copy.
    """
    assert isinstance(module, JoinedModule)
    nested = dict(module.nested_parameters())
    parameter_names = module.parameter_names
    plain_class = module.plain_class
    module.__class__ = plain_class  # type: ignore[assignment]  # the author's class is no JoinedModule
    if isinstance(module, nn.RNNBase):
        module._flat_weights = [None] * len(module._flat_weights_names)
    for name, weight in nested.items():
        joined = weight(Mode.MOTIVATED).detach()
        del module._modules[name + BLOCKS_SUFFIX]
        is_trained = any(block.requires_grad for block in weight.blocks())
        setattr(module, name, nn.Parameter(joined, is_trained))
    # Optimizers know parameters by their order.
    parameters = {name: module._parameters[name] for name in parameter_names}
    module._parameters.clear()
    module._parameters.update(parameters)
    if isinstance(module, nn.RNNBase):
        module._init_flat_weights()


@functools.cache
def _joined_class(
    plain_class: Any, names: tuple[str, ...], parameter_names: tuple[str, ...], is_synchronised: bool = False
) -> type[nn.Module]:
    """Return the subclass of a class of modules in which these weights are joined."""
    attributes: dict[str, Any] = {
        "plain_class": plain_class,
        "joined_names": names,
        "parameter_names": parameter_names,
        "is_synchronised": is_synchronised,
        "__module__": plain_class.__module__,
    }
    attributes["__new__"] = _create_plain
    for name in names:
        attributes[name] = property(functools.partial(_join, name + BLOCKS_SUFFIX))
    if issubclass(plain_class, nn.RNNBase):
        attributes["_flat_weights"] = property(_flat_weights, _ignore)
        # Joined weights are new tensors each time, so that arranging them in memory is in vain.
        attributes["_update_flat_weights"] = _do_nothing
        attributes["flatten_parameters"] = _do_nothing
    if issubclass(plain_class, nn.ParameterList):
        attributes["__getitem__"] = _get_entries
    if is_synchronised:
        attributes["forward"] = _synchronised_forward
    return type(plain_class.__name__, (JoinedModule, plain_class), attributes)


def _join(child_name: str, module: nn.Module) -> Tensor:
    weight = module._modules[child_name]
    assert isinstance(weight, NestedParameter)
    return weight(Mode.MOTIVATED)


def _flat_weights(module: nn.RNNBase) -> list[Tensor]:
    """Return the weights of a recurrent layer, which otherwise keeps a list of its parameters."""
    return [getattr(module, name) for name in module._flat_weights_names]


def _ignore(module: nn.Module, value: Any) -> None: ...


def _do_nothing(module: nn.Module) -> None: ...


def _get_entries(entries: nn.ParameterList, index: Any) -> Any:
    """Return entries of a list of parameters. A slice as a list of parameters would cut joined ones off from the graph."""
    if isinstance(index, slice):
        return [entries[number] for number in range(*index.indices(len(entries)))]
    return nn.ParameterList.__getitem__(entries, index)


def _synchronised_forward(layer: JoinedModule, *args: Any, **options: Any) -> Any:
    forward = functools.partial(layer.plain_class.forward, layer)
    if not layer.training:
        return forward(*args, **options)
    return run_synchronised(forward, *args, **options)


def _create_plain(joined_class: Any, *args: Any, **options: Any) -> nn.Module:
    """Return a module of the author's class: what the author's code makes with `type(self)(...)` has weights of its own."""
    module: nn.Module = joined_class.plain_class(*args, **options)
    return module


def _create_empty(plain_class: Any, *arguments: Any) -> nn.Module:
    joined_class = _joined_class(plain_class, *arguments)
    # A module without attributes, whatever arguments the author's class needs.
    return object.__new__(joined_class)
