"""The search for a weights map where that from names and shapes does not make sense.

The first module that gets something else than in the base shows that the rows of a module before it lie elsewhere: in
groups, because they are divided after it, or where the channels of another tensor lie, to which they are added. Both
are tried, at the nearest modules first. What helps a module is taken for all modules of its kind behind it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from nestnet.nesting.channels import Layout
from nestnet.nesting.plan import Plan, Trace
from nestnet.nesting.row_parts import EqualParts, GroupParts, InputParts, Rows, ScaledParts
from nestnet.nesting.tracing import Tracer
from nestnet.nn.placement import Placement

MOST_MENDS = 16
"""Largest number of changes to a weights map."""

TRIED_MODULES = 8
"""Number of modules before the first one that differs whose rows are tried elsewhere."""

SEEN_MODULES = 40
"""Number of modules before a module whose channels its rows may follow."""

TRIED_GROUPS = (2, 3, 4)
"""Numbers of groups of rows that are tried anywhere."""

TRIED_PARTS = 4
"""Largest number of modules that read a part of the rows each."""


def mend(tracer: Tracer, plan: Plan, trace: Trace) -> tuple[Plan, Trace]:
    """Change a weights map until the base's computation lies inside the motivated network's, as far as changes help.

    Args:
        tracer: the two networks.
        plan: weights map.
        trace: what was found with it.

    Returns:
        The weights map that gets furthest, and what was found with it.
    """
    for _ in range(MOST_MENDS):
        if trace.agrees:
            break
        better = _find_better(tracer, plan, trace)
        if better is None:
            break
        plan = better
        trace = tracer.trace(plan)
    return plan, trace


def _find_better(tracer: Tracer, plan: Plan, trace: Trace) -> Plan | None:
    """Return the best of the changes to one place that get further, at the first place at which one does."""
    best = _best_of(tracer, trace, _other_skips(plan))
    places = _modules_before(tracer, plan, trace)
    for path in places:
        if best is None:
            best = _best_of(tracer, trace, _other_rows(tracer, plan, trace, path))
    # Where a stream has several sources, the rows of all must move for one of them to help.
    for path in places:
        if best is None:
            best = _best_of(tracer, trace, _other_sources(tracer, plan, trace, path))
    return best


def _best_of(tracer: Tracer, trace: Trace, changes: Iterator[Plan]) -> Plan | None:
    """Return the change that gets furthest, and further than before; the first one of equals, `None` if there is none."""
    best = None
    best_progress = trace.progress
    for change in changes:
        tried = tracer.trace(change, stop_when_lost=True)
        if tried.progress > best_progress:
            best = change
            best_progress = tried.progress
    return best


# Blocks that base mode skips.


def _other_skips(plan: Plan) -> Iterator[Plan]:
    """Yield the plan with the skipped blocks of one kind in place, or left out, or with zeros appended where they widen.

    A layer whose output joins a concatenation must not be left out: what it adds is in columns beside the base's.
    """
    for kind in dict.fromkeys(map(_kind_of_block, plan.skipped)):
        blocks = [path for path in plan.skipped if _kind_of_block(path) == kind]
        if plan.kept.isdisjoint(blocks):
            yield replace(plan, kept=plan.kept.union(blocks))
            if plan.widened.isdisjoint(blocks):
                yield replace(plan, widened=plan.widened.union(blocks))
        else:
            yield replace(plan, kept=plan.kept.difference(blocks))


def _kind_of_block(path: str) -> str:
    return re.sub(r"\d+", "#", path)


def pattern_of(path: str) -> str:
    """Return a path with `#` for the numbers of stages and blocks, which is the same for all modules of a kind."""
    *parents, name = path.split(".")
    if not parents:
        return path
    parents[0] = re.sub(r"\d+", "#", parents[0])
    return ".".join([re.sub(r"^\d+$", "#", parent) for parent in parents] + [name])


# Rows in other places.


def _modules_before(tracer: Tracer, plan: Plan, trace: Trace) -> list[str]:
    """Return the paths of the nearest modules before the first one that differs whose rows may lie elsewhere."""
    end = len(trace.order) if trace.first_lost is None else trace.order.index(trace.first_lost)
    paths: list[str] = []
    for path in reversed(trace.order[:end]):
        placement = _weight_of(plan, path)
        # The rows of a convolution in groups are where its inputs are.
        is_free = getattr(tracer.base_modules[path], "groups", 1) == 1
        if placement is not None and is_free and placement.base_shape[0] < placement.shape[0]:
            paths.append(path)
    return paths[:TRIED_MODULES]


def _weight_of(plan: Plan, path: str) -> Placement | None:
    """Return the placement of the matrix of a module; `None` if it has none."""
    placement = plan.placements.get(f"{path}.weight")
    return placement if placement is not None and len(placement.shape) > 1 else None


def _other_rows(tracer: Tracer, plan: Plan, trace: Trace, path: str) -> Iterator[Plan]:
    """Yield the plan with the rows of a module, and of those of its kind behind it, in other places."""
    weight = _weight_of(plan, path)
    assert weight is not None
    base_rows, rows = weight.base_shape[0], weight.shape[0]
    yield from _other_followers(plan, trace, path)
    seen = {Layout.of(weight.groups, base_rows, rows)} if path not in plan.followers else set()
    for rule in _row_rules(tracer, plan, trace, path, weight):
        groups = rule.groups(weight)
        if groups is None:
            continue
        layout = Layout.of(groups, base_rows, rows)
        if layout not in seen:
            seen.add(layout)
            yield _with_rows(plan, trace, path, rule)


def _other_followers(plan: Plan, trace: Trace, path: str) -> Iterator[Plan]:
    """Yield the plan with the rows of a module where the channels lie that an earlier one reads."""
    weight = _weight_of(plan, path)
    assert weight is not None
    base_rows, rows = weight.base_shape[0], weight.shape[0]
    seen = {Layout.of(weight.groups, base_rows, rows)} if path not in plan.followers else set()
    for followed in _followed(trace, path):
        layout = trace.locations[followed].layout
        extended = None if layout is None else layout.extended(base_rows, rows)
        if extended is not None and extended not in seen:
            seen.add(extended)
            yield _follow(plan, trace, path, followed)


def _other_sources(tracer: Tracer, plan: Plan, trace: Trace, path: str) -> Iterator[Plan]:
    """Yield the plan with the rows of a module in parts that are read one by one, and those of a later one following it."""
    weight = _weight_of(plan, path)
    assert weight is not None
    for rule in _parts_read(trace, path, weight):
        if rule.groups(weight) is None:
            continue
        change = _with_rows(plan, trace, path, rule)
        tried = tracer.trace(change, stop_when_lost=True)
        if tried.first_lost is None or trace.order.index(tried.first_lost) <= trace.order.index(path) + 1:
            continue
        for later in _modules_before(tracer, change, tried):
            placement = _weight_of(change, later)
            has_same_size = placement is not None and placement.base_shape[0] == weight.base_shape[0]
            if later != path and has_same_size:
                yield from _other_followers(change, tried, later)


def _followed(trace: Trace, path: str) -> list[str]:
    """Return the modules whose input the rows of a module may follow: the nearest first."""
    end = trace.order.index(path) + 1
    before = trace.order[max(0, end - SEEN_MODULES) : end]
    return [followed for followed in reversed(before) if followed in trace.found and followed in trace.locations]


def _row_rules(tracer: Tracer, plan: Plan, trace: Trace, path: str, weight: Placement) -> Iterator[Rows]:
    """Yield the ways in which the rows of a module may be divided."""
    for count in TRIED_GROUPS:
        yield EqualParts(count)
    for reader in _readers(trace, path):
        yield from _group_parts(tracer, plan, reader)
    yield InputParts(is_rest_first=True)
    yield InputParts(is_rest_first=False)
    yield from _parts_read(trace, path, weight)


def _parts_read(trace: Trace, path: str, weight: Placement) -> Iterator[ScaledParts]:
    """Yield the rows of a module in parts as wide as what the modules behind it read, with the rest before or behind."""
    sizes = []
    for reader in _readers(trace, path):
        location = trace.locations.get(reader)
        if location is not None and location.dim:
            sizes.append((location.base_size, location.size))
    found = set()
    for first in range(len(sizes)):
        for count in range(1, TRIED_PARTS + 1):
            parts = sizes[first : first + count]
            rest = (weight.base_shape[0] - sum(b for b, _ in parts), weight.shape[0] - sum(w for _, w in parts))
            if 0 <= rest[0] <= rest[1] and rest[1] > 0:
                for ordered in ((*parts, rest), (rest, *parts)):
                    if ordered not in found:
                        found.add(ordered)
                        yield ScaledParts(ordered)


def _readers(trace: Trace, path: str) -> Sequence[str]:
    """Return the paths of the modules behind a module, up to a few behind the first one that differs."""
    start = trace.order.index(path) + 1
    lost = len(trace.order) if trace.first_lost is None else trace.order.index(trace.first_lost)
    return trace.order[start : lost + TRIED_PARTS]


def _group_parts(tracer: Tracer, plan: Plan, path: str) -> Iterator[GroupParts]:
    """Yield the groups of a convolution in which channels are mixed."""
    weight = _weight_of(plan, path)
    if weight is None:
        return
    base_groups = getattr(tracer.base_modules[path], "groups", 1)
    groups = getattr(tracer.motivated.get_submodule(weight.name.rpartition(".")[0]), "groups", 1)
    is_grouped = isinstance(base_groups, int) and isinstance(groups, int) and groups > 1
    if is_grouped and weight.shape[1] > 1:
        yield GroupParts(base_groups, groups)


def _same_kind(trace: Trace, path: str) -> Sequence[str]:
    """Return the paths of the modules of the same kind: this one and those behind it."""
    start = trace.order.index(path)
    return [other for other in trace.order[start:] if pattern_of(other) == pattern_of(path)]


def _follow(plan: Plan, trace: Trace, path: str, followed: str) -> Plan:
    """Return the plan in which modules follow the nearest module of a kind before them."""
    followers = dict(plan.followers)
    for follower in _same_kind(trace, path):
        end = trace.order.index(follower) + 1
        kind = pattern_of(followed)
        nearest = [other for other in trace.order[:end] if pattern_of(other) == kind]
        if nearest:
            followers[follower] = nearest[-1]
    return replace(plan, followers=followers)


def _with_rows(plan: Plan, trace: Trace, path: str, rule: Rows) -> Plan:
    """Return the plan in which the rows of modules of a kind lie where a rule says."""
    followers = dict(plan.followers)
    placements = dict(plan.placements)
    for other in _same_kind(trace, path):
        weight = _weight_of(plan, other)
        groups = None if weight is None else rule.groups(weight)
        if weight is None or groups is None:
            continue
        followers.pop(other, None)
        for name, placement in plan.placements.items():
            has_same_rows = (
                placement.shape[:1] == weight.shape[:1] and placement.base_shape[:1] == weight.base_shape[:1]
            )
            if name.rpartition(".")[0] == other and has_same_rows:
                placements[name] = replace(placement, groups=groups)
    return replace(plan, placements=placements, followers=followers)
