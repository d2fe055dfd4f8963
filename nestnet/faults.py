"""What can end a run that was right when it began, in words for the person whose run it is."""

import errno
import re

import torch

from nestnet.config import Config
from nestnet.processes import loss_of_another

OUT_OF_MEMORY = (
    "can't allocate memory",  # torch's allocator of the host
    "out of memory",  # the CUDA driver
    "ALLOC_FAILED",  # cuBLAS and cuDNN
)
"""What an error says of memory that could not be had."""

OUT_OF_HANDLES = (
    "Too many open files",  # the system's words, also in what torch says of shared memory and sockets
    "received 0 items of ancdata",  # a handle that was sent from one process to another found no place
)
"""What an error says of file handles that could not be had."""


class Stopped(RuntimeError):
    """A run cannot go on for a reason outside of it; the message says which, and how to go on."""


def reason(error: Exception, config: Config) -> str | None:
    """Return why a run ended, and what helps; `None` where it is none of the known faults."""
    if memory_shortage(error) is not None:
        return (
            f"{shortage(error)}; a new run takes less with a lower data.batch_size = {config.data.batch_size}, a higher "
            f"accumulate = {config.accumulate} (a batch in parts), or --precision bfloat16"
        )
    known = shortage(error) or loss_of_another(error)
    if known is not None:
        return known
    if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
        return (
            f"a process that reads images was killed ({str(error).strip().splitlines()[0]}), often for want of memory: lower "
            f"data.workers = {config.data.workers}"
        )
    if isinstance(error, (OSError, ValueError)):
        return last_line(error)
    return None


def shortage(error: BaseException) -> str | None:
    """Return what the system could not give, memory or file handles, and what helps; `None` for any other error."""
    memory = memory_shortage(error)
    if memory is not None:
        return f"out of memory ({_line_on_memory(memory)[:200]}): the rest of the machine may be using it"
    if _is_out_of_handles(error):
        return (
            "out of file handles (too many open files): run `ulimit -n 4096` before, or lower data.workers, or --jobs where "
            "runs go side by side"
        )
    return None


def last_line(error: BaseException) -> str:
    """The message of an error. One in a process that reads images carries the traceback of that process, whose last line is
    `module.Type: message`."""
    *traceback, message = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^[\w.]+: ", "", message) if traceback else message


def memory_shortage(error: BaseException) -> BaseException | None:
    """The error itself, or the one behind it, that tells of memory that could not be had; `None` where none does.

    Memory that is short while a CUDA graph is captured also ends the capture, and the error of that end hides the reason.
    """
    found: BaseException | None = error
    while found is not None:
        if _is_out_of_memory(found):
            return found
        found = found.__cause__ or found.__context__
    return None


def _is_out_of_memory(error: BaseException) -> bool:
    """Of a device, or of the host; for the host and for libraries on the device torch has no class of its own."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


def _is_out_of_handles(error: BaseException) -> bool:
    """In this process, or in one that reads images, whose error comes as text."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.errno in (errno.EMFILE, errno.ENFILE):
            return True
        if isinstance(found, (RuntimeError, OSError)) and any(words in str(found) for words in OUT_OF_HANDLES):
            return True
        found = found.__cause__ or found.__context__
    return False


def _line_on_memory(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if any(words in line for words in OUT_OF_MEMORY)]
    return lines[0] if lines else last_line(error)
