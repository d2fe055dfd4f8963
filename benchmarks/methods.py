"""The methods of training two networks alternately that the benchmarks compare, with one interface."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from common import sgd, step
from slicing import MaskedSGD, SlicingNetwork
from torch import Tensor, nn

from nestnet import Mode, NestedModel, TrainStep
from nestnet.device import autocast
from nestnet.verification.reference import CopyReference

METHOD_COLOURS = {"timm": "#bbbbbb", "nested": "#4477aa", "copy-based": "#ccbb44", "slicing": "#aa3377"}
"""Colours from Paul Tol's bright scheme, which people with colour blindness can tell apart."""


@dataclass(frozen=True)
class Setting:
    """Precision and compilation of a forward pass.

    Attributes:
        precision: `"float32"`, or `"bfloat16"` for autocast.
        compiled: whether it is compiled by inductor, with one callable per mode.
    """

    precision: str = "float32"
    compiled: bool = False

    def __str__(self) -> str:
        return f"{self.precision}, {'compiled' if self.compiled else 'eager'}"

    def forward(self, function: Callable[[Tensor], Tensor], device: torch.device) -> Callable[[Tensor], Tensor]:
        """Return the forward pass in this setting, as `nestnet.TrainStep` runs that of a subnet."""
        run = torch.compile(function, dynamic=False, fullgraph=True) if self.compiled else function
        context = autocast(device, self.precision)

        def forward(images: Tensor) -> Tensor:
            with context:
                return run(images)

        return forward


class Method(ABC):
    """Method that trains the two networks of a pair alternately."""

    def switch(self, mode: Mode) -> None:
        """Switch to `mode`, before its first batch."""
        return  # most methods have nothing to do

    @abstractmethod
    def step(self, mode: Mode, images: Tensor, labels: Tensor) -> float:
        """Train one batch in the present mode, and return its loss."""


class Standalone(Method):
    """timm's two networks, each trained separately: a lower limit for the cost of the methods' steps."""

    def __init__(self, net: NestedModel, setting: Setting, device: torch.device) -> None:
        models = {mode: net.standalone(mode) for mode in Mode}
        self.forwards = {mode: setting.forward(model, device) for mode, model in models.items()}
        self.optimizers = {mode: sgd(model) for mode, model in models.items()}

    def step(self, mode: Mode, images: Tensor, labels: Tensor) -> float:
        return step(self.forwards[mode], self.optimizers[mode], images, labels)


class CopyBased(Method):
    """The paper's Algorithm 1: two networks with two optimizers, and copies between them at each switch."""

    def __init__(self, net: NestedModel, setting: Setting, device: torch.device) -> None:
        self.reference = CopyReference(net, sgd, step_count="literal")
        self.forwards = {mode: setting.forward(model, device) for mode, model in self.reference.models.items()}

    def switch(self, mode: Mode) -> None:
        self.reference.switch(mode)

    def step(self, mode: Mode, images: Tensor, labels: Tensor) -> float:
        return step(self.forwards[mode], self.reference.optimizers[mode], images, labels)

    @property
    def copied_bytes(self) -> int:
        """Return the bytes that a switch copies: the base's weights, their momentum, and shared buffers."""
        tensors, parameters = self.reference.models[Mode.BASE].state_dict(), self.reference.parameters[Mode.BASE]
        return sum(
            tensors[name].numel() * tensors[name].element_size() * (2 if name in parameters else 1)
            for name in self.reference.shared_placements
        )


class Slicing(Method):
    """Slices of the big network's parameters in the forward pass, and a masked optimizer step."""

    def __init__(self, net: NestedModel, setting: Setting, device: torch.device) -> None:
        self.network = SlicingNetwork(net)
        self.forwards = {mode: setting.forward(self.network.forward(mode), device) for mode in Mode}
        self.optimizer = MaskedSGD(sgd(self.network.motivated), self.network)

    def step(self, mode: Mode, images: Tensor, labels: Tensor) -> float:
        loss = nn.functional.cross_entropy(self.forwards[mode](images), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step(mode)
        return loss.item()


class Nested(Method):
    """A nested network, trained by `nestnet.TrainStep`."""

    def __init__(self, net: NestedModel, setting: Setting, device: torch.device) -> None:
        self.optimizer = sgd(net)
        self.train_step = TrainStep(
            net,
            self.optimizer,
            nn.functional.cross_entropy,
            precision=setting.precision,
            compile="inductor" if setting.compiled else None,
        )

    def step(self, mode: Mode, images: Tensor, labels: Tensor) -> float:
        return self.train_step(images, labels, mode).loss()


def create_methods(net: NestedModel, setting: Setting, device: torch.device) -> dict[str, Method]:
    """Return all methods, starting from the same weights."""
    return {
        "timm": Standalone(net, setting, device),
        "copy-based": CopyBased(net, setting, device),
        "slicing": Slicing(net, setting, device),
        "nested": Nested(net, setting, device),
    }
