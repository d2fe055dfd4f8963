"""Training steps as CUDA graphs: a set for each kind of batch, in one pool of memory.

On a GPU the step of a small network is limited by the host, which launches hundreds of kernels for a few
milliseconds of work. A graph takes a single launch. The host still decides on the next mode, and launches the
graphs of that mode.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from nestnet.nn.mode import Mode, PerMode
from nestnet.optim.momentum import fill_momentum
from nestnet.step.capturable import get_settings, make_capturable
from nestnet.step.cuda_recorder import CudaRecorder, Recorder
from nestnet.step.phases import GradientNumbers, Phases
from nestnet.step.policy import Modes
from nestnet.step.views import BatchTensor

WARM_UP = 3
"""Number of ordinary steps of each mode before its capture.

They are training steps like any other: they create the optimizer's state, select convolution algorithms, and
trigger compilation.
"""


class GraphedPhases:
    """Phases of a step that are captured for each mode after some ordinary steps, and then replayed.

    The graphs share a pool: none keeps anything in it from one step to the next. Weights, statistics and the
    optimizer's state lie outside, and so does the learning rate, which is a tensor so that a schedule reaches
    the captured steps. The optimizer's other settings are those of the capture: after a change of them, or
    after its `load_state_dict`, ordinary steps and captures start again.

    Args:
        phases: phases to capture.
        optimizer: optimizer of the phases; it is made capturable.
        recorder: recorder of the graphs; by default a `CudaRecorder`.

    Raises:
        ValueError: If the optimizer cannot be captured.
    """

    def __init__(self, phases: Phases, optimizer: Optimizer, recorder: Recorder | None = None) -> None:
        self.device = optimizer.param_groups[0]["params"][0].device
        self.phases = phases
        self.optimizer = optimizer
        self.recorder = recorder or CudaRecorder(self.device)
        self.inputs: dict[str, Tensor] = {}
        self.kind = _StepKind((), has_own_images=False, has_own_targets=False, freeze_base=False)
        # SGD's fused kernel fails if only some parameters have a momentum buffer.
        make_capturable(optimizer)
        fill_momentum(optimizer)
        self._forget_captures()

    def _forget_captures(self) -> None:
        # NaN compares unequal to everything, so that the first step fills each tensor.
        self.rate_tensors = [torch.tensor(math.nan, device=self.device) for _ in self.optimizer.param_groups]
        self.rates = [math.nan] * len(self.rate_tensors)
        self.ordinary_steps: dict[_StepKind, int] = {}
        self.captured: dict[_StepKind, _CapturedStep] = {}
        self.groups = self.optimizer.param_groups
        self.settings = get_settings(self.optimizer)

    def compute_loss(
        self, images: BatchTensor, targets: BatchTensor, modes: Modes, *, freeze_base: bool = False
    ) -> Tensor:
        """Run the first phase, or replay it.

        Args:
            images: images `[B, C, H, W]`, for both networks or for each.
            targets: labels `[B]` or soft targets `[B, K]`, for both networks or for each.
            modes: modes to train, one or two.
            freeze_base: whether the motivated network, the only mode then, is trained without its base.

        Returns:
            The mean loss over the parts for each of the modes `[M]`.
        """
        # `load_state_dict` creates new groups, and new state tensors that a captured step does not refer to.
        if self.optimizer.param_groups is not self.groups or get_settings(self.optimizer) != self.settings:
            make_capturable(self.optimizer)
            self._forget_captures()
        self._set_rates_to_tensors()
        self.kind = _StepKind(modes, isinstance(images, PerMode), isinstance(targets, PerMode), freeze_base)
        # Ordinary steps read the same memory as captured ones, because its alignment affects the choice of algorithms.
        inputs = (self._copy_input("images", images), self._copy_input("targets", targets))
        if self.ordinary_steps.get(self.kind, 0) < WARM_UP:
            with self._warming_up():
                return self.phases.compute_loss(*inputs, modes, freeze_base=freeze_base)
        if self.kind not in self.captured:
            self.captured[self.kind] = self._capture(inputs, modes, freeze_base=freeze_base)
        # The graph reads from `inputs` and writes to `loss`.
        self.captured[self.kind].compute_loss()
        return self.captured[self.kind].loss

    def compute_gradients(self) -> GradientNumbers:
        """Run the second phase, or replay it.

        Returns:
            The numbers about the gradients that are needed.
        """
        if self.kind not in self.captured:
            with self._warming_up():
                return self.phases.compute_gradients()
        self.captured[self.kind].compute_gradients()
        return self.captured[self.kind].gradients

    def update(self) -> None:
        """Run the last phase, or replay it."""
        if self.kind in self.captured:
            self.captured[self.kind].update()
        else:
            with self._warming_up():
                self.phases.update()
            # Only steps with an update count, because they create the optimizer's state. If it were created within
            # a capture, each replay would create it again.
            self.ordinary_steps[self.kind] = self.ordinary_steps.get(self.kind, 0) + 1
        self._set_rates_to_numbers()

    def skip(self) -> None:
        """Leave the network as it was before the batch."""
        self.phases.skip()
        self._set_rates_to_numbers()

    def _capture(self, inputs: tuple[BatchTensor, BatchTensor], modes: Modes, *, freeze_base: bool) -> "_CapturedStep":
        # Each phase is a separate graph, because the host reads the loss between them.
        compute_loss, loss = self.recorder.capture(
            lambda: self.phases.compute_loss(*inputs, modes, freeze_base=freeze_base)
        )
        compute_gradients, gradients = self.recorder.capture(self.phases.compute_gradients)
        update, _ = self.recorder.capture(self.phases.update)
        self.optimizer.zero_grad()  # returns the gradients' memory to the pool
        return _CapturedStep(compute_loss, compute_gradients, update, loss, gradients)

    def _copy_input(self, name: str, given: BatchTensor) -> BatchTensor:
        """Copy images or targets to the tensors that the captured steps read, and return these."""
        # A batch of one tensor uses the memory of the motivated network's, whichever network it trains.
        if isinstance(given, PerMode):
            motivated = self._copy_tensor(f"{name} of {Mode.MOTIVATED}", given.motivated)
            return PerMode(self._copy_tensor(f"{name} of {Mode.BASE}", given.base), motivated)
        return self._copy_tensor(f"{name} of {Mode.MOTIVATED}", given)

    def _copy_tensor(self, name: str, given: Tensor) -> Tensor:
        """Copy a tensor to the one that the captured steps read under a name, and return this."""
        if name not in self.inputs:
            self.inputs[name] = given.clone()
        captured = self.inputs[name]
        if captured.shape != given.shape:
            raise ValueError(
                f"cuda_graphs: a batch of shape {tuple(given.shape)} after one of {tuple(captured.shape)}; all must "
                "have the same shape"
            )
        captured.copy_(given)
        return captured

    def _set_rates_to_tensors(self) -> None:
        """Set the learning rates to the tensors that captured steps read, for the duration of a step."""
        groups = self.optimizer.param_groups
        for index, (group, tensor) in enumerate(zip(groups, self.rate_tensors, strict=True)):
            # A schedule has changed the learning rate.
            if group["lr"] != self.rates[index]:
                self.rates[index] = group["lr"]
                tensor.fill_(group["lr"])
            group["lr"] = tensor

    def _set_rates_to_numbers(self) -> None:
        """Set the learning rates to numbers between steps, for schedules and checkpoints."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate

    @contextmanager
    def _warming_up(self) -> Iterator[None]:
        with warnings.catch_warnings(), self.recorder.side_stream():
            # torch warns that nothing is captured yet.
            warnings.filterwarnings("ignore", message=".*capturable=True.*")
            yield


@dataclass(frozen=True)
class _StepKind:
    """What is the same in all batches of a captured step.

    Attributes:
        modes: modes that the batch trains.
        has_own_images: whether each network has images of its own.
        has_own_targets: whether each network has targets of its own.
        freeze_base: whether the motivated network is trained without its base.
    """

    modes: Modes
    has_own_images: bool
    has_own_targets: bool
    freeze_base: bool


@dataclass(frozen=True)
class _CapturedStep:
    """Captured step of a kind: functions that replay its phases, and the tensors that they fill."""

    compute_loss: Callable[[], None]
    compute_gradients: Callable[[], None]
    update: Callable[[], None]
    loss: Tensor
    gradients: GradientNumbers
