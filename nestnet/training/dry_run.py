"""`nestnet train --dry_run`: all of a run but the training, and what it will take."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from nestnet.conditions.base import JOINT
from nestnet.cost.network import saved_for_backward
from nestnet.device import autocast
from nestnet.nn.mode import Mode
from nestnet.training.forecast import expected_of_run, in_columns
from nestnet.training.graphs import WARM_UP
from nestnet.training.trainer import Trainer

STEPS = 3
"""Timed, after those that are not typical; the fastest counts. Of steps of seconds, one."""

PATIENCE = 20.0
"""Seconds of a first step from which on it is taken for typical, unless it compiles something."""


@dataclass(frozen=True)
class Figures:
    """Of training in one way: in one mode, or in both at once.

    Attributes:
        parameters: that are trained.
        macs: of a forward pass of one image, or of both.
        gradients: their memory in bytes.
        activations: memory in bytes that the forward pass of a batch, or of a part of it, keeps for the backward pass.
        seconds: of a step.
        peak: memory in bytes that a step took on CUDA; `None` elsewhere.
    """

    parameters: int
    macs: int
    gradients: int
    activations: int
    seconds: float
    peak: int | None


def dry_run(trainer: Trainer) -> str:
    """Some steps in each mode and a batch of evaluation, and what follows from them for the whole run, as a text.

    Memory is that of this process. Nothing is left on disk. The trainer is used up: its weights have moved. Of several
    processes all call it, and each gets a text of its own.
    """
    trainer.net.train()
    batches = trainer.epoch_batches()
    images, targets = trainer.mix_batch(*next(batches))  # the first may start workers
    reading = 0.0
    if len(trainer.train_batches) > 1 and not trainer.config.data.workers:
        reading = _seconds(lambda: trainer.mix_batch(*next(batches)), trainer)
    ways = {JOINT: (Mode.MOTIVATED, Mode.BASE)} if trainer.joint else {str(mode): (mode,) for mode in Mode}
    figures = {way: _figures(trainer, images, targets, modes) for way, modes in ways.items()}
    evaluated = _Evaluation.of(trainer)
    lines = [
        _headline(trainer),
        "",
        f"a training batch:    images {list(images.shape)}, targets {list(targets.shape)}, logits {_logits(trainer, images)}",
        f"an evaluation batch: images {evaluated.images}, logits {evaluated.logits}",
        "",
        *in_columns(_table(trainer, figures)),
        "",
        *expected_of_run(trainer.config, trainer.cost.macs, trainer.condition, len(trainer.train_batches)),
        "",
        *_forecast(trainer, {way: found.seconds + reading for way, found in figures.items()}, evaluated),
    ]
    return "\n".join(lines)


def _headline(trainer: Trainer) -> str:
    config, images = trainer.config, trainer.images
    where = (
        f"{trainer.process_group.size} processes on {trainer.device.type}"
        if trainer.process_group.size > 1
        else trainer.device
    )
    return (
        f"dry run on {where} in {config.precision}: {config.data.name}, {len(images.train):,} training and "
        f"{len(images.test):,} test images, {len(images.class_names)} classes; nothing is written"
    )


def _figures(trainer: Trainer, images: Tensor, targets: Tensor, modes: tuple[Mode, ...]) -> Figures:
    """Takes steps in these modes."""
    activations = max(_activations(trainer, images, targets, mode) for mode in modes)

    def step() -> None:
        outcome = trainer.step(images, targets, *modes)
        outcome.loss()
        trainer.watched(outcome, modes[0])

    cuda = trainer.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(trainer.device)
    seconds = _typical(step, trainer)
    own = {id(p): p for mode in modes for p in trainer.net.subnet(mode).parameters()}.values()
    return Figures(
        parameters=sum(p.numel() for p in own),
        macs=sum(trainer.cost.macs.of(mode) for mode in modes),
        gradients=_bytes(own),
        activations=activations,
        seconds=seconds,
        peak=torch.cuda.max_memory_allocated(trainer.device) if cuda else None,
    )


def _typical(step: Callable[[], None], trainer: Trainer) -> float:
    """Seconds of a step, without what only the first ones do. All processes take equally many."""
    config = trainer.config
    first = _seconds(step, trainer)
    if first > PATIENCE and not (config.compile or config.cuda_graphs):
        return first
    for _ in range(WARM_UP if config.cuda_graphs else 0):  # the last of them captures
        step()
    return min(_seconds(step, trainer) for _ in range(STEPS if first < 2 else 1))


def _seconds(work: Callable[[], object], trainer: Trainer) -> float:
    """Averaged over the processes."""
    _wait(trainer)
    begun = time.perf_counter()
    work()
    _wait(trainer)
    taken = torch.tensor(time.perf_counter() - begun, device=trainer.device)
    return trainer.process_group.all_reduce_mean(taken).item()


def _wait(trainer: Trainer) -> None:
    if trainer.device.type == "cuda":
        torch.cuda.synchronize(trainer.device)


def _activations(trainer: Trainer, images: Tensor, targets: Tensor, mode: Mode) -> int:
    """Bytes that autograd keeps from the forward pass and the loss of a part of a batch, besides the weights."""
    lasting = {tensor.untyped_storage().data_ptr() for tensor in _tensors(trainer)}
    part = len(images) // trainer.config.accumulate
    with saved_for_backward() as saved:
        with autocast(trainer.device, trainer.config.precision):
            logits = trainer.net(images[:part], mode)
        trainer.objective(logits, targets[:part])
    return sum(storage.nbytes() for storage in saved if storage.data_ptr() not in lasting)


def _tensors(trainer: Trainer) -> Iterator[Tensor]:
    return chain(trainer.net.parameters(), trainer.net.buffers())


@torch.inference_mode()
def _logits(trainer: Trainer, images: Tensor) -> list[int]:
    with autocast(trainer.device, trainer.config.precision):
        return list(trainer.net(images, Mode.BASE).shape)


@dataclass(frozen=True)
class _Evaluation:
    """The shapes of its first batch, how many there are, and the seconds of each, in both modes."""

    images: list[int]
    logits: list[int]
    batches: int
    seconds: float

    @classmethod
    @torch.inference_mode()
    def of(cls, trainer: Trainer) -> "_Evaluation":
        net, shapes = trainer.step.averaged.eval(), []
        batches = iter(trainer.test_batches)
        found: list[Tensor] = []
        reading = _seconds(lambda: found.extend(next(batches, ())), trainer)

        def forward() -> None:
            if not found:  # there are fewer test images than processes, and this one has none
                return
            with autocast(trainer.device, trainer.config.precision):
                shapes.extend([list(net(found[0], mode).shape) for mode in Mode])

        seconds = _seconds(forward, trainer) + (0.0 if trainer.config.data.workers else reading)
        own = len(trainer.process_group.sample_indices(len(trainer.images.test)))
        shape = list(found[0].shape) if found else []
        return cls(shape, shapes[0] if shapes else [], math.ceil(own / trainer.config.data.eval_batch_size), seconds)


def _table(trainer: Trainer, figures: dict[str, Figures]) -> list[tuple[str, ...]]:
    """A row a figure, the ways of training beside each other; memory in MiB."""
    state = _bytes(value for each in trainer.optimizer.state.values() for value in each.values())
    lasting = {
        "weights and statistics": _bytes(_tensors(trainer)),
        "moving average of them": _bytes(trainer.step.average.module.state_dict().values())
        if trainer.step.average
        else 0,
        "optimizer's state": state,
        "images kept on the device": sum(
            _bytes(vars(batches).values()) for batches in (trainer.train_batches, trainer.test_batches)
        ),
    }
    names = trainer.net.architectures
    part = "a batch" if trainer.config.accumulate == 1 else f"a part, of {trainer.config.accumulate}, of a batch"
    rows = [
        ("", *figures),
        ("network", *(["both"] if trainer.joint else [names.base, names.motivated])),
        ("trained parameters", *(f"{f.parameters:,}" for f in figures.values())),
        ("MACs, forward pass of an image", *(f"{f.macs:,}" for f in figures.values())),
        ("memory, MiB", *("" for _ in figures)),
        *((f"  {name}", *(_mib(size) for _ in figures)) for name, size in lasting.items() if size),
        ("  gradients", *(_mib(f.gradients) for f in figures.values())),
        (f"  activations of {part}", *(_mib(f.activations) for f in figures.values())),
        ("  together", *(_mib(sum(lasting.values()) + f.gradients + f.activations) for f in figures.values())),
    ]
    if trainer.device.type == "cuda":
        rows.append(("  measured peak", *(_mib(f.peak or 0) for f in figures.values())))
    return [*rows, ("time of a step", *(duration(f.seconds) for f in figures.values()))]


def _forecast(trainer: Trainer, seconds: dict[str, float], evaluated: _Evaluation) -> list[str]:
    """How many batches, and how long they take."""
    epochs, batches = trainer.config.epochs, len(trainer.train_batches)
    evaluation = evaluated.batches * evaluated.seconds
    fraction = trainer.expected_fraction
    if trainer.joint:
        ends, what = [seconds[JOINT]], "each in both modes"
    elif fraction is None:
        ends, what = [seconds["base"], seconds["motivated"]], "with none to all of them motivated"
    else:
        ends, what = [(1 - fraction) * seconds["base"] + fraction * seconds["motivated"]], f"{fraction:.2%} motivated"
    whole = [batches * end + evaluation for end in ends]
    each, epoch, run = (
        " to ".join(duration(end) for end in times) for times in (ends, whole, [epochs * end for end in whole])
    )
    workers = trainer.config.data.workers
    reading = f", unless the {workers} workers read more slowly" if workers else ""
    recalibration = ", without recalibration" if trainer.config.recalibration_batches else ""
    return [
        f"{epochs * batches:,} batches of {trainer.config.data.batch_size}, {batches:,} an epoch, {what}",
        f"a batch with its data: {each}",
        f"evaluation in both modes{recalibration}: {duration(evaluation)} an epoch",
        f"an epoch takes about {epoch}" + (f", and all {epochs} about {run}" if epochs > 1 else "") + reading,
    ]


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them, to two or three figures."""
    for unit, size in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0), ("s", 1.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.2f} s"


def _bytes(values: Iterable[object]) -> int:
    return sum(value.nbytes for value in values if isinstance(value, Tensor))


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f}"
