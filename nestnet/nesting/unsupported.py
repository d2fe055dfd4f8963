"""What makes it impossible to divide the weights of two networks, whatever their shapes are."""

import weakref
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn
from torch.nn.parameter import UninitializedParameter

from nestnet.nesting.misfits import Misfit
from nestnet.nn.module import NestedModule
from nestnet.nn.placement import Placement

NESTED_BASES: weakref.WeakSet[nn.Module] = weakref.WeakSet()
"""Networks that are the base of a pair. Unlike the motivated network's modules, theirs are as they were."""


def find_unsupported(base: nn.Module, motivated: nn.Module) -> Iterator[Misfit]:
    """Yield what makes it impossible to nest two networks, whatever their shapes are.

    Args:
        base: base network.
        motivated: motivated network.
    """
    if base is motivated:
        yield Misfit("same", "base and motivated are the same object; make two")
        return
    yield from _find_in_network(base, "base")
    yield from _find_in_network(motivated, "motivated network")
    if not any(True for _ in base.parameters()):
        yield Misfit("empty", "the base has no parameters, so that there is nothing to share")
    classes = [getattr(network, "num_classes", None) for network in (base, motivated)]
    if all(isinstance(count, int) for count in classes) and classes[0] != classes[1]:
        text = f"the base has {classes[0]} outputs, and the motivated network {classes[1]}"
        yield Misfit("classes", f"{text}; make both with the same num_classes")
    base_kinds = _kinds_of_tensors(base)
    motivated_kinds = _kinds_of_tensors(motivated)
    if base_kinds and motivated_kinds and base_kinds != motivated_kinds:
        text = f"the base is {' and '.join(base_kinds)}, and the motivated network {' and '.join(motivated_kinds)}"
        yield Misfit("type", f"{text}; convert one of them with to()")
    base_paths = {id(module): path for path, module in base.named_modules()}
    base_parameters = {id(parameter) for parameter in base.parameters()}
    for path, module in motivated.named_modules():
        if id(module) in base_paths and _has_tensors(module):
            yield Misfit("same", f"{path} of the motivated network is the same module as the base's; make two")
        elif not base_parameters.isdisjoint(map(id, module._parameters.values())):
            yield Misfit("same", f"{path} of the motivated network has a parameter of the base; make two")


def find_untied(base: nn.Module, motivated: nn.Module, placements: Mapping[str, Placement]) -> Iterator[Misfit]:
    """Yield the names of weights that are one parameter in one of the networks, and several in the other.

    Args:
        base: base network.
        motivated: motivated network.
        placements: placement of each base parameter.
    """
    base_parameters = dict(base.named_parameters(remove_duplicate=False))
    motivated_parameters = dict(motivated.named_parameters(remove_duplicate=False))
    partners: dict[int, tuple[str, int]] = {}
    partners_back: dict[int, tuple[str, int]] = {}
    for name, placement in placements.items():
        inner = id(base_parameters[name])
        outer = id(motivated_parameters[placement.name])
        first_name, partner = partners.setdefault(inner, (name, outer))
        first_back, partner_back = partners_back.setdefault(outer, (name, inner))
        if partner != outer:
            yield Misfit("tied", f"{name} is tied to {first_name} in the base alone; tie them in both networks")
        elif partner_back != inner:
            yield Misfit(
                "tied", f"{name} is tied to {first_back} in the motivated network alone; tie them in both networks"
            )


def _find_in_network(network: nn.Module, which: str) -> Iterator[Misfit]:
    """Yield what makes it impossible to divide the weights of one network."""
    paths: dict[tuple[int, str], str] = {}
    registered = set(map(id, network.modules()))
    if network in NESTED_BASES:
        yield Misfit("nested", f"the {which} is the base of a nested network already; nest a copy of it")
        return
    for path, module in network.named_modules(remove_duplicate=False):
        where = f"{path or type(module).__name__} of the {which}"
        if isinstance(module, NestedModule):
            yield Misfit("nested", f"{where} is part of a nested network already; nest new modules")
            return
        # One module may be handed to several others, as position encodings are in a CoaT, if it is in both networks: see
        # `find_untied`. Two names for one module in the same place are a mistake more often than not. What has no tensors,
        # such as an activation, may have any number of places.
        parent = path.rpartition(".")[0]
        first_path = paths.setdefault((id(module), parent), path)
        if first_path != path and _has_tensors(module):
            text = f"{where} is the same module as {first_path}; make two, with tied weights if need be"
            yield Misfit("shared module", text)
        yield from _find_hidden(module, where, registered)
        yield from _find_in_module(module, where)


def _find_in_module(module: nn.Module, where: str) -> Iterator[Misfit]:
    """Yield what is not supported of a module itself."""
    if type(module).get_extra_state is not nn.Module.get_extra_state:
        yield Misfit("extra state", f"{where} has extra state (get_extra_state); only tensors nest")
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.max_norm is not None:
        yield Misfit(
            "writes", f"{where} writes to its weight (max_norm), which is joined from blocks; set max_norm=None"
        )
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.sparse:
        yield Misfit("sparse", f"{where} has sparse gradients, which cannot be divided; set sparse=False")
    if nn.utils.parametrize.is_parametrized(module):
        names = ", ".join(module.parametrizations)  # type: ignore[arg-type]  # it is an nn.ModuleDict
        yield Misfit(
            "parametrized",
            f"{where} computes {names} by a parametrization; remove it with torch.nn.utils.parametrize before nesting",
        )
    for name, parameter in module._parameters.items():
        if isinstance(parameter, UninitializedParameter):
            yield Misfit("lazy", f"{name} at {where} has no shape yet; run one batch before nesting")


def _find_hidden(module: nn.Module, where: str, registered: set[int]) -> Iterator[Misfit]:
    """Yield the attributes that hold parameters, or modules with parameters, which are not registered."""
    for name, value in vars(module).items():
        # An `nn.LSTM` lists its registered parameters once more.
        if name in ("_parameters", "_buffers", "_modules") or isinstance(module, nn.RNNBase):
            continue
        for entry in _entries(value):
            if isinstance(entry, nn.Parameter):
                text = f"{where} has a parameter in {name} that torch does not know; register it"
                yield Misfit("hidden parameter", text)
                break
            if isinstance(entry, nn.Module) and id(entry) not in registered and _has_tensors(entry):
                text = f"{where} has a module in {name} that torch does not know; register it, as in an nn.ModuleList"
                yield Misfit("hidden module", text)
                break


def _entries(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _kinds_of_tensors(network: nn.Module) -> list[str]:
    """Return the types and devices of a network's parameters."""
    return sorted({f"{parameter.dtype} on {parameter.device}" for parameter in network.parameters()})


def _has_tensors(module: nn.Module) -> bool:
    return any(True for _ in module.parameters()) or any(True for _ in module.buffers())
