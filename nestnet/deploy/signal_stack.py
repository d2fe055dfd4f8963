"""The memory in which this thread answers signals, which another library may replace."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

ENTRY_BYTES = 64
"""More bytes than the system's description of the memory has (`stack_t`), whatever the order of its fields."""


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Keep the memory in which this thread answers signals, whatever is called within.

    OpenVINO 2026 gives the thread other memory for each model that it compiles, and puts back what was there before when the
    model is deleted. Of two models of which the first is deleted first, the second puts back memory that is gone, and the next
    signal that Python answers, such as Ctrl-C or the end of a child process, ends the program with a segmentation fault.
    """
    libc = ctypes.CDLL(None)
    entry = ctypes.create_string_buffer(ENTRY_BYTES)
    is_known = libc.sigaltstack(None, entry) == 0
    try:
        yield
    finally:
        if is_known:
            libc.sigaltstack(entry, None)
