"""Initialization and destruction of the process group of the processes that train one network."""

import socket
import time
from datetime import timedelta

import torch
import torch.distributed as dist

from nestnet.distributed.process_group import ProcessGroup
from nestnet.runtime.interrupts import Interrupted
from nestnet.runtime.log import log_notice
from nestnet.runtime.torchrun import Launch, agent_serves_store, process_prefix, read_launch, read_master_address
from nestnet.text.messages import first_line

RENDEZVOUS_TIMEOUT = timedelta(minutes=10)
"""How long a process that has read its data waits for the other processes to join."""

COLLECTIVE_TIMEOUT = timedelta(minutes=30)
"""How long a collective operation waits for the other processes, which may be late because they read their images slowly."""

NOTICE_DELAY = timedelta(seconds=20)
"""How long a process waits for the others before it logs a notice."""

POLL_SECONDS = 0.1
"""Seconds between two checks whether another process has joined."""

JOINED_KEY = "nestnet/joined"
"""Key in the store under which the processes that have joined are counted."""


def init_process_group(device: torch.device) -> ProcessGroup:
    """Initialize torch's default process group from the environment that torchrun sets.

    A process group that is initialized already is used as it is. A process that was started alone needs none.
    Unlike `torch.distributed.init_process_group`, this function handles signals while it waits for the other
    processes.

    Args:
        device: device of this process. NCCL is the backend on CUDA, and Gloo elsewhere.

    Returns:
        The process group.

    Raises:
        ValueError: If a variable of the environment is missing or malformed.
        OSError: If not all processes join within `RENDEZVOUS_TIMEOUT`.
    """
    store: dist.Store | None = None
    launch = Launch()
    if not is_initialized():
        # The rank and the number of processes come from the environment that torchrun sets.
        launch = read_launch()
        if launch.size == 1:
            return ProcessGroup()
        store = _join(launch)
    if device.type == "cuda" and device.index is not None:
        # NCCL sends objects by way of the current device, which must not be the same one in two processes.
        torch.cuda.set_device(device)
    if store is not None:
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(
            backend, store=store, rank=launch.rank, world_size=launch.size, timeout=COLLECTIVE_TIMEOUT
        )
    return ProcessGroup(dist.get_rank(), dist.get_world_size(), is_initialized=True)


def is_initialized() -> bool:
    """Return whether torch's default process group is initialized."""
    return dist.is_available() and dist.is_initialized()


def destroy_process_group() -> None:
    """Destroy torch's default process group if it is initialized."""
    if is_initialized():
        dist.destroy_process_group()


def describe_lost_process(error: BaseException) -> str | None:
    """Describe an error of torch that was caused by another process of the group.

    Args:
        error: error that ended training in this process.

    Returns:
        A clause that says that another process has ended or has not answered; `None` for any other error.
    """
    if not is_initialized() or not isinstance(error, RuntimeError):
        return None
    text = str(error)
    # Gloo raises plain RuntimeErrors that name it.
    if not isinstance(error, dist.DistError) and "gloo" not in text:
        return None
    if "imed out" in text:
        # torch writes both "Timed out" and "timed out".
        return f"another process has not answered for {_minutes(COLLECTIVE_TIMEOUT)}"
    return "another process is gone"


def _join(launch: Launch) -> dist.Store:
    """Wait until all processes have joined, and return the store that they share.

    torch waits in C++ code, where no signal is handled. This function waits in Python.
    """
    address, port = read_master_address()
    where = f"MASTER_ADDR = {address!r}, MASTER_PORT = {port}"
    deadline = time.monotonic() + RENDEZVOUS_TIMEOUT.total_seconds()
    serves_store = launch.rank == 0 and not agent_serves_store()
    joined = 0
    waiting = _Waiting()
    try:
        # torchrun's agent or the first process serves the store.
        if not serves_store:
            _wait_for_port(address, port, deadline, waiting)
        store = dist.TCPStore(
            address, port, launch.size, is_master=serves_store, timeout=RENDEZVOUS_TIMEOUT, wait_for_workers=False
        )
        # Each process counts itself, and then polls the count until it is complete. Adding 0 reads it.
        joined = store.add(JOINED_KEY, 1)
        while joined < launch.size:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"only {joined} of {launch.size} processes have joined within {_minutes(RENDEZVOUS_TIMEOUT)} at "
                    f"{where}; start all of them, or see why the others have ended"
                )
            waiting.sleep(f"{joined} of {launch.size} processes have joined at {where}")
            joined = store.add(JOINED_KEY, 0)
    # The signal handlers of the `nestnet` command raise this anywhere in the program.
    except Interrupted as error:
        message = f"{error} while {launch.size - joined} of {launch.size} processes had not joined"
        raise Interrupted(message, error.number) from None
    except dist.DistError as error:
        reason = first_line(error)
        raise ConnectionError(
            f"{where}: the processes cannot meet there ({reason}); see why the first one has ended"
        ) from error
    return store


def _wait_for_port(address: str, port: int, deadline: float, waiting: "_Waiting") -> None:
    """Wait until the first process listens at its port, before torch connects to it and waits in C++ code."""
    where = f"MASTER_ADDR = {address!r}, MASTER_PORT = {port}"
    while True:
        try:
            socket.create_connection((address, port), timeout=1).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                reason = error.strerror or error
                raise TimeoutError(
                    f"{where}: the first process has not answered there within {_minutes(RENDEZVOUS_TIMEOUT)} ({reason}); "
                    "start it, or correct the address"
                ) from error
            waiting.sleep(f"the first process has not answered yet at {where}")


class _Waiting:
    """Waits for other processes in short sleeps, and logs one notice once it has taken longer than `NOTICE_DELAY`."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._has_logged = False

    def sleep(self, situation: str) -> None:
        """Sleep for a moment; `situation` says what this process is waiting for."""
        waited = time.monotonic() - self._started
        if waited > NOTICE_DELAY.total_seconds() and not self._has_logged:
            self._has_logged = True
            limit = _minutes(RENDEZVOUS_TIMEOUT)
            log_notice(f"{process_prefix()}{situation}; waiting for at most {limit}", from_any_process=True)
        time.sleep(POLL_SECONDS)


def _minutes(duration: timedelta) -> str:
    return f"{duration.total_seconds() / 60:g} minutes"
