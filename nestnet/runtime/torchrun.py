"""The environment variables that `torchrun` sets for each of the processes that it starts.

No other file reads these variables. This module does not import torch, so that errors are found at once.
"""

import os
import re
import sys
from dataclasses import dataclass

REMEDY = "start the processes with torchrun, which sets all of them, or unset it to train in one process"


@dataclass(frozen=True)
class Launch:
    """The rank of this process, and the number of processes that were started with it.

    Attributes:
        rank: rank of this process among all, from 0.
        size: number of all processes.
        local_rank: rank of this process among those on its machine, from 0.
        local_size: number of processes on its machine, or the smallest one that `local_rank` allows if the
            environment does not tell it.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1


def read_launch() -> Launch:
    """Read the ranks and numbers of processes from the environment.

    Returns:
        The ranks and numbers, which are consistent; those of a single process if the environment sets none.

    Raises:
        ValueError: If a variable is malformed, contradicts another, or lacks one that belongs to it.
    """
    rank = _read_number("RANK", at_least=0)
    size = _read_number("WORLD_SIZE", at_least=1)
    local_rank, local_size = read_local_launch()
    # One without the other would let several processes train the same run, each taking itself for the only one.
    if rank is None and size is not None and size > 1:
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
        # Where the number of processes of the machine is not set, it was taken from the rank.
        name = "LOCAL_WORLD_SIZE" if "LOCAL_WORLD_SIZE" in os.environ else "LOCAL_RANK"
        raise ValueError(f"{name} = {os.environ[name]}: these are more processes than WORLD_SIZE = {size}; {REMEDY}")
    # A single process joins no others, so that it needs no address.
    if size > 1:
        read_master_address()
    return Launch(rank, size, local_rank, local_size)


def read_local_launch() -> tuple[int, int]:
    """Read the rank of this process on its machine, and the number of processes there.

    Launchers other than torchrun may leave out the number. It is then the smallest one that the rank allows.

    Returns:
        The rank on this machine, from 0, and the number of processes.

    Raises:
        ValueError: If a variable is malformed, or the two contradict each other.
    """
    rank = _read_number("LOCAL_RANK", at_least=0) or 0
    size = _read_number("LOCAL_WORLD_SIZE", at_least=1)
    if size is None:
        return rank, rank + 1
    _check_below("LOCAL_RANK", rank, "LOCAL_WORLD_SIZE", size)
    return rank, size


def read_master_address() -> tuple[str, int]:
    """Read the address at which the processes find each other.

    Returns:
        The host and the port.

    Raises:
        ValueError: If one of them is not set, or the port is not a port number.
    """
    address = os.environ.get("MASTER_ADDR", "")
    port = _read_number("MASTER_PORT", at_least=1)
    size = os.environ.get("WORLD_SIZE", "1")
    if not address:
        raise ValueError(f"MASTER_ADDR is not set, and WORLD_SIZE = {size}: {REMEDY}")
    if port is None:
        raise ValueError(f"MASTER_PORT is not set, and WORLD_SIZE = {size}: {REMEDY}")
    # Ports have 16 bits.
    if port > 65535:
        raise ValueError(f"MASTER_PORT = {port}: it must be at most 65535")
    return address, port


def is_first_process() -> bool:
    """Return whether this process is the one that logs and writes.

    It never raises an error, because messages about errors depend on it.
    """
    # Unless torch is imported already, there is no process group, and importing it takes seconds.
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank() == 0
    return os.environ.get("RANK", "0") == "0"


def is_first_of_machine() -> bool:
    """Return whether this process reports errors for all processes on this machine. It never raises an error."""
    local_rank = os.environ.get("LOCAL_RANK", "0")
    # Each process must report a malformed rank itself.
    return local_rank == "0" or not local_rank.isdecimal()


def process_prefix() -> str:
    """Return the start of a line on standard error: empty in the first process, the rank in any other."""
    rank = os.environ.get("RANK", "0")
    if re.fullmatch("[0-9]+", rank) is None or int(rank) == 0:
        return ""
    return f"process {rank}: "


def agent_serves_store() -> bool:
    """Return whether torchrun itself, and not the first process, serves the store through which processes join."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _read_number(name: str, *, at_least: int) -> int | None:
    text = os.environ.get(name)
    if text is None:
        return None
    # `int` would also take signs, spaces, underscores and digits of other scripts.
    if re.fullmatch("[0-9]{1,9}", text) is None or int(text) < at_least:
        raise ValueError(f"{name} = {text!r}: it must be a whole number of at least {at_least}; {REMEDY}")
    return int(text)


def _check_below(name: str, number: int, of: str, size: int) -> None:
    if number >= size:
        raise ValueError(f"{name} = {number}: it must be below {of} = {size}; {REMEDY}")
