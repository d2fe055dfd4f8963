"""The weights map: where each tensor of the base network lies inside the motivated one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Index = tuple[slice | Tensor, ...]


@dataclass(frozen=True)
class Placement:
    """Where one base tensor lies.

    Attributes:
        name: the tensor of the nested network's state dict that holds it.
        shape: that tensor's shape.
        base_shape: the base tensor's own shape.
        groups: the rows fall into this many equal parts, and the base has the first rows of each (a packed qkv divided
            by heads has 3). In every other dimension it has the first entries.
        private: the tensor belongs to base mode alone and is no part of the motivated network (the running statistics
            of a BatchNorm that keeps them apart).
    """

    name: str
    shape: tuple[int, ...]
    base_shape: tuple[int, ...]
    groups: int = 1
    private: bool = False

    def renamed(self, name: str) -> "Placement":
        return replace(self, name=name)

    @property
    def index(self) -> Index:
        """`whole[index]` is the base tensor; `whole[index] = base` writes it."""
        if self.groups == 1:
            return tuple(slice(size) for size in self.base_shape)
        rows = torch.arange(self.shape[0]).unflatten(0, (self.groups, -1))
        return (rows[:, : self.base_shape[0] // self.groups].flatten(), *(slice(size) for size in self.base_shape[1:]))

    @property
    def is_whole(self) -> bool:
        """Whether both networks have this tensor in the same size."""
        return self.shape == self.base_shape

    def __str__(self) -> str:
        if self.is_whole:
            return self.name
        rows = f"{self.groups} x {self.base_shape[0] // self.groups}" if self.groups > 1 else f"{self.base_shape[0]}"
        return f"{self.name}[{', '.join([f':{rows}', *(f':{size}' for size in self.base_shape[1:])])}]"


class WeightsMap(Mapping[str, Placement]):
    """From the name of each base tensor, parameters and buffers alike, to its `Placement`.

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
        """The base network's state out of a nested network's, as views where that is possible."""
        return {name: state[p.name] if p.is_whole else state[p.name][p.index] for name, p in self.items()}

    @torch.no_grad()
    def put(self, base: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
        """Write the base network's tensors into `state` in place, where `state` has them."""
        for name, p in self.items():
            if p.name in state:
                state[p.name][p.index] = base[name]

    def __str__(self) -> str:
        width = max(map(len, self), default=0)
        return "\n".join(f"{name:<{width}} -> {placement}" for name, placement in self.items())
