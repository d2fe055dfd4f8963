"""What can end a run that was right when it began, in words for the person whose run it is."""

import re

import torch

from nestnet.config import Config

OUT_OF_MEMORY = (
    "can't allocate memory",  # torch's allocator of the host
    "out of memory",  # the CUDA driver
    "ALLOC_FAILED",  # cuBLAS and cuDNN
)
"""What an error says of memory that could not be had."""


class Stopped(RuntimeError):
    """A run cannot go on for a reason outside of it; the message says which, and how to go on."""


def reason(error: Exception, config: Config) -> str | None:
    """Why a run ended, and what helps; `None` where it is none of the known faults."""
    last = last_line(error)
    shortage = memory_shortage(error)
    if shortage is not None:
        return (
            f"out of memory ({_line_on_memory(shortage)[:200]}): the rest of the machine may be using it; a new run takes "
            f"less with a lower data.batch_size = {config.data.batch_size}, a higher accumulate = {config.accumulate} (a batch "
            "in parts), or --precision bfloat16"
        )
    if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
        return (
            f"a process that reads images was killed ({str(error).strip().splitlines()[0]}), often for want of memory: lower "
            f"data.workers = {config.data.workers}"
        )
    if isinstance(error, (OSError, ValueError)):
        return last
    return None


def last_line(error: BaseException) -> str:
    """The message of an error. One in a process that reads images carries the traceback of that process, which ends with
    `module.Type: message`; elsewhere more lines are those of a name in it."""
    message = str(error).strip("\n") or type(error).__name__
    _, traceback, after = message.rpartition("Traceback (most recent call last):\n")
    if not traceback:
        return message
    # the lines of its frames are indented, and those of its message are not
    last = re.search(r"^[\w.]+: (.*)", after, re.MULTILINE | re.DOTALL)
    return last[1] if last else after.splitlines()[-1]


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


def _line_on_memory(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if any(words in line for words in OUT_OF_MEMORY)]
    return lines[0] if lines else last_line(error)
