"""YAML from untrusted files: nothing in it is executed, and the memory that it takes is limited."""

import itertools
from collections.abc import Callable
from typing import Any

import yaml

from nestnet.text.messages import in_one_line

# Largest number of characters of a value, with its aliases expanded: far more than any configuration has.
LARGEST_VALUE = 1 << 24


def parse_yaml(text: str, loader: Callable[[str], yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """Parse a text in YAML.

    Args:
        text: YAML.
        loader: class of the loader, `yaml.SafeLoader` or a subclass of it.

    Returns:
        The value; `None` for an empty text.

    Raises:
        yaml.YAMLError: If the text is not YAML, is nested too deeply, or is too large with its aliases expanded.
    """
    # Parsing has two steps, so that the size of the value is known before it is built.
    loading = loader(text)
    try:
        node = loading.get_single_node()
        if node is None:
            return None
        if _expanded_size(node, {}) > LARGEST_VALUE:
            raise yaml.YAMLError(f"its aliases stand for more than {LARGEST_VALUE:,} characters")
        return loading.construct_document(node)
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        # PyYAML raises these errors for a value that does not have the type that its tag names.
        raise yaml.YAMLError(f"it has a value that cannot be read ({in_one_line(error)})") from error
    finally:
        loading.dispose()


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
