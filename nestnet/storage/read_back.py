"""Reading files that nestnet wrote: nothing in them is trusted before it is checked.

Each file has a schema with one `Rule` per field. A violation is reported in one line, which names the file, the
reason and the remedy.
"""

import json
import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from nestnet.storage.opening import open_regular
from nestnet.storage.rules import Rule
from nestnet.storage.safe_yaml import parse_yaml
from nestnet.text.messages import in_one_line

# Largest number of bytes of a JSON or YAML file, far more than any has. Without a limit, a file could take all memory.
LARGEST = 1 << 24


def damaged(path: Path, reason: str, remedy: str) -> ValueError:
    """Return the error for a file that is not as it was written.

    Args:
        path: path of the file.
        reason: reason why the file counts as damaged.
        remedy: advice to the user.

    Returns:
        The error, which the caller raises.
    """
    return ValueError(f"{path} is damaged: {reason}; {remedy}")


def read_json(path: Path, fields: Mapping[str, Rule], remedy: str, *, largest: int = LARGEST) -> dict[str, Any]:
    """Read the fields of a JSON file.

    Args:
        path: path of the file.
        fields: rule of each field, by its name.
        remedy: what the user can do if the file is damaged.
        largest: number of bytes that the file may have.

    Returns:
        The fields.

    Raises:
        ValueError: If the file is absent, cannot be read, or does not keep to the rules.
    """
    text = read_text(path, remedy, largest=largest)
    # Deep nesting makes the parser raise a RecursionError.
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"it is not JSON ({in_one_line(error)})", remedy) from error
    return _check_fields(path, content, fields, remedy)


def read_yaml(path: Path, fields: Mapping[str, Rule], remedy: str) -> dict[str, Any]:
    """Read the fields of a YAML file; nothing in it is executed.

    Args:
        path: path of the file.
        fields: rule of each field, by its name.
        remedy: what the user can do if the file is damaged.

    Returns:
        The fields.

    Raises:
        ValueError: If the file is absent, cannot be read, or does not keep to the rules.
    """
    text = read_text(path, remedy)
    try:
        content = parse_yaml(text)
    except yaml.YAMLError as error:
        raise damaged(path, f"it is not YAML ({in_one_line(error)})", remedy) from error
    return _check_fields(path, content, fields, remedy)


def read_text(path: Path, remedy: str, *, largest: int = LARGEST) -> str:
    """Read the text of a file that nestnet wrote.

    Args:
        path: path of the file.
        remedy: what the user can do if the file is damaged.
        largest: number of bytes that the file may have.

    Returns:
        The text.

    Raises:
        ValueError: If the file is absent, cannot be read, is too large, or is not UTF-8.
    """
    with open_limited(path, largest, remedy) as file:
        return decode_text(path, file.read(largest), remedy)


def read_plain_text(path: Path, largest: int = LARGEST) -> str:
    """Read the text of a file that a user wrote.

    Args:
        path: path of the file.
        largest: number of bytes that the file may have.

    Returns:
        The text, without a byte order mark.

    Raises:
        OSError: If the path cannot be read, or is not that of a file.
        ValueError: If the file is too large, or not in UTF-8.
    """
    # One byte more than allowed is enough to know that there are more.
    with open_regular(path) as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise ValueError(f"it has more than {largest:,} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 (byte {error.start + 1})") from error


def check_present(path: Path, values: Mapping[str, Any], fields: Mapping[str, Rule], remedy: str) -> None:
    """Check some of the fields that were read from a file.

    Args:
        path: path of the file.
        values: fields that were read. Fields without a rule are not checked.
        fields: rule of each field to check, by its name.
        remedy: what the user can do if the file is damaged.

    Raises:
        ValueError: If a required field is absent, or a value does not keep to its rule.
    """
    for name, rule in fields.items():
        if name in values:
            if not rule.fits(values[name]):
                reason = f"{name} is {shorten(values[name])}, and must be {rule.description}"
                raise damaged(path, reason, remedy)
        elif rule.required:
            raise damaged(path, f"it has no {name}", remedy)


def shorten(value: Any) -> str:
    """Return a value for a message, shortened in the middle if it is long.

    Args:
        value: any value.

    Returns:
        The `repr` of the value, shortened.
    """
    return reprlib.repr(value)


def open_limited(path: Path, largest: int, remedy: str) -> BinaryIO:
    """Open a file that nestnet wrote.

    Args:
        path: path of the file.
        largest: number of bytes that the file may have.
        remedy: what the user can do if the file is damaged.

    Returns:
        The open file.

    Raises:
        ValueError: If the file cannot be opened, or is larger than `largest`.
    """
    try:
        file = open_regular(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}; {remedy}") from error
    size = os.fstat(file.fileno()).st_size
    if size > largest:
        file.close()
        raise damaged(path, f"it has {size:,} bytes, and nestnet writes at most {largest:,}", remedy)
    return file


def decode_text(path: Path, content: bytes, remedy: str) -> str:
    """Decode bytes of a file that nestnet wrote.

    Args:
        path: path of the file, for the message.
        content: bytes that were read.
        remedy: what the user can do if the file is damaged.

    Returns:
        The text.

    Raises:
        ValueError: If the bytes are not UTF-8, or contain zeros, as a loss of power can leave them.
    """
    # After a loss of power, some file systems leave blocks of zeros where the data was not on the disk yet.
    if b"\0" in content:
        raise damaged(path, "it has bytes of zeros", remedy)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise damaged(path, "it is not UTF-8", remedy) from error


def _check_fields(path: Path, content: Any, fields: Mapping[str, Rule], remedy: str) -> dict[str, Any]:
    """Return the content of a file if it is a dictionary whose fields all keep to their rules."""
    if not isinstance(content, dict):
        raise damaged(path, f"it holds {shorten(content)} in place of fields", remedy)
    for name in content:
        if name not in fields:
            raise damaged(path, f"it has a field {shorten(name)}, which nestnet does not write", remedy)
    check_present(path, content, fields, remedy)
    return content
