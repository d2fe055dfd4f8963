"""The logger of the package, for notices to a person although nothing has failed.

The library logs and never prints. A program that imports it gets Python's usual logging, under the name
`nestnet`; the command line prints the same records as lines (`nestnet.cli.log`).
"""

import logging
from collections.abc import Callable

from nestnet.runtime.torchrun import is_first_process

logger = logging.getLogger("nestnet")

_set_up: Callable[[], object] | None = None
"""Function that has set up logging in this process, and does so in the processes that it starts."""


def log_notice(message: str, *, from_any_process: bool = False) -> None:
    """Log a warning, in the first of several processes only.

    Args:
        message: one sentence without a final full stop. Names of files and classes in it are not escaped.
        from_any_process: whether the other processes log it too, such as an error in an image that only one
            process reads.
    """
    # This is checked for each message, because a process may have joined others since the last one.
    if from_any_process or is_first_process():
        logger.warning("%s", message)


def set_up_logging(function: Callable[[], object] | None) -> None:
    """Set up the logging of this process, and of processes that the library starts.

    Args:
        function: picklable function that configures the logger; `None` if the program itself has configured
            it.
    """
    global _set_up
    _set_up = function
    if function is not None:
        function()


def get_logging_setup() -> Callable[[], object] | None:
    """Return the function that has set up logging here, for `set_up_logging` in a process that is started.

    Returns:
        The function; `None` if the program itself has configured logging.
    """
    return _set_up
