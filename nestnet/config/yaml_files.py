"""YAML files of a configuration: read without executing anything, with what they include, and with nothing overlooked."""

import difflib
import itertools
import json
from collections.abc import Collection, Hashable
from pathlib import Path
from typing import Any

import yaml

from nestnet.storage.paths import expand_home, real_path
from nestnet.storage.read_back import parse_yaml, read_plain_text, shown
from nestnet.text.escape import quoted
from nestnet.text.messages import in_one_line


class Loader(yaml.SafeLoader):
    """YAML's safe loader, which besides refuses a key that comes twice or is no text; YAML itself would take the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag not in (
                "tag:yaml.org,2002:str",
                "tag:yaml.org,2002:merge",
            ):
                name = key.value if isinstance(key, yaml.ScalarNode) else "a list or a mapping"
                raise yaml.YAMLError(f"the key {name} in line {line} must be a text")
            if key.value in seen:
                raise yaml.YAMLError(f"{key.value} comes a second time in line {line}; leave one of them")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


# a date without quotes, such as the name of a folder, stays the text that it is
Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def contents(
    path: Path, names: Collection[str], sections: Collection[str], includers: tuple[Path, ...] = ()
) -> list[dict[str, Any]]:
    """The fields of the files that a file includes, and then its own.

    Args:
        names: of all fields, `section.key` or `key`.
        sections: whose value is a mapping of keys.

    Raises:
        ValueError: for a file that is absent, no YAML, or includes itself, and for a key that is unknown or comes twice.
    """
    if real_path(path) in includers:
        raise ValueError(f"include in {includers[-1]}: {path} includes itself")
    try:
        content = parse_yaml(read_plain_text(path), Loader)
        json.dumps(content)  # what YAML has beyond that, sets and bytes, is of no field
    except (OSError, ValueError, yaml.YAMLError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else in_one_line(error)
        raise ValueError(f"config = {quoted(path)}: cannot be read as YAML: {reason}") from error
    if not isinstance(content, dict):
        held = "nothing" if content is None else shown(content)
        raise ValueError(f"config = {quoted(path)}: it must hold fields of a run, and holds {held}")
    included = content.pop("include", [])
    included = [included] if isinstance(included, str) else included
    if not isinstance(included, list) or not all(isinstance(name, str) for name in included):
        raise ValueError(
            f"include = {shown(included)} in {path}: it must be the name of a file, or a list of such names"
        )
    for key, value in content.items():
        if key in sections and not isinstance(value, dict | None):
            raise ValueError(f"{key} = {shown(value)} in {path}: it must be a section of `key: value` lines")
        for name in [f"{key}.{sub}" for sub in value or ()] if key in sections else [key]:
            if name not in names:
                raise ValueError(f"{name} in {path} is no field{nearest(name, names, sections)}")
    before: list[list[dict[str, Any]]] = []
    for name in included:
        file = path.parent / expand_home(name, "include")
        before.append(contents(file, names, sections, (*includers, real_path(path))))
    own = {
        key: value for key, value in content.items() if value is not None or key not in sections
    }  # all lines left out
    return [*itertools.chain.from_iterable(before), own]


def nearest(name: str, names: Collection[str], sections: Collection[str] = ()) -> str:
    """What to say after a name that is none: the one that was meant, perhaps."""
    section, _, leaf = name.rpartition(".")
    known = {other: other.rpartition(".")[2] for other in sorted(names)}
    near = [other for other, end in known.items() if end == leaf]
    if not near and section in sections:
        own = {end: other for other, end in known.items() if other.startswith(f"{section}.")}
        near = [own[end] for end in difflib.get_close_matches(leaf, own, n=1)]
        if not near:
            return f"; {section} has {', '.join(own)}"
    near = near or difflib.get_close_matches(name, [*known, *sections], n=1)
    if not near and not section:  # `weight-decay`: near to the end of a name
        ends = {end: other for other, end in known.items()}
        near = [ends[end] for end in difflib.get_close_matches(name, ends, n=1, cutoff=0.75)]
    return f"; did you mean {near[0]}?" if near else "; `nestnet train --help` lists all"
