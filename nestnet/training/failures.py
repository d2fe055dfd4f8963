"""Explanations of known failures that can end a correctly configured run."""

import errno

import torch

from nestnet.config.schema import Config
from nestnet.distributed.rendezvous import describe_lost_process
from nestnet.text.messages import first_line, message_of

OUT_OF_MEMORY = (
    "can't allocate memory",  # torch's allocator of the host
    "Cannot allocate memory",  # the operating system
    "out of memory",  # the CUDA driver
    "ALLOC_FAILED",  # cuBLAS and cuDNN
)
"""Phrases in the messages of errors about memory."""

OUT_OF_HANDLES = (
    "Too many open files",  # the operating system, also within torch's messages on shared memory and sockets
    "received 0 items of ancdata",  # a file handle that was sent from one process to another could not be opened
)
"""Phrases in the messages of errors about file handles."""

OUT_OF_SHARED_MEMORY = (
    "shared memory(shm)",
    "out of shared memory",
    "to file </torch_",  # the files in which processes share tensors cannot be written
    "resize file </torch_",
)
"""Phrases in the messages of errors about shared memory, through which workers pass batches. Containers have little."""

LONGEST_REASON = 200
"""Number of characters that are quoted of another library's message."""


def explain_failure(error: Exception, config: Config) -> str | None:
    """Return the reason why a run ended, and what to do about it.

    Args:
        error: error that ended the run.
        config: configuration of the run, whose values the advice quotes.

    Returns:
        A sentence without a full stop, or `None` if the error is not a known failure.
    """
    # Memory: add what a run can do to use less.
    if find_memory_error(error) is not None:
        return (
            f"{explain_shortage(error)}; a new run takes less with a lower "
            f"data.batch_size = {config.data.images_per_batch}, a higher accumulate = {config.accumulate} (a batch in parts), "
            "or precision set to bfloat16; with grad_checkpointing set to true this run takes less too when it is resumed"
        )
    # Another resource is exhausted, or another process of the group has failed.
    known = explain_shortage(error) or describe_lost_process(error)
    if known is not None:
        return known
    # If the system kills a worker process, torch does not know the reason.
    if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
        return (
            f"a process that reads images was killed ({first_line(error)}), often because memory ran out: lower "
            f"data.workers = {config.data.workers}"
        )
    # Errors of files, folders and images name them in their messages.
    if isinstance(error, (OSError, ValueError)):
        return message_of(error)
    return None


def explain_shortage(error: BaseException) -> str | None:
    """Return which resource ran out, memory or file handles, and what to do about it.

    Args:
        error: error that ended the work.

    Returns:
        A sentence without a full stop, or `None` if the error is about something else.
    """
    memory_error = find_memory_error(error)
    if memory_error is not None:
        reason = _memory_line(memory_error)[:LONGEST_REASON]
        return f"out of memory ({reason}): other programs on the machine may be using it"
    if _chain_mentions(error, OUT_OF_SHARED_MEMORY):
        return (
            "out of the shared memory in which images come from the processes that read them: allow more, such as by "
            "`docker run --shm-size 8g`, or lower data.workers"
        )
    if _is_out_of_handles(error):
        return (
            "out of file handles (too many open files): run `ulimit -n 4096` before, or lower data.workers, or lower jobs "
            "if runs are trained side by side"
        )
    return None


def find_memory_error(error: BaseException) -> BaseException | None:
    """Return the error that reports a lack of memory, which another error may hide.

    If memory runs out while a CUDA graph is captured, ending the capture fails too, and that error hides the
    first one.

    Args:
        error: error that ended the work.

    Returns:
        The error itself or one that caused it, or `None` if none is about memory.
    """
    for each in _error_chain(error):
        if _is_out_of_memory(each):
            return each
    return None


def _is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is about the memory of a device or of the host."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # Such as a process that cannot be forked.
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # torch has no class of errors for the host's allocator, nor for libraries on the device.
    return isinstance(error, RuntimeError) and _mentions(str(error), OUT_OF_MEMORY)


def _is_out_of_handles(error: BaseException) -> bool:
    """Return whether an error is about file handles of the process or of the system."""
    if _chain_mentions(error, OUT_OF_HANDLES):
        return True
    # The number of an OSError does not depend on the language of its message.
    numbers = [getattr(each, "errno", None) for each in _error_chain(error)]
    return errno.EMFILE in numbers or errno.ENFILE in numbers


def _chain_mentions(error: BaseException, phrases: tuple[str, ...]) -> bool:
    """Return whether an error of torch or the system, or one that caused it, has a phrase in its message.

    The error of a worker process comes as text in the message of another error.
    """
    errors = [each for each in _error_chain(error) if isinstance(each, (RuntimeError, OSError))]
    return any(_mentions(str(each), phrases) for each in errors)


def _mentions(text: str, phrases: tuple[str, ...]) -> bool:
    return any(phrase in text for phrase in phrases)


def _error_chain(error: BaseException) -> list[BaseException]:
    """Return an error and those that caused it or that were being handled when it was raised."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return chain


def _memory_line(error: BaseException) -> str:
    """Return the line of a message that says that memory ran out."""
    for line in str(error).splitlines():
        if _mentions(line, OUT_OF_MEMORY):
            return line
    return message_of(error)
