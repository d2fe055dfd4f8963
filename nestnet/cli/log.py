"""The handler with which the command line shows what the library logs."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from nestnet.runtime.log import get_logging_setup, logger, set_up_logging
from nestnet.text.escape import for_terminal


class NoticeHandler(logging.Handler):
    """A handler that writes each record to standard error as one line, `nestnet: ...`, without control characters."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        # The stream is looked up each time: a test or a notebook may put another one in place.
        try:
            print(f"nestnet: {for_terminal(record.getMessage())}", file=sys.stderr, flush=True)
        except OSError:
            # A full disk below standard error must not end a run.
            self.handleError(record)


def add_handler() -> None:
    """Make this process show notices as the command line does."""
    # A command may run within another one, as in a program or a test: a second handler would repeat each line.
    if not any(isinstance(handler, NoticeHandler) for handler in logger.handlers):
        logger.addHandler(NoticeHandler())


@contextmanager
def show_notices() -> Iterator[None]:
    """Show notices as lines within the block, in this process and in those that it starts."""
    set_up_before = get_logging_setup()
    handlers_before = list(logger.handlers)
    set_up_logging(add_handler)
    try:
        yield
    finally:
        logger.handlers = handlers_before
        set_up_logging(set_up_before)
