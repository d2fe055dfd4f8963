"""What `torchrun` tells each of the processes that it starts, in their environment.

The only file that reads these variables. It needs no torch, so that a mistake is found before torch is imported.
"""

import os
import re
import sys
from dataclasses import dataclass

REMEDY = "start the processes with torchrun, which sets all of them, or unset it to train in one process"


@dataclass(frozen=True)
class Launch:
    """The place of this process among those that were started with it.

    Attributes:
        rank: number of this process among all, from 0.
        size: number of all processes.
        local_rank: number of this process among those of its machine, from 0.
        local_size: number of processes of its machine, as far as the environment tells it.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1


def launch() -> Launch:
    """Return the place of this process, alone where the environment says nothing of others.

    Raises:
        ValueError: if a variable is malformed, contradicts another, or lacks one that belongs to it.
    """
    rank = _number("RANK", at_least=0)
    size = _number("WORLD_SIZE", at_least=1)
    local_rank, local_size = local_launch()
    if rank is None and (size or 1) > 1:
        raise ValueError(f"WORLD_SIZE = {size} without RANK: {REMEDY}")
    if rank is not None and size is None:
        raise ValueError(f"RANK = {rank} without WORLD_SIZE: {REMEDY}")
    if rank is None or size is None:
        if local_size > 1:
            name = "LOCAL_RANK" if local_rank else "LOCAL_WORLD_SIZE"
            raise ValueError(f"{name} = {os.environ[name]} without RANK and WORLD_SIZE: {REMEDY}")
        return Launch()
    _check_below("RANK", rank, "WORLD_SIZE", size)
    if local_size > size:
        name = "LOCAL_WORLD_SIZE" if "LOCAL_WORLD_SIZE" in os.environ else "LOCAL_RANK"
        raise ValueError(f"{name} = {os.environ[name]}: these are more processes than WORLD_SIZE = {size}; {REMEDY}")
    if size > 1:
        meeting_place()
    return Launch(rank, size, local_rank, local_size)


def local_launch() -> tuple[int, int]:
    """Return which of the processes on this machine this one is, and how many they are.

    Launchers other than torchrun may leave out the latter; then there are as many as this one's number tells of.

    Raises:
        ValueError: if a variable is malformed, or they contradict each other.
    """
    rank = _number("LOCAL_RANK", at_least=0) or 0
    size = _number("LOCAL_WORLD_SIZE", at_least=1)
    if size is None:
        return rank, rank + 1
    _check_below("LOCAL_RANK", rank, "LOCAL_WORLD_SIZE", size)
    return rank, size


def meeting_place() -> tuple[str, int]:
    """Return the address and port at which the processes meet.

    Raises:
        ValueError: if one of them is not set, or the port is none.
    """
    address = os.environ.get("MASTER_ADDR", "")
    port = _number("MASTER_PORT", at_least=1)
    size = os.environ.get("WORLD_SIZE", "1")
    if not address:
        raise ValueError(f"MASTER_ADDR is not set, and WORLD_SIZE = {size}: {REMEDY}")
    if port is None:
        raise ValueError(f"MASTER_PORT is not set, and WORLD_SIZE = {size}: {REMEDY}")
    if port > 65535:
        raise ValueError(f"MASTER_PORT = {port}: it must be at most 65535")
    return address, port


def is_first_process() -> bool:
    """Whether this process is the one that prints and writes. It never raises: a message may depend on it."""
    # without torch in memory there is no process group, and importing it takes seconds
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank() == 0
    return os.environ.get("RANK", "0") == "0"


def is_first_of_machine() -> bool:
    """Whether this process speaks for those that were started with it on this machine. It never raises."""
    local_rank = os.environ.get("LOCAL_RANK", "0")
    return local_rank == "0" or not local_rank.isdecimal()


def process_prefix() -> str:
    """What a line on standard error begins with, where it is not the first process that writes it."""
    rank = os.environ.get("RANK", "0")
    is_another = re.fullmatch("[0-9]+", rank) is not None and int(rank) > 0
    return f"process {rank}: " if is_another else ""


def agent_serves_store() -> bool:
    """Whether torchrun itself, rather than the first process, serves the store at which the processes meet."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _number(name: str, *, at_least: int) -> int | None:
    text = os.environ.get(name)
    if text is None:
        return None
    if re.fullmatch("[0-9]{1,9}", text) is None or int(text) < at_least:
        raise ValueError(f"{name} = {text!r}: it must be a whole number of at least {at_least}; {REMEDY}")
    return int(text)


def _check_below(name: str, number: int, of: str, size: int) -> None:
    if number >= size:
        raise ValueError(f"{name} = {number}: it must be below {of} = {size}; {REMEDY}")
