"""The nested network: one module, two subnets over the same memory."""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import timm
import torch
from torch import Tensor, nn

from nestnet.nn.mode import Mode, PerMode
from nestnet.nn.parameter import BLOCK_NAMES, NestedModule, NestedParameter, plain_placements
from nestnet.nn.placement import Placement, WeightsMap
from nestnet.nn.stage import Stage


class NestedModel(NestedModule, ABC):
    """A base network inside a motivated one: what `nestnet.create_model` returns.

    It trains with any torch or timm optimizer: parameters that the current mode does not use have no gradient after
    `backward()`, so the optimizer leaves them and their state exactly as they are. That needs gradients of `None`, which
    is what `zero_grad()` sets. `optimizer.zero_grad(set_to_none=False)` would leave zeros instead: momentum and weight
    decay would then move the differential weights in base mode. Call it without the argument; `zero_grad` of the network
    itself refuses it.

    Args:
        architectures: timm's name of each network.
        num_classes: outputs of the head.
        in_chans: channels of the images.
        timm_options: what `timm.create_model` takes, besides the above, to build each mode's network alone.

    Attributes:
        weights_map: where each base tensor lies (`nestnet.WeightsMap`).
    """

    def __init__(
        self,
        architectures: PerMode[str],
        *,
        num_classes: int,
        in_chans: int,
        timm_options: PerMode[dict[str, Any]],
    ) -> None:
        super().__init__()
        self.architectures, self.timm_options = architectures, timm_options
        self.num_classes, self.in_chans = num_classes, in_chans

    def forward(self, x: Tensor, mode: Mode | str) -> Tensor:
        """Return the logits of the subnet of `mode`.

        Args:
            x: images `[B, in_chans, H, W]`.
            mode: subnet that runs.

        Returns:
            Logits `[B, K]`.

        Raises:
            ValueError: for a mode other than `"base"` and `"motivated"`.
        """
        mode = Mode(mode)
        return self.forward_head(self.forward_features(x, mode), mode)

    @abstractmethod
    def forward_features(self, x: Tensor, mode: Mode | str) -> Tensor:
        """Return the output of the last block, or of the norm after it, of the subnet of `mode`.

        A family implements it, and begins with `mode = Mode(mode)`.

        Args:
            x: images `[B, in_chans, H, W]`.
            mode: subnet that runs.

        Returns:
            Features `[B, C, H', W']` of a convolutional network, or `[B, N, D]` of a transformer.
        """

    @abstractmethod
    def forward_head(self, x: Tensor, mode: Mode | str, pre_logits: bool = False) -> Tensor:
        """Return logits from features.

        A family implements it, and begins with `mode = Mode(mode)`.

        Args:
            x: features, as `forward_features` returns them.
            mode: subnet that runs.
            pre_logits: whether to return the input of the classifier instead of the logits.

        Returns:
            Logits `[B, K]`, or the input of the classifier `[B, C]`.
        """

    @cached_property
    def weights_map(self) -> WeightsMap:
        return WeightsMap(dict(_placements(self)))

    def subnet(self, mode: Mode | str) -> "Subnet":
        """The network of `mode` as a module over the very same parameters and buffers."""
        return Subnet(self, Mode(mode))

    def standalone(self, mode: Mode | str) -> nn.Module:
        """The network of `mode` as a plain timm model with its own copy of the weights."""
        mode = Mode(mode)
        model = self.skeleton(mode)
        state = {name: tensor.detach().clone() for name, tensor in self.subnet(mode).state_dict().items()}
        model.load_state_dict(state, assign=True)
        for name, parameter in self.subnet(mode).named_parameters():
            model.get_parameter(whole_name(name)).requires_grad_(parameter.requires_grad)
        return model.train(self.training)

    def skeleton(self, mode: Mode | str) -> Any:
        """timm's own model of `mode` without memory (on the meta device): its names, shapes and parameter groups."""
        mode = Mode(mode)
        with torch.device("meta"):
            return timm.create_model(
                self.architectures.of(mode),
                num_classes=self.num_classes,
                in_chans=self.in_chans,
                **self.timm_options.of(mode),
            )

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear all gradients.

        Raises:
            ValueError: if not `set_to_none`. Zeros are gradients to an optimizer: its momentum and weight decay would
                move the differential weights in base mode.
        """
        if not set_to_none:
            raise ValueError(
                "zero_grad(set_to_none=False): zero gradients let momentum and weight decay move the differential weights "
                "in base mode; call zero_grad() without the argument"
            )
        super().zero_grad()

    # What timm's optimizer factory asks a model for, so that `timm.optim.create_optimizer_v2(net, ...)` makes the
    # parameter groups that it makes for timm's motivated model.

    def no_weight_decay(self) -> set[str]:
        """Parameters that timm's model exempts from weight decay by name, block by block."""
        return self.subnet(Mode.MOTIVATED).no_weight_decay()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """timm's patterns for layer-wise learning rates; they match the blocks' names as well."""
        return self.subnet(Mode.MOTIVATED).group_matcher(coarse)

    def __repr__(self) -> str:
        counts = PerMode(*(sum(p.numel() for p in self.subnet(mode).parameters()) for mode in Mode))
        placements = self.weights_map.values()
        divided = sum(not p.is_whole for p in placements)
        moved = {
            f"{_block(base)} -> {_block(p.name)}"
            for base, p in self.weights_map.items()
            if _block(base) != _block(p.name)
        }
        lines = [
            f"{self.architectures.base} in {self.architectures.motivated}: "
            f"{counts.base:,} of {counts.motivated:,} parameters",
            f"weights map: {len(placements)} base tensors, {divided} of them a part of a bigger one"
            + (f", blocks {', '.join(sorted(moved))}" if moved else ""),
        ]
        return f"{super().__repr__()}\n" + "\n".join(lines)


class Subnet(nn.Module):
    """One mode of a nested network as a module of its own, over the very same parameters and buffers.

    `state_dict` has the keys and shapes of timm's model, in both directions. `named_parameters` gives the parameters that
    the mode trains: under timm's names in base mode; in motivated mode a divided weight shows as its blocks. `train`, `eval`
    and `to` act on the whole nested network.
    """

    def __init__(self, net: NestedModel, mode: Mode) -> None:
        super().__init__()
        self.net, self.mode = net, mode
        self.training = net.training

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[B, K]` of the images `x` `[B, in_chans, H, W]`."""
        return self.net(x, self.mode)

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self._own(dict(self.net.named_parameters() if recurse else ()), prefix)

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        yield from self._own(dict(self.net.named_buffers() if recurse else ()), prefix)

    def _own(self, tensors: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
        """Those of the nested network's `tensors` that this mode uses, under its own names."""
        prefix = f"{prefix}." if prefix else ""
        if self.mode is Mode.MOTIVATED:
            private = {p.name for p in self.net.weights_map.values() if p.private}
            yield from ((prefix + name, tensor) for name, tensor in tensors.items() if name not in private)
            return
        for name, p in self.net.weights_map.items():
            tensor = tensors.get(f"{p.name}.base", tensors.get(p.name))
            if tensor is not None:  # shared running statistics lie in one piece: the base has a view of them
                yield prefix + name, tensor if tuple(tensor.shape) == p.base_shape else tensor[p.index]

    def state_dict(  # type: ignore[override]  # torch declares it by overloads that no override can repeat
        self, *, destination: Any = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Any]:
        """The keys and shapes of timm's model of this mode.

        In base mode, and for all that lies in one piece, the entries share memory with the network. A divided weight of the
        motivated network is joined from its blocks: what is written to it or to a view of it reaches them, and what would
        not is refused (`nestnet.whole_tensor` says exactly what).
        """
        destination = OrderedDict() if destination is None else destination
        if self.mode is Mode.MOTIVATED:
            tensors = self._own(self.net.state_dict(keep_vars=keep_vars))
        else:
            live = self._own({**dict(self.net.named_parameters()), **dict(self.net.named_buffers())})
            tensors = ((name, tensor if keep_vars else tensor.detach()) for name, tensor in live)
        for name, tensor in tensors:
            destination[prefix + name] = tensor
        return destination

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Load timm's state of this mode's network into the nested one; what the mode does not use stays as it is.

        Raises:
            RuntimeError: as torch's, for missing or unexpected keys (if `strict`) and for wrong shapes.
        """
        if assign:
            raise ValueError(
                "load_state_dict(assign=True): a subnet shares its memory; load into the nested network itself"
            )
        own = self.state_dict()
        errors = [
            f"size mismatch for {name}: {tuple(tensor.shape)} in the state, {tuple(own[name].shape)} in {self.architecture}"
            for name, tensor in state_dict.items()
            if name in own and tensor.shape != own[name].shape
        ]
        missing, unexpected = [n for n in own if n not in state_dict], [n for n in state_dict if n not in own]
        if strict and (missing or unexpected):
            errors.append(f"missing keys {missing[:5]}, unexpected keys {unexpected[:5]}")
        if errors:
            raise RuntimeError(f"loading the {self.mode} subnet: " + "; ".join(errors[:5]))
        with torch.no_grad():
            for name, tensor in state_dict.items():
                if name in own:
                    own[name].copy_(tensor)
        return torch.nn.modules.module._IncompatibleKeys(missing, unexpected)

    def no_weight_decay(self) -> set[str]:
        """Parameters that timm's model of this mode exempts from weight decay by name, block by block."""
        model = self.net.skeleton(self.mode)
        exempt = model.no_weight_decay() if hasattr(model, "no_weight_decay") else set()
        return {name for name, _ in self.named_parameters() if whole_name(name) in exempt}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """timm's patterns for layer-wise learning rates."""
        return self.net.skeleton(self.mode).group_matcher(coarse)

    @property
    def architecture(self) -> str:
        """timm's name of this network."""
        return self.net.architectures.of(self.mode)

    def __repr__(self) -> str:
        parameters = sum(p.numel() for p in self.parameters())
        return f"Subnet({self.architecture}, mode={self.mode}, {parameters:,} parameters of {self.net.architectures})"


def whole_name(name: str) -> str:
    """The state-dict name of the weight that a parameter is, or is a block of."""
    stem, _, block = name.rpartition(".")
    return stem if block in BLOCK_NAMES else name


def _placements(module: nn.Module, name: str = "", base_name: str = "") -> Iterator[tuple[str, Placement]]:
    """(base name, placement) of all tensors below `module` that the base network has."""
    own = module.placements() if isinstance(module, NestedModule) else plain_placements(module)
    for local, placement in own:
        yield base_name + local, placement.renamed(name + placement.name)
    for child_name, child in module.named_children():
        base_child = child_name
        if isinstance(module, Stage):
            position = module.base_positions[int(child_name)]
            if position is None:
                continue
            base_child = str(position)
        if not isinstance(child, NestedParameter):
            yield from _placements(child, f"{name}{child_name}.", f"{base_name}{base_child}.")


def _block(name: str) -> str:
    """`layer1.4` of `layer1.4.conv1.weight`: the module path up to its last number."""
    parts = name.split(".")
    numbers = [i for i, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: numbers[-1] + 1]) if numbers else ""
