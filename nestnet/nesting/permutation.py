"""Permutations of a network's channels, and the check that they leave its function unchanged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nestnet.nesting.channel_spaces import Space
from nestnet.nesting.channels import tensors_in
from nestnet.nesting.trial_weights import RandomWeights

TOLERANCE = 1e-9
"""Largest difference of outputs that count as equal, relative to the largest one."""

GAINS = (1.0, 0.5, 0.2)
"""Factors of the random weights that are tried in turn, because what multiplies activations may overflow."""

Order = tuple[Space, Tensor]
"""A space, and for each place the unit that takes it `[count]`."""


def permute(state: Mapping[str, Tensor], orders: Sequence[Order]) -> dict[str, Tensor]:
    """Return a state in which the units of spaces have changed places.

    Args:
        state: state of the motivated network, which is not changed.
        orders: spaces, and the unit that takes each place.
    """
    permuted = dict(state)
    for space, order in orders:
        for segment in space.segments:
            tensor = permuted[segment.name]
            indices = torch.arange(tensor.shape[segment.dim])
            units = indices[segment.start : segment.start + segment.size].view(space.count, -1)
            indices[segment.start : segment.start + segment.size] = units[order].flatten()
            permuted[segment.name] = tensor.index_select(segment.dim, indices.to(tensor.device))
    return permuted


def keep_equal(network: nn.Module, spaces: Sequence[Space], inputs: Tensor) -> list[Space]:
    """Return the spaces whose units can change places without changing the function of the network.

    The weights are random, so that no two channels are alike. What holds for them holds for any weights.

    Args:
        network: network in evaluation mode, which is changed: it must be used for nothing else.
        spaces: spaces.
        inputs: input of the network.

    Returns:
        The spaces, without those that change the outputs of the network in float64.
    """
    network.double()
    if inputs.is_floating_point():
        inputs = inputs.double()
    outputs: list[Tensor] = []
    for gain in GAINS:
        fill_randomly(network, gain)
        outputs = _outputs(network, inputs)
        # What multiplies activations may overflow.
        if all(bool(output.isfinite().all()) for output in outputs):
            break
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    check = _Check(network, state, inputs, outputs)
    return check.find_equal(spaces)


@dataclass
class _Check:
    """Whether a network computes the same after units have changed places."""

    network: nn.Module
    state: dict[str, Tensor]
    inputs: Tensor
    outputs: list[Tensor]

    def find_equal(self, spaces: Sequence[Space]) -> list[Space]:
        """Return the spaces of which each can be permuted, by halves while they cannot all be."""
        if not spaces or self._is_equal(spaces):
            return list(spaces)
        if len(spaces) == 1:
            return []
        half = len(spaces) // 2
        return [*self.find_equal(spaces[:half]), *self.find_equal(spaces[half:])]

    def _is_equal(self, spaces: Sequence[Space]) -> bool:
        generator = torch.Generator().manual_seed(0)
        orders = []
        for space in spaces:
            order = torch.randperm(space.count, generator=generator)
            # Two units may have kept their places.
            if bool((order == torch.arange(space.count)).all()):
                order = order.flip(0)
            orders.append((space, order))
        self.network.load_state_dict(permute(self.state, orders))
        for output, expected in zip(_outputs(self.network, self.inputs), self.outputs, strict=True):
            difference = (output - expected).abs().max()
            # The comparison with NaN is false.
            if not difference <= TOLERANCE * expected.abs().max():
                return False
        return True


@torch.no_grad()
def _outputs(network: nn.Module, inputs: Tensor) -> list[Tensor]:
    return [tensor.clone() for tensor in tensors_in(network(inputs))]


@torch.no_grad()
def fill_randomly(network: nn.Module, gain: float = 1.0) -> None:
    """Give a network random weights and BatchNorm statistics, so that no two channels are alike.

    Args:
        network: network with contiguous weights, which is changed.
        gain: factor of the weights.
    """
    weights = RandomWeights(0)
    for parameter in network.parameters():
        weights.fill(parameter, gain)
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(module.num_features, generator=generator))
