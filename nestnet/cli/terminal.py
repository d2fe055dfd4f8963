"""What the command line writes to the terminal: lines for a person, and results that a program reads."""

import codecs
import io
import os
import select
import sys
from typing import TextIO

from nestnet.text.escape import for_terminal


def print_text(text: object, file: TextIO | None = None) -> None:
    """Print lines for a person, with control characters and other invisible characters written out.

    Args:
        text: lines. A name in them that may hold line breaks must be escaped before.
        file: stream to write to; `None` for standard output.

    Raises:
        BrokenPipeError: If nobody reads the stream any more.
        OSError: If it cannot be written, such as on a full disk.
    """
    lines = [for_terminal(line) for line in str(text).split("\n")]
    _write("\n".join(lines), file)
    flush(file)


def print_result(text: object) -> None:
    """Print text that a program may read, such as a path or CSV: unchanged, except on a terminal.

    On a terminal it is printed as by `print_text`. A path that is not UTF-8 is written with its own bytes, so
    that a script can use it.

    Args:
        text: text without a final line break.

    Raises:
        OSError: If it cannot be written, such as on a full disk.
    """
    # A terminal would obey control characters in a name; a program needs the name as it is.
    if sys.stdout is not None and sys.stdout.isatty():
        print_text(text)
    else:
        _write(str(text), None)


def _write(text: str, file: TextIO | None) -> None:
    try:
        print(text, file=file)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _cannot_be_written(error) from error


def flush(file: TextIO | None = None) -> None:
    """Flush a stream.

    Args:
        file: stream to flush; `None` for standard output.

    Raises:
        BrokenPipeError: If nobody reads it any more.
        OSError: If it cannot be written, such as on a full disk.
    """
    try:
        (file or sys.stdout).flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _cannot_be_written(error) from error


def _cannot_be_written(error: OSError) -> OSError:
    return OSError(f"standard output cannot be written: {error.strerror}")


def accept_any_text() -> None:
    """Make standard output accept any text, whatever its encoding is.

    Python would raise an error at the first character that the encoding lacks (`LC_ALL=C`), and at paths that
    are not UTF-8. Standard error accepts any text already.
    """
    codecs.register_error("nestnet.bytes", _as_bytes)
    codecs.register_error("nestnet.visible", _visibly)
    stream = sys.stdout
    if not isinstance(stream, io.TextIOWrapper) or stream.errors not in ("strict", "surrogateescape"):
        return
    if stream is sys.__stdout__:
        stream.reconfigure(errors="nestnet.bytes")
    else:
        # A stream that a notebook or a test has put in its place decodes the bytes again.
        stream.reconfigure(errors="nestnet.visible")


def drop_unwritten_output() -> None:
    """Drop output that cannot be written or has no reader, which Python would complain about when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        # The interpreter flushes once more when it ends, and would print a traceback.
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
        os.close(devnull)


def reader_is_gone() -> bool:
    """Return whether nobody reads standard output any more, as after `| head`."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), select.POLLOUT)
    # Linux reports a pipe without a reader as an error, macOS as a hang-up.
    gone = select.POLLERR | select.POLLHUP
    return any(events & gone for _, events in poll.poll(0))


def _as_bytes(error: UnicodeError) -> tuple[str | bytes, int]:
    """Encode a character that the encoding lacks: a byte of a file name as that byte, any other as an escape."""
    assert isinstance(error, UnicodeEncodeError)
    character = error.object[error.start]
    encodes_ascii_as_bytes = len(" ".encode(error.encoding)) == 1  # UTF-16 does not
    if encodes_ascii_as_bytes and "\udc80" <= character <= "\udcff":
        return character.encode("utf-8", "surrogateescape"), error.start + 1
    return _visibly(error)


def _visibly(error: UnicodeError) -> tuple[str, int]:
    """Encode a character that the encoding lacks as an escape sequence."""
    assert isinstance(error, UnicodeEncodeError)
    visible = for_terminal(error.object[error.start])
    return visible.encode("ascii", "backslashreplace").decode(), error.start + 1
