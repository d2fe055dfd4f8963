"""What a person should know although nothing has failed: one line each on standard error."""

import sys

from nestnet.escape import for_terminal
from nestnet.torchrun import is_first_process


def notice(message: str, *, of_one_process: bool = False) -> None:
    """Write a line to standard error, in the first of several processes alone.

    Args:
        message: text without a final full stop. Whatever a terminal could take for a command is written out.
        of_one_process: whether the others do not notice it too, such as a fault of an image that only this one reads.
    """
    if of_one_process or is_first_process():
        print(f"nestnet: {for_terminal(message)}", file=sys.stderr, flush=True)
