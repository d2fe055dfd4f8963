"""What libraries of C++ print on standard error, past Python or through it."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr

STANDARD_ERROR = 2
"""File descriptor of standard error."""


@contextmanager
def captured_native_output() -> Iterator[Callable[[], list[str]]]:
    """Keep what is printed on standard error within, instead of printing it.

    Returns:
        A function that returns the lines that were printed so far, without line ends.
    """
    with tempfile.TemporaryFile() as file:
        descriptor = file.fileno()

        def read_lines() -> list[str]:
            # The position is not moved, because what is printed next is written there.
            return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="replace").splitlines()

        original = os.dup(STANDARD_ERROR)
        os.dup2(descriptor, STANDARD_ERROR)
        try:
            # Some bindings of C++ write to Python's object, which need not be the descriptor.
            with os.fdopen(os.dup(descriptor), "w", buffering=1) as text, redirect_stderr(text):
                yield read_lines
        finally:
            os.dup2(original, STANDARD_ERROR)
            os.close(original)
