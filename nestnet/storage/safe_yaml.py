"""YAML from untrusted files, of which nothing is executed and whose memory is limited, and YAML to write."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import yaml

from nestnet.text.messages import in_one_line

# Largest number of characters of a value, with its aliases expanded: far more than any configuration has.
LARGEST_VALUE = 1 << 24

FastLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Safe loader that parses in C, where PyYAML was built with libyaml. It takes an eighth of the time."""

LOADERS = (FastLoader, yaml.SafeLoader)
"""Loader in C, and the one in Python, whose errors say more and which reads names that are not UTF-8."""

FastDumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""Safe dumper that writes in C, where PyYAML was built with libyaml. It takes a fifth of the time."""


class _LimitError(yaml.YAMLError):
    """A text that is beyond a limit for every loader. The one in Python would take seconds to find the same."""


def dump_yaml(value: Any) -> str:
    """Return a value in YAML, with the keys of mappings in their order.

    Args:
        value: nested dictionaries and lists of plain values.

    Raises:
        yaml.YAMLError: If the value holds anything else.
    """
    try:
        return str(yaml.dump(value, Dumper=FastDumper, sort_keys=False))
    except UnicodeEncodeError:
        # The dumper in Python also writes names of files that are not UTF-8.
        return str(yaml.safe_dump(value, sort_keys=False))


def parse_yaml(text: str, loaders: Sequence[Callable[[str], Any]] = LOADERS) -> Any:
    """Parse a text in YAML.

    Args:
        text: YAML.
        loaders: classes of loaders, which are those of `LOADERS` or subclasses of them. Each is tried if the one before it
            cannot read the text.

    Returns:
        The value; `None` for an empty text.

    Raises:
        yaml.YAMLError: If the text is not YAML, is nested too deeply, or is too large with its aliases expanded. The error
            is that of the last loader.
    """
    *faster, last = loaders
    for loader in faster:
        try:
            return _parse(text, loader)
        except _LimitError:
            raise
        except yaml.YAMLError:
            continue
    return _parse(text, last)


def _parse(text: str, loader: Callable[[str], Any]) -> Any:
    """Parse a text in YAML with one loader."""
    # Parsing has two steps, so that the size of the value is known before it is built.
    try:
        loading = loader(text)
        try:
            node = loading.get_single_node()
            if node is None:
                return None
            if _expanded_size(node, {}) > LARGEST_VALUE:
                raise _LimitError(f"its aliases stand for more than {LARGEST_VALUE:,} characters")
            return loading.construct_document(node)
        finally:
            loading.dispose()
    except RecursionError as error:
        raise _LimitError("it is nested too deeply") from error
    except yaml.MarkedYAMLError as error:
        if "nesting depth" in str(error.problem):  # libyaml's words
            raise _LimitError("it is nested too deeply") from error
        raise
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        # PyYAML raises these errors for a value that does not have the type that its tag names.
        raise yaml.YAMLError(f"it has a value that cannot be read ({in_one_line(error)})") from error


def _expanded_size(node: yaml.Node, known: dict[int, int]) -> int:
    """Return the number of characters of a value with its aliases expanded.

    A few lines of aliases of aliases can expand to more values than any memory holds. `known` has the sizes of
    the nodes that were measured before, so that each anchor is visited once.
    """
    if isinstance(node, yaml.ScalarNode):
        return 1 + len(node.value)
    if id(node) not in known:
        # An alias within its own anchor would expand without end, so it counts as too large.
        known[id(node)] = LARGEST_VALUE + 1
        parts = node.value
        if isinstance(node, yaml.MappingNode):
            parts = itertools.chain.from_iterable(node.value)
        size = 1
        for part in parts:
            size += _expanded_size(part, known)
        known[id(node)] = size
    return known[id(node)]
