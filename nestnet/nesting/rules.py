"""The rules of packing: which weights consist of several tensors side by side, so that the base has a part of each.

A weight's rows are its outputs, and its columns its inputs. Without a rule the base has the first rows and the first
columns. That is wrong for a packed query, key and value projection, whose base rows are the first of the queries, the
first of the keys and the first of the values. `RULES` lists all such cases, each with a pair of timm's networks that
needs it. `nestnet.verify_nesting` finds a pair for which a rule is missing.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nestnet.nesting.module_tree import ModuleTree, Shape
from nestnet.nesting.row_parts import group_parts
from nestnet.nn.division import Groups

OwnGroups = Mapping[str, tuple[Groups, Groups]]
"""Groups of rows and of columns of the weights whose names match a regular expression, as a user gives them."""


@dataclass(frozen=True)
class Ancestor:
    """A module around a weight, in both networks.

    Attributes:
        base: the base's module.
        motivated: the motivated network's module.
        base_path: path of the base's module; `""` for the network itself.
    """

    base: ModuleTree
    motivated: ModuleTree
    base_path: str


@dataclass(frozen=True)
class Side:
    """A weight in one of the two networks, as a rule sees it.

    Attributes:
        module: module that the rule names.
        tensor: path of the weight below that module.
        shape: shape of the weight.
    """

    module: ModuleTree
    tensor: str
    shape: Shape


Parts = Callable[[Side], Sequence[int] | None]
"""From a weight to the sizes of the parts of its rows, in order; `None` where the rule does not apply."""


def equal(count: int) -> Parts:
    """Rows in `count` equal parts."""

    def parts(side: Side) -> Sequence[int] | None:
        rows = side.shape[0]
        return (rows // count,) * count if rows % count == 0 else None

    return parts


def packed_projections(side: Side) -> Sequence[int] | None:
    """Queries, keys and values, or two of them, one after the other and each as wide as the input."""
    weight = side.module.shape(re.sub(r"bias$", "weight", side.tensor))
    if weight is None or "key_dim" in side.module.settings:
        return None  # rows [heads, (q k v)] are prefixes, if the heads have the same width
    rows, columns = weight[:2]
    for count in (rows // columns, 3, 2):
        if count in (2, 3) and rows % count == 0:
            return (rows // count,) * count
    return None


def splits(side: Side) -> Sequence[int] | None:
    """The splits that are convolved one after the other, and the last one, which is not (Gao et al. 2019, arXiv 1904.01169)."""
    width: int = side.module.settings["width"]
    scale: int = side.module.settings["scale"]
    return (width * (scale - 1), width)


@dataclass(frozen=True)
class Rule:
    """A rule of packing.

    Attributes:
        module: regular expression that matches the whole class name of a module around the weight.
        tensor: regular expression that matches the whole path of the weight below that module.
        example: a base and a motivated network of timm's that need the rule.
        rows: parts of the rows. Parts of columns need no rules, because the check finds them.
    """

    module: str
    tensor: str
    example: tuple[str, str]
    rows: Parts

    def applies(self, ancestor: Ancestor, tensor: str) -> bool:
        """Return whether the rule is for a weight.

        Args:
            ancestor: a module around the weight.
            tensor: path of the weight below it.
        """
        if re.fullmatch(self.module, ancestor.base.kind) is None:
            return False
        return re.fullmatch(self.tensor, tensor) is not None


RULES = (
    # Attention: [3, heads, width] rows; an attention with `key_dim` has [heads, (q k v)] rows and needs no groups.
    Rule(
        ".*",
        r"(to_)?(qkv|qk|kv)(_proj)?\.(weight|bias)",
        ("vit_tiny_patch16_224", "vit_small_patch16_224"),
        rows=packed_projections,
    ),
    # The two halves of a CSP stage.
    Rule("Cs.*|Cross.*|DarkStage", r"conv_exp\.conv\.weight", ("cs3darknet_s", "cs3darknet_m"), rows=equal(2)),
    # Networks that differ in the number of splits.
    Rule("Bottle2neck", r"conv1\.weight", ("res2net50_26w_4s", "res2net50_26w_8s"), rows=splits),
)
"""All rules. The first one that applies to a weight, to the innermost module around it first, decides."""


def choose_groups(
    ancestors: Sequence[Ancestor], base_name: str, name: str, own_groups: OwnGroups
) -> tuple[Groups, Groups]:
    """Return the groups of rows and of columns of a weight.

    Args:
        ancestors: the modules around the weight, from the innermost to the networks themselves.
        base_name: name of the weight in the base network.
        name: name of the weight in its own module.
        own_groups: groups that a user gives, which take precedence.

    Returns:
        The groups of rows and of columns, 1 where no rule applies.
    """
    for pattern, groups in own_groups.items():
        if re.search(pattern, base_name):
            return groups
    layer_groups = _groups_of_layer(ancestors[0], name)
    if layer_groups is not None:
        return layer_groups, 1
    for ancestor in ancestors:
        tensor = base_name.removeprefix(ancestor.base_path).removeprefix(".")
        for rule in RULES:
            if rule.applies(ancestor, tensor):
                base = _side(ancestor.base, tensor)
                motivated = _side(ancestor.motivated, tensor)
                if base is not None and motivated is not None:
                    return _groups(rule.rows, base, motivated), 1
    return 1, 1


PACKED_LAYERS = {
    "LSTM": (r"(weight|bias)_[ih]h_l\d+(_reverse)?", 4),
    "GRU": (r"(weight|bias)_[ih]h_l\d+(_reverse)?", 3),
    "MultiheadAttention": (r"in_proj_(weight|bias)", 3),
}
"""Layers of torch's that pack their weights: names of the weights, and the number of gates or projections."""


def _groups_of_layer(owner: Ancestor, name: str) -> Groups | None:
    """Return the groups of rows that a layer of torch's has by itself; `None` if it has none."""
    if owner.base.kind in PACKED_LAYERS:
        pattern, count = PACKED_LAYERS[owner.base.kind]
        return count if re.fullmatch(pattern, name) else None
    # Convolutions in groups, of which each has its own rows.
    base_groups = owner.base.settings.get("groups", 1)
    groups = owner.motivated.settings.get("groups", 1)
    if "kernel_size" not in owner.base.settings or groups == 1:
        return None
    # A bank of kernels has a row for each kernel.
    weight = owner.motivated.parameters.get("weight", ())
    if len(weight) < 3:
        return None
    return group_parts(base_groups, groups, owner.base.parameters[name][0], owner.motivated.parameters[name][0])


def _side(module: ModuleTree, tensor: str) -> Side | None:
    shape = module.shape(tensor)
    # Blocks below the module may have other numbers in the motivated network.
    return None if shape is None else Side(module, tensor, shape)


def _groups(parts: Parts, base: Side, motivated: Side) -> Groups:
    """Return the groups whose sizes a rule gives for each network; 1 where it does not apply."""
    base_sizes = parts(base)
    sizes = parts(motivated)
    if base_sizes is None or sizes is None or len(base_sizes) != len(sizes):
        return 1
    if len(set(base_sizes)) == len(set(sizes)) == 1:
        return len(sizes)
    return tuple(zip(base_sizes, sizes, strict=True))
