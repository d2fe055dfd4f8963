"""The line that the command line prints for an error, and the exit code of the command."""

import signal
import sys
import time
from typing import NamedTuple

from nestnet.cli.signals import CommandSignals
from nestnet.cli.terminal import drop_unwritten_output, reader_is_gone
from nestnet.runtime.torchrun import is_first_of_machine
from nestnet.text.messages import message_of

MISTAKE = 2
"""Exit code for an error that the user can correct."""

STOPPED = 1
"""Exit code for a run that has started correctly but cannot continue."""

SIGNALLED = 128
"""Number that is added to that of a signal to give the exit code, as in a shell."""

GRACE = 3.0
"""Seconds that a process waits for the first process of its machine to report the error that both have found."""


class Failure(NamedTuple):
    """How a command failed.

    Attributes:
        message: one line about the failure; empty if there is nothing to report.
        exit_code: exit code of the command.
        is_agreed: whether all of several processes end for the same reason, so that one of them can report it
            for all.
    """

    message: str
    exit_code: int
    is_agreed: bool = False


def describe_failure(error: BaseException) -> Failure | None:
    """Return how an error ends a command.

    Args:
        error: error that the command has raised.

    Returns:
        The failure, or `None` for a bug of nestnet, whose stack is to be shown.
    """
    if isinstance(error, KeyboardInterrupt):
        number = getattr(error, "number", signal.SIGINT)
        return Failure(str(error) or "interrupted", SIGNALLED + number, getattr(error, "is_agreed", False))
    # The reader of the output, such as `head`, has closed the pipe. That is not a failure.
    if isinstance(error, BrokenPipeError) and reader_is_gone():
        return Failure("", 0)
    # The imports below import torch, which takes seconds. An error that is found before torch is needed is
    # reported at once.
    if isinstance(error, ValueError) and "torch" not in sys.modules:
        return Failure(f"error: {message_of(error)}", MISTAKE)

    from nestnet.distributed.rendezvous import describe_lost_process
    from nestnet.runs.run_stopped import RunStopped
    from nestnet.training.failures import explain_shortage

    if isinstance(error, (FloatingPointError, ChildProcessError, RunStopped)):
        # Every process sees the same loss, but a lost child or a full disk concerns one process only.
        return Failure(f"stopped: {error}", STOPPED, isinstance(error, FloatingPointError))
    # Before the errors of a user, because a lack of memory or of file handles is an OSError too.
    shortage = explain_shortage(error)
    if shortage is not None:
        return Failure(f"stopped: {shortage}", STOPPED)
    lost_process = describe_lost_process(error)
    if lost_process is not None:
        return Failure(f"stopped: {lost_process}", STOPPED)
    if isinstance(error, (ValueError, OSError)):
        return Failure(f"error: {message_of(error)}", MISTAKE)
    return None


def report_failure(failure: Failure, signals: CommandSignals) -> None:
    """Write the last line of a command that failed, once for all processes that end for the same reason.

    Before the process group is initialized, all processes of a machine find the same error, and the first one
    reports it. Afterwards, each process reports its own errors.

    Args:
        failure: how the command failed.
        signals: handlers of the command's signals, which also write its last line.
    """
    # A failure to write standard output must not be reported a second time when Python ends.
    drop_unwritten_output()
    if not failure.message:
        return
    if not is_first_of_machine():
        from nestnet.distributed.rendezvous import is_initialized

        if failure.is_agreed:
            return
        if not is_initialized():
            # torchrun ends this process as soon as the first one has reported the error.
            signals.exit_code = failure.exit_code
            time.sleep(GRACE)
    signals.report(failure.message, failure.exit_code)
