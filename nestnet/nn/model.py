"""The nested network: one module that holds two networks in the same memory."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Self

import timm
from torch import Tensor, nn

from nestnet.nn.batch_norm import BatchNorm2d
from nestnet.nn.meta_device import meta_device
from nestnet.nn.mode import Mode, PerMode
from nestnet.nn.module import NestedModule, collect_placements
from nestnet.nn.parameter import NestedParameter, Weight, state_dict_name, weight_name
from nestnet.nn.placement import WeightsMap
from nestnet.nn.stage import Stage
from nestnet.nn.subnet import Subnet


class NestedModel(NestedModule, ABC):
    """A base network inside a motivated one, as `nestnet.create_model` returns it.

    Any torch or timm optimizer trains it. Parameters that the mode of a step does not use have no gradient
    after `backward()`, so that the optimizer leaves them and their state exactly as they are. This requires
    gradients of `None`, which `zero_grad()` sets by default. After `optimizer.zero_grad(set_to_none=False)`
    the gradients would be zeros, and momentum and weight decay would move the differential weights in base
    mode. `zero_grad` of the network itself refuses that argument.

    The state dict has the names and shapes of timm's motivated model, and in addition what the base has of its
    own: private BatchNorm statistics and, with `batch_norm="separate"`, the scales and shifts of BatchNorm.

    A family of networks is a subclass with `forward_features` and `forward_head`.

    Args:
        architectures: timm's name of each network.
        num_classes: number of outputs `K` of the head, at least 1.
        in_chans: number of channels of the images, at least 1.
        timm_options: further keyword arguments with which `timm.create_model` builds each network alone.

    Attributes:
        architectures: timm's name of each network.
        num_classes: number of outputs of the head.
        in_chans: number of channels of the images.
        timm_options: keyword arguments for timm of each network.
        has_family_layers: whether the network consists of the layers in `nestnet.nn`, and not of two plain modules.
        weights_map: placement of each base tensor in the state dict (`nestnet.WeightsMap`).
        frozen_norms: BatchNorm layers that stay in evaluation mode in training: see `nestnet.freeze_backbone`.

    Example:
        >>> import nestnet, torch
        >>> net = nestnet.create_model("resnet20", "resnet32", num_classes=10)
        >>> images = torch.zeros(2, 3, 32, 32)
        >>> net(images, "base").shape
        torch.Size([2, 10])
        >>> net.subnet("motivated")(images).shape
        torch.Size([2, 10])
    """

    has_family_layers = True

    def __init__(
        self,
        architectures: PerMode[str],
        *,
        num_classes: int,
        in_chans: int,
        timm_options: PerMode[dict[str, Any]],
    ) -> None:
        super().__init__()
        self.architectures = architectures
        self.timm_options = timm_options
        self.num_classes = num_classes
        self.in_chans = in_chans
        # A list hides the modules from torch, which would otherwise find them twice.
        self.frozen_norms: list[nn.Module] = []

    def forward(self, x: Tensor, mode: Mode | str) -> Tensor:
        """Return the logits of the subnet of `mode`.

        Args:
            x: images `[B, in_chans, H, W]`.
            mode: subnet that runs, `"base"` or `"motivated"`.

        Returns:
            Logits `[B, K]`.

        Raises:
            ValueError: If `mode` is neither `"base"` nor `"motivated"`.
        """
        mode = Mode(mode)
        return self.forward_head(self.forward_features(x, mode), mode)

    @abstractmethod
    def forward_features(self, x: Tensor, mode: Mode | str) -> Tensor:
        """Return the output of the last block, or of the norm after it, of the subnet of `mode`.

        A family implements it, and begins with `mode = Mode(mode)`.

        Args:
            x: images `[B, in_chans, H, W]`.
            mode: subnet that runs, `"base"` or `"motivated"`.

        Returns:
            Features `[B, C, H', W']` of a convolutional network, or `[B, N, D]` of a transformer.
        """

    @abstractmethod
    def forward_head(self, x: Tensor, mode: Mode | str, pre_logits: bool = False) -> Tensor:
        """Return logits from features.

        A family implements it, and begins with `mode = Mode(mode)`.

        Args:
            x: features, as `forward_features` returns them.
            mode: subnet that runs, `"base"` or `"motivated"`.
            pre_logits: whether to return the input of the classifier instead of the logits.

        Returns:
            Logits `[B, K]`, or the input of the classifier `[B, C]`.
        """

    def stored_tensors(self) -> Iterator[tuple[str, Weight | Tensor]]:
        """Yield everything that the network stores, under the names of its state dict.

        Yields:
            The name, and a parameter, a nested parameter or a buffer, also one that state dicts leave out. A tensor
            with several names comes with each of them.
        """
        yield from tensors_of(self)

    # Cached, because it follows from names and shapes, which do not change once a network is made.
    @cached_property
    def weights_map(self) -> WeightsMap:
        """Placement of each base tensor in the state dict of the network."""
        return WeightsMap(dict(collect_placements(self)))

    def skipped_blocks(self) -> Iterator[str]:
        """Yield the path of each block of the motivated network that base mode skips."""
        for path, stage in self.named_modules():
            if isinstance(stage, Stage):
                for number, position in enumerate(stage.base_positions):
                    if position is None:
                        yield f"{path}.{number}"

    def synchronise_batch_norm(self) -> None:
        """Make the BatchNorm layers normalise by the images of all processes: see `nestnet.synchronise_batch_norm`."""
        for module in self.modules():
            if isinstance(module, BatchNorm2d):
                module.synchronised = True

    def subnet(self, mode: Mode | str) -> Subnet:
        """Return the network of `mode` as a module over the very same parameters and buffers.

        Args:
            mode: `"base"` or `"motivated"`.

        Returns:
            A module with `forward(x)`.
        """
        return Subnet(self, Mode(mode))

    def differential_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the name and the parameter of each parameter that motivated mode trains and base mode does not."""
        of_base = set(self.subnet(Mode.BASE).parameters())
        for name, parameter in self.subnet(Mode.MOTIVATED).named_parameters():
            if parameter not in of_base:
                yield name, parameter

    def standalone(self, mode: Mode | str) -> nn.Module:
        """Return the network of `mode` as a plain timm model with its own copy of the weights.

        Args:
            mode: `"base"` or `"motivated"`.

        Returns:
            timm's model, in training or evaluation mode as the nested network is, with the same parameters
            frozen.
        """
        mode = Mode(mode)
        # The model is on the meta device and has no memory to copy into, so that the clones are assigned.
        model = self.skeleton(mode)
        state = {name: tensor.detach().clone() for name, tensor in self.subnet(mode).state_dict().items()}
        model.load_state_dict(state, assign=True)
        # Parameters that are frozen here are frozen there too.
        for name, parameter in self.subnet(mode).named_parameters():
            model.get_parameter(state_dict_name(name)).requires_grad_(parameter.requires_grad)
        return model.train(self.training)

    def skeleton(self, mode: Mode | str) -> Any:
        """Return timm's model of `mode` on the meta device, which has names and shapes but no memory.

        Args:
            mode: `"base"` or `"motivated"`.

        Returns:
            timm's model, as `timm.create_model` returns it.
        """
        mode = Mode(mode)
        with meta_device():
            return timm.create_model(
                self.architectures.of(mode),
                num_classes=self.num_classes,
                in_chans=self.in_chans,
                **self.timm_options.of(mode),
            )

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode, in which BatchNorm layers of a frozen backbone are always.

        Args:
            mode: whether to set training mode.

        Returns:
            The network.
        """
        super().train(mode)
        for layer in self.frozen_norms:
            layer.eval()
        return self

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Set whether the backward pass computes the activations of each block again instead of keeping them.

        A step then takes about a third more time and less memory. Gradients and statistics keep their bits.

        Args:
            enable: whether to do so.

        Raises:
            ValueError: If the network has no blocks that can be computed again.
        """
        stages = [module for module in self.modules() if isinstance(module, Stage)]
        if not stages:
            raise ValueError(f"{self.architectures.motivated} has no stages of blocks that can be computed again")
        for stage in stages:
            stage.grad_checkpointing = enable
        for module in self.modules():
            if isinstance(module, BatchNorm2d):
                module.is_checkpointed = enable

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear all gradients by setting them to `None`.

        Args:
            set_to_none: must be true. To an optimizer, zeros are gradients: its momentum and weight decay
                would move the differential weights in base mode.

        Raises:
            ValueError: If `set_to_none` is false.
        """
        if not set_to_none:
            raise ValueError(
                "zero_grad(set_to_none=False): zero gradients let momentum and weight decay move the differential weights "
                "in base mode; call zero_grad() without the argument"
            )
        super().zero_grad()

    # timm's optimizer factory asks a model for these two, so that `timm.optim.create_optimizer_v2(net, ...)`
    # makes the parameter groups that it makes for timm's motivated model.

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters that timm's motivated model exempts from weight decay, block by block."""
        return self.subnet(Mode.MOTIVATED).no_weight_decay()

    def group_matcher(self, coarse: bool = False) -> Any:
        """Return timm's patterns for layer-wise learning rates, which match the names of blocks as well.

        Args:
            coarse: whether a group is a whole stage instead of a block.

        Returns:
            Regular expressions, or a function of names, as timm's `group_matcher` returns them.
        """
        return self.subnet(Mode.MOTIVATED).group_matcher(coarse)

    def __repr__(self) -> str:
        # Below the tree of modules that torch prints.
        return f"{super().__repr__()}\n{self._describe_sizes()}\n{self._describe_weights_map()}"

    def _describe_sizes(self) -> str:
        base, motivated = (sum(p.numel() for p in self.subnet(mode).parameters()) for mode in Mode)
        names = self.architectures
        # The scales and shifts of separate BatchNorm belong to the base alone.
        own = sum(p.numel() for p in self.parameters()) - motivated
        line = f"{names.base} in {names.motivated}: {base - own:,} of {motivated:,} parameters"
        if own:
            line += f", and {own:,} of the base's own"
        return line

    def _describe_weights_map(self) -> str:
        # A block has another number in the base if differential blocks precede it in its stage.
        divided_tensors = 0
        moved_blocks = set()
        for base_name, placement in self.weights_map.items():
            if not placement.is_whole:
                divided_tensors += 1
            base_block = _block_path(base_name)
            motivated_block = _block_path(placement.name)
            if base_block != motivated_block:
                moved_blocks.add(f"{base_block} -> {motivated_block}")
        line = f"weights map: {len(self.weights_map)} base tensors, {divided_tensors} of them a part of a bigger one"
        if moved_blocks:
            line += f", blocks {', '.join(sorted(moved_blocks))}"
        return line


def _block_path(name: str) -> str:
    """Return the module path up to its last number: `layer1.4` of `layer1.4.conv1.weight`."""
    parts = name.split(".")
    while parts and not parts[-1].isdigit():
        parts.pop()
    return ".".join(parts)


def tensors_of(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, Weight | Tensor]]:
    """Yield the parameters, nested parameters and buffers of a module and its children, by their names.

    Args:
        module: module that may own nested parameters.
        prefix: start of the names, with its trailing dot.

    Yields:
        The name and what it stands for, in the order of `named_parameters`.
    """
    for name, tensor in (*module._parameters.items(), *module._buffers.items()):
        if tensor is not None:
            yield prefix + name, tensor
    for name, child in module._modules.items():
        if isinstance(child, NestedParameter):
            yield prefix + weight_name(name), child
        elif child is not None:
            yield from tensors_of(child, f"{prefix}{name}.")
