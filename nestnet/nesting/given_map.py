"""What users give in place of the rules: a weights map, or groups of rows and columns."""

import re
from collections.abc import Iterator, Mapping

from torch import nn

from nestnet.nesting.matching import Matching
from nestnet.nesting.misfits import Misfit
from nestnet.nesting.rules import OwnGroups
from nestnet.nn.division import Division
from nestnet.nn.placement import Placement


def check_groups(groups: OwnGroups, base: nn.Module) -> None:
    """Check that groups are of the right form, and that each of them is for a weight.

    Args:
        groups: groups of rows and of columns, by a regular expression.
        base: base network.

    Raises:
        ValueError: If they are not.
    """
    names = [name for name, _ in base.named_parameters(remove_duplicate=False)]
    for pattern, value in groups.items():
        try:
            matches = [name for name in names if re.search(pattern, name)]
        except re.error as error:
            raise ValueError(f"groups: {pattern!r} is no regular expression: {error}") from None
        if not isinstance(value, tuple) or len(value) != 2:
            raise ValueError(
                f"groups: {pattern!r} has {value!r}; it must be the groups of rows and of columns, such as (3, 1)"
            )
        if not matches:
            raise ValueError(f"groups: {pattern!r} matches no weight of the base")


def match_as_given(base: nn.Module, motivated: nn.Module, weights_map: Mapping[str, Placement]) -> Matching:
    """Return the matching that a user's weights map describes, with its faults as misfits.

    Args:
        base: base network.
        motivated: motivated network.
        weights_map: placement of each base parameter. Those of buffers are not used.
    """
    matching = Matching(modules={"": ""})
    motivated_parameters = dict(motivated.named_parameters(remove_duplicate=False))
    known = {*base.state_dict(), *dict(base.named_parameters(remove_duplicate=False))}
    for name in weights_map:
        if name not in known:
            matching.misfits.append(Misfit("weights map", f"weights_map has {name}, which the base does not have"))
    for name, parameter in base.named_parameters(remove_duplicate=False):
        placement = weights_map.get(name)
        shape = tuple(parameter.shape)
        reason = _find_fault(placement, shape, motivated_parameters)
        if reason is not None or placement is None:
            matching.misfits.append(Misfit("weights map", f"{name} {list(shape)}: {reason}"))
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


def find_moved(weights_map: Mapping[str, Placement], matching: Matching) -> Iterator[Misfit]:
    """Yield the weights that a user's weights map puts where the motivated network uses them for something else.

    Args:
        weights_map: placement of each base parameter, as the user gives it.
        matching: matching with which the base's computation lies inside the motivated network's.
    """
    for name, placement in matching.placements.items():
        given = weights_map[name]
        if not placement.is_same_as(given):
            text = f"{name} {list(given.base_shape)}: weights_map has it at {given}, and it belongs at {placement}"
            yield Misfit("weights map", text)


def _find_fault(
    placement: Placement | None, shape: tuple[int, ...], motivated_parameters: Mapping[str, nn.Parameter]
) -> str | None:
    """Return what is wrong with the placement of a base parameter, or `None`."""
    if placement is None:
        return "it is not in weights_map"
    if placement.name not in motivated_parameters:
        return f"the motivated network has no {placement.name}"
    whole_shape = tuple(motivated_parameters[placement.name].shape)
    if whole_shape != placement.shape:
        return f"{placement.name} is {list(whole_shape)}, not {list(placement.shape)}"
    if placement.base_shape != shape:
        return f"weights_map says {list(placement.base_shape)}"
    if len(shape) != len(whole_shape) or any(small > big for small, big in zip(shape, whole_shape, strict=True)):
        return f"it does not fit in {placement.name} {list(whole_shape)}"
    differing = [dim for dim in range(1, len(shape)) if shape[dim] != whole_shape[dim]]
    if len(differing) > 1:
        return f"in {placement.name} {list(whole_shape)} the sizes may differ in the first and in one further dimension"
    if placement.is_whole:
        return None
    try:
        Division.of(placement.groups, shape[0], whole_shape[0])
        if differing:
            Division.of(placement.column_groups, shape[differing[0]], whole_shape[differing[0]])
    except ValueError as error:
        return f"in {placement.name} {list(whole_shape)}: {error}"
    return None
