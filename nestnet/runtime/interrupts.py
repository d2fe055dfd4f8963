"""Ctrl-C and SIGTERM.

During training they are answered between two batches, where a checkpoint can be written: `Interrupts`. Everywhere else in the
`nestnet` command, its imports included, they end the command: `CommandSignals`. ProcessGroup that help another leave the
answer to it: `leave_to_parent`.
"""

import os
import signal
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Generic, TypeVar

from nestnet.runtime.terminal import say
from nestnet.runtime.torchrun import process_prefix
from nestnet.text.escape import for_terminal

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM)

SHOW_CURSOR = b"\x1b[?25h"
"""A live display hides the cursor of a terminal, and cannot show it again when the process ends at once."""


class Interrupted(KeyboardInterrupt):
    """The program was asked to end.

    Attributes:
        number: of the signal.
        agreed: whether all of several processes end for it, so that one of them can say so for all.
    """

    def __init__(self, message: str, number: int, *, agreed: bool = False) -> None:
        super().__init__(message)
        self.number = number
        self.agreed = agreed


def interrupted(number: int, more: str = "") -> Interrupted:
    """Return the exception for a signal.

    Args:
        more: what to say besides the name of the signal.
    """
    return Interrupted(f"interrupted by {signal.Signals(number).name}{more}", number)


class SignalHandlers(ABC):
    """Answers SIGINT and SIGTERM while it is entered, and hands them back to what answered before.

    In a thread other than the first, which gets no signals, and in a process that helps another nothing is done.

    Attributes:
        number: of the first signal that this process got meanwhile.
    """

    _innermost: "SignalHandlers | None" = None
    """The one that answers at present."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._outer: SignalHandlers | None = None
        self._before: dict[int, Any] = {}

    @abstractmethod
    def answer(self, number: int, frame: FrameType | None) -> None:
        """Answer a signal that came while `frame` was executed."""

    def take_over(self, error: Interrupted) -> None:
        """Take note of an interruption that has ended a block within this one."""
        self.number = error.number

    def __enter__(self) -> "SignalHandlers":
        if threading.current_thread() is threading.main_thread() and not _helps_another():
            self._outer, SignalHandlers._innermost = SignalHandlers._innermost, self
            self._before = {number: signal.signal(number, self.answer) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._before:
            return
        SignalHandlers._innermost = self._outer
        if self._outer is not None and isinstance(error, Interrupted):
            self._outer.take_over(error)  # before it answers again: the next signal is not the first
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


class Interrupts(SignalHandlers):
    """Remembers a signal during training; a second Ctrl-C ends it at once, wherever it is.

    Attributes:
        agreed: of the signal that one of several processes got, where all of them know.
        at_once: whether there was a second Ctrl-C. Whatever comes after it is ignored: the program is ending.
    """

    def __init__(self) -> None:
        super().__init__()
        self.agreed: int | None = None
        self.at_once = False

    def __enter__(self) -> "Interrupts":
        super().__enter__()
        return self

    def answer(self, number: int, frame: FrameType | None) -> None:
        if self.number is None:
            self.number = number
        elif number == signal.SIGINT and not self.at_once:  # SIGTERM may come twice from a batch system
            self.at_once = True
            raise interrupted(self.number)


class CommandSignals(SignalHandlers):
    """Answers for a whole command, of which it says one line in any case.

    The first signal raises `Interrupted` wherever the program is, so that it cleans up behind itself. A further one ends the
    process at once. So does the first one while a module is imported, where an exception may be lost or turned into another.

    Args:
        command: what the line begins with, such as `nestnet train`.

    Attributes:
        exit_code: of the command, once its last line is said.
    """

    def __init__(self, command: str) -> None:
        super().__init__()
        self.command = command
        self.message = ""
        self.exit_code: int | None = None

    def __enter__(self) -> "CommandSignals":
        super().__enter__()
        self._hook_before = sys.unraisablehook
        sys.unraisablehook = self._unraisable
        return self

    def __exit__(self, *error: Any) -> None:
        sys.unraisablehook = self._hook_before
        super().__exit__(*error)

    def answer(self, number: int, frame: FrameType | None) -> None:
        is_first = self.number is None and self.exit_code is None
        if self.number is None:
            self.number = number
        error = interrupted(self.number)
        self.message = self.message or str(error)
        if not is_first or _is_importing(frame):
            self._leave()
        raise error

    def take_over(self, error: Interrupted) -> None:
        super().take_over(error)
        self.message = str(error)

    def say(self, what: str, exit_code: int) -> None:
        """Write the command's last line to standard error; a signal meanwhile waits, and then finds it said."""
        with signals_held():
            say(self._line(what), file=sys.stderr)
            self.exit_code = exit_code

    def _line(self, what: str) -> str:
        return f"{self.command}: {process_prefix()}{for_terminal(what)}"

    def _leave(self) -> None:
        """End the process without unwinding it: that may take long, and has its own exceptions."""
        assert self.number is not None
        if self.exit_code is not None:
            os._exit(self.exit_code)
        if os.isatty(1):
            os.write(1, SHOW_CURSOR)
        os.write(2, f"{self._line(self.message)}\n".encode(errors="replace"))
        os._exit(128 + self.number)

    def _unraisable(self, unraisable: "sys.UnraisableHookArgs") -> None:
        """Python only prints an exception in a destructor or a callback, and goes on: the interruption would be lost."""
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            self._leave()
        self._hook_before(unraisable)


_command: CommandSignals | None = None
"""Of the `nestnet` command, where this process is one."""


def answer_during_import() -> None:
    """Answer for the `nestnet` command from its first import on, which takes seconds; any other program answers as ever."""
    global _command
    arguments = _arguments_of_command()
    if arguments is not None and _command is None:
        _command = CommandSignals(" ".join(["nestnet", *arguments[:1]]))
        _command.__enter__()


@contextmanager
def command_signals(command: str) -> Iterator[CommandSignals]:
    """The handlers that answer for a command until its end; in a program that calls it, only meanwhile."""
    if _command is None:
        with CommandSignals(command) as signals:
            yield signals
        return
    _command.command = command
    try:
        yield _command
    finally:
        # all is said and done: the end of the interpreter must not answer a signal with a traceback
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def _arguments_of_command() -> list[str] | None:
    """What follows `nestnet` or `python -m nestnet` on the command line of this process; `None` in another program.

    `sys.argv` is not complete while the package is imported, and is the parent's in a process of multiprocessing.
    """
    arguments = sys.orig_argv[1:]
    while arguments:
        argument = arguments.pop(0)
        if argument == "-m":
            return arguments[1:] if arguments[:1] == ["nestnet"] else None
        if argument in ("-W", "-X"):
            del arguments[:1]
        elif not argument.startswith("-"):
            return arguments if Path(argument).name == "nestnet" else None
    return None


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported in a frame, or in one that has called it."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib._bootstrap"):
            return True
        frame = frame.f_back
    return False


@dataclass(frozen=True)
class Watched(Generic[T]):
    """The same items each time, until there was a signal, which then raises KeyboardInterrupt."""

    items: Iterable[T]
    interrupts: Interrupts

    def __iter__(self) -> Iterator[T]:
        for item in self.items:
            if self.interrupts.number is not None:
                raise KeyboardInterrupt
            yield item


# ProcessGroup that help another


@contextmanager
def signals_held() -> Iterator[None]:
    """Within, signals wait. ProcessGroup that start meanwhile hold them too, until they know how to answer: they inherit it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_to_parent() -> None:
    """In a process that helps another: a terminal or a batch system sends a signal to all, and the other answers for them.

    SIGTERM, with which the other too ends its helpers, ends this one as if its work were done: a helper that is killed would
    interrupt the other in the middle of a step.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_quietly)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _end_quietly(number: int, frame: FrameType | None) -> None:
    os._exit(0)


def _helps_another() -> bool:
    return signal.getsignal(signal.SIGTERM) is _end_quietly
