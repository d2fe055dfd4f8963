"""The weights map: where each tensor of the base network lies inside the motivated one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nestnet.nn.division import Division, Groups

Index = tuple[slice | Tensor, ...]


@dataclass(frozen=True)
class Placement:
    """The position of one base tensor in the state dict of a nested network.

    In every dimension the base has the first entries. If the rows or the columns are divided into groups, it has
    the first ones of each group.

    Attributes:
        name: name of the tensor that holds the base tensor.
        shape: shape of that tensor, `[O, I, ...]`.
        base_shape: shape of the base tensor, `[o, i, ...]`.
        groups: number of equal groups into which the rows are divided, at least 1, or the sizes (base's, whole)
            of each group. A packed query, key and value projection that is divided by heads has 3.
        column_groups: the same for the columns: the one dimension after the first in which the shapes differ. A
            layer that reads a concatenation of several tensors has a group of columns for each.
        private: whether the tensor belongs to base mode alone and is not part of the motivated network, such as
            the running statistics that a BatchNorm keeps for the base, or the scale and shift that it trains for it.
    """

    name: str
    shape: tuple[int, ...]
    base_shape: tuple[int, ...]
    groups: Groups = 1
    private: bool = False
    column_groups: Groups = 1

    def with_name(self, name: str) -> "Placement":
        """Return the same placement in a tensor of another name.

        Args:
            name: name of the tensor.

        Returns:
            The placement.
        """
        return replace(self, name=name)

    @property
    def column_dim(self) -> int:
        """Dimension after the first in which the shapes differ; 1 if they differ in none."""
        for dim in range(1, len(self.shape)):
            if self.shape[dim] != self.base_shape[dim]:
                return dim
        return 1

    @property
    def rows(self) -> Division:
        """How the first dimension is divided."""
        return Division.of(self.groups, self.base_shape[0], self.shape[0])

    @property
    def columns(self) -> Division:
        """How the dimension `column_dim` is divided."""
        dim = self.column_dim
        return Division.of(self.column_groups, self.base_shape[dim], self.shape[dim])

    @property
    def index(self) -> Index:
        """The index of the base tensor: `whole[index]` reads it, and `whole[index] = base` writes it."""
        index: list[slice | Tensor] = [slice(size) for size in self.base_shape]
        # The base's entries of different groups are not adjacent, so that no slice describes them.
        if self.groups != 1:
            index[0] = self.rows.base_indices
        if self.column_groups != 1:
            index[self.column_dim] = self.columns.base_indices
        if self.groups != 1 and self.column_groups != 1:
            return self._open_mesh(index)
        return tuple(index)

    def is_same_as(self, other: "Placement") -> bool:
        """Return whether another placement puts the base tensor in the same entries, however its groups are written.

        Args:
            other: placement of the same tensor.
        """
        if (self.name, self.shape, self.base_shape, self.private) != (
            other.name,
            other.shape,
            other.base_shape,
            other.private,
        ):
            return False
        if not self.shape:
            return True
        has_same_rows = torch.equal(self.rows.base_indices, other.rows.base_indices)
        if len(self.shape) == 1:
            return has_same_rows
        return has_same_rows and torch.equal(self.columns.base_indices, other.columns.base_indices)

    def _open_mesh(self, index: list[slice | Tensor]) -> Index:
        """Return an index of tensors that broadcast to the base's shape, because rows and columns are both listed."""
        mesh: list[slice | Tensor] = []
        for dim, entries in enumerate(index):
            if isinstance(entries, slice):
                entries = torch.arange(self.base_shape[dim])
            view = [1] * len(self.base_shape)
            view[dim] = -1
            mesh.append(entries.view(view))
        return tuple(mesh)

    @property
    def is_whole(self) -> bool:
        """Whether both networks have the tensor in the same shape."""
        return self.shape == self.base_shape

    def __str__(self) -> str:
        """Return the name and, if the base has a part of the tensor, the slice of each dimension."""
        if self.is_whole:
            return self.name
        # Such as [:3 x 64, :192] for 64 rows of each of 3 groups.
        slices = [f":{size}" for size in self.base_shape]
        if self.groups != 1:
            slices[0] = str(self.rows)
        if self.column_groups != 1:
            slices[self.column_dim] = str(self.columns)
        return f"{self.name}[{', '.join(slices)}]"


class WeightsMap(Mapping[str, Placement]):
    """A mapping from the name of each base tensor, parameter or buffer, to its `Placement`.

    It is the weights map of arXiv 2602.21064, section 3.3. `NestedModel.weights_map` holds that of a network.

    Args:
        placements: placement of each base tensor, by timm's name of the tensor in the base network.

    Example:
        >>> import nestnet
        >>> net = nestnet.create_model("resnet20", "resnet32", num_classes=10)
        >>> print(net.weights_map["layer1.2.conv1.weight"])
        layer1.4.conv1.weight
        >>> net = nestnet.create_model("vit_tiny_patch16_224", "vit_small_patch16_224")
        >>> print(net.weights_map["blocks.0.mlp.fc1.weight"])
        blocks.0.mlp.fc1.weight[:768, :192]
        >>> net.weights_map["blocks.0.mlp.fc1.weight"].index
        (slice(None, 768, None), slice(None, 192, None))
    """

    def __init__(self, placements: Mapping[str, Placement]) -> None:
        self._placements = dict(placements)

    def __getitem__(self, name: str) -> Placement:
        return self._placements[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._placements)

    def __len__(self) -> int:
        return len(self._placements)

    def private_names(self) -> dict[str, str]:
        """Return the base name of each tensor that belongs to base mode alone, by its name in the nested network."""
        return {placement.name: base_name for base_name, placement in self.items() if placement.private}

    def take(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the base network's tensors from the state dict of a nested network.

        Args:
            state: state dict of the nested network.

        Returns:
            The tensors by their names in the base network, as views of `state` except where rows or columns are
            divided into groups.
        """
        base = {}
        for name, placement in self.items():
            # A tensor that both networks have whole is returned itself instead of a view.
            whole = state[placement.name]
            base[name] = whole if placement.is_whole else whole[placement.index]
        return base

    @torch.no_grad()
    def put(self, base: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
        """Write the base network's tensors into the state dict of a nested network, in place.

        Args:
            base: tensors by their names in the base network.
            state: state dict that is written to. Tensors that it does not hold are skipped.
        """
        for name, placement in self.items():
            if placement.name in state:
                # An assignment to an index writes in place, also where the rows are not adjacent.
                state[placement.name][placement.index] = base[name]

    def __str__(self) -> str:
        """Return a line `base name -> placement` for each tensor."""
        width = max(map(len, self), default=0)
        return "\n".join(f"{name:<{width}} -> {placement}" for name, placement in self.items())
