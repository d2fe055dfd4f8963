"""The phases of a training step: up to the loss, up to the gradients, and the update.

Each of the first two phases ends with a number that the host may need before it queues the next one.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from nestnet.distributed.gradients import distributed_forward
from nestnet.nn.differential import frozen
from nestnet.nn.mode import Mode, PerMode, for_mode
from nestnet.nn.model import NestedModel
from nestnet.optim.foreach import copy_all
from nestnet.step.policy import Modes, Policy
from nestnet.step.shared_gradients import SharedGradients
from nestnet.step.views import BatchTensor, LossFunction


@dataclass(frozen=True)
class GradientNumbers:
    """Numbers about the gradients of a batch, on the device.

    Attributes:
        norm: norm `[]` of all gradients before clipping; `None` if it is not needed.
        agreement: cosine `[]` of the angle between both networks' gradients on the weights that they share;
            `None` if it is not needed, or the batch trained a single network.
    """

    norm: Tensor | None
    agreement: Tensor | None


class Phases(Protocol):
    """Interface of the phases of a step, which `TrainStep` runs in this order. `skip` replaces `update`."""

    def compute_loss(
        self, images: BatchTensor, targets: BatchTensor, modes: Modes, *, freeze_base: bool = False
    ) -> Tensor:
        """Run all forward passes, and all backward passes but the last.

        Args:
            images: images `[B, C, H, W]`, for both networks or for each.
            targets: labels `[B]` or soft targets `[B, K]`, for both networks or for each.
            modes: modes to train, one or two.
            freeze_base: whether the motivated network, the only mode then, is trained without its base.

        Returns:
            The mean loss over the parts for each of the modes `[M]`, against the targets and without weights.
        """

    def compute_gradients(self) -> GradientNumbers:
        """Run the last backward pass, and clip the gradients.

        Returns:
            The numbers about the gradients that are needed.
        """

    def update(self) -> None:
        """Let the optimizer take its step."""

    def skip(self) -> None:
        """Leave the network as it was before the batch."""


class Forward:
    """Forward pass of one mode in training, from images `[B, C, H, W]` to logits `[B, K]`.

    Args:
        net: nested network.
        mode: mode of the forward pass.
        compile: backend of torch.compile; `None` for no compilation.
        parallel: whether gradients are averaged over the processes.
        frozen_parameters: parameters that get no gradients.
    """

    def __init__(
        self,
        net: NestedModel,
        mode: Mode,
        compile: str | None,
        *,
        parallel: bool,
        frozen_parameters: Sequence[nn.Parameter] = (),
    ) -> None:
        self.frozen_parameters = frozen_parameters
        self.parallel: DistributedDataParallel | None = None
        if parallel:
            with frozen(frozen_parameters):
                self.parallel = distributed_forward(net, mode)
        self.function: Callable[[Tensor], Tensor] = self.parallel or net.subnet(mode)
        if compile is not None:
            # DistributedDataParallel breaks the graph, so that gradients are sent during the backward pass.
            self.function = torch.compile(self.function, backend=compile, dynamic=False, fullgraph=not parallel)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits `[B, K]` of images `[B, C, H, W]`."""
        # Parameters that are frozen in the forward pass have no part in its backward pass.
        with frozen(self.frozen_parameters):
            return self.function(images)

    def no_sync(self) -> AbstractContextManager[None]:
        """Return a context without gradient synchronisation, for every part of a batch but the last."""
        if self.parallel is None:
            return nullcontext()
        return self.parallel.no_sync()


class BufferSnapshot:
    """Copy of a network's buffers, the BatchNorm statistics, from before a batch changes them.

    Args:
        net: nested network. Its buffers must stay the same objects.
    """

    def __init__(self, net: NestedModel) -> None:
        self.buffers = list(net.buffers())
        self.copies = [buffer.clone() for buffer in self.buffers]

    @torch.no_grad()
    def save(self) -> None:
        """Copy the buffers as they are now."""
        copy_all(self.buffers, self.copies)

    @torch.no_grad()
    def restore(self) -> None:
        """Set the buffers back to the copies."""
        copy_all(self.copies, self.buffers)


@dataclass
class EagerPhases:
    """Phases of a step that are executed directly, without CUDA graphs.

    Attributes:
        forward: forward pass of each mode.
        optimizer: optimizer over the network's parameters.
        loss_function: function of logits `[B, K]` and targets, for both networks or for each.
        policy: how the losses of a batch that trains both networks are put together.
        autocast: context of the forward pass.
        accumulate: number of equal parts of a batch.
        clip_grad: largest norm of all gradients together; `None` for no clipping.
        gradient_norm: whether the norm is computed even without clipping.
        shared_gradients: where the gradients of both networks are kept apart for their agreement; `None` if it
            is not needed.
        snapshot: copy of the buffers for `skip`; `None` if no batch is skipped.
        last_loss: loss whose backward pass is still to be run.
        last_frozen: parameters that were frozen in its forward pass.
        kept_apart: the shared gradients if this batch trains both networks; otherwise `None`.
        finish: forward pass that trains the motivated network without its base; `None` until it is needed.
    """

    forward: dict[Mode, Forward]
    optimizer: Optimizer
    loss_function: LossFunction | PerMode[LossFunction]
    policy: Policy
    autocast: AbstractContextManager[None]
    accumulate: int
    clip_grad: float | None
    gradient_norm: bool
    shared_gradients: SharedGradients | None
    snapshot: BufferSnapshot | None
    last_loss: Tensor = field(init=False)
    last_frozen: Sequence[nn.Parameter] = field(init=False)
    kept_apart: SharedGradients | None = field(init=False)
    finish: Forward | None = None

    def compute_loss(
        self, images: BatchTensor, targets: BatchTensor, modes: Modes, *, freeze_base: bool = False
    ) -> Tensor:
        """Run all forward passes, and all backward passes but the last.

        Args:
            images: images `[B, C, H, W]`, for both networks or for each.
            targets: labels `[B]` or soft targets `[B, K]`, for both networks or for each.
            modes: modes to train, one or two.
            freeze_base: whether the motivated network, the only mode then, is trained without its base.

        Returns:
            The mean loss over the parts for each of the modes `[M]`, against the targets and without weights.

        Raises:
            ValueError: If the batch cannot be divided into `accumulate` equal parts.
        """
        parts: dict[Mode, list[tuple[Tensor, Tensor]]] = {}
        for mode in modes:
            parts[mode] = self._divide(for_mode(images, mode), for_mode(targets, mode))
        if self.snapshot is not None:
            self.snapshot.save()
        # Gradients become None, so that the optimizer ignores parameters that no mode of this batch trains.
        self.optimizer.zero_grad()
        self.kept_apart = self.shared_gradients if len(modes) > 1 else None
        if self.kept_apart is not None:
            self.kept_apart.begin()

        losses: dict[Mode, list[Tensor]] = {mode: [] for mode in modes}
        is_first = True
        for number in range(self.accumulate):
            is_last_part = number == self.accumulate - 1
            teacher: Tensor | None = None
            for mode in modes:
                # The last backward pass is left to the next phase: the host reads the loss while the device runs it.
                if not is_first:
                    self._run_backward()
                    if self.kept_apart is not None:
                        self.kept_apart.switch()
                is_first = False
                forward = self.forward[mode]
                if freeze_base:
                    assert self.finish is not None
                    forward = self.finish
                part_images, part_targets = parts[mode][number]
                logits = self._forward(forward, part_images, synchronise=is_last_part)
                loss = for_mode(self.loss_function, mode)(logits, part_targets)
                losses[mode].append(loss.detach())
                # The first of two networks is the teacher of the second.
                if teacher is not None:
                    loss = self.policy.base_loss(loss, logits, teacher)
                teacher = logits.detach()
                weight = self.policy.weight(mode, modes)
                if weight != 1:
                    loss = weight * loss
                # The gradients of the scaled losses add up to the gradient of the mean over the parts.
                self.last_loss = loss / self.accumulate
                self.last_frozen = forward.frozen_parameters
        return torch.stack([torch.stack(part_losses).mean() for part_losses in losses.values()])

    def compute_gradients(self) -> GradientNumbers:
        """Run the last backward pass, and clip the gradients.

        Returns:
            The numbers about the gradients that are needed.
        """
        self._run_backward()
        # Free the graph at once. If it lived until the next forward pass, its gradient accumulators would be
        # reused there, on the stream that they were created on, which a capture on another stream does not
        # allow.
        del self.last_loss
        agreement: Tensor | None = None
        if self.kept_apart is not None:
            agreement = self.kept_apart.join()
        return GradientNumbers(self._clip_gradients(), agreement)

    def update(self) -> None:
        """Let the optimizer take its step."""
        self.optimizer.step()

    def skip(self) -> None:
        """Restore the statistics. The next step clears the gradients."""
        if self.snapshot is not None:
            self.snapshot.restore()

    def _run_backward(self) -> None:
        # Blocks that the backward pass computes again must find the same parameters frozen.
        with frozen(self.last_frozen):
            self.last_loss.backward()

    def _clip_gradients(self) -> Tensor | None:
        """Clip the gradients, and return the norm `[]` of all of them before, if either is needed."""
        if self.clip_grad is None and not self.gradient_norm:
            return None
        # Parameters that the batch does not train have no gradient and do not contribute to the norm.
        parameters: list[Tensor] = []
        for group in self.optimizer.param_groups:
            parameters.extend(group["params"])
        # Without clipping, only the norm is computed.
        largest_norm = float("inf") if self.clip_grad is None else self.clip_grad
        return nn.utils.clip_grad_norm_(parameters, largest_norm)

    def _divide(self, images: Tensor, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return the equal parts of a batch."""
        if len(images) % self.accumulate:
            raise ValueError(
                f"accumulate = {self.accumulate}: a batch of {len(images)} has no such number of equal parts"
            )
        return list(zip(images.chunk(self.accumulate), targets.chunk(self.accumulate), strict=True))

    def _forward(self, forward: Forward, images: Tensor, *, synchronise: bool) -> Tensor:
        """Return the logits of a part of a batch, whose gradients are averaged over the processes if `synchronise`."""
        synchronisation: AbstractContextManager[None] = nullcontext()
        if not synchronise:
            synchronisation = forward.no_sync()
        with synchronisation, self.autocast:
            return forward(images)
