"""The weights map of two networks from the names and shapes of their parameters.

Modules are matched by name. Where children are numbered, as the blocks of a stage are, the base's blocks are placed
among the motivated network's by a depth map (`nestnet.nesting.alignment`). Each parameter of the base then lies in
the parameter of the same name, in the first rows and columns of each of its groups (`nestnet.nesting.rules`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from nestnet.nesting.alignment import align_children
from nestnet.nesting.misfits import Misfit
from nestnet.nesting.module_tree import ModuleTree, Shape
from nestnet.nesting.rules import Ancestor, OwnGroups, choose_groups
from nestnet.nn.division import Division
from nestnet.nn.placement import Placement

EQUAL_SETTINGS = frozenset(
    ("stride", "padding", "dilation", "shift_size", "alpha", "pool_size", "shuffle", "split_ratio")
)
"""Settings that are no flags, and that both networks of a pair must have alike."""

IGNORED_FLAGS = frozenset(
    ("inplace", "fused_attn", "grad_checkpointing", "ceil_mode", "count_include_pad", "memory_efficient", "fast_norm")
)
"""Flags in which the networks may differ, because they do not change what is computed."""

ACTIVATIONS = frozenset((*nn.modules.activation.__all__, "GELUTanh", "QuickGELU", "StarReLU", "Swish"))
"""Names of the classes of activations, which must be the same in both networks."""

POSITION_TABLES = ("pos", "rel_", "relative", "bias_table", "attention_bias", "token", "latent")
"""Parts of the names of parameters with an entry for each position, of which both networks must have equally many."""


@dataclass
class Matching:
    """What was found by matching two networks.

    Attributes:
        placements: placement of each base parameter in the motivated network, by its name in the base.
        modules: path of the motivated module that holds each base module, by the base's path; `""` is the
            network itself.
        skipped: paths of the motivated blocks that base mode skips.
        misfits: reasons why the networks do not nest; empty if they do.
    """

    placements: dict[str, Placement] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    misfits: list[Misfit] = field(default_factory=list)

    def add(self, other: "Matching") -> None:
        """Include what was found in a part of the networks.

        Args:
            other: matching of the part.
        """
        self.placements.update(other.placements)
        self.modules.update(other.modules)
        self.skipped += other.skipped
        self.misfits += other.misfits


@dataclass(frozen=True)
class Scope:
    """What is the same everywhere while two networks are matched.

    Attributes:
        depth_map: `"last"` or `"first"`: see `nestnet.nn.stage.depth_map`.
        groups: groups that the user gives, by a regular expression on the name of a base parameter.
    """

    depth_map: str
    groups: OwnGroups


@dataclass(frozen=True)
class Position:
    """A pair of modules that are matched, and the modules around them.

    Attributes:
        base: module of the base.
        motivated: module of the motivated network.
        base_path: path of the base's module; `""` for the network itself.
        motivated_path: path of the motivated network's module.
        ancestors: this pair and those around it, from the innermost to the networks themselves.
    """

    base: ModuleTree
    motivated: ModuleTree
    base_path: str = ""
    motivated_path: str = ""
    ancestors: tuple[Ancestor, ...] = ()

    def child(self, base_name: str, motivated_name: str) -> "Position":
        """Return the position of a pair of children.

        Args:
            base_name: name of the base's child.
            motivated_name: name of the motivated network's child.
        """
        base = self.base.children[base_name]
        motivated = self.motivated.children[motivated_name]
        base_path = join_path(self.base_path, base_name)
        motivated_path = join_path(self.motivated_path, motivated_name)
        ancestor = Ancestor(base, motivated, base_path)
        return Position(base, motivated, base_path, motivated_path, (ancestor, *self.ancestors))


def match_networks(
    base: ModuleTree, motivated: ModuleTree, *, depth_map: str = "last", groups: OwnGroups | None = None
) -> Matching:
    """Match the parameters of two networks.

    Args:
        base: tree of the base network.
        motivated: tree of the motivated network.
        depth_map: `"last"` or `"first"`: see `nestnet.nn.stage.depth_map`.
        groups: groups of rows and columns that take the place of those of the rules.

    Returns:
        The matching. If it has misfits, the networks do not nest.
    """
    scope = Scope(depth_map, groups or {})
    start = Position(base, motivated, ancestors=(Ancestor(base, motivated, ""),))
    return match_modules(start, scope)


def match_modules(position: Position, scope: Scope) -> Matching:
    """Match two modules and everything below them.

    Args:
        position: the two modules.
        scope: what is the same everywhere.

    Returns:
        The matching of this part of the networks.
    """
    matching = Matching(modules={position.base_path: position.motivated_path})
    _compare_modules(position, matching)
    for name, shape in position.base.parameters.items():
        _match_parameter(position, scope, name, shape, matching)
    for name, shape in position.motivated.parameters.items():
        has_same_kind = position.base.kind == position.motivated.kind
        if has_same_kind and name not in position.base.parameters:
            where = join_path(position.motivated_path, name)
            text = f"the motivated network has {where} {list(shape)}, and the base has none"
            matching.misfits.append(Misfit("further parameter", text))

    def count_misfits(base_name: str, motivated_name: str) -> int:
        child = position.child(base_name, motivated_name)
        is_other_kind = child.base.kind != child.motivated.kind
        return len(match_modules(child, scope).misfits) + is_other_kind

    alignment = align_children(position.base, position.motivated, scope.depth_map, count_misfits)
    for misfit in alignment.misfits:
        matching.misfits.append(Misfit(misfit.kind, f"{position.base_path or 'the base'}: {misfit.text}"))
    for name in alignment.skipped:
        matching.skipped.append(join_path(position.motivated_path, name))
    for base_name, motivated_name in alignment.names.items():
        matching.add(match_modules(position.child(base_name, motivated_name), scope))
    return matching


def join_path(path: str, name: str) -> str:
    """Return the path of a child: `layer1.0` of `layer1` and `0`."""
    return f"{path}.{name}" if path else name


def _compare_modules(position: Position, matching: Matching) -> None:
    """Add a misfit if two modules are of different kinds or have different settings."""
    base = position.base
    motivated = position.motivated
    if base.kind != motivated.kind:
        # The networks themselves, and modules without parameters, may be of different classes.
        if base.parameters:
            text = f"{position.base_path} is a {base.kind}, and {position.motivated_path} a {motivated.kind}"
            matching.misfits.append(Misfit("kind", text))
        elif base.kind in ACTIVATIONS and motivated.kind in ACTIVATIONS:
            text = f"{position.base_path} is a {base.kind}, and {position.motivated_path} a {motivated.kind}"
            matching.misfits.append(Misfit("activation", text))
        elif base.kind == "Identity" and not motivated.is_empty:
            # Such as a LayerScale that only bigger networks of a family have.
            matching.skipped.append(position.motivated_path)
        return
    has_heads = "num_heads" in base.settings
    if has_heads:
        _compare_head_widths(position, matching)
    for name, value in base.settings.items():
        is_flag = isinstance(value, bool) and name not in IGNORED_FLAGS
        # The factor of the products of queries and keys, which follows from the width of a head. That of a convolution whose
        # weights are standardised follows from the number of its inputs, as a norm does.
        is_scale = name == "scale" and isinstance(value, float) and not has_heads and not _is_convolution(base)
        is_compared = name in EQUAL_SETTINGS or is_flag or is_scale
        other = motivated.settings.get(name, value)
        if is_compared and other != value:
            where = join_path(position.base_path, name)
            path = position.motivated_path
            place = f"at {path} of the motivated network" if path else "in the motivated network"
            matching.misfits.append(Misfit("setting", f"{where} is {value} in the base, and {other} {place}"))


def _compare_head_widths(position: Position, matching: Matching) -> None:
    """Add a misfit if the heads of two attentions differ in width, because their products have other scales then."""
    widths = [_head_width(position.base), _head_width(position.motivated)]
    if None not in widths and widths[0] != widths[1]:
        text = (
            f"{position.base_path} has heads of {widths[0]} entries, and {position.motivated_path} of {widths[1]}: "
            "heads nest only if they have the same width"
        )
        matching.misfits.append(Misfit("head width", text))


def _head_width(attention: ModuleTree) -> int | None:
    """Return the number of entries of each head, if the module says so or its projections tell."""
    for name in ("head_dim", "dim_head", "attn_head_dim"):
        width = attention.settings.get(name)
        if isinstance(width, int):
            return width
    for path in ("qkv.weight", "q.weight", "to_q.weight", "in_proj_weight"):
        shape = attention.shape(path)
        if shape is not None:
            heads: int = attention.settings["num_heads"]
            return shape[1] // heads
    return None


def _match_parameter(position: Position, scope: Scope, name: str, base_shape: Shape, matching: Matching) -> None:
    """Place a parameter of the base, or add the reason why it has no place."""
    base_name = join_path(position.base_path, name)
    shape = position.motivated.parameters.get(name)
    if shape is None:
        text = f"{base_name} {list(base_shape)} has no counterpart in the motivated network"
        matching.misfits.append(Misfit("name", text))
        return
    where = join_path(position.motivated_path, name)
    reason = _find_misfit(position, name, base_shape, shape)
    if reason is not None:
        kind, rule = reason
        text = f"{base_name} {list(base_shape)} does not fit in {where} {list(shape)}: {rule}"
        matching.misfits.append(Misfit(kind, text))
        return
    if base_shape == shape:
        matching.placements[base_name] = Placement(where, shape, base_shape)
        return
    rows, columns = choose_groups(position.ancestors, base_name, name, scope.groups)
    placement = Placement(where, shape, base_shape, groups=rows, column_groups=columns)
    # Groups that a user gives may be wrong.
    try:
        Division.of(rows, base_shape[0], shape[0])
        if len(shape) > 1:
            dim = placement.column_dim
            Division.of(columns, base_shape[dim], shape[dim])
    except ValueError as error:
        matching.misfits.append(Misfit("groups", f"{base_name} {list(base_shape)} in {where} {list(shape)}: {error}"))
        return
    matching.placements[base_name] = placement


def _find_misfit(position: Position, name: str, base_shape: Shape, shape: Shape) -> tuple[str, str] | None:
    """Return the kind and the rule that two shapes break, or `None` if the one fits in the other."""
    if len(base_shape) != len(shape):
        return "dimensions", "both need the same number of dimensions"
    if any(small > big for small, big in zip(base_shape, shape, strict=True)):
        return "base wider", "the base is bigger in a dimension"
    differing = [dim for dim in range(len(shape)) if base_shape[dim] != shape[dim]]
    if not differing:
        return None
    if _is_convolution(position.base) and name == "weight":
        if any(dim >= 2 for dim in differing):
            return "kernel", "the kernels have different sizes"
        return _find_group_misfit(position, base_shape, shape)
    if _has_other_positions(name, shape, differing):
        return "positions", "they are for different numbers of positions; build both networks for the same image size"
    if len(differing) > 2 or (len(differing) == 2 and differing[0] != 0):
        return "dimensions", "the sizes may differ in the first and in one further dimension"
    return None


def _is_convolution(module: ModuleTree) -> bool:
    return "kernel_size" in module.settings and "groups" in module.settings


def _find_group_misfit(position: Position, base_shape: Shape, shape: Shape) -> tuple[str, str] | None:
    """Compare the groups of two convolutions: the base's lie in the first channels of the first ones."""
    base_groups = position.base.settings["groups"]
    groups = position.motivated.settings["groups"]
    base_rows = base_shape[0] // base_groups
    rows = shape[0] // groups
    if base_groups <= groups and base_rows <= rows:
        return None
    return (
        "convolution groups",
        f"{base_groups} groups of {base_rows} x {base_shape[1]} channels, and {groups} groups of "
        f"{rows} x {shape[1]}: the base must not have more or wider groups",
    )


def _has_other_positions(name: str, shape: Shape, differing: Sequence[int]) -> bool:
    """Return whether a table of positions differs in more than the dimension of its channels or heads."""
    if not any(part in name for part in POSITION_TABLES):
        return False
    # Tables are [positions, heads] or [heads, positions], or [1, C, H, W] or [1, H, W, C] where they are of pixels.
    allowed = (0, 1, 3) if len(shape) == 4 else (0, len(shape) - 1)
    return len(differing) > 1 or differing[0] not in allowed
