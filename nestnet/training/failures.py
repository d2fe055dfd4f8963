"""What can end a run that was right when it began, in words for the person whose run it is."""

import errno
from collections.abc import Iterator

import torch

from nestnet.config.schema import Config
from nestnet.distributed.rendezvous import describe_lost_process
from nestnet.text.messages import first_line, message_of

OUT_OF_MEMORY = (
    "can't allocate memory",  # torch's allocator of the host
    "Cannot allocate memory",  # the system
    "out of memory",  # the CUDA driver
    "ALLOC_FAILED",  # cuBLAS and cuDNN
)
"""What an error says of memory that could not be had."""

OUT_OF_HANDLES = (
    "Too many open files",  # the system's words, also in what torch says of shared memory and sockets
    "received 0 items of ancdata",  # a handle that was sent from one process to another found no place
)
"""What an error says of file handles that could not be had."""

OUT_OF_SHARED_MEMORY = (
    "shared memory(shm)",
    "out of shared memory",
    "to file </torch_",  # of the files in which processes share tensors, none can be written
    "resize file </torch_",
)
"""What an error says of the memory in which batches come from one process to another. In a container it is small."""


def explain_failure(error: Exception, config: Config) -> str | None:
    """Return why a run ended, and what helps; `None` where it is none of the known faults."""
    if find_memory_error(error) is not None:
        return (
            f"{explain_shortage(error)}; a new run takes less with a lower "
            f"data.batch_size = {config.data.batch_size}, a higher "
            f"accumulate = {config.accumulate} (a batch in parts), or --precision bfloat16"
        )
    known = explain_shortage(error) or describe_lost_process(error)
    if known is not None:
        return known
    if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
        return (
            f"a process that reads images was killed ({first_line(error)}), often for want of memory: lower "
            f"data.workers = {config.data.workers}"
        )
    if isinstance(error, (OSError, ValueError)):
        return message_of(error)
    return None


def explain_shortage(error: BaseException) -> str | None:
    """Return what the system could not give, memory or file handles, and what helps; `None` for any other error."""
    memory = find_memory_error(error)
    if memory is not None:
        return f"out of memory ({_line_on_memory(memory)[:200]}): the rest of the machine may be using it"
    if _says(error, OUT_OF_SHARED_MEMORY):
        return (
            "out of the shared memory in which images come from the processes that read them: allow more, such as by "
            "`docker run --shm-size 8g`, or lower data.workers"
        )
    if _is_out_of_handles(error):
        return (
            "out of file handles (too many open files): run `ulimit -n 4096` before, or lower data.workers, or --jobs where "
            "runs go side by side"
        )
    return None


def find_memory_error(error: BaseException) -> BaseException | None:
    """The error itself, or the one behind it, that tells of memory that could not be had; `None` where none does.

    Memory that is short while a CUDA graph is captured also ends the capture, and the error of that end hides the reason.
    """
    return next(filter(_is_out_of_memory, _causes(error)), None)


def _is_out_of_memory(error: BaseException) -> bool:
    """Of a device, or of the host; for the host and for libraries on the device torch has no class of its own."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


def _is_out_of_handles(error: BaseException) -> bool:
    numbers = (errno.EMFILE, errno.ENFILE)
    return _says(error, OUT_OF_HANDLES) or any(getattr(each, "errno", None) in numbers for each in _causes(error))


def _says(error: BaseException, words: tuple[str, ...]) -> bool:
    """Whether an error of torch's or the system's has some of the words, here or in a process whose error comes as text."""
    texts = [str(each) for each in _causes(error) if isinstance(each, (RuntimeError, OSError))]
    return any(word in text for text in texts for word in words)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and those behind it."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def _line_on_memory(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if any(words in line for words in OUT_OF_MEMORY)]
    return lines[0] if lines else message_of(error)
