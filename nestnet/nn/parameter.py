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

from nestnet.nn.mode import Mode
from nestnet.nn.placement import Placement

BLOCK_NAMES = ("base", "right", "below")
"""Names under which a `NestedParameter` holds its blocks."""


class NestedParameter(nn.Module):
    """A weight of which base mode uses a part. Called with a mode, it returns the tensor of that mode.

    A weight may consist of `g` groups of rows that are divided alike, such as the 3 of a packed query, key
    and value projection. Most weights have one group. Below, `o` and `O` are the rows of one group.

    Args:
        placement: placement of the base tensor in the whole one. The shapes may differ in the first and in one
            later dimension.

    Attributes:
        placement: placement of the base tensor in the whole one.
        column_dim: dimension after the first in which the shapes differ; 1 if they differ in none.
        base: block `[g*o, i, ...]` that base mode uses.
        right: block `[g*o, I-i, ...]` of the remaining columns of these rows; `None` if the base has all
            columns.
        below: block `[g*(O-o), I, ...]` of the remaining rows; `None` if the base has all rows.
    """

    base: nn.Parameter
    right: nn.Parameter | None
    below: nn.Parameter | None

    def __init__(self, placement: Placement) -> None:
        super().__init__()
        self.placement = placement
        shape = placement.shape
        base_shape = placement.base_shape
        groups = placement.groups
        # Two blocks beside the base can fill the whole only if at most one dimension after the first differs.
        differing_dims = [dim for dim in range(1, len(shape)) if shape[dim] != base_shape[dim]]
        assert len(differing_dims) <= 1, f"{base_shape} in {shape}: the first and one later dimension may differ"
        assert shape[0] % groups == base_shape[0] % groups == 0, (
            f"{groups} groups in {shape[0]} and {base_shape[0]} rows"
        )

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

        # With groups, a dimension of groups precedes that of rows: see `_unflatten_groups`.
        self._row_dim = 1 if groups > 1 else 0

    def forward(self, mode: Mode) -> Tensor:
        """Return the weight of `mode`.

        Args:
            mode: mode of the forward pass.

        Returns:
            `[g*o, i, ...]` in base mode, which is the base block itself, or `[g*O, I, ...]` in motivated
            mode.
        """
        # The base block itself: a base step copies nothing and touches no differential memory.
        if mode is Mode.BASE:
            return self.base
        return self.join(self.base, self.right, self.below)

    def join(self, base: Tensor, right: Tensor | None = None, below: Tensor | None = None) -> Tensor:
        """Assemble a whole tensor from tensors of the blocks' shapes: weights, gradients or optimizer state.

        Args:
            base: tensor `[g*o, i, ...]`.
            right: tensor `[g*o, I-i, ...]`, if there is such a block.
            below: tensor `[g*(O-o), I, ...]`, if there is such a block.

        Returns:
            The whole tensor `[g*O, I, ...]`.
        """
        whole = self._unflatten_groups(base)  # [o, i, ...] or [g, o, i, ...]
        # to [(g) o I ...]
        if right is not None:
            whole = torch.cat([whole, self._unflatten_groups(right)], dim=self._row_dim + self.column_dim)
        # to [(g) O I ...]
        if below is not None:
            whole = torch.cat([whole, self._unflatten_groups(below)], dim=self._row_dim)
        return self._flatten_groups(whole)

    def split(self, whole: Tensor) -> dict[str, Tensor]:
        """Divide a whole tensor into blocks: the inverse of `join`.

        Args:
            whole: tensor `[g*O, I, ...]`.

        Returns:
            The blocks by name, as views of `whole` where its strides allow it.
        """
        whole = self._unflatten_groups(whole)
        # Cut off the rows below, then divide the upper rows into base and right.
        base_rows = self.base.shape[0] // self.placement.groups
        upper = whole.narrow(self._row_dim, 0, base_rows)
        blocks = {"base": upper}
        if self.below is not None:
            blocks["below"] = whole.narrow(self._row_dim, base_rows, whole.shape[self._row_dim] - base_rows)
        if self.right is not None:
            dim = self._row_dim + self.column_dim
            base_columns = self.base.shape[self.column_dim]
            blocks["base"] = upper.narrow(dim, 0, base_columns)
            blocks["right"] = upper.narrow(dim, base_columns, upper.shape[dim] - base_columns)
        return {name: self._flatten_groups(block) for name, block in blocks.items()}

    def blocks(self) -> tuple[nn.Parameter, ...]:
        """Return the blocks that the weight has, in the order base, right, below."""
        return tuple(block for block in (self.base, self.right, self.below) if block is not None)

    def _unflatten_groups(self, tensor: Tensor) -> Tensor:
        """View `[g*R, C, ...]` as `[g, R, C, ...]` if the weight has groups."""
        if self.placement.groups == 1:
            return tensor
        return tensor.unflatten(0, (self.placement.groups, -1))

    def _flatten_groups(self, tensor: Tensor) -> Tensor:
        """Return `[g, R, C, ...]` as `[g*R, C, ...]` if the weight has groups."""
        if self.placement.groups == 1:
            return tensor
        return tensor.flatten(0, 1)

    @torch.no_grad()
    def load(self, whole: Tensor, *, assign: bool = False) -> None:
        """Set the blocks to the values of a whole tensor.

        Args:
            whole: tensor `[g*O, I, ...]`.
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


def create_weight(shape: tuple[int, ...], base_shape: tuple[int, ...], *, groups: int = 1) -> Weight:
    """Create an uninitialised weight.

    Args:
        shape: shape in motivated mode, `[O, I, ...]`.
        base_shape: shape in base mode, `[o, i, ...]`. A size of 0 marks a weight that the base does not have.
        groups: number of equal groups into which the rows are divided; the base has the first rows of each.

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


def state_dict_name(parameter_name: str) -> str:
    """Return the state-dict name of a parameter, or of the weight of which it is a block.

    Args:
        parameter_name: name in `named_parameters`.

    Returns:
        The name of the whole weight.

    >>> state_dict_name("head.weight.right")
    'head.weight'
    """
    stem, _, last = parameter_name.rpartition(".")
    if last in BLOCK_NAMES:
        return stem
    return parameter_name
