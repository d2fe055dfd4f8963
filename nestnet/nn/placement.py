"""The weights map: where each tensor of the base network lies inside the motivated one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Index = tuple[slice | Tensor, ...]


@dataclass(frozen=True)
class Placement:
    """The position of one base tensor in the state dict of a nested network.

    In every dimension the base has the first entries. If the rows are divided into groups, it has the first
    rows of each group.

    Attributes:
        name: name of the tensor that holds the base tensor.
        shape: shape of that tensor, `[O, I, ...]`.
        base_shape: shape of the base tensor, `[o, i, ...]`.
        groups: number of equal groups into which the rows are divided, at least 1. A packed query, key and
            value projection that is divided by heads has 3.
        private: whether the tensor belongs to base mode alone and is not part of the motivated network, such as
            the running statistics that a BatchNorm keeps for the base, or the scale and shift that it trains for it.
    """

    name: str
    shape: tuple[int, ...]
    base_shape: tuple[int, ...]
    groups: int = 1
    private: bool = False

    def with_name(self, name: str) -> "Placement":
        """Return the same placement in a tensor of another name.

        Args:
            name: name of the tensor.

        Returns:
            The placement.
        """
        return replace(self, name=name)

    @property
    def index(self) -> Index:
        """The index of the base tensor: `whole[index]` reads it, and `whole[index] = base` writes it."""
        if self.groups == 1:
            return tuple(slice(size) for size in self.base_shape)
        # The base's rows of different groups are not adjacent, so that no slice describes them.
        base_rows_per_group = self.base_shape[0] // self.groups
        rows = torch.arange(self.shape[0]).unflatten(0, (self.groups, -1))  # [g, O/g]
        base_rows = rows[:, :base_rows_per_group].flatten()  # [o]
        return (base_rows, *(slice(size) for size in self.base_shape[1:]))

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
        if self.groups > 1:
            slices[0] = f":{self.groups} x {self.base_shape[0] // self.groups}"
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

    def take(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the base network's tensors from the state dict of a nested network.

        Args:
            state: state dict of the nested network.

        Returns:
            The tensors by their names in the base network, as views of `state` except where rows are divided
            into groups.
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
