"""Whole training steps as CUDA graphs, one set a mode over one pool of memory.

A small network's step on a GPU is bound by the host, which launches hundreds of kernels for some milliseconds of work. A
graph is launched at once. The host still decides which mode comes next: it launches that mode's graphs.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor
from torch.optim import SGD, Adadelta, Adam, Adamax, AdamW, NAdam, Optimizer, RAdam, RMSprop

from nestnet.nn.mode import Mode
from nestnet.optim.step_counts import fill_momentum

T = TypeVar("T")
Modes = tuple[Mode, ...]

WARM_UP = 3
"""Ordinary steps of each mode before its capture. They are training steps as any other: they make the optimizer's state, choose
convolution algorithms, and compile what is to be compiled."""


class Phases(Protocol):
    """The phases of a step: see `nestnet.step.Eager`."""

    def until_loss(self, images: Tensor, targets: Tensor, modes: Modes) -> Tensor: ...
    def until_gradient(self) -> Tensor | None: ...
    def update(self) -> None: ...
    def skip(self) -> None:
        """In place of `update`, for a batch that is to leave no trace."""


class Recorder(Protocol):
    """What captures work, so that it can be repeated without the host."""

    def aside(self) -> AbstractContextManager[None]:
        """Work that comes before a capture, where the capture will be."""

    def capture(self, work: Callable[[], T]) -> tuple[Callable[[], None], T]:
        """A function that repeats `work`, which is not done yet, and what it returns: tensors that each repetition fills."""


class Graphs:
    """The phases of a step, captured for each mode after some ordinary ones, and replayed.

    The graphs share a pool: none keeps anything in it from one step to the next. Weights, statistics and the optimizer's
    state lie outside, as does the learning rate, which is a tensor, so that a schedule reaches the captured steps. The
    optimizer's other settings are those of the capture: after a change of them, or after its `load_state_dict`, ordinary
    steps and captures begin anew.

    Args:
        phases: to capture.
        optimizer: is set up to be captured.
        recorder: other than CUDA's.

    Raises:
        ValueError: for an optimizer that cannot be captured.
    """

    def __init__(self, phases: Phases, optimizer: Optimizer, recorder: Recorder | None = None) -> None:
        self.device = optimizer.param_groups[0]["params"][0].device
        self.phases = phases
        self.optimizer = optimizer
        self.recorder = recorder or CudaRecorder(self.device)
        self.inputs: tuple[Tensor, Tensor] | None = None
        self.modes: Modes = ()
        make_capturable(optimizer)
        fill_momentum(optimizer)
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.rates = [torch.tensor(math.nan, device=self.device) for _ in self.optimizer.param_groups]
        self.numbers = [math.nan] * len(self.rates)
        self.ordinary_steps: dict[Modes, int] = {}
        self.captured: dict[Modes, _Captured] = {}
        self.groups = self.optimizer.param_groups
        self.settings = _settings(self.optimizer)

    def until_loss(self, images: Tensor, targets: Tensor, modes: Modes) -> Tensor:
        # `load_state_dict` makes new groups, and new tensors of state that a captured step would not know
        if self.optimizer.param_groups is not self.groups or _settings(self.optimizer) != self.settings:
            make_capturable(self.optimizer)
            self._begin_anew()
        self._tensors_for_rates()
        self.modes = modes
        # ordinary steps read the same memory, as algorithms are chosen by where it lies too
        inputs = self._take_inputs(images, targets)
        if self.ordinary_steps.get(modes, 0) < WARM_UP:
            with self._warming_up():
                return self.phases.until_loss(*inputs, modes)
        if modes not in self.captured:
            self.captured[modes] = self._capture(inputs, modes)
        self.captured[modes].until_loss()
        return self.captured[modes].loss

    def until_gradient(self) -> Tensor | None:
        if self.modes not in self.captured:
            with self._warming_up():
                return self.phases.until_gradient()
        self.captured[self.modes].until_gradient()
        return self.captured[self.modes].norm

    def update(self) -> None:
        if self.modes in self.captured:
            self.captured[self.modes].update()
        else:
            with self._warming_up():
                self.phases.update()
            # Only steps with an update count: they alone make the optimizer's state, which made within a capture would
            # be made anew at each replay.
            self.ordinary_steps[self.modes] = self.ordinary_steps.get(self.modes, 0) + 1
        self._numbers_for_rates()

    def skip(self) -> None:
        self.phases.skip()
        self._numbers_for_rates()

    def _numbers_for_rates(self) -> None:
        """Between steps the optimizer holds the learning rates as numbers, for schedules and checkpoints."""
        for group, number in zip(self.optimizer.param_groups, self.numbers, strict=True):
            group["lr"] = number

    def _capture(self, inputs: tuple[Tensor, Tensor], modes: Modes) -> "_Captured":
        until_loss, loss = self.recorder.capture(lambda: self.phases.until_loss(*inputs, modes))
        until_gradient, norm = self.recorder.capture(self.phases.until_gradient)
        update, _ = self.recorder.capture(self.phases.update)
        self.optimizer.zero_grad()  # the gradients' memory is the pool's again
        return _Captured(until_loss, until_gradient, update, loss, norm)

    def _take_inputs(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Copy a batch to where the captured steps read it."""
        if self.inputs is None:
            self.inputs = images.clone(), targets.clone()
        for ours, theirs in zip(self.inputs, (images, targets), strict=True):
            if ours.shape != theirs.shape:
                raise ValueError(
                    f"cuda_graphs: a batch of shape {tuple(theirs.shape)} after one of {tuple(ours.shape)}; all must have one "
                    "shape"
                )
            ours.copy_(theirs)
        return self.inputs

    def _tensors_for_rates(self) -> None:
        """Schedules put numbers into the optimizer; during a step it holds the tensors that the captured steps read."""
        for index, (group, rate) in enumerate(zip(self.optimizer.param_groups, self.rates, strict=True)):
            if group["lr"] != self.numbers[index]:
                self.numbers[index] = group["lr"]
                rate.fill_(group["lr"])
            group["lr"] = rate

    @contextmanager
    def _warming_up(self) -> Iterator[None]:
        with warnings.catch_warnings(), self.recorder.aside():
            warnings.filterwarnings("ignore", message=".*capturable=True.*")  # that this is no capture yet
            yield


@dataclass(frozen=True)
class _Captured:
    """A mode's step: what repeats each phase, and what the phases fill."""

    until_loss: Callable[[], None]
    until_gradient: Callable[[], None]
    update: Callable[[], None]
    loss: Tensor
    norm: Tensor | None


class CudaRecorder:
    """Captures CUDA graphs on a stream of its own.

    One pool of memory serves all: its graphs are replayed one at a time, and each one's memory may be the next one's but
    for what `capture` returned.

    Args:
        device: device of all work, which need not be the process's current one.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pool = torch.cuda.graph_pool_handle()
        self.stream = torch.cuda.Stream(device)

    @contextmanager
    def aside(self) -> Iterator[None]:
        # Each stream waits for the other in turn, so that a tensor made on one may be freed after use on the other.
        before = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(before)
        try:
            with torch.cuda.stream(self.stream):
                yield
        finally:  # what is read after an error, such as weights for a checkpoint, waits too
            before.wait_stream(self.stream)

    def capture(self, work: Callable[[], T]) -> tuple[Callable[[], None], T]:
        graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.device(self.device),
            torch.cuda.stream(self.stream),  # left also where the end of the capture fails
            # the loader's thread may pin memory meanwhile
            torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"),
        ):
            result = work()
        # the generators' seeds for the graph are filled on the capture's stream
        torch.cuda.current_stream(self.device).wait_stream(self.stream)
        return graph.replay, result


CAPTURABLE = (SGD, Adam, AdamW, Adamax, NAdam, RAdam, RMSprop, Adadelta)
"""Optimizers whose whole step runs on the device, with the learning rate as a tensor. Others may have a setting `capturable`
and still read a number on the host, or use the learning rate of the capture for ever."""


def make_capturable(optimizer: Optimizer) -> None:
    """Let a torch optimizer take its step without the host.

    Raises:
        ValueError: for one that cannot.
    """
    if type(optimizer) not in CAPTURABLE:
        names = [kind.__name__ for kind in CAPTURABLE]
        raise ValueError(
            f"cuda_graphs: {type(optimizer).__name__} cannot be captured; torch's {', '.join(names[:-1])} and {names[-1]} can"
        )
    for group in optimizer.param_groups:
        if isinstance(optimizer, SGD):  # its loops read a learning rate that is a tensor; its fused kernel does not
            group.update(foreach=False, fused=True)
            continue
        group["capturable"] = True
        if not group.get("fused"):  # the loops over single tensors of some read the learning rate as a number
            group["foreach"] = True
    # counts of steps that were taken without the setting lie on the host
    for parameter, state in optimizer.state.items():
        if isinstance(state.get("step"), Tensor):
            state["step"] = state["step"].to(parameter.device, torch.float32)


def _settings(optimizer: Optimizer) -> list[dict[str, object]]:
    """The optimizer's settings in each group, but for the learning rate."""
    settings: list[dict[str, object]] = []
    for group in optimizer.param_groups:
        plain = {name: value for name, value in group.items() if name not in ("params", "lr")}
        settings.append(plain)
    return settings
