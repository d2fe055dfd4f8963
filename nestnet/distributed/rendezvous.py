"""How the processes that train one network meet."""

import socket
import time
from datetime import timedelta

import torch
import torch.distributed as dist

from nestnet.distributed.process_group import ProcessGroup
from nestnet.runtime.interrupts import Interrupted
from nestnet.runtime.notices import log_notice
from nestnet.runtime.torchrun import Launch, agent_serves_store, launch, meeting_place, process_prefix
from nestnet.text.messages import first_line

MEETING = timedelta(minutes=10)
"""How long a process waits for the others to come, once it has read the data itself."""


PATIENCE = timedelta(seconds=20)
"""How long a process waits for the others to come before it says so."""


ANSWER = timedelta(minutes=30)
"""How long a process that has met the others waits for their part, which comes late where their images are read slowly."""


def init_process_group(device: torch.device) -> ProcessGroup:
    """Meet the other processes; a process group that is there already is used as it is.

    Raises:
        ValueError: if the environment does not tell where they meet, or what it tells is malformed.
        OSError: if they have not all come within `MEETING`.
    """
    if not is_initialized():
        place = launch()
        if place.size == 1:
            return ProcessGroup()
        store = _meet(place)
    if device.type == "cuda" and device.index is not None:
        # NCCL sends objects by way of the current device, which must not be the same one in two processes
        torch.cuda.set_device(device)
    if not is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=place.rank, world_size=place.size, timeout=ANSWER)
    return ProcessGroup(dist.get_rank(), dist.get_world_size(), is_initialized=True)


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
            log_notice(f"{process_prefix()}{what}; waiting for at most {_minutes(MEETING)}", from_any_process=True)
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


def is_initialized() -> bool:
    """Whether the processes have met."""
    return dist.is_available() and dist.is_initialized()


def describe_lost_process(error: BaseException) -> str | None:
    """Return what has become of another process where an error of torch's tells of it, else `None`."""
    if not is_initialized() or not isinstance(error, RuntimeError):
        return None
    text = str(error)
    if not isinstance(error, dist.DistError) and "gloo" not in text:
        return None
    if "imed out" in text:
        return f"another process has not answered for {_minutes(ANSWER)}"
    return "another process is gone"


def destroy_process_group() -> None:
    """End the process group, where there still is one."""
    if is_initialized():
        dist.destroy_process_group()
