"""Ctrl-C and SIGTERM during a run: they are answered between two batches, where a checkpoint can be written."""

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Interrupted(KeyboardInterrupt):
    """A run was asked to end, and has.

    Attributes:
        number: of the signal.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


class Interrupts:
    """While it is entered, a signal is remembered; a second Ctrl-C ends the process as ever.

    In a thread other than the first, which gets no signals, nothing is done.

    Attributes:
        number: of the signal that this process got.
        agreed: of the signal that one of several processes got, where all of them know.
        at_once: whether there was a second Ctrl-C, which may have come anywhere.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.agreed: int | None = None
        self.at_once = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._remember) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.number is not None:
            self.at_once = True
            raise KeyboardInterrupt
        self.number = number


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


def leave_to_parent() -> None:
    """In a process that helps another: a terminal or a batch system sends a signal to all, and the other answers for them.

    SIGTERM, with which the other too ends its helpers, ends this one as if its work were done: a helper that is killed would
    interrupt the other in the middle of a step.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
