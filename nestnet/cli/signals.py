"""Ctrl-C and SIGTERM in the `nestnet` command, which reports them in one line in any case."""

import os
import signal
import sys
from types import FrameType, TracebackType

from nestnet.cli.terminal import print_text
from nestnet.runtime.interrupts import SIGNALS, Interrupted, SignalHandlers, create_interrupted, hold_signals
from nestnet.runtime.torchrun import process_prefix
from nestnet.text.escape import for_terminal

SHOW_CURSOR = b"\x1b[?25h"
"""Escape sequence that shows the cursor again, which a live display hides, when the process ends at once."""


class CommandSignals(SignalHandlers):
    """The signal handlers of a whole command.

    The first signal raises `Interrupted` wherever the program is, so that it cleans up. A further one ends the
    process at once. So does the first one while a module is imported, where an exception may be lost or turned
    into another one.

    Args:
        command: name of the command, with which its last line starts, such as `nestnet train`.
        ends_process: whether the process ends with the command. Signals that come after it are then ignored,
            because the interpreter would print a traceback for them while it ends.

    Attributes:
        message: message about the signal; empty before there was one.
        exit_code: exit code of the command, once its last line is written; `None` before.
    """

    def __init__(self, command: str, *, ends_process: bool = False) -> None:
        super().__init__()
        self.command = command
        self.ends_process = ends_process
        self.message = ""
        self.exit_code: int | None = None

    def __enter__(self) -> "CommandSignals":
        super().__enter__()
        self._hook_before = sys.unraisablehook
        sys.unraisablehook = self._answer_unraisable
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        sys.unraisablehook = self._hook_before
        # The base class restores the earlier handlers. A process that ends ignores signals instead.
        if self.ends_process and self._before:
            self._before = dict.fromkeys(SIGNALS, signal.SIG_IGN)
        super().__exit__(kind, error, traceback)

    def answer(self, number: int, frame: FrameType | None) -> None:
        """Raise `Interrupted`, or end the process."""
        # A signal that comes while the last line is written, or after it, does not count as the first one.
        is_first = self.number is None and self.exit_code is None
        if self.number is None:
            self.number = number
        error = create_interrupted(self.number)
        if not self.message:
            self.message = str(error)
        # Modules that are imported may catch exceptions, to do without an optional library: it could be lost there.
        if not is_first or _is_importing(frame):
            self._leave()
        raise error

    def take_over(self, error: Interrupted) -> None:
        """Record an interruption that training has handled, with its message."""
        super().take_over(error)
        self.message = str(error)

    def report(self, message: str, exit_code: int) -> None:
        """Write the command's last line to standard error.

        A signal that comes meanwhile is held back until the line is written.

        Args:
            message: the line without the name of the command.
            exit_code: exit code of the command.
        """
        with hold_signals():
            print_text(self._line(message), file=sys.stderr)
            self.exit_code = exit_code

    def _line(self, message: str) -> str:
        return f"{self.command}: {process_prefix()}{for_terminal(message)}"

    def _leave(self) -> None:
        """End the process without unwinding the stack, which may take long and raise further exceptions."""
        assert self.number is not None
        # The command has written its last line already.
        if self.exit_code is not None:
            os._exit(self.exit_code)
        if os.isatty(1):
            os.write(1, SHOW_CURSOR)
        # By the system call, because a signal may come while Python's own buffer is being written.
        os.write(2, f"{self._line(self.message)}\n".encode(errors="replace"))
        os._exit(128 + self.number)

    def _answer_unraisable(self, unraisable: "sys.UnraisableHookArgs") -> None:
        """End the process for an interruption in a destructor or a callback, which Python would ignore."""
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            self._leave()
        self._hook_before(unraisable)


def _is_importing(frame: FrameType | None) -> bool:
    """Return whether a module is being imported in a frame or in one of its callers."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib._bootstrap"):
            return True
        frame = frame.f_back
    return False
