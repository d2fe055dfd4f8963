"""What a person should know although nothing has failed: one line each on standard error."""

import sys

from nestnet.runtime.torchrun import is_first_process
from nestnet.text.escape import for_terminal


def log_notice(message: str, *, from_any_process: bool = False) -> None:
    """Write a line to standard error, in the first of several processes alone.

    Args:
        message: text without a final full stop. Whatever a terminal could take for a command is written out.
        from_any_process: whether the others do not notice it too, such as a fault of an image that only this one reads.
    """
    if from_any_process or is_first_process():
        print(f"nestnet: {for_terminal(message)}", file=sys.stderr, flush=True)
