"""The training step: from a batch to moved weights, in either mode.

It owns what surrounds the forward pass: autocast, the parts of a batch, compilation, gradients averaged over processes,
clipping, the moving average of the weights, and how the loss reaches the host without a wait.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from nestnet.device import autocast
from nestnet.distributed.gradients import distributed_forward
from nestnet.distributed.process_group import ProcessGroup
from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel
from nestnet.optim.foreach import copy_all
from nestnet.training.graphs import Graphs
from nestnet.training.moving_average import MovingAverage
from nestnet.training.random_state import restore_torch_random_state, torch_random_state


class TrainStep:
    """Trains a nested network on one batch at a time.

    Args:
        net: is trained; its device is the step's.
        optimizer: over its parameters.
        loss_function: of logits `[B, K]` and targets.
        precision: `"float32"`, or `"bfloat16"` for autocast of the forward pass.
        accumulate: parts that a batch is trained in, one after another, all in the same mode, before the one step of the
            optimizer. It takes less memory; BatchNorm sees a part at a time.
        clip_grad: largest norm of all gradients together.
        gradient_norm: whether to tell that norm where nothing is clipped.
        distil: whether the second of two modes has the first one's logits as a third argument of its loss function.
        ema_decay: of a moving average of weights and buffers, which warms up as timm's: see `averaged`.
        compile: a backend of torch.compile, such as `"inductor"`, for the forward and backward pass of each mode.
        cuda_graphs: capture each mode's step after a few ordinary ones, and replay it. All batches have the same shape.
        overlap: on CUDA, whether the loss travels to the host while the device goes on. It does not change what it is.
        skip_non_finite: whether a batch whose loss is NaN or infinite leaves everything as it was: weights, statistics,
            optimizer and random state. The host then knows the loss before the update is queued, during the backward pass.
        processes: that train together; see `nestnet.process_group.join`.

    Raises:
        ValueError: for settings that do not go together.

    >>> import nestnet, torch
    >>> net, condition = nestnet.create_model("resnet20", "resnet32", num_classes=10), nestnet.LossDecrease(k=2)
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    >>> step = nestnet.TrainStep(net, optimizer, torch.nn.functional.cross_entropy, accumulate=2, clip_grad=1.0)
    >>> for images, labels in [(torch.randn(8, 3, 32, 32), torch.randint(10, (8,)))] * 3:
    ...     condition.update(step(images, labels, condition.mode).loss())
    """

    def __init__(
        self,
        net: NestedModel,
        optimizer: Optimizer,
        loss_function: Callable[..., Tensor],
        *,
        precision: str = "float32",
        accumulate: int = 1,
        clip_grad: float | None = None,
        gradient_norm: bool = False,
        distil: bool = False,
        ema_decay: float | None = None,
        compile: str | None = None,
        cuda_graphs: bool = False,
        overlap: bool = True,
        skip_non_finite: bool = False,
        process_group: ProcessGroup | None = None,
    ) -> None:
        self.net = net
        self.overlap = overlap
        self.process_group = process_group or ProcessGroup()
        self.skip_non_finite = skip_non_finite
        self.device = next(net.parameters()).device
        if cuda_graphs and (self.process_group.is_initialized or self.device.type != "cuda"):
            raise ValueError("cuda_graphs: it is for one process on CUDA; leave it out")
        self.phases: Eager | Graphs = Eager(
            {mode: Forward(net, mode, compile, parallel=self.process_group.is_initialized) for mode in Mode},
            optimizer,
            loss_function,
            autocast(self.device, precision),
            accumulate,
            clip_grad,
            gradient_norm,
            distil,
            SavedBuffers(net) if skip_non_finite else None,
        )
        if cuda_graphs:
            self.phases = Graphs(self.phases, optimizer)
        self.average = None if ema_decay is None else MovingAverage(net, ema_decay)

    def __call__(self, images: Tensor, targets: Tensor, *modes: Mode | str) -> "Outcome":
        """Train the subnets of `modes`, one or two, on images `[B, C, H, W]`.

        With two the loss is their mean; their gradients are added up for one step of the optimizer (the sandwich rule for
        two networks: Yu and Huang 2019, arXiv 1903.05134).

        Raises:
            ValueError: if the batch cannot be divided into `accumulate` equal parts or, with `cuda_graphs`, has another shape
                than the first one.
        """
        random_before = torch_random_state(self.device) if self.skip_non_finite else None
        # What the host wants to know is on its way before the device gets its next work, so that only that is waited for.
        loss = self.phases.until_loss(images, targets, tuple(Mode(mode) for mode in modes))
        read_loss = AsyncScalar(self.process_group.all_reduce_mean(loss), overlap=self.overlap)
        norm = self.phases.until_gradient()
        read_norm = AsyncScalar(norm, overlap=self.overlap) if norm is not None else None
        if random_before is not None and not math.isfinite(read_loss()):
            self.phases.skip()
            restore_torch_random_state(random_before, self.device)
            return Outcome(read_loss, read_norm, skipped=True)
        self.phases.update()
        if self.average is not None:
            self.average.update()
        return Outcome(read_loss, read_norm)

    @property
    def averaged(self) -> NestedModel:
        """The network to evaluate and export: with the averaged weights where there are any, else the trained one."""
        return self.net if self.average is None else self.average.module


@dataclass(frozen=True)
class Outcome:
    """What can be known of a step, when it is asked for.

    Attributes:
        loss: of the batch, before the step, averaged over the processes.
        gradient_norm: of all gradients together, before they were clipped; `None` where nobody wants it.
        skipped: whether the batch left no trace, because its loss was NaN or infinite and such batches are to be skipped.
    """

    loss: "AsyncScalar"
    gradient_norm: "AsyncScalar | None"
    skipped: bool = False


class SavedBuffers:
    """What a forward pass changes in the network, as it was before the batch: the BatchNorm statistics."""

    def __init__(self, net: NestedModel) -> None:
        self.buffers = list(net.buffers())
        self.copies = [buffer.clone() for buffer in self.buffers]

    @torch.no_grad()
    def save(self) -> None:
        copy_all(self.buffers, self.copies)

    @torch.no_grad()
    def restore(self) -> None:
        copy_all(self.copies, self.buffers)


class AsyncScalar:
    """A number that the device computes. Calling it waits for that number.

    Args:
        value: number as a tensor `[]`; it may be overwritten later, as captured steps do.
        overlap: on CUDA, whether to wait for nothing that is queued after the number. Otherwise calling waits for all work.
    """

    def __init__(self, value: Tensor, *, overlap: bool) -> None:
        self.event: torch.cuda.Event | None = None
        if value.is_cuda and overlap:
            # torch keeps pinned memory from being used again until the copies into it are done
            self.value = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
            self.value.copy_(value, non_blocking=True)
            self.event = torch.cuda.Event()
            # of the number's own device, which need not be the process's current one
            self.event.record(torch.cuda.current_stream(value.device))
        else:
            self.value = value.clone()

    def __call__(self) -> float:
        if self.event is not None:
            self.event.synchronize()
        return self.value.item()


class Forward:
    """The forward pass of one mode, `[B, C, H, W]` to `[B, K]`, as it is trained."""

    def __init__(self, net: NestedModel, mode: Mode, compile: str | None, *, parallel: bool) -> None:
        self.parallel: DistributedDataParallel | None = distributed_forward(net, mode) if parallel else None
        self.function: Callable[[Tensor], Tensor] = self.parallel or net.subnet(mode)
        if compile is not None:
            # DistributedDataParallel has the graph split, so that gradients travel during the backward pass
            self.function = torch.compile(self.function, backend=compile, dynamic=False, fullgraph=not parallel)

    def __call__(self, images: Tensor) -> Tensor:
        return self.function(images)

    def without_reduction(self) -> AbstractContextManager[None]:
        """Gradients made within stay in their process, for a part that is not the last."""
        return self.parallel.no_sync() if self.parallel is not None else nullcontext()


@dataclass
class Eager:
    """The three phases of a step, each of which ends with something that the host may want to know."""

    forward: dict[Mode, Forward]
    optimizer: Optimizer
    loss_function: Callable[..., Tensor]
    autocast: AbstractContextManager[None]
    accumulate: int
    clip_grad: float | None
    gradient_norm: bool
    distil: bool
    saved: SavedBuffers | None
    """Statistics from before the batch, for `skip`; `None` where no batch is skipped."""

    last: Tensor = field(init=False)
    """The loss whose backward pass is the last."""

    def until_loss(self, images: Tensor, targets: Tensor, modes: tuple[Mode, ...]) -> Tensor:
        """All forward passes, and all backward passes but the last."""
        if len(images) % self.accumulate:
            raise ValueError(
                f"accumulate = {self.accumulate}: a batch of {len(images)} has no such number of equal parts"
            )
        if self.saved is not None:
            self.saved.save()
        self.optimizer.zero_grad()
        losses: list[Tensor] = []
        parts = list(zip(images.chunk(self.accumulate), targets.chunk(self.accumulate), strict=True))
        for number, (part, part_targets) in enumerate(parts):
            teacher: tuple[Tensor, ...] = ()
            for mode in modes:
                if losses:
                    self.last.backward()
                forward, reduced = self.forward[mode], number == len(parts) - 1
                with nullcontext() if reduced else forward.without_reduction(), self.autocast:
                    logits = forward(part)
                loss = self.loss_function(logits, part_targets, *teacher)
                losses.append(loss.detach())
                self.last = loss / len(parts)
                teacher = (logits.detach(),) if self.distil else ()
        return torch.stack(losses).mean()

    def until_gradient(self) -> Tensor | None:
        """The last backward pass, and clipping."""
        self.last.backward()
        # The graph goes at once. Kept until the next forward pass, its gradient accumulators would be used again there, on
        # the stream that they were made on, which a capture on another stream does not allow.
        del self.last
        if self.clip_grad is None and not self.gradient_norm:
            return None
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        return nn.utils.clip_grad_norm_(parameters, float("inf") if self.clip_grad is None else self.clip_grad)

    def update(self) -> None:
        self.optimizer.step()

    def skip(self) -> None:
        """In place of `update`: put the statistics back. The next step clears the gradients."""
        if self.saved is not None:
            self.saved.restore()
