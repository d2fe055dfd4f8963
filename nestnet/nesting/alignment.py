"""Which children of a motivated module hold the children of a base module.

Children are matched by name. Children with numbers, such as the blocks of a stage, are a sequence: the base's sequence
is placed in the motivated one by the depth map, as far as the blocks are of the same kind. Where kinds alternate, as
shifted and plain windows do in a Swin transformer, each block is placed on one of its own kind.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from nestnet.nesting.misfits import Misfit
from nestnet.nesting.module_tree import ModuleTree
from nestnet.nn.mode import Width
from nestnet.nn.stage import depth_map

Misfits = Callable[[str, str], int]
"""From the name of a base child and that of a motivated child to the number of reasons why the one does not fit."""

NUMBERED = re.compile(r"(.*?)(\d+)")


@dataclass
class Alignment:
    """How the children of two modules correspond.

    Attributes:
        names: name of the motivated child for each base child that has one, in the base's order.
        skipped: names of the motivated blocks that the base does not have.
        misfits: children of either module that have no counterpart in the other.
    """

    names: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    misfits: list[Misfit] = field(default_factory=list)


def align_children(base: ModuleTree, motivated: ModuleTree, kind: str, count_misfits: Misfits) -> Alignment:
    """Match the children of two modules.

    Args:
        base: module of the base.
        motivated: module of the motivated network.
        kind: depth map, `"last"` or `"first"`: see `nestnet.nn.stage.depth_map`.
        count_misfits: function that says why a base child does not fit in a motivated one.

    Returns:
        The alignment.
    """
    alignment = Alignment()
    base_names = list(base.children)
    for names in _group_by_prefix(base_names):
        if len(names) == 1 and NUMBERED.fullmatch(names[0]) is None:
            _align_named(base, motivated, names[0], alignment)
        else:
            _align_sequence(motivated, kind, count_misfits, names, alignment)
    prefixes = {_prefix(name) for name in base_names}
    for name, child in motivated.children.items():
        if _prefix(name) not in prefixes and not child.is_empty:
            text = f"the motivated network has a {name} ({child.kind}), and the base has none"
            alignment.misfits.append(Misfit("further module", text))
    # In the base's order, in which the tensors of its state dict come too.
    alignment.names = {name: alignment.names[name] for name in base_names if name in alignment.names}
    return alignment


def _group_by_prefix(names: Sequence[str]) -> list[list[str]]:
    """Return the names in lists: those that differ in their number alone are together, and any other name is alone."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_prefix(name), []).append(name)
    return list(groups.values())


def _prefix(name: str) -> str:
    """Return what the names of a sequence have in common: `layer#` of `layer1`, and a name without a number as it is."""
    numbered = NUMBERED.fullmatch(name)
    return f"{numbered[1]}#" if numbered else name


def _align_named(base: ModuleTree, motivated: ModuleTree, name: str, alignment: Alignment) -> None:
    child = base.children[name]
    if name in motivated.children:
        alignment.names[name] = name
    elif not child.is_empty:
        text = f"{name} ({child.kind}) has no counterpart in the motivated network"
        alignment.misfits.append(Misfit("name", text))


def _align_sequence(
    motivated: ModuleTree, kind: str, count_misfits: Misfits, base_names: list[str], alignment: Alignment
) -> None:
    """Place the numbered children of the base among those of the motivated module."""
    numbered = NUMBERED.fullmatch(base_names[0])
    assert numbered is not None
    prefix = numbered[1]
    motivated_names = []
    for name in motivated.children:
        other = NUMBERED.fullmatch(name)
        if other is not None and other[1] == prefix:
            motivated_names.append(name)
    if len(base_names) > len(motivated_names):
        text = f"{prefix}*: {len(base_names)} blocks in the base, and {len(motivated_names)} in the motivated network"
        alignment.misfits.append(Misfit("base deeper", text))
        return
    places = _choose_places(kind, count_misfits, base_names, motivated_names)
    for base_name, place in zip(base_names, places, strict=True):
        alignment.names[base_name] = motivated_names[place]
    alignment.skipped += [name for place, name in enumerate(motivated_names) if place not in places]


def _choose_places(
    kind: str, count_misfits: Misfits, base_names: Sequence[str], motivated_names: Sequence[str]
) -> list[int]:
    """Return the place of each base block in the motivated sequence."""
    base_count = len(base_names)
    count = len(motivated_names)
    if base_count == count:
        return list(range(count))
    # The wanted depth map, if each block fits there; otherwise another one.
    candidates = []
    for wanted in dict.fromkeys((kind, "last", "first")):
        places = _places(Width(base_count, count), wanted)
        misfits = 0
        for name, place in zip(base_names, places, strict=True):
            misfits += count_misfits(name, motivated_names[place])
        if not misfits:
            return places
        candidates.append((misfits, places))
    # The earliest blocks in order that fit.
    places = []
    place = 0
    for name in base_names:
        while place < count and count_misfits(name, motivated_names[place]):
            place += 1
        if place == count:
            # No order fits, so that the misfits of the first one with the fewest are reported.
            candidates.append(_fewest_misfits(count_misfits, base_names, motivated_names))
            _, places = min(candidates, key=lambda candidate: candidate[0])
            return places
        places.append(place)
        place += 1
    # With the map "last" the last block goes to the latest one that fits.
    if kind == "last":
        later = [
            place for place in range(places[-1], count) if not count_misfits(base_names[-1], motivated_names[place])
        ]
        places[-1] = later[-1]
    return places


def _fewest_misfits(
    count_misfits: Misfits, base_names: Sequence[str], motivated_names: Sequence[str]
) -> tuple[int, list[int]]:
    """Return the fewest misfits of any order of the blocks, and the place of each base block."""
    # The fewest misfits of the base blocks so far among the first 0, 1, ... motivated blocks, and their places.
    best: list[tuple[int, list[int]] | None] = [(0, [])] * (len(motivated_names) + 1)
    for name in base_names:
        following: list[tuple[int, list[int]] | None] = [None]
        for place, motivated_name in enumerate(motivated_names):
            before = best[place]
            candidate = following[-1]
            if before is not None:
                misfits = before[0] + count_misfits(name, motivated_name)
                if candidate is None or misfits < candidate[0]:
                    candidate = (misfits, [*before[1], place])
            following.append(candidate)
        best = following
    fewest = best[-1]
    assert fewest is not None, "there are at least as many motivated blocks"
    return fewest


def _places(depth: Width, kind: str) -> list[int]:
    """Return the place of each base block by a depth map."""
    return [place for place, position in enumerate(depth_map(depth, kind)) if position is not None]
