"""The ways of training two networks by turns that the benchmarks compare: one object each, with the same two methods."""

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

WAY_COLOURS = {"timm": "#bbbbbb", "nested": "#4477aa", "copy-based": "#ccbb44", "slicing": "#aa3377"}
"""From Paul Tol's bright scheme, distinct to the colour-blind."""


@dataclass(frozen=True)
class Setting:
    """How a forward pass is run.

    Attributes:
        precision: `"float32"`, or `"bfloat16"` for autocast.
        compiled: by inductor, one callable a mode.
    """

    precision: str = "float32"
    compiled: bool = False

    def __str__(self) -> str:
        return f"{self.precision}, {'compiled' if self.compiled else 'eager'}"

    def forward(self, function: Callable[[Tensor], Tensor], device: torch.device) -> Callable[[Tensor], Tensor]:
        """The forward pass so run, as `nestnet.TrainStep` runs a subnet's."""
        run = torch.compile(function, dynamic=False, fullgraph=True) if self.compiled else function
        context = autocast(device, self.precision)

        def forward(images: Tensor) -> Tensor:
            with context:
                return run(images)

        return forward


class Way(ABC):
    """Trains the two networks of a pair by turns."""

    def switch(self, mode: Mode) -> None:
        """Do what a change to `mode` takes, before its first batch."""
        return  # for most ways nothing

    @abstractmethod
    def step(self, mode: Mode, images: Tensor, labels: Tensor) -> float:
        """Train one batch in the mode that was switched to, up to and with reading the loss."""


class Standalone(Way):
    """timm's two networks, each trained for itself: no method, but what its steps cost at best."""

    def __init__(self, net: NestedModel, setting: Setting, device: torch.device) -> None:
        models = {mode: net.standalone(mode) for mode in Mode}
        self.forwards = {mode: setting.forward(model, device) for mode, model in models.items()}
        self.optimizers = {mode: sgd(model) for mode, model in models.items()}

    def step(self, mode: Mode, images: Tensor, labels: Tensor) -> float:
        return step(self.forwards[mode], self.optimizers[mode], images, labels)


class CopyBased(Way):
    """The paper's Algorithm 1: two networks and two optimizers, and copies between them at each switch."""

    def __init__(self, net: NestedModel, setting: Setting, device: torch.device) -> None:
        self.reference = CopyReference(net, sgd, step_count="literal")
        self.forwards = {mode: setting.forward(model, device) for mode, model in self.reference.models.items()}

    def switch(self, mode: Mode) -> None:
        self.reference.switch(mode)

    def step(self, mode: Mode, images: Tensor, labels: Tensor) -> float:
        return step(self.forwards[mode], self.reference.optimizers[mode], images, labels)

    @property
    def copied_bytes(self) -> int:
        """At one switch, in either direction: the base's weights, their momentum, and shared buffers."""
        tensors, parameters = self.reference.models[Mode.BASE].state_dict(), self.reference.parameters[Mode.BASE]
        return sum(
            tensors[name].numel() * tensors[name].element_size() * (2 if name in parameters else 1)
            for name, placement in self.reference.weights_map.items()
            if not placement.private
        )


class Slicing(Way):
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


class Nested(Way):
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


def all_ways(net: NestedModel, setting: Setting, device: torch.device) -> dict[str, Way]:
    """All of them, from the same weights."""
    return {
        "timm": Standalone(net, setting, device),
        "copy-based": CopyBased(net, setting, device),
        "slicing": Slicing(net, setting, device),
        "nested": Nested(net, setting, device),
    }
