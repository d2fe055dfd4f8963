"""YAML files of a configuration and those that they include, read without executing anything."""

import json
from collections.abc import Collection, Hashable
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import SafeConstructor

from nestnet.config.names import suggest_name
from nestnet.storage import safe_yaml
from nestnet.storage.paths import expand_home, real_path
from nestnet.storage.read_back import read_plain_text, shorten
from nestnet.text.escape import quoted
from nestnet.text.messages import in_one_line

KEY_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")
"""YAML's tags of keys that are texts; the second one is that of `<<`."""


class _FieldsConstructor(SafeConstructor):
    """YAML's safe constructor, which also refuses a key that is not a string or occurs twice.

    PyYAML would silently use the last value of such a key.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Construct a mapping after checking its keys."""
        if isinstance(node, yaml.MappingNode):
            self._check_keys(node)
        return super().construct_mapping(node, deep)

    def _check_keys(self, node: yaml.MappingNode) -> None:
        # The nodes still know their lines, which a dictionary would not.
        keys: set[str] = set()
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f"a key in line {line} is a list or a mapping, and must be a string")
            if key.tag not in KEY_TAGS:
                raise yaml.YAMLError(f"the key {key.value} in line {line} must be a string")
            if key.value in keys:
                raise yaml.YAMLError(f"{key.value} occurs a second time in line {line}; keep only one of them")
            keys.add(key.value)


def _create_loader(loader: Any) -> type:
    """Return a loader of fields, which reads a date without quotes, such as the name of a folder, as text."""
    resolvers = {}
    for first_letter, pairs in loader.yaml_implicit_resolvers.items():
        resolvers[first_letter] = [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
    return type("Loader", (_FieldsConstructor, loader), {"yaml_implicit_resolvers": resolvers})


LOADERS = [_create_loader(loader) for loader in safe_yaml.LOADERS]


def read_fields(
    path: Path, names: Collection[str], sections: Collection[str], includers: tuple[Path, ...] = ()
) -> list[dict[str, Any]]:
    """Read the fields of the files that a file includes, followed by its own fields.

    Args:
        path: path of the file.
        names: names of all fields, as `section.key` or `key`.
        sections: names of the fields whose value is a mapping of keys.
        includers: real paths of the files that include this one, directly or indirectly.

    Returns:
        Nested dictionaries, of which later ones replace fields of earlier ones.

    Raises:
        ValueError: If a file is absent, is not YAML, or includes itself, or a key is unknown or occurs twice.
    """
    if real_path(path) in includers:
        raise ValueError(f"include in {includers[-1]}: {path} includes itself")
    content = _read_mapping(path)
    included = _take_included(content, path)
    _check_fields(content, path, names, sections)
    # In the order in which they replace each other: the included files, then this one.
    fields: list[dict[str, Any]] = []
    for name in included:
        file = path.parent / expand_home(name, "include")
        fields += read_fields(file, names, sections, (*includers, real_path(path)))
    fields.append(_without_empty_sections(content, sections))
    return fields


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        content = safe_yaml.parse_yaml(read_plain_text(path), LOADERS)
        # YAML also has sets and bytes, which no field can take.
        json.dumps(content)
    except (OSError, ValueError, yaml.YAMLError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else in_one_line(error)
        raise ValueError(f"config = {quoted(path)}: cannot be read as YAML: {reason}") from error
    if not isinstance(content, dict):
        held = "nothing" if content is None else shorten(content)
        raise ValueError(f"config = {quoted(path)}: it must hold fields of a run, and holds {held}")
    return content


def _take_included(content: dict[str, Any], path: Path) -> list[str]:
    """Remove the names of the included files from a file's content, and return them."""
    included = content.pop("include", [])
    if isinstance(included, str):
        return [included]
    if not isinstance(included, list) or not all(isinstance(name, str) for name in included):
        raise ValueError(
            f"include = {shorten(included)} in {path}: it must be the name of a file, or a list of such names"
        )
    return included


def _check_fields(content: dict[str, Any], path: Path, names: Collection[str], sections: Collection[str]) -> None:
    """Refuse a section that is not a mapping, and a key that is not a field."""
    for key, value in content.items():
        if key not in sections:
            keys = [key]
        elif value is None or isinstance(value, dict):
            keys = [f"{key}.{name}" for name in value or {}]
        else:
            raise ValueError(f"{key} = {shorten(value)} in {path}: it must be a section of `key: value` lines")
        for name in keys:
            if name not in names:
                raise ValueError(f"{name} in {path} is not a field{suggest_name(name, names, sections)}")


def _without_empty_sections(content: dict[str, Any], sections: Collection[str]) -> dict[str, Any]:
    """Return the content without sections that are empty, such as one whose lines are all commented out."""
    fields = {}
    for key, value in content.items():
        if value is not None or key not in sections:
            fields[key] = value
    return fields
