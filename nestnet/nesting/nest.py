"""Nesting one plain module in another."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nestnet.nesting.given_map import check_groups, find_moved, match_as_given
from nestnet.nesting.joined_module import join_weights
from nestnet.nesting.matching import Matching, match_networks
from nestnet.nesting.misfits import Misfit, MisfitError
from nestnet.nesting.module_tree import ModuleTree
from nestnet.nesting.nested_pair import NestedPair
from nestnet.nesting.plain_network import count_channels, count_classes, find_inputs, img_size_of, name_of
from nestnet.nesting.plan import Plan
from nestnet.nesting.rules import OwnGroups
from nestnet.nesting.unsupported import NESTED_BASES, find_unsupported, find_untied
from nestnet.nesting.verification import check_plans
from nestnet.nn.batch_norm import PRIVATE_PREFIX, STATISTICS
from nestnet.nn.meta_device import meta_device
from nestnet.nn.mode import PerMode
from nestnet.nn.parameter import BLOCKS_SUFFIX, NestedParameter
from nestnet.nn.placement import Placement, WeightsMap
from nestnet.nn.stage import DEPTH_MAPS
from nestnet.runtime.log import log_notice
from nestnet.text.arguments import check_choice

UNMATCHED = ("same", "nested", "lazy")
"""Kinds of misfits with which two networks cannot be compared further."""


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
    of which the base has a part. Their forward passes stay as they are. Make optimizers afterwards, because the divided
    weights are other parameters than before.

    Args:
        base: small network.
        motivated: big network. It has all of the base's modules by the same names, with at least as many rows and
            columns in each weight; numbered blocks may be more.
        depth_map: motivated blocks that hold the base's numbered blocks: the first ones (`"first"`), the first ones and
            for the last one the last (`"last"`, arXiv 2602.21064, section 3.3.1), or evenly spaced ones (`"uniform"`).
            Where they do not fit, another map is taken.
        groups: groups of rows and of columns of weights that consist of several tensors side by side, by a regular
            expression on the weight's name in the base, such as `{"gate": (2, 1)}`: see `nestnet.Placement`. Rules for
            usual ways of packing are built in (`nestnet.nesting.rules`).
        weights_map: placement of each base parameter in the motivated network, in place of the one from names and
            shapes.
        batch_norm: `"private"` keeps BatchNorm statistics for each network, `"shared"` one set for both, and
            `"separate"` a scale and a shift for each network too: see `nestnet.nn.batch_norm.BatchNorm2d`.
        check: whether to check that the base's computation lies inside the motivated network's: see
            `nestnet.verify_nesting`. An input of the networks, such as images `[B, C, H, W]`, is used for the check;
            with `True` one is chosen. The check also finds which columns of a concatenation are the base's; without it
            they are taken to be the first ones.

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
    for which, network in (("base", base), ("motivated", motivated)):
        if not isinstance(network, nn.Module):
            raise ValueError(f"{which} = {network!r}: it must be an nn.Module; nestnet.create_model takes names")
    check_groups(groups or {}, base)
    names = PerMode(name_of(base), name_of(motivated))
    title = f"{names.base} in {names.motivated}"
    # Everything that could go wrong is found before a module is changed.
    misfits = list(find_unsupported(base, motivated))
    if any(misfit.kind in UNMATCHED for misfit in misfits):
        raise MisfitError(title, misfits)
    trees = PerMode(ModuleTree.of(base), ModuleTree.of(motivated))
    if weights_map is None:
        matching = match_networks(trees.base, trees.motivated, depth_map=depth_map, groups=groups)
    else:
        matching = match_as_given(base, motivated, weights_map)
    misfits += matching.misfits
    misfits += find_untied(base, motivated, matching.placements)
    misfits += _place_tensors(base, motivated, matching, batch_norm).misfits
    if misfits:
        raise MisfitError(title, misfits)
    if check is not False:
        matchings = [matching]
        if weights_map is None:
            # Layers of a dense block can only be the first ones.
            other = "last" if depth_map == "first" else "first"
            matchings.append(match_networks(trees.base, trees.motivated, depth_map=other, groups=groups))
        matching = _check(base, motivated, matchings, None if check is True else check, title)
        if weights_map is not None:
            misfits += find_moved(weights_map, matching)

    # The check may have moved weights.
    placed = _place_tensors(base, motivated, matching, batch_norm)
    misfits += placed.misfits
    if misfits:
        raise MisfitError(title, misfits)
    _divide_weights(motivated, placed.placements)
    pair = NestedPair(
        base,
        motivated,
        WeightsMap(placed.placements),
        skipped=matching.skipped,
        names=names,
        num_classes=count_classes(motivated),
        in_chans=count_channels(motivated),
        timm_options=PerMode(_size_options(base), _size_options(motivated)),
    )
    NESTED_BASES.add(base)
    return pair


def _check(
    base: nn.Module, motivated: nn.Module, matchings: Sequence[Matching], inputs: Tensor | None, title: str
) -> Matching:
    """Return the first matching with which the base's computation lies inside the motivated network's."""
    if inputs is None:
        inputs = find_inputs(base, count_channels(base))
    if inputs is None:
        log_notice(
            f"{title}: not checked whether the base's computation lies inside the motivated network's, because no size of "
            "images was found that the base takes; give check an input of the networks"
        )
        return matchings[0]
    plans = []
    for matching in matchings:
        plan = Plan(matching.placements, tuple(matching.skipped), modules=matching.modules)
        if not matching.misfits and plan not in plans:
            plans.append(plan)
    verdict = check_plans(base, motivated, plans, inputs)
    found = verdict.plan
    if found is None:
        raise MisfitError(title, [Misfit("other parts", verdict.reason)])
    return Matching(dict(found.placements), dict(found.modules), list(found.skipped))


def _size_options(network: nn.Module) -> dict[str, Any]:
    """Return the keyword argument with which timm builds a network for its image size, if it is made for one size."""
    img_size = img_size_of(network)
    return {} if img_size is None else {"img_size": img_size}


def _place_tensors(base: nn.Module, motivated: nn.Module, matching: Matching, batch_norm: str) -> Matching:
    """Return the placements of all base tensors, its parameters and what it has of its own, and the misfits of the latter."""
    placed = Matching()
    parameters = dict(base.named_parameters(remove_duplicate=False))
    taken = {name for name, _ in motivated.named_parameters(remove_duplicate=False)}
    taken.update(name for name, _ in motivated.named_buffers(remove_duplicate=False))
    for base_name, tensor in base.state_dict(keep_vars=True).items():
        # Modules with extra state are misfits.
        if not isinstance(tensor, Tensor):
            continue
        path, _, name = base_name.rpartition(".")
        owner = base.get_submodule(path)
        motivated_path = matching.modules.get(path, path)
        prefix = f"{motivated_path}." if motivated_path else ""
        is_batch_norm = isinstance(owner, _BatchNorm)
        shape = tuple(tensor.shape)
        if base_name in parameters and not (is_batch_norm and batch_norm == "separate"):
            # A parameter without a place is a misfit already.
            if base_name in matching.placements:
                placed.placements[base_name] = matching.placements[base_name]
        elif is_batch_norm and batch_norm == "shared":
            whole = dict(motivated.named_buffers(remove_duplicate=False)).get(prefix + name)
            scale = matching.placements.get(f"{path}.weight")
            if whole is None:
                text = f"{base_name} {list(shape)}: the motivated network has no {prefix + name} to share"
                placed.misfits.append(Misfit("shared statistics", text))
            elif scale is not None and scale.groups != 1:
                text = f"{base_name}: the base's channels are in groups, so that it cannot share statistics"
                placed.misfits.append(Misfit("shared statistics", text))
            else:
                placed.placements[base_name] = Placement(prefix + name, tuple(whole.shape), shape)
        else:
            own_name = f"{prefix}{PRIVATE_PREFIX}{name}"
            if own_name in taken:
                text = f"{base_name} {list(shape)}: the motivated network has another {own_name} already; rename one"
                placed.misfits.append(Misfit("own name", text))
            taken.add(own_name)
            placed.placements[base_name] = Placement(own_name, shape, shape, private=True)
    return placed


def _divide_weights(motivated: nn.Module, placements: Mapping[str, Placement]) -> None:
    """Replace each parameter of which the base has a part by its blocks, in place."""
    parameters = dict(motivated.named_parameters(remove_duplicate=False))
    divided: dict[int, NestedParameter] = {}
    # The names of all parameters, in order, of each module that owns such a weight.
    owners: dict[nn.Module, tuple[str, ...]] = {}
    for placement in placements.values():
        if placement.private or placement.is_whole or placement.name not in parameters:
            continue
        path, _, name = placement.name.rpartition(".")
        whole = parameters[placement.name]
        # A tied weight has several names, and its blocks one home.
        if id(whole) not in divided:
            divided[id(whole)] = _divide(whole, placement)
        owner = motivated.get_submodule(path)
        # A module with several places is divided once.
        if name not in owner._parameters:
            continue
        owners.setdefault(owner, tuple(owner._parameters))
        delattr(owner, name)
        owner.add_module(name + BLOCKS_SUFFIX, divided[id(whole)])
    for owner, names in owners.items():
        join_weights(owner, names)


def _divide(whole: nn.Parameter, placement: Placement) -> NestedParameter:
    """Return the blocks of a parameter, with its values."""
    # The blocks get the device and the type of the parameter when they are loaded.
    with meta_device():
        nested = NestedParameter(placement.with_name(""))
    # Before they are loaded, because whole numbers can have no gradients.
    nested.requires_grad_(whole.requires_grad)
    nested.load(whole.detach(), assign=True)
    for block in nested.blocks():
        # What authors note on a parameter, such as that it has no weight decay.
        vars(block).update(vars(whole))
    return nested
