"""What can end a run that was right when it began, in words for the person whose run it is."""

import re

import torch

from nestnet.config import Config


class Stopped(RuntimeError):
    """A run cannot go on for a reason outside of it; the message says which, and how to go on."""


def reason(error: Exception, config: Config) -> str | None:
    """Why a run ended, and what helps; `None` where it is none of the known faults."""
    last = last_line(error)
    if is_out_of_memory(error):
        return (
            f"out of memory ({last[:200]}): the rest of the machine may be using it; a new run takes less with a lower "
            f"data.batch_size = {config.data.batch_size}, a higher accumulate = {config.accumulate} (a batch in parts), or "
            "--precision bfloat16"
        )
    if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
        return (
            f"a process that reads images was killed ({str(error).strip().splitlines()[0]}), often for want of memory: lower "
            f"data.workers = {config.data.workers}"
        )
    if isinstance(error, (OSError, ValueError)):
        return last
    return None


def last_line(error: Exception) -> str:
    """The message of an error. One in a process that reads images carries the traceback of that process, whose last line is
    `module.Type: message`."""
    *traceback, message = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^[\w.]+: ", "", message) if traceback else message


def is_out_of_memory(error: Exception) -> bool:
    """Of a device, or of the host, for which torch has no class of its own."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )
