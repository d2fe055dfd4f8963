"""The message of an error, for use in other messages."""

import os
import re


def message_of(error: BaseException) -> str:
    """Return the whole message of an error.

    Args:
        error: error of any kind. An OSError is described by its file and its reason. An error from a process
            that reads images contains the traceback of that process, which ends with `module.Type: message`:
            that message is returned.

    Returns:
        The message, or the name of the error's class if the message is empty. It has more than one line only
        if the name of a file has line breaks, or the library that raised the error adds details.
    """
    # Python puts the number of the error first, and quotes around the file.
    if isinstance(error, OSError) and isinstance(error.filename, str | bytes) and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    message = str(error).strip("\n") or type(error).__name__
    _, traceback, after = message.rpartition("Traceback (most recent call last):\n")
    if not traceback:
        return message
    # The lines of the traceback's frames are indented, and the first line of the message is not.
    raised = re.search(r"^[\w.]+: (.*)", after, re.MULTILINE | re.DOTALL)
    if raised is None:
        return last_line(after)
    return raised[1]


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, in which libraries give the reason; details follow it.

    Args:
        error: error of any kind.

    Returns:
        The line, or the name of the error's class if the message is blank.
    """
    lines = message_of(error).strip().splitlines()
    if not lines:
        return type(error).__name__
    return lines[0]


def last_line(text: str) -> str:
    """Return the last line that a program printed, such as the error at the end of a traceback.

    Args:
        text: lines of text.

    Returns:
        The last line with a letter or a digit, without surrounding spaces; empty if no line has one.
    """
    for line in reversed(text.splitlines()):
        if re.search(r"\w", line):
            return line.strip()
    return ""


def in_one_line(text: object) -> str:
    """Return a text in one line, such as an error of a parser, which points at a position in its input.

    Args:
        text: text, or an error whose message is used.

    Returns:
        The text, with a single space in place of each run of spaces and line breaks.
    """
    return " ".join(str(text).split())
