"""What a person should know although nothing has failed: one line each on standard error."""

import os
import sys

from nestnet.escape import for_terminal


def notice(message: str) -> None:
    """Write a line to standard error, in the first of several processes alone: all of them notice the same.

    Args:
        message: text without a final full stop. Whatever a terminal could take for a command is written out.
    """
    if os.environ.get("RANK", "0") == "0":
        print(f"nestnet: {for_terminal(message)}", file=sys.stderr, flush=True)
