"""Measurement of a training step and of an evaluation on this machine: time, memory and shapes."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from nestnet.cost.activation_memory import collect_saved_storages
from nestnet.device import autocast
from nestnet.nn.differential import frozen
from nestnet.nn.mode import FINISH, Mode, for_mode
from nestnet.step.cuda_graphs import WARM_UP
from nestnet.step.policy import Modes
from nestnet.step.views import BatchTensor
from nestnet.training.finish_phase import train_batch
from nestnet.training.trainer import Trainer

TIMED_STEPS = 3
"""Number of timed steps after the warm-up, of which the fastest counts. Of slow steps only one is timed."""

SLOW_STEP = 2.0
"""Seconds of the first step from which on only a single further step is timed."""

VERY_SLOW_STEP = 20.0
"""Seconds of the first step from which on it counts as typical itself, unless it compiles or captures something."""


@dataclass(frozen=True)
class StepMeasurement:
    """Time and memory of the step of a base or of a motivated batch.

    Attributes:
        parameters: number of parameters that are trained.
        macs: multiply-accumulates of the forward passes of one image.
        gradient_bytes: memory of the gradients.
        activation_bytes: memory that the forward pass of a batch, or of a part of it, saves for the backward
            pass.
        seconds: time of a step.
        peak_bytes: most memory allocated during a step on CUDA; `None` on a CPU.
    """

    parameters: int
    macs: int
    gradient_bytes: int
    activation_bytes: int
    seconds: float
    peak_bytes: int | None


@dataclass(frozen=True)
class EvaluationMeasurement:
    """Time and shapes of an evaluation batch in both modes.

    Attributes:
        image_shape: shape of its images; empty if this process has no test images.
        logits_shape: shape of its logits.
        batches: number of evaluation batches of this process.
        seconds: time of a batch in both modes, with its data if no workers read it.
    """

    image_shape: list[int]
    logits_shape: list[int]
    batches: int
    seconds: float


def measure_step(trainer: Trainer, images: BatchTensor, targets: BatchTensor, mode: str) -> StepMeasurement:
    """Run some training steps, and measure the time and memory of one.

    Args:
        trainer: trainer whose weights may change.
        images: images `[B, C, H, W]`, for both networks or for each.
        targets: labels `[B]` or soft targets `[B, K]`, for both networks or for each.
        mode: mode of the batch. A motivated batch trains what the policy says, and `"finish"` extends the base.

    Returns:
        The measurement. Memory is that of this process.
    """
    modes: Modes = (Mode.MOTIVATED,) if mode == FINISH else trainer.step.policy.modes(mode)
    trained = _trained_parameters(trainer, mode, modes)
    activation_bytes = 0
    # What is not trained saves nothing for a backward pass.
    with frozen(_without(trainer.net.parameters(), trained)):
        for trained_mode in modes:
            seen = for_mode(images, trained_mode)
            answers = for_mode(targets, trained_mode)
            activation_bytes = max(activation_bytes, measure_activations(trainer, seen, answers, trained_mode))

    def step() -> None:
        outcome = train_batch(trainer.step, images, targets, mode)
        # As in training, the host waits for the loss and computes the quantity that the condition watches.
        outcome.loss()
        trainer.watched_quantity(outcome)

    # The allocator's peak covers all steps, including the capture.
    on_cuda = trainer.device.type == "cuda"
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(trainer.device)
    seconds = measure_typical_seconds(step, trainer)
    peak_bytes: int | None = None
    if on_cuda:
        peak_bytes = torch.cuda.max_memory_allocated(trainer.device)

    return StepMeasurement(
        parameters=sum(parameter.numel() for parameter in trained),
        macs=sum(trainer.cost.macs.of(trained_mode) for trained_mode in modes),
        gradient_bytes=_gradient_bytes(trainer, trained, modes),
        activation_bytes=activation_bytes,
        seconds=seconds,
        peak_bytes=peak_bytes,
    )


def _trained_parameters(trainer: Trainer, mode: str, modes: Modes) -> list[nn.Parameter]:
    """Return the parameters that a batch trains."""
    if mode == FINISH:
        return [parameter for _, parameter in trainer.net.differential_parameters()]
    # The modes share parameters: count each of them once.
    trained: dict[int, nn.Parameter] = {}
    for trained_mode in modes:
        for parameter in trainer.net.subnet(trained_mode).parameters():
            if parameter.requires_grad:
                trained[id(parameter)] = parameter
    return list(trained.values())


def _gradient_bytes(trainer: Trainer, trained: list[nn.Parameter], modes: Modes) -> int:
    """Return the bytes of all gradients of a batch, of which those on shared weights may be kept twice."""
    number = count_bytes(trained)
    shared = trainer.step.shared_gradients
    if shared is not None and len(modes) > 1:
        number += count_bytes(shared.shared)
    return number


def _without(parameters: Iterable[nn.Parameter], left_out: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """Return parameters without some of them."""
    names = set(map(id, left_out))
    return [parameter for parameter in parameters if id(parameter) not in names]


@torch.inference_mode()
def measure_evaluation(trainer: Trainer) -> EvaluationMeasurement:
    """Evaluate a batch in both modes, and measure its time.

    Args:
        trainer: trainer of the run.

    Returns:
        The measurement.
    """
    net = trainer.step.averaged.eval()
    batches = iter(trainer.test_batches)
    batch: list[Tensor] = []
    shapes: list[list[int]] = []

    def read() -> None:
        batch.extend(next(batches, ()))

    def forward() -> None:
        # With fewer test images than processes, this process may have none.
        if not batch:
            return
        with autocast(trainer.device, trainer.config.precision):
            for mode in Mode:
                shapes.append(list(net(batch[0], mode).shape))

    # Reading comes first: the forward pass uses the batch that was read.
    read_seconds = measure_seconds(read, trainer)
    seconds = measure_seconds(forward, trainer)
    # Workers would read while the device computes.
    if trainer.config.data.workers == 0:
        seconds += read_seconds
    # Each process evaluates its share of the test images.
    samples = len(trainer.process_group.sample_indices(len(trainer.images.test)))
    image_shape: list[int] = []
    logits_shape: list[int] = []
    if batch:
        image_shape = list(batch[0].shape)
        logits_shape = shapes[0]
    return EvaluationMeasurement(
        image_shape=image_shape,
        logits_shape=logits_shape,
        batches=math.ceil(samples / trainer.config.data.eval_batch_size),
        seconds=seconds,
    )


def measure_activations(trainer: Trainer, images: Tensor, targets: Tensor, mode: Mode) -> int:
    """Return the memory that autograd saves for the backward pass of one part of a batch.

    Args:
        trainer: trainer of the run.
        images: images of a batch `[B, C, H, W]`.
        targets: labels `[B]` or soft targets `[B, K]`.
        mode: mode of the forward pass.

    Returns:
        The number of bytes, without those of the weights and statistics.
    """
    persistent: set[int] = set()
    for tensor in network_tensors(trainer):
        persistent.add(tensor.untyped_storage().data_ptr())
    # Parts are trained one after another: only one holds activations at a time.
    part = len(images) // trainer.config.accumulate
    # Autograd also saves weights, which are in memory anyway.
    with collect_saved_storages() as saved:
        with autocast(trainer.device, trainer.config.precision):
            logits = trainer.net(images[:part], mode)
        trainer.objectives.of(mode)(logits, targets[:part])
    return sum(storage.nbytes() for storage in saved if storage.data_ptr() not in persistent)


def measure_typical_seconds(step: Callable[[], None], trainer: Trainer) -> float:
    """Return the time of a typical step, after the warm-up.

    Args:
        step: function that performs a step. All processes call it the same number of times.
        trainer: trainer of the run.

    Returns:
        The time in seconds.
    """
    config = trainer.config
    first = measure_seconds(step, trainer)
    if first > VERY_SLOW_STEP and not (config.compile or config.cuda_graphs):
        return first
    if config.cuda_graphs:
        for _ in range(WARM_UP):  # the last of these captures the step
            step()
    # The fastest step is the one that other programs disturbed least.
    timed_steps = TIMED_STEPS if first < SLOW_STEP else 1
    return min(measure_seconds(step, trainer) for _ in range(timed_steps))


def measure_seconds(work: Callable[[], object], trainer: Trainer) -> float:
    """Return the time that a piece of work takes, averaged over the processes.

    Args:
        work: function to call once.
        trainer: trainer of the run.

    Returns:
        The time in seconds until the device has finished.
    """
    _wait_for_device(trainer)
    started = time.perf_counter()
    work()
    _wait_for_device(trainer)
    # All processes must get the same number, because the number of steps depends on it.
    seconds = torch.tensor(time.perf_counter() - started, device=trainer.device)
    return trainer.process_group.all_reduce_mean(seconds).item()


def network_tensors(trainer: Trainer) -> Iterator[Tensor]:
    """Return the parameters and buffers of the network.

    Args:
        trainer: trainer of the run.

    Returns:
        An iterator over the tensors.
    """
    return chain(trainer.net.parameters(), trainer.net.buffers())


def count_bytes(values: Iterable[object]) -> int:
    """Return the memory that tensors take.

    Args:
        values: tensors, and other objects, which are ignored.

    Returns:
        The number of bytes.
    """
    return sum(value.nbytes for value in values if isinstance(value, Tensor))


def _wait_for_device(trainer: Trainer) -> None:
    if trainer.device.type == "cuda":
        torch.cuda.synchronize(trainer.device)
