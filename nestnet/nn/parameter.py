"""The nested parameter: one weight that is stored as a base block and the differential blocks around it.

Base mode uses the base block as it is, and motivated mode assembles the whole weight. For a matrix of which
the base has `o` of `O` rows and `i` of `I` columns:

    motivated weight [O, I] =  | base  [o, i]   right [o, I-i] |
                               | below [O-o, I]                |

Each block is a separate, contiguous `nn.Parameter`. After a base step `right` and `below` have no gradient,
so that every torch optimizer leaves them, their momentum, their moments and their step counts unchanged.
State dicts hold the whole weight: see `nestnet.nn.module`.
"""

from typing import Any, overload

import torch
from torch import Tensor, nn

from nestnet.nn.division import Groups
from nestnet.nn.mode import Mode
from nestnet.nn.placement import Placement

BLOCK_NAMES = ("base", "right", "below")
"""Names under which a `NestedParameter` holds its blocks."""


BLOCKS_SUFFIX = "_blocks"
"""End of the name of a `NestedParameter` below a plain layer, whose own attribute is the joined weight: see
`nestnet.nesting.joined_module`."""


class NestedParameter(nn.Module):
    """A weight of which base mode uses a part. Called with a mode, it returns the tensor of that mode.

    Rows and columns may consist of groups that are each divided, such as the 3 groups of rows of a packed query,
    key and value projection. Most weights have one group. Below, `o` and `O` are the rows of all groups.

    Args:
        placement: placement of the base tensor in the whole one. The shapes may differ in the first and in one
            later dimension.

    Attributes:
        placement: placement of the base tensor in the whole one.
        column_dim: dimension after the first in which the shapes differ; 1 if they differ in none.
        base: block `[o, i, ...]` that base mode uses.
        right: block `[o, I-i, ...]` of the remaining columns of these rows; `None` if the base has all
            columns.
        below: block `[O-o, I, ...]` of the remaining rows; `None` if the base has all rows.
    """

    base: nn.Parameter
    right: nn.Parameter | None
    below: nn.Parameter | None

    def __init__(self, placement: Placement) -> None:
        super().__init__()
        self.placement = placement
        shape = placement.shape
        base_shape = placement.base_shape
        # Two blocks beside the base can fill the whole only if at most one dimension after the first differs.
        differing_dims = [dim for dim in range(1, len(shape)) if shape[dim] != base_shape[dim]]
        assert len(differing_dims) <= 1, f"{base_shape} in {shape}: the first and one later dimension may differ"

        # Uninitialised, contiguous blocks: strided views into one weight would break fused optimizers.
        self.base = nn.Parameter(torch.empty(base_shape))
        self.column_dim = 1
        self.right = None
        if differing_dims:
            self.column_dim = differing_dims[0]
            right_shape = list(base_shape)
            right_shape[self.column_dim] = shape[self.column_dim] - base_shape[self.column_dim]
            self.right = nn.Parameter(torch.empty(right_shape))
        self.below = None
        if shape[0] > base_shape[0]:
            self.below = nn.Parameter(torch.empty(shape[0] - base_shape[0], *shape[1:]))

        # How the blocks are joined, computed once.
        self._rows = placement.rows
        self._columns = placement.columns if differing_dims else None

    def forward(self, mode: Mode) -> Tensor:
        """Return the weight of `mode`.

        Args:
            mode: mode of the forward pass.

        Returns:
            `[o, i, ...]` in base mode, which is the base block itself, or `[O, I, ...]` in motivated mode.
        """
        # The base block itself: a base step copies nothing and touches no differential memory.
        if mode is Mode.BASE:
            return self.base
        return self.join(self.base, self.right, self.below)

    def join(self, base: Tensor, right: Tensor | None = None, below: Tensor | None = None) -> Tensor:
        """Assemble a whole tensor from tensors of the blocks' shapes: weights, gradients or optimizer state.

        Args:
            base: tensor `[o, i, ...]`.
            right: tensor `[o, I-i, ...]`, if there is such a block.
            below: tensor `[O-o, I, ...]`, if there is such a block.

        Returns:
            The whole tensor `[O, I, ...]`.
        """
        whole = base
        if right is not None:
            assert self._columns is not None
            whole = self._columns.join(whole, right, self.column_dim)
        if below is not None:
            whole = self._rows.join(whole, below, 0)
        return whole

    def split(self, whole: Tensor) -> dict[str, Tensor]:
        """Divide a whole tensor into blocks: the inverse of `join`.

        Args:
            whole: tensor `[O, I, ...]`.

        Returns:
            The blocks by name, as views of `whole` where its strides and the groups allow it.
        """
        # Cut off the rows below, then divide the upper rows into base and right.
        blocks = {"base": whole}
        if self.below is not None:
            blocks["base"], blocks["below"] = self._rows.split(whole, 0)
        if self.right is not None:
            assert self._columns is not None
            blocks["base"], blocks["right"] = self._columns.split(blocks["base"], self.column_dim)
        return blocks

    def blocks(self) -> tuple[nn.Parameter, ...]:
        """Return the blocks that the weight has, in the order base, right, below."""
        return tuple(block for block in (self.base, self.right, self.below) if block is not None)

    @torch.no_grad()
    def load(self, whole: Tensor, *, assign: bool = False) -> None:
        """Set the blocks to the values of a whole tensor.

        Args:
            whole: tensor `[O, I, ...]`.
            assign: whether the blocks become new parameters with the dtype and on the device of `whole`, instead
                of being written to in place. They are copies and share no memory with `whole`.
        """
        for name, values in self.split(whole).items():
            block: nn.Parameter = getattr(self, name)
            if assign:
                # The blocks are views of `whole`, which a parameter would keep alive and share.
                own_values = values.clone(memory_format=torch.contiguous_format)
                setattr(self, name, nn.Parameter(own_values, block.requires_grad))
            else:
                block.copy_(values)

    # The module that owns the weight saves and loads it, under the weight's own name: see NestedModule.
    def _save_to_state_dict(self, *args: Any) -> None: ...

    def _load_from_state_dict(self, *args: Any) -> None: ...

    def extra_repr(self) -> str:
        return f"{list(self.placement.base_shape)} -> {list(self.placement.shape)}"


Weight = nn.Parameter | NestedParameter
"""A weight of a nested layer. It is a plain parameter if both modes use it whole, or if only the motivated network has it."""


def create_weight(shape: tuple[int, ...], base_shape: tuple[int, ...], *, groups: Groups = 1) -> Weight:
    """Create an uninitialised weight.

    Args:
        shape: shape in motivated mode, `[O, I, ...]`.
        base_shape: shape in base mode, `[o, i, ...]`. A size of 0 marks a weight that the base does not have.
        groups: groups into which the rows are divided: see `Placement`. The base has the first rows of each.

    Returns:
        A `NestedParameter` if the base has a part of the weight; otherwise a plain parameter of `shape`.
    """
    if shape == base_shape or 0 in base_shape:
        return nn.Parameter(torch.empty(shape))
    return NestedParameter(Placement("", shape, base_shape, groups))


@overload
def select_weight(weight: Weight, mode: Mode) -> Tensor: ...
@overload
def select_weight(weight: Weight | None, mode: Mode) -> Tensor | None: ...
def select_weight(weight: Weight | None, mode: Mode) -> Tensor | None:
    """Return the tensor of a weight that `mode` uses.

    Args:
        weight: weight of a layer, or `None` for an absent bias.
        mode: mode of the forward pass.

    Returns:
        The tensor, or `None` if there is no weight.
    """
    if isinstance(weight, NestedParameter):
        return weight(mode)
    return weight


def weight_name(module_name: str) -> str:
    """Return the name of the weight whose blocks a child module holds.

    Args:
        module_name: name of the `NestedParameter` among the children of the module that owns the weight.

    Returns:
        The name of the weight in state dicts.

    >>> weight_name("weight"), weight_name("weight_blocks")
    ('weight', 'weight')
    """
    return module_name.removesuffix(BLOCKS_SUFFIX)


def state_dict_name(parameter_name: str) -> str:
    """Return the state-dict name of a parameter, or of the weight of which it is a block.

    Args:
        parameter_name: name in `named_parameters` of a network or of a subnet.

    Returns:
        The name of the whole weight.

    >>> state_dict_name("head.weight.right"), state_dict_name("head.weight_blocks.right")
    ('head.weight', 'head.weight')
    """
    stem, _, last = parameter_name.rpartition(".")
    if last in BLOCK_NAMES:
        return weight_name(stem)
    return parameter_name
