"""The nested parameter: one weight kept as a base block and the differential blocks around it.

Base mode uses the base block as it lies; motivated mode assembles the whole. For a matrix with `o` of its `O` rows and
`i` of its `I` columns in the base:

    motivated weight [O, I] =  | base  [o, i]   right [o, I-i] |
                               | below [O-o, I]                |

Each block is a contiguous `nn.Parameter` of its own. After a base step `right` and `below` have no gradient, so any
torch optimizer leaves them, their momentum, their moments and their step counts alone. State dicts speak of the whole:
nothing outside this file needs to know how a weight is divided.
"""

from collections.abc import Iterator
from typing import Any, overload

import torch
from torch import Tensor, nn

from nestnet.nn.mode import Mode
from nestnet.nn.placement import Placement
from nestnet.nn.whole_tensor import WholeTensor

BLOCK_NAMES = ("base", "right", "below")


class NestedParameter(nn.Module):
    """A weight of which base mode uses a part. Calling it with a mode gives that mode's tensor.

    Args:
        placement: where the base lies in the whole. At most the first and one later dimension may differ.

    Attributes:
        base: `[g*o, i, ...]`, what base mode uses.
        right: `[g*o, I-i, ...]`, the rest of the base's rows; `None` where the base has all columns.
        below: `[g*(O-o), I, ...]`, the other rows; `None` where the base has all rows.

    The `g` equal groups of rows (3 for a packed qkv) are divided alike; `g` is 1 for most weights.
    """

    base: nn.Parameter
    right: nn.Parameter | None
    below: nn.Parameter | None

    def __init__(self, placement: Placement) -> None:
        super().__init__()
        self.placement = placement
        shape, base_shape, groups = placement.shape, placement.base_shape, placement.groups
        differ = [dim for dim in range(1, len(shape)) if shape[dim] != base_shape[dim]]
        assert len(differ) <= 1, f"{base_shape} in {shape}: the first and one later dimension may differ"
        assert shape[0] % groups == base_shape[0] % groups == 0, (
            f"{groups} groups in {shape[0]} and {base_shape[0]} rows"
        )
        self.column_dim = differ[0] if differ else 1
        right_shape, below_shape = list(base_shape), list(shape)
        if differ:
            right_shape[self.column_dim] = shape[self.column_dim] - base_shape[self.column_dim]
        below_shape[0] = shape[0] - base_shape[0]
        self.base = nn.Parameter(torch.empty(base_shape))
        self.right = nn.Parameter(torch.empty(right_shape)) if differ else None
        self.below = nn.Parameter(torch.empty(below_shape)) if below_shape[0] else None

    def forward(self, mode: Mode) -> Tensor:
        """`[g*o, i, ...]` in base mode, `[g*O, I, ...]` in motivated mode."""
        return self.base if mode is Mode.BASE else self.join(self.base, self.right, self.below)

    def join(self, base: Tensor, right: Tensor | None = None, below: Tensor | None = None) -> Tensor:
        """The whole tensor from tensors of the blocks' shapes: weights, gradients or optimizer state."""
        inner, whole = 0 if self.placement.groups == 1 else 1, self._rows(base)
        if right is not None:
            whole = torch.cat([whole, self._rows(right)], dim=self.column_dim + inner)
        if below is not None:
            whole = torch.cat([whole, self._rows(below)], dim=inner)
        return whole if inner == 0 else whole.flatten(0, 1)

    def split(self, whole: Tensor) -> dict[str, Tensor]:
        """The inverse of `join`, as views of `whole` where its strides allow."""
        groups, inner = self.placement.groups, 0 if self.placement.groups == 1 else 1
        rows, whole = self.base.shape[0] // groups, self._rows(whole)
        blocks = {"base": whole.narrow(inner, 0, rows)}
        if self.below is not None:
            blocks["below"] = whole.narrow(inner, rows, whole.shape[inner] - rows)
        if self.right is not None:
            dim, columns, upper = self.column_dim + inner, self.base.shape[self.column_dim], blocks["base"]
            blocks["base"] = upper.narrow(dim, 0, columns)
            blocks["right"] = upper.narrow(dim, columns, upper.shape[dim] - columns)
        return blocks if groups == 1 else {name: block.flatten(0, 1) for name, block in blocks.items()}

    def blocks(self) -> tuple[nn.Parameter, ...]:
        """The blocks that there are: base, right, below."""
        return tuple(block for block in (self.base, self.right, self.below) if block is not None)

    def _rows(self, tensor: Tensor) -> Tensor:
        """`[g*R, C, ...]` seen as `[g, R, C, ...]` where there are groups."""
        return tensor if self.placement.groups == 1 else tensor.unflatten(0, (self.placement.groups, -1))

    @torch.no_grad()
    def load(self, whole: Tensor, *, assign: bool = False) -> None:
        """Take over the values of `whole`; with `assign` also its dtype and device, in memory of the block's own."""
        for name, values in self.split(whole).items():
            block: nn.Parameter = getattr(self, name)
            if assign:
                values = values.clone(memory_format=torch.contiguous_format)
                setattr(self, name, nn.Parameter(values, block.requires_grad))
            else:
                block.copy_(values)

    # The module that owns the weight saves and loads it, under the weight's own name: see NestedModule.
    def _save_to_state_dict(self, *args: Any) -> None: ...

    def _load_from_state_dict(self, *args: Any) -> None: ...

    def extra_repr(self) -> str:
        return f"{list(self.placement.base_shape)} -> {list(self.placement.shape)}"


Weight = nn.Parameter | NestedParameter
"""A weight that both modes use whole, or that only the motivated one has, is a plain parameter."""


def weight(shape: tuple[int, ...], base_shape: tuple[int, ...], *, groups: int = 1) -> Weight:
    """An uninitialised weight of `shape` in motivated and `base_shape` in base mode.

    Nothing is divided where both shapes are the same, or where the base has none of it (a size of 0).
    """
    if shape == base_shape or 0 in base_shape:
        return nn.Parameter(torch.empty(shape))
    return NestedParameter(Placement("", shape, base_shape, groups))


@overload
def in_mode(weight: Weight, mode: Mode) -> Tensor: ...
@overload
def in_mode(weight: Weight | None, mode: Mode) -> Tensor | None: ...
def in_mode(weight: Weight | None, mode: Mode) -> Tensor | None:
    """The tensor that `mode` uses; `None` of an absent bias."""
    return weight(mode) if isinstance(weight, NestedParameter) else weight


class NestedModule(nn.Module):
    """A module whose state dict shows its nested parameters as whole tensors under their own names.

    What is written to such a tensor, or to a view of it, reaches the blocks: see `nestnet.whole_tensor`.
    """

    def nested_parameters(self) -> Iterator[tuple[str, NestedParameter]]:
        """The nested parameters that this very module owns."""
        return ((name, child) for name, child in self._modules.items() if isinstance(child, NestedParameter))

    def placements(self) -> Iterator[tuple[str, Placement]]:
        """Where each of this module's base tensors lies in its state dict: (base name, placement)."""
        for name, nested in self.nested_parameters():
            yield name, nested.placement.renamed(name)
        yield from plain_placements(self)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        for name, nested in self.nested_parameters():
            destination[prefix + name] = nested(Mode.MOTIVATED) if keep_vars else WholeTensor.of(nested)
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        rest = dict(state_dict)
        for name, nested in self.nested_parameters():
            whole, expected = rest.pop(prefix + name, None), nested.placement.shape
            if whole is None:
                missing_keys.extend([prefix + name] if strict else [])
            elif tuple(whole.shape) != expected:
                error_msgs.append(
                    f"size mismatch for {prefix}{name}: copying a param with shape {tuple(whole.shape)} from checkpoint, "
                    f"the shape in current model is {expected}."
                )
            else:
                nested.load(whole, assign=local_metadata.get("assign_to_params_buffers", False))
        super()._load_from_state_dict(rest, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)


def plain_placements(module: nn.Module) -> Iterator[tuple[str, Placement]]:
    """The placements of a module's own parameters and saved buffers, which both modes use whole."""
    for name, tensor in (*module._parameters.items(), *module._buffers.items()):
        if tensor is not None and name not in module._non_persistent_buffers_set:
            yield name, Placement(name, tuple(tensor.shape), tuple(tensor.shape))
