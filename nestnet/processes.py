"""Several processes that train one network together, as `torchrun` starts them.

Each process trains its share of every batch; DistributedDataParallel averages the gradients. What decides something, such
as the loss, is averaged over the processes before, so that all of them decide alike. With one process nothing is done.
"""

import socket
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_map_only

from nestnet.interrupts import Interrupted
from nestnet.layers import BatchNorm2d
from nestnet.messages import first_line
from nestnet.mode import Mode
from nestnet.nested import NestedModel
from nestnet.notices import notice
from nestnet.torchrun import Launch, agent_serves_store, launch, meeting_place, process_prefix

T = TypeVar("T")

MEETING = timedelta(minutes=10)
"""How long a process waits for the others to come, once it has read the data itself."""

PATIENCE = timedelta(seconds=20)
"""How long a process waits for the others to come before it says so."""

ANSWER = timedelta(minutes=30)
"""How long a process that has met the others waits for their part, which comes late where their images are read slowly."""


@dataclass(frozen=True)
class Processes:
    """Which of the processes this one is, and what they tell one another. Each method is called in all of them alike.

    Attributes:
        rank: this one's number, from 0.
        size: how many there are.
        joined: whether they are a process group, which one process may be too. Without one nothing is sent.
    """

    rank: int = 0
    size: int = 1
    joined: bool = False

    @property
    def first(self) -> bool:
        """Whether this is the one that prints and writes."""
        return self.rank == 0

    def average(self, tensor: Tensor) -> Tensor:
        """The mean over all processes, the same bits in each."""
        return self.total(tensor) / self.size if self.joined else tensor

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, the same bits in each."""
        if not self.joined:
            return tensor
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    def from_first(self, value: T) -> T:
        """What the first process has, in all of them. Its tensors arrive on the CPU."""
        if not self.joined:
            return value
        values = [_on_cpu(value) if self.first else None]
        dist.broadcast_object_list(values)
        return cast(T, values[0])

    def from_all(self, value: T) -> list[T]:
        """What each of the processes has, by rank, in all of them. Their tensors arrive on the CPU."""
        if not self.joined:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, _on_cpu(value))
        return values

    def share(self, batch: int) -> slice:
        """This process's part of a batch of so many, a multiple of their number."""
        part = batch // self.size
        return slice(self.rank * part, (self.rank + 1) * part)

    def every(self, count: int) -> range:
        """This process's part of so many items, all of which come once: every so many-th."""
        return range(self.rank, count, self.size)

    @torch.no_grad()
    def average_statistics(self, net: nn.Module) -> None:
        """Average the BatchNorm statistics, which each process has of its own images alone."""
        if self.joined:
            for buffer in net.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.average(buffer))


def _on_cpu(value: T) -> T:
    """A nest of dictionaries, lists and tuples with its tensors on the CPU.

    A tensor is unpickled on the device that it was on. What a process sends from its own GPU would take memory there in the
    name of each other process, and fail where that GPU cannot be seen.
    """
    return cast(T, tree_map_only(Tensor, lambda tensor: tensor.cpu(), value))


def join(device: torch.device) -> Processes:
    """Meet the other processes; a process group that is there already is used as it is.

    Raises:
        ValueError: if the environment does not tell where they meet, or what it tells is malformed.
        OSError: if they have not all come within `MEETING`.
    """
    if not met():
        place = launch()
        if place.size == 1:
            return Processes()
        store = _meet(place)
    if device.type == "cuda" and device.index is not None:
        # NCCL sends objects by way of the current device, which must not be the same one in two processes
        torch.cuda.set_device(device)
    if not met():
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=place.rank, world_size=place.size, timeout=ANSWER)
    return Processes(dist.get_rank(), dist.get_world_size(), joined=True)


def _meet(place: Launch) -> dist.Store:
    """Wait until all processes have come, and return the store that they share.

    torch's own way to meet waits inside C++ code, where no signal is answered; this one waits in Python.
    """
    address, port = meeting_place()
    deadline = time.monotonic() + MEETING.total_seconds()
    serves = place.rank == 0 and not agent_serves_store()
    where = f"MASTER_ADDR = {address!r}, MASTER_PORT = {port}"
    came = 0
    patience = Patience()
    try:
        if not serves:
            _wait_for_port(address, port, deadline, patience)
        store = dist.TCPStore(address, port, place.size, is_master=serves, timeout=MEETING, wait_for_workers=False)
        came = store.add("nestnet/came", 1)
        while came < place.size:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"only {came} of {place.size} processes have come within {_minutes(MEETING)} to where they meet, {where}; "
                    "start all of them, or see why the others have ended"
                )
            patience.wait(f"{came} of {place.size} processes have come to where they meet, {where}")
            came = store.add("nestnet/came", 0)
    except Interrupted as error:
        raise Interrupted(
            f"{error} while {place.size - came} of {place.size} processes had not come", error.number
        ) from None
    except dist.DistError as error:
        reason = first_line(error)
        raise ConnectionError(
            f"{where}: the processes cannot meet there ({reason}); see why the first one has ended"
        ) from error
    return store


class Patience:
    """Waits for another process, and says so once it has taken long."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.said = False

    def wait(self, what: str) -> None:
        """Wait a moment.

        Args:
            what: has not come yet, in words.
        """
        if not self.said and time.monotonic() - self.begun > PATIENCE.total_seconds():
            self.said = True
            notice(f"{process_prefix()}{what}; waiting for at most {_minutes(MEETING)}", of_one_process=True)
        time.sleep(0.1)


def _wait_for_port(address: str, port: int, deadline: float, patience: Patience) -> None:
    """Wait until something answers at a port, before torch looks for it."""
    while True:
        try:
            socket.create_connection((address, port), timeout=1).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"MASTER_ADDR = {address!r}, MASTER_PORT = {port}: the first process has not answered there within "
                    f"{_minutes(MEETING)} ({error.strerror or error}); start it, or correct the address"
                ) from error
            patience.wait(f"the first process has not answered yet at MASTER_ADDR = {address!r}, MASTER_PORT = {port}")


def _minutes(duration: timedelta) -> str:
    return f"{duration.total_seconds() / 60:g} minutes"


def met() -> bool:
    """Whether the processes have met."""
    return dist.is_available() and dist.is_initialized()


def loss_of_another(error: BaseException) -> str | None:
    """Return what has become of another process where an error of torch's tells of it, else `None`."""
    if not met() or not isinstance(error, RuntimeError):
        return None
    text = str(error)
    if not isinstance(error, dist.DistError) and "gloo" not in text:
        return None
    if "imed out" in text:
        return f"another process has not answered for {_minutes(ANSWER)}"
    return "another process is gone"


def leave() -> None:
    """End the process group, where there still is one."""
    if met():
        dist.destroy_process_group()


def distributed(net: NestedModel, mode: Mode) -> DistributedDataParallel:
    """A mode's forward pass `[B, C, H, W]` to `[B, K]` whose gradients, and no others, are averaged over the processes.

    Each mode has a wrapper of its own, over the very same parameters: in base mode only the base's gradients travel.
    """
    device = next(net.parameters()).device
    # a class token's gradient [1, 1, D] comes as a slice, whose strides of the first two dimensions nobody uses
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    return DistributedDataParallel(_Trained(net, mode), device_ids=[device.index] if device.type == "cuda" else None)


def synchronise_batch_norm(net: NestedModel) -> NestedModel:
    """Let BatchNorm normalise by the images of all processes together, as `nn.SyncBatchNorm`; returns the same network."""
    for module in net.modules():
        if isinstance(module, BatchNorm2d):
            module.synchronised = True
    return net


class _Trained(nn.Module):
    """A mode's forward pass, as a module that has the parameters which it trains and nothing else.

    Statistics are averaged when they are read, not sent around at every step: see `Processes.average_statistics`.
    """

    def __init__(self, net: NestedModel, mode: Mode) -> None:
        super().__init__()
        self._forward: Callable[[Tensor], Tensor] = net.subnet(mode).forward
        for name, parameter in net.subnet(mode).named_parameters():
            self.register_parameter(name.replace(".", "/"), parameter)

    def forward(self, images: Tensor) -> Tensor:
        return self._forward(images)
