"""What an error says, for messages of ours that pass it on."""

import os
import re


def message_of(error: BaseException) -> str:
    """Return the whole message of an error, or the name of its class where it has none.

    An error in a process that reads images comes with the traceback of that process, which ends with `module.Type: message`;
    that message is returned. More than one line is otherwise the line breaks of a name. The message of an error of the system
    begins with the file.
    """
    if isinstance(error, OSError) and isinstance(error.filename, str | bytes) and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    message = str(error).strip("\n") or type(error).__name__
    _, traceback, after = message.rpartition("Traceback (most recent call last):\n")
    if not traceback:
        return message
    # the lines of its frames are indented, and those of its message are not
    last = re.search(r"^[\w.]+: (.*)", after, re.MULTILINE | re.DOTALL)
    return last[1] if last else after.splitlines()[-1]


def first_line(error: BaseException) -> str:
    """Return the reason that a library gives: the first line of its message, which details of its own may follow."""
    lines = message_of(error).strip().splitlines() or [type(error).__name__]
    return lines[0]


def in_one_line(text: object) -> str:
    """Return a text, such as an error of a parser that points at a place, with its line breaks as spaces."""
    return " ".join(str(text).split())
