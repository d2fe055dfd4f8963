"""What a person should know although nothing has failed: one line each on standard error."""

import sys

from nestnet.escape import for_terminal
from nestnet.torchrun import is_first_process


def notice(message: str) -> None:
    """Write a line to standard error, in the first of several processes alone: all of them notice the same.

    Args:
        message: text without a final full stop. Whatever a terminal could take for a command is written out.
    """
    if is_first_process():
        print(f"nestnet: {for_terminal(message)}", file=sys.stderr, flush=True)
