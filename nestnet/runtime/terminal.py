"""What the command line writes to standard output; notes to a person go to standard error (`nestnet.notices`)."""

import codecs
import io
import os
import sys
from typing import TextIO

from nestnet.text.escape import for_terminal


def say(text: object, file: TextIO | None = None) -> None:
    """Print lines for a person. Whatever a terminal could take for a command is written out.

    Args:
        text: lines; a name within them that has line breaks of its own is made visible first.
        file: standard output by default.
    """
    print("\n".join(map(for_terminal, str(text).split("\n"))), file=file)
    flush(file)


def give(text: object) -> None:
    """Print what a program may read, such as a path or CSV: as it is, but on a terminal as `say` does.

    A path that is not UTF-8 is written as the bytes that it has, so that a script can use it.
    """
    if sys.stdout is not None and sys.stdout.isatty():
        say(text)
    else:
        print(text)


def flush(file: TextIO | None = None) -> None:
    """Write what was printed so far.

    Args:
        file: standard output by default.

    Raises:
        BrokenPipeError: if nobody reads it any more.
        OSError: with one line, if it cannot be written, such as on a full disk.
    """
    try:
        (file or sys.stdout).flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(f"standard output cannot be written: {error.strerror}") from error


def accept_any_text() -> None:
    """Let standard output take any text, whatever its encoding is.

    Python would end with an error at the first character that the encoding lacks (`LC_ALL=C`), and at paths that are not UTF-8.
    Standard error is like this already.
    """
    codecs.register_error("nestnet.bytes", _as_bytes)
    codecs.register_error("nestnet.visible", _visibly)
    stream = sys.stdout
    if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
        # what a program has put in place of it, such as a notebook or a test, is decoded there
        stream.reconfigure(errors="nestnet.bytes" if stream is sys.__stdout__ else "nestnet.visible")


def drop_unwritten_output() -> None:
    """Keep Python from complaining, as it ends, of output that cannot be written or that nobody reads any more."""
    try:
        sys.stdout.flush()
    except OSError:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)


def _as_bytes(error: UnicodeError) -> tuple[str | bytes, int]:
    """Encode what an encoding lacks: a byte of a file name as that byte, and other characters written out."""
    assert isinstance(error, UnicodeEncodeError)
    character = error.object[error.start]
    in_bytes = len(" ".encode(error.encoding)) == 1  # UTF-16 is not
    if in_bytes and "\udc80" <= character <= "\udcff":
        return character.encode("utf-8", "surrogateescape"), error.start + 1
    return _visibly(error)


def _visibly(error: UnicodeError) -> tuple[str, int]:
    """Encode what an encoding lacks, written out."""
    assert isinstance(error, UnicodeEncodeError)
    visible = for_terminal(error.object[error.start])
    return visible.encode("ascii", "backslashreplace").decode(), error.start + 1
