"""One mode of a nested network as a separate module."""

import fnmatch
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from nestnet.nn.layer_groups import group_weights
from nestnet.nn.mode import Mode
from nestnet.nn.parameter import NestedParameter, state_dict_name

if TYPE_CHECKING:
    from nestnet.nn.model import NestedModel

AnyTensor = TypeVar("AnyTensor", bound=Tensor)

REPORTED_NAMES = 5
"""Largest number of missing keys, of unexpected keys and of errors that the error about a state dict lists."""


class Subnet(nn.Module):
    """One mode of a nested network as a module over the very same parameters and buffers.

    `NestedModel.subnet` returns it. Its `state_dict` has the keys and shapes of timm's model, and
    `load_state_dict` takes them. `named_parameters` yields the parameters that the mode trains: in base mode
    under timm's names, and in motivated mode with the blocks of a divided weight in place of the weight.
    `train`, `eval` and `to` act on the whole nested network.

    Args:
        net: nested network.
        mode: mode in which the network runs.

    Attributes:
        net: nested network.
        mode: mode in which the network runs.
    """

    def __init__(self, net: "NestedModel", mode: Mode) -> None:
        super().__init__()
        self.net = net
        self.mode = mode
        # A new module is in training mode, whichever mode its children are in.
        self.training = net.training

    @property
    def architecture(self) -> str:
        """Name of this network in timm."""
        return self.net.architectures.of(self.mode)

    def forward(self, x: Tensor, *args: Any, **options: Any) -> Any:
        """Return the logits `[B, K]` of the images `x` `[B, in_chans, H, W]`.

        Further arguments are those of the network, as `nestnet.nest` passes them on.
        """
        return self.net(x, self.mode, *args, **options)

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the parameters that the mode trains, as `nn.Module.named_parameters` does."""
        parameters = ((name, tensor) for name, tensor in self._used() if isinstance(tensor, nn.Parameter))
        yield from _as_named(parameters, prefix, recurse=recurse, remove_duplicate=remove_duplicate)

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the buffers that the mode uses, as `nn.Module.named_buffers` does."""
        buffers = ((name, tensor) for name, tensor in self._used() if not isinstance(tensor, nn.Parameter))
        yield from _as_named(buffers, prefix, recurse=recurse, remove_duplicate=remove_duplicate)

    def _used(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the parameters and buffers that this mode uses, by the names in its network; blocks by names of their own."""
        placements = self.net.weights_map
        if self.mode is Mode.MOTIVATED:
            # All other tensors of the nested network have the same names in the motivated network.
            private_names = placements.private_names()
            for name, stored in self.net.stored_tensors():
                if name in private_names:
                    continue
                if isinstance(stored, NestedParameter):
                    for block_name, block in stored.named_parameters():
                        yield f"{name}.{block_name}", block
                else:
                    yield name, stored
            return
        stored_tensors = dict(self.net.stored_tensors())
        for name, placement in placements.items():
            tensor = stored_tensors[placement.name]
            if isinstance(tensor, NestedParameter):
                tensor = tensor.base
            elif tuple(tensor.shape) != placement.base_shape:
                # Shared running statistics are stored in one tensor: the base has a view of it.
                tensor = tensor[placement.index]
            yield name, tensor

    def state_dict(  # type: ignore[override]  # torch declares it by overloads that no override can repeat
        self, *, destination: Any = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Any]:
        """Return the state with the keys and shapes of timm's model of this mode.

        In base mode, and for all weights that are not divided, the entries share memory with the network. A
        divided weight of the motivated network is joined from its blocks. Writes to it or to a view of it reach
        the blocks, and operations whose writes would not are refused: see `nestnet.nn.whole_tensor`.

        Args:
            destination: dictionary to which the entries are added, by default a new one.
            prefix: start of the keys.
            keep_vars: whether the entries stay connected to autograd.

        Returns:
            The dictionary.
        """
        if destination is None:
            destination = OrderedDict()
        if self.mode is Mode.MOTIVATED:
            private_names = self.net.weights_map.private_names()
            for name, tensor in self.net.state_dict(keep_vars=keep_vars).items():
                if name not in private_names:
                    destination[prefix + name] = tensor
            return destination
        # In base mode no weight has to be joined.
        for name, tensor in self._used():
            destination[prefix + name] = tensor if keep_vars else tensor.detach()
        return destination

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Load timm's state of this mode's network. Tensors that the mode does not use keep their values.

        Args:
            state_dict: tensors by timm's names.
            strict: whether missing and unexpected keys are errors.
            assign: must be false, because a subnet shares its memory with the nested network.

        Returns:
            The missing and the unexpected keys, as `nn.Module.load_state_dict` returns them.

        Raises:
            RuntimeError: If a shape is wrong, or, with `strict`, a key is missing or unexpected. Nothing is
                loaded then.
            ValueError: If `assign` is true.
        """
        if assign:
            raise ValueError(
                "load_state_dict(assign=True): a subnet shares its memory; load into the nested network itself"
            )
        # Everything is checked before anything is written.
        current = self.state_dict()
        errors = []
        for name, tensor in state_dict.items():
            if name in current and tensor.shape != current[name].shape:
                errors.append(
                    f"size mismatch for {name}: {tuple(tensor.shape)} in the state, {tuple(current[name].shape)} in "
                    f"{self.architecture}"
                )
        missing = [name for name in current if name not in state_dict]
        unexpected = [name for name in state_dict if name not in current]
        if strict and (missing or unexpected):
            errors.append(f"missing keys {missing[:REPORTED_NAMES]}, unexpected keys {unexpected[:REPORTED_NAMES]}")
        if errors:
            raise RuntimeError(f"loading the {self.mode} subnet: " + "; ".join(errors[:REPORTED_NAMES]))

        # Writing to the joined tensor of a divided weight writes to its blocks.
        with torch.no_grad():
            for name, tensor in state_dict.items():
                if name in current:
                    current[name].copy_(tensor)
        return torch.nn.modules.module._IncompatibleKeys(missing, unexpected)

    # timm's optimizer factory asks a model for these two.

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters that timm's model of this mode exempts from weight decay, block by block."""
        # Not every model of timm has this method.
        model = self.net.skeleton(self.mode)
        if not hasattr(model, "no_weight_decay"):
            return set()
        # A model that looks through its parameters names the blocks of a nested pair.
        exempt = {state_dict_name(name) for name in model.no_weight_decay()}
        return {name for name, _ in self.named_parameters() if is_exempt(state_dict_name(name), exempt)}

    def group_matcher(self, coarse: bool = False) -> Any:
        """Return timm's patterns for layer-wise learning rates.

        Args:
            coarse: whether a group is a whole stage instead of a block.

        Returns:
            Regular expressions, or a function of names, as timm's `group_matcher` returns them.
        """
        model = self.net.skeleton(self.mode)
        if hasattr(model, "group_matcher"):
            return model.group_matcher(coarse)
        layers = group_weights(model, coarse=coarse)
        return lambda name: layers[state_dict_name(name)]

    def __repr__(self) -> str:
        parameters = sum(p.numel() for p in self.parameters())
        return f"Subnet({self.architecture}, mode={self.mode}, {parameters:,} parameters of {self.net.architectures})"


def is_exempt(name: str, exempt: Iterable[str]) -> bool:
    """Return whether a network exempts a parameter from weight decay.

    Args:
        name: name of the parameter.
        exempt: names, or timm's patterns of names with `*`, of parameters that have none.
    """
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in exempt)


def _as_named(
    tensors: Iterator[tuple[str, AnyTensor]], prefix: str, *, recurse: bool, remove_duplicate: bool
) -> Iterator[tuple[str, AnyTensor]]:
    """Yield named tensors as the methods of `nn.Module` do whose arguments these are."""
    # A subnet has no tensors of its own, but only those of the network below it.
    if not recurse:
        return
    if prefix:
        prefix += "."
    seen: set[int] = set()
    for name, tensor in tensors:
        if remove_duplicate and id(tensor) in seen:
            continue
        seen.add(id(tensor))
        yield prefix + name, tensor
