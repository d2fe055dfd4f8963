"""Ctrl-C and SIGTERM.

During training they are handled between two batches, where a checkpoint can be written: `Interrupts`.
Everywhere else in the `nestnet` command they end the command (`nestnet.cli.signals`). Worker processes, such as
those that read images, leave signals to their parent: `leave_signals_to_parent`.
"""

import os
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, Generic, TypeVar

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""The signals that ask a program to end."""


class Interrupted(KeyboardInterrupt):
    """The error that is raised when a signal asks the program to end.

    Args:
        message: one line that says what was interrupted and how to continue.
        number: number of the signal.
        is_agreed: whether all of several processes end for it, so that one of them can report it for all.

    Attributes:
        number: number of the signal.
        is_agreed: whether all of several processes end for it.
    """

    def __init__(self, message: str, number: int, *, is_agreed: bool = False) -> None:
        super().__init__(message)
        self.number = number
        self.is_agreed = is_agreed


def create_interrupted(number: int, more: str = "") -> Interrupted:
    """Return the exception for a signal.

    Args:
        number: number of the signal.
        more: text that follows the name of the signal in the message.

    Returns:
        The exception, to be raised by the caller.
    """
    return Interrupted(f"interrupted by {signal.Signals(number).name}{more}", number)


class SignalHandlers(ABC):
    """A context manager that handles SIGINT and SIGTERM within its block, and restores the earlier handlers after it.

    It does nothing in threads other than the main thread, which get no signals, and in worker processes that
    leave signals to their parent.

    Attributes:
        number: number of the first signal within the block; `None` before it.
    """

    _innermost: "SignalHandlers | None" = None
    """The instance whose handlers are set at present."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._outer: SignalHandlers | None = None
        self._before: dict[int, Any] = {}

    @abstractmethod
    def answer(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal.

        Args:
            number: number of the signal.
            frame: frame that was executed when the signal came.
        """

    def take_over(self, error: Interrupted) -> None:
        """Record an interruption that has ended an inner block of another instance.

        Args:
            error: the exception that ended the block.
        """
        self.number = error.number

    def __enter__(self) -> "SignalHandlers":
        # Python runs handlers in the main thread only, and lets no other thread set them.
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and not _helps_another():
            self._outer = SignalHandlers._innermost
            SignalHandlers._innermost = self
            self._before = {number: signal.signal(number, self.answer) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._before:
            return
        SignalHandlers._innermost = self._outer
        if self._outer is not None and isinstance(error, Interrupted):
            # Before the outer handlers are restored, so that the next signal is not their first one.
            self._outer.take_over(error)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


class Interrupts(SignalHandlers):
    """The signal handlers of training. The first signal is recorded, and a second Ctrl-C ends training at once.

    Attributes:
        agreed_number: number of the signal for which all processes end, once they have agreed on it; `None`
            before.
        ends_at_once: whether there was a second Ctrl-C. Signals after it are ignored: the program is ending.
    """

    def __init__(self) -> None:
        super().__init__()
        self.agreed_number: int | None = None
        self.ends_at_once = False

    def __enter__(self) -> "Interrupts":
        super().__enter__()
        return self

    def answer(self, number: int, frame: FrameType | None) -> None:
        """Record the first signal, and raise `Interrupted` at the second Ctrl-C."""
        if self.number is None:
            self.number = number
        elif number == signal.SIGINT and not self.ends_at_once:
            # A batch system may send SIGTERM twice, so that a second one means nothing new.
            self.ends_at_once = True
            raise create_interrupted(self.number)


@dataclass(frozen=True)
class InterruptibleIterable(Generic[T]):
    """An iterable over items that raises KeyboardInterrupt in place of the next item after a signal.

    Args:
        items: items to iterate over.
        interrupts: signal handlers that record the signal.
    """

    items: Iterable[T]
    interrupts: Interrupts

    def __iter__(self) -> Iterator[T]:
        for item in self.items:
            if self.interrupts.number is not None:
                raise KeyboardInterrupt
            yield item


@contextmanager
def hold_signals() -> Iterator[None]:
    """Hold back SIGINT and SIGTERM until the end of the block.

    Processes that are started in it inherit this, so that no signal reaches them before they have set their
    handlers.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_signals_to_parent() -> None:
    """Leave signals to the parent of this worker process.

    A terminal or a batch system sends a signal to both, and the parent handles it. SIGTERM, with which the
    parent also ends its workers, ends this process with exit code 0: a worker that was killed by a signal would
    interrupt the parent in the middle of a step.
    """
    # The parent has blocked the signals while this process started.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_quietly)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _end_quietly(number: int, frame: FrameType | None) -> None:
    os._exit(0)


def _helps_another() -> bool:
    return signal.getsignal(signal.SIGTERM) is _end_quietly
