"""Short trial runs of an optimizer with its settings, on small random tensors."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nestnet.optim.initial_state import recreate_optimizer, without_side_effects
from nestnet.optim.momentum import fill_momentum
from nestnet.optim.state_loading import load_optimizer_state
from nestnet.storage.state_codec import round_trip

SHAPES = ((7,), (20, 18), (6, 5, 3, 3))
"""Shapes of a bias, a matrix and a convolution. Adafactor keeps sums of rows and columns if both have more than 16 entries."""

ROUNDING = 1e-5
"""Largest difference of weights, relative to how far they were moved, that rounding explains."""


class TrialRun:
    """Small parameters, and a new optimizer over them with the settings of the optimizer under test.

    Args:
        optimizer: optimizer under test, which is not changed.
        shapes: shapes of the parameters in each group.

    Attributes:
        device: device of the parameters, that of `optimizer`.
        optimizer: new optimizer.
    """

    def __init__(self, optimizer: Optimizer, shapes: Sequence[tuple[int, ...]]) -> None:
        self.device = device_of(optimizer)
        # The weights are the same in each trial, whatever the state of the global generator.
        generator = torch.Generator().manual_seed(0)
        groups = []
        for group in optimizer.param_groups:
            parameters = []
            for shape in shapes:
                # Drawn on the host, so that the numbers are the same for every device.
                values = torch.randn(shape, generator=generator)
                parameters.append(nn.Parameter(values.to(self.device)))
            groups.append((group, parameters))
        self.optimizer = recreate_optimizer(optimizer, groups)
        fill_momentum(self.optimizer)

    def parameters(self) -> list[nn.Parameter]:
        """Return the parameters of all groups in order."""
        parameters = []
        for group in self.optimizer.param_groups:
            parameters.extend(group["params"])
        return parameters

    def draw_gradients(self, seed: int) -> None:
        """Set gradients that are 30 times as large in one half of each tensor, so that norms of the whole have an effect.

        Args:
            seed: seed of the gradients.
        """
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            gradient = torch.randn(parameter.shape, generator=generator)
            gradient[len(gradient) // 2 :] *= 30
            parameter.grad = gradient.to(self.device)

    def gradients(self) -> list[Tensor]:
        """Return the gradients of all parameters in order."""
        gradients = []
        for parameter in self.parameters():
            assert parameter.grad is not None
            gradients.append(parameter.grad)
        return gradients

    def step(self) -> None:
        """Take a step with the current gradients."""
        with without_side_effects(self.device):
            self.optimizer.step()

    def train(self, steps: int, seed: int) -> None:
        """Take steps with random gradients.

        Args:
            steps: number of steps.
            seed: seed of the gradients, and of random numbers that the optimizer draws.
        """
        with without_side_effects(self.device):
            torch.manual_seed(seed)
            for step in range(steps):
                self.draw_gradients(seed + step)
                self.optimizer.step()

    @torch.no_grad()
    def resume_from(self, other: "TrialRun") -> None:
        """Load the weights of another trial, and its optimizer state as a checkpoint would restore it.

        Args:
            other: trial with the same parameters and settings.
        """
        for parameter, other_parameter in zip(self.parameters(), other.parameters(), strict=True):
            parameter.copy_(other_parameter)
        load_optimizer_state(self.optimizer, round_trip(other.optimizer.state_dict()))


def device_of(optimizer: Optimizer) -> torch.device:
    """Return the device of an optimizer's parameters.

    Args:
        optimizer: optimizer of parameters on one device.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            return parameter.device
    return torch.device("cpu")


def largest_relative_difference(
    tensors: Sequence[Tensor], expected: Sequence[Tensor], start: Sequence[Tensor]
) -> float:
    """Return the largest difference between two sets of tensors, relative to the change of each tensor.

    Args:
        tensors: tensors after some steps.
        expected: tensors of the same shapes with which they are compared.
        start: the tensors before these steps.

    Returns:
        The ratio: 0 if all tensors are equal, and infinity if a tensor differs that was not changed.
    """
    largest = 0.0
    for tensor, expected_tensor, start_tensor in zip(tensors, expected, start, strict=True):
        difference = _distance(tensor, expected_tensor)
        if difference == 0:
            continue
        moved = _distance(tensor, start_tensor)
        ratio = difference / moved if moved > 0 else math.inf
        largest = max(largest, ratio)
    return largest


def _distance(tensor: Tensor, other: Tensor) -> float:
    """Return the largest difference of entries. Entries that are equal, infinite or NaN in both tensors do not count."""
    # Infinity minus infinity is NaN, which is masked if both entries are the same and counts as infinite
    # otherwise.
    difference = (tensor.detach() - other.detach()).abs()
    are_same = torch.isclose(tensor, other, rtol=0, atol=0, equal_nan=True)
    return difference.masked_fill(are_same, 0).nan_to_num(nan=math.inf).max().item()
