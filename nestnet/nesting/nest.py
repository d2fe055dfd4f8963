"""Nesting one plain module in another."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import UninitializedParameter

from nestnet.nesting.joined_module import join_weights
from nestnet.nesting.matching import Matching, match_networks
from nestnet.nesting.misfits import Misfit, MisfitError
from nestnet.nesting.module_tree import ModuleTree
from nestnet.nesting.nested_pair import NestedPair
from nestnet.nesting.rules import OwnGroups
from nestnet.nesting.verification import Plan, check_plans, find_inputs
from nestnet.nn.batch_norm import PRIVATE_PREFIX, STATISTICS
from nestnet.nn.mode import PerMode
from nestnet.nn.module import NestedModule
from nestnet.nn.parameter import BLOCKS_SUFFIX, NestedParameter
from nestnet.nn.placement import Placement, WeightsMap
from nestnet.nn.stage import DEPTH_MAPS
from nestnet.runtime.log import log_notice
from nestnet.text.arguments import check_choice


def nest(
    base: nn.Module,
    motivated: nn.Module,
    *,
    depth_map: str = "last",
    groups: OwnGroups | None = None,
    weights_map: Mapping[str, Placement] | None = None,
    batch_norm: str = "private",
    check: bool | Tensor = True,
) -> NestedPair:
    """Nest a network in a bigger one of the same kind.

    The two modules become parts of the nested network, with one memory: the weights are those of the motivated network,
    of which the base has a part. Their forward passes stay as they are. Convert BatchNorm to SyncBatchNorm before.

    Args:
        base: small network.
        motivated: big network. It has all of the base's modules by the same names, with at least as many rows and
            columns in each weight; numbered blocks may be more.
        depth_map: motivated block that holds the last of the base's numbered blocks: `"last"`, as in arXiv 2602.21064,
            section 3.3.1, or `"first"`, the first free one. Where it does not fit, the other one is taken.
        groups: groups of rows and of columns of weights that consist of several tensors side by side, by a regular
            expression on the weight's name in the base, such as `{"gate": (2, 1)}`: see `nestnet.Placement`. Rules for
            usual ways of packing are built in (`nestnet.nesting.rules`).
        weights_map: placement of each base parameter in the motivated network, in place of the one from names and
            shapes.
        batch_norm: `"private"` keeps BatchNorm statistics for each network, `"shared"` one set for both, and
            `"separate"` a scale and a shift for each network too: see `nestnet.nn.batch_norm.BatchNorm2d`.
        check: whether to check that the base's computation lies inside the motivated network's: see
            `nestnet.verify_nesting`. An input of the networks, such as images `[B, C, H, W]`, is used for the check;
            with `True` one is chosen.

    Returns:
        The nested network.

    Raises:
        ValueError: If the networks do not nest. The message lists all reasons.

    Example:
        >>> import nestnet, torch
        >>> from torch import nn
        >>> def net(width):
        ...     return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 3))
        >>> pair = nestnet.nest(net(4), net(6))
        >>> pair(torch.zeros(2, 8), mode="base").shape
        torch.Size([2, 3])
        >>> print(pair.weights_map["2.weight"])
        2.weight[:3, :4]
    """
    check_choice("depth_map", depth_map, DEPTH_MAPS)
    check_choice("batch_norm", batch_norm, STATISTICS)
    names = PerMode(_name(base), _name(motivated))
    title = f"{names.base} in {names.motivated}"
    # Everything that could go wrong is found before a module is changed.
    misfits = [*_find_unsupported(base, "base"), *_find_unsupported(motivated, "motivated network")]
    if base is motivated:
        misfits.append(Misfit("same", "base and motivated are the same object; make two"))
    if misfits:
        raise MisfitError(title, misfits)
    if weights_map is None:
        matching = match_networks(ModuleTree.of(base), ModuleTree.of(motivated), depth_map=depth_map, groups=groups)
    else:
        matching = _given_matching(base, motivated, weights_map)
    matching.misfits += _find_untied(base, motivated, matching.placements)
    if matching.misfits:
        raise MisfitError(title, matching.misfits)
    if check is not False:
        matchings = [matching]
        if weights_map is None:
            # Layers of a dense block can only be the first ones.
            other = "first" if depth_map == "last" else "last"
            matchings.append(
                match_networks(ModuleTree.of(base), ModuleTree.of(motivated), depth_map=other, groups=groups)
            )
        matching = _check(base, motivated, matchings, None if check is True else check, title)

    placements = _add_buffers(base, motivated, matching, batch_norm)
    if matching.misfits:
        raise MisfitError(title, matching.misfits)
    _divide_weights(motivated, placements)
    pair = NestedPair(
        base,
        motivated,
        WeightsMap(placements),
        skipped=matching.skipped,
        names=names,
        num_classes=_count_classes(motivated),
        in_chans=_count_channels(motivated),
    )
    return pair


def _check(
    base: nn.Module, motivated: nn.Module, matchings: Sequence[Matching], inputs: Tensor | None, title: str
) -> Matching:
    """Return the first matching with which the base's computation lies inside the motivated network's."""
    if inputs is None:
        inputs = find_inputs(base, _count_channels(base))
    if inputs is None:
        log_notice(
            f"{title}: not checked whether the base's computation lies inside the motivated network's, because no size of "
            "images was found that the base takes; give check an input of the networks"
        )
        return matchings[0]
    plans = []
    for matching in matchings:
        plan = Plan(matching.placements, tuple(matching.skipped))
        if not matching.misfits and plan not in plans:
            plans.append(plan)
    verdict = check_plans(base, motivated, plans, inputs)
    if verdict.plan is None:
        raise MisfitError(title, [Misfit("other parts", verdict.reason)])
    for matching in matchings:
        if matching.placements.keys() == verdict.plan.placements.keys():
            names = [placement.name for placement in matching.placements.values()]
            if names == [placement.name for placement in verdict.plan.placements.values()]:
                return replace(matching, placements=dict(verdict.plan.placements))
    raise AssertionError("the plan is that of a matching")


def _name(network: nn.Module) -> str:
    """Return timm's name of a network, or that of its class."""
    config = getattr(network, "pretrained_cfg", None) or {}
    return config.get("architecture") or type(network).__name__


def _find_unsupported(network: nn.Module, which: str) -> Iterator[Misfit]:
    """Yield what makes it impossible to divide the weights of a network."""
    paths: dict[int, str] = {}
    for path, module in network.named_modules(remove_duplicate=False):
        where = f"{path or type(module).__name__} of the {which}"
        if isinstance(module, NestedModule):
            yield Misfit("nested", f"{where} is part of a nested network already; nest new modules")
            return
        first_path = paths.setdefault(id(module), path)
        if first_path != path:
            yield Misfit(
                "shared module", f"{where} is the same module as {first_path}; make two, with tied weights if need be"
            )
        for name in _hidden_parameters(module):
            yield Misfit("hidden parameter", f"{where} has a parameter in {name} that torch does not know; register it")
        for name, parameter in module._parameters.items():
            if isinstance(parameter, UninitializedParameter):
                yield Misfit("lazy", f"{name} at {where} has no shape yet; run one batch before nesting")


def _hidden_parameters(module: nn.Module) -> Iterator[str]:
    """Yield the names of attributes that hold parameters which are not registered."""
    for name, value in vars(module).items():
        # An `nn.LSTM` lists its registered parameters once more.
        if name in ("_parameters", "_buffers", "_modules") or isinstance(module, nn.RNNBase):
            continue
        values = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else [value]
        if any(isinstance(entry, nn.Parameter) for entry in values):
            yield name


def _given_matching(base: nn.Module, motivated: nn.Module, weights_map: Mapping[str, Placement]) -> Matching:
    """Return the matching that a user's weights map describes, with its faults as misfits."""
    matching = Matching(modules={"": ""})
    motivated_parameters = dict(motivated.named_parameters(remove_duplicate=False))
    for name, parameter in base.named_parameters(remove_duplicate=False):
        placement = weights_map.get(name)
        reason = None
        if placement is None:
            reason = "it is not in weights_map"
        elif placement.name not in motivated_parameters:
            reason = f"the motivated network has no {placement.name}"
        elif tuple(motivated_parameters[placement.name].shape) != placement.shape:
            reason = (
                f"{placement.name} is {list(motivated_parameters[placement.name].shape)}, not {list(placement.shape)}"
            )
        elif placement.base_shape != tuple(parameter.shape):
            reason = f"weights_map says {list(placement.base_shape)}"
        if reason is not None or placement is None:
            matching.misfits.append(Misfit("weights map", f"{name} {list(parameter.shape)}: {reason}"))
            continue
        matching.placements[name] = placement
        matching.modules[name.rpartition(".")[0]] = placement.name.rpartition(".")[0]
    # Numbered blocks without any of the base's tensors are skipped.
    placed = {placement.name for placement in matching.placements.values()}
    for path, module in motivated.named_modules():
        is_below = any(path.startswith(f"{skipped}.") for skipped in matching.skipped)
        own = [f"{path}.{name}" for name, _ in module.named_parameters()]
        if path[-1:].isdigit() and own and placed.isdisjoint(own) and not is_below:
            matching.skipped.append(path)
    return matching


def _find_untied(base: nn.Module, motivated: nn.Module, placements: Mapping[str, Placement]) -> Iterator[Misfit]:
    """Yield the names of weights that are one parameter in one of the networks, and several in the other."""
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


def _add_buffers(base: nn.Module, motivated: nn.Module, matching: Matching, batch_norm: str) -> dict[str, Placement]:
    """Return the placements of all base tensors: its parameters, and what it has of its own."""
    placements: dict[str, Placement] = {}
    for base_name, tensor in base.state_dict(keep_vars=True).items():
        path, _, name = base_name.rpartition(".")
        owner = base.get_submodule(path)
        motivated_path = matching.modules.get(path, path)
        prefix = f"{motivated_path}." if motivated_path else ""
        is_batch_norm = isinstance(owner, _BatchNorm)
        is_parameter = base_name in matching.placements
        shape = tuple(tensor.shape)
        if is_parameter and not (is_batch_norm and batch_norm == "separate"):
            placements[base_name] = matching.placements[base_name]
        elif is_batch_norm and batch_norm == "shared":
            whole = motivated.get_submodule(motivated_path)._buffers[name]
            assert whole is not None
            placements[base_name] = Placement(prefix + name, tuple(whole.shape), shape)
            scale = matching.placements.get(f"{path}.weight")
            if scale is not None and scale.groups != 1:
                text = f"{base_name}: the base's channels are in groups, so that it cannot share statistics"
                matching.misfits.append(Misfit("shared statistics", text))
        else:
            placements[base_name] = Placement(f"{prefix}{PRIVATE_PREFIX}{name}", shape, shape, private=True)
    return placements


def _divide_weights(motivated: nn.Module, placements: Mapping[str, Placement]) -> None:
    """Replace each parameter of which the base has a part by its blocks, in place."""
    parameters = dict(motivated.named_parameters(remove_duplicate=False))
    divided: dict[int, NestedParameter] = {}
    owners: dict[str, nn.Module] = {}
    for placement in placements.values():
        if placement.private or placement.is_whole or placement.name not in parameters:
            continue
        path, _, name = placement.name.rpartition(".")
        whole = parameters[placement.name]
        # A tied weight has several names, and its blocks one home.
        if id(whole) not in divided:
            divided[id(whole)] = _divide(whole, placement)
        owner = motivated.get_submodule(path)
        delattr(owner, name)
        owner.add_module(name + BLOCKS_SUFFIX, divided[id(whole)])
        owners[path] = owner
    for owner in owners.values():
        join_weights(owner)


def _divide(whole: nn.Parameter, placement: Placement) -> NestedParameter:
    """Return the blocks of a parameter, with its values."""
    # The blocks get the device and the type of the parameter when they are loaded.
    with torch.device("meta"):
        nested = NestedParameter(placement.with_name(""))
    nested.load(whole.detach(), assign=True)
    return nested.requires_grad_(whole.requires_grad)


def _count_classes(network: nn.Module) -> int:
    """Return the number of outputs that a network says it has, or that of its last layer; 0 if neither tells."""
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


def _count_channels(network: nn.Module) -> int:
    """Return the number of input channels of the first layer; 0 if it is none that tells."""
    for module in network.modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            return module.in_channels
        if isinstance(module, nn.Linear):
            return module.in_features
    return 0
