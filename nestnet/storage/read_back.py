"""AsyncScalar of the files that nestnet wrote itself: none of them is believed before it is checked.

Each file has a schema, a `Rule` per field or column. Whatever does not keep to it is named in one line: the file, what is wrong
with it, and what helps.
"""

import itertools
import json
import math
import os
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from nestnet.runtime.notices import log_notice
from nestnet.storage.files import open_regular
from nestnet.text.messages import in_one_line

LARGEST = 1 << 24
"""Bytes of a JSON or YAML file: far more than any has."""
LARGEST_TABLE = 1 << 30
"""Bytes of a table: some 20 million batches."""
LONGEST_ROW = 10_000
"""Bytes of a row of a table."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|nan|-?inf", re.ASCII)
WHOLE = re.compile(r"\d{1,18}", re.ASCII)


@dataclass(frozen=True)
class Rule:
    """What a value must be.

    Attributes:
        says: it in words, after "it must be".
        fits: whether a value is so.
        parse: what the text in a cell of a table stands for; raises ValueError if it stands for nothing.
        needed: whether the field or column must be there.
    """

    says: str
    fits: Callable[[Any], bool]
    parse: Callable[[str], Any] = str
    needed: bool = True


def whole(low: int = 0, high: int | None = None) -> Rule:
    """A whole number."""
    says = f"a whole number of at least {low}" if high is None else f"a whole number from {low} to {high}"
    return Rule(says, lambda value: _is_whole(value) and low <= value <= (value if high is None else high), _whole)


def number(low: float = -math.inf, high: float = math.inf) -> Rule:
    """A finite number."""
    if low == -math.inf:
        says = "a finite number"
    elif high == math.inf:
        says = f"a finite number of at least {low:g}"
    else:
        says = f"a number from {low:g} to {high:g}"
    return Rule(says, lambda value: _is_number(value) and abs(value) < math.inf and low <= value <= high, _number)


def any_number() -> Rule:
    """A number, which may be infinite or NaN."""
    return Rule("a number", _is_number, _number)


def word(*words: str) -> Rule:
    """One of some words."""
    return Rule(f"one of {', '.join(words)}", lambda value: isinstance(value, str) and value in words)


def of_type(kind: type, says: str) -> Rule:
    """A value of a type, such as `bool`, which is said to be `"true or false"`."""
    return Rule(says, lambda value: isinstance(value, kind))


def or_null(rule: Rule) -> Rule:
    """What the rule says, or null."""
    return replace(rule, says=f"{rule.says}, or null", fits=lambda value: value is None or rule.fits(value))


def optional(rule: Rule) -> Rule:
    """What the rule says, where it is there at all."""
    return replace(rule, needed=False)


def damaged(path: Path, what: str, remedy: str) -> ValueError:
    """Return the error that says that a file is not as it was written."""
    return ValueError(f"{path} is damaged: {what}; {remedy}")


def read_json(path: Path, fields: Mapping[str, Rule], remedy: str, *, largest: int = LARGEST) -> dict[str, Any]:
    """The fields of a JSON file.

    Args:
        fields: a rule for each of them.
        remedy: what a person can do if it is damaged.
        largest: bytes that it may have.

    Raises:
        ValueError: if it is absent, cannot be read, or is not as the rules say.
    """
    text = read_text(path, remedy, largest=largest)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"it is no JSON ({in_one_line(error)})", remedy) from error
    return checked(path, found, fields, remedy)


def read_yaml(path: Path, fields: Mapping[str, Rule], remedy: str) -> dict[str, Any]:
    """The fields of a YAML file. Arguments and errors are as in `read_json`; nothing in it is executed."""
    text = read_text(path, remedy)
    try:
        found = parse_yaml(text)
    except yaml.YAMLError as error:
        raise damaged(path, f"it is no YAML ({in_one_line(error)})", remedy) from error
    return checked(path, found, fields, remedy)


def parse_yaml(text: str, loader: Callable[[str], yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """Return what YAML stands for. Nothing in it is executed, and it takes no more memory than a text of `LARGEST` characters.

    Args:
        loader: a class of loaders.

    Raises:
        yaml.YAMLError: if it is no YAML, nested too deeply, or has aliases that stand for more than that.
    """
    loading = loader(text)
    try:
        node = loading.get_single_node()
        if node is None:
            return None
        if _expanded_size(node, {}) > LARGEST:
            raise yaml.YAMLError(f"its aliases stand for more than {LARGEST:,} characters")
        return loading.construct_document(node)
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error
    except (ValueError, LookupError, AttributeError, TypeError) as error:  # of a value that is none of its tag's type
        raise yaml.YAMLError(f"it has a value that cannot be read ({in_one_line(error)})") from error
    finally:
        loading.dispose()


def _expanded_size(node: yaml.Node, known: dict[int, int]) -> int:
    """The characters of a value of YAML with what each alias in it stands for, counted once for each anchor.

    A few lines of aliases of aliases can stand for more values than any memory holds.
    """
    if isinstance(node, yaml.ScalarNode):
        return 1 + len(node.value)
    if id(node) not in known:
        known[id(node)] = LARGEST + 1  # of an alias within its own anchor, which has no end
        parts = node.value
        if isinstance(node, yaml.MappingNode):
            parts = itertools.chain.from_iterable(node.value)
        known[id(node)] = 1 + sum(_expanded_size(part, known) for part in parts)
    return known[id(node)]


def checked(path: Path, found: Any, fields: Mapping[str, Rule], remedy: str) -> dict[str, Any]:
    """The fields that were read from a file, if they are as the rules say. Arguments and errors are as in `read_json`."""
    if not isinstance(found, dict):
        raise damaged(path, f"it holds {shown(found)} in place of fields", remedy)
    for name in found:
        if name not in fields:
            raise damaged(path, f"it has a field {shown(name)}, which nestnet does not write", remedy)
    check_present(path, found, fields, remedy)
    return found


def read_text(path: Path, remedy: str, *, largest: int = LARGEST) -> str:
    """The text of a file of ours, whatever it says. Arguments and errors are as in `read_json`."""
    with _opened(path, largest, remedy) as file:
        return _decoded(path, file.read(largest), remedy)


def check_present(path: Path, found: Mapping[str, Any], fields: Mapping[str, Rule], remedy: str) -> None:
    """Check some fields of those that were read from a file. Arguments and errors are as in `read_json`."""
    for name, rule in fields.items():
        if name not in found:
            if rule.needed:
                raise damaged(path, f"it has no {name}", remedy)
        elif not rule.fits(found[name]):
            raise damaged(path, f"{name} is {shown(found[name])}, and must be {rule.says}", remedy)


def read_rows(
    path: Path, columns: Mapping[str, Rule], remedy: str, *, at_least: int = 0
) -> Iterator[tuple[dict[str, str], int]]:
    """Read the rows of a table as they are written, each with the number of bytes up to its end.

    The names of the columns come first. The first column counts the rows from 1. A row ends with a line break: what comes
    after the last one is of a row that was being written, and is left out with a notice.

    Args:
        columns: a rule for each of them. Each comes once; the order is the file's.
        remedy: what a person can do if it is damaged.
        at_least: number of rows that must be there, because a checkpoint was written after them.

    Raises:
        ValueError: if it cannot be read, or is not as the rules say; it names the row.
    """
    with _opened(path, LARGEST_TABLE, remedy) as file:
        names = _header(path, _line(path, file, remedy), columns, remedy)
        end = file.tell()
        yield dict(zip(names, names, strict=True)), end
        first = next(iter(columns))
        row = 0
        incomplete = False
        while line := _line(path, file, remedy):
            incomplete = not line.endswith("\n")
            if incomplete:
                break
            row += 1
            end += len(line)  # of a row that is right, whose characters are all of one byte
            cells = line.rstrip("\r\n").split(",")
            if len(cells) != len(names):
                raise damaged(path, f"row {row} has {len(cells)} cells, and must have {len(names)}", remedy)
            found = dict(zip(names, cells, strict=True))
            for name, cell in found.items():
                if not _cell_fits(columns[name], cell):
                    raise damaged(
                        path, f"{name} is {shown(cell)} in row {row}, and must be {columns[name].says}", remedy
                    )
            if int(found[first]) != row:
                raise damaged(path, f"{first} is {found[first]} in row {row}: rows are missing, or come twice", remedy)
            yield found, end
        if row < at_least:
            raise damaged(path, f"it has {row} whole rows, and the run has a checkpoint of row {at_least}", remedy)
        if incomplete:
            log_notice(f"{path}: its last row is incomplete, and is left out")


def _header(path: Path, line: str, columns: Mapping[str, Rule], remedy: str) -> list[str]:
    if not line.endswith("\n"):
        raise damaged(path, "it is empty" if not line else "it ends within the names of its columns", remedy)
    names = line.rstrip("\r\n").split(",")
    for name, rule in columns.items():
        if rule.needed and name not in names:
            raise damaged(path, f"it has no column {name}", remedy)
    for name in names:
        if name not in columns:
            raise damaged(path, f"it has a column {shown(name)}, which nestnet does not write", remedy)
        if names.count(name) > 1:
            raise damaged(path, f"it has the column {name} twice", remedy)
    return names


def _line(path: Path, file: BinaryIO, remedy: str) -> str:
    line = file.readline(LONGEST_ROW)
    if len(line) == LONGEST_ROW:
        raise damaged(path, f"it has a row of more than {LONGEST_ROW:,} bytes", remedy)
    return _decoded(path, line, remedy)


def read_plain_text(path: Path, largest: int = LARGEST) -> str:
    """Return the text of a file that a person wrote.

    Raises:
        OSError: if it cannot be read, or is no file.
        ValueError: if it is too large, or not UTF-8.
    """
    with open_regular(path) as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise ValueError(f"it has more than {largest:,} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 (byte {error.start + 1})") from error


def _opened(path: Path, largest: int, remedy: str) -> BinaryIO:
    try:
        file = open_regular(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}; {remedy}") from error
    size = os.fstat(file.fileno()).st_size
    if size > largest:
        file.close()
        raise damaged(path, f"it has {size:,} bytes, and nestnet writes at most {largest:,}", remedy)
    return file


def _decoded(path: Path, content: bytes, remedy: str) -> str:
    if b"\0" in content:
        raise damaged(path, "it has bytes of zeros", remedy)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise damaged(path, "it is not UTF-8", remedy) from error


def _cell_fits(rule: Rule, cell: str) -> bool:
    try:
        return rule.fits(rule.parse(cell))
    except ValueError:
        return False


def _whole(cell: str) -> int:
    if not WHOLE.fullmatch(cell):
        raise ValueError(cell)
    return int(cell)


def _number(cell: str) -> float:
    if not NUMBER.fullmatch(cell):
        raise ValueError(cell)
    return float(cell)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def shown(value: Any) -> str:
    """Return a value in a message, without the middle of what is long."""
    return reprlib.repr(value)
