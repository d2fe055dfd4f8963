"""The names of a configuration's fields, and suggestions for misspelt ones.

This module imports nothing that takes time, so that a misspelt option is reported at once.
"""

import dataclasses
import difflib
from collections.abc import Collection, Iterable

from nestnet.config.schema import SECTIONS, Config

GENERAL_OPTIONS = ("config", "import", "help", "print_config")
"""Options, other than fields, of every command that takes a configuration."""

MAIN_KEYS = ("name", "root", "base", "motivated")
"""Keys that are probably meant where a section is given a value."""


def _list_field_names() -> frozenset[str]:
    names = set()
    for field in dataclasses.fields(Config):
        if field.name not in SECTIONS:
            names.add(field.name)
    for section, kind in SECTIONS.items():
        for field in dataclasses.fields(kind):
            names.add(f"{section}.{field.name}")
    return frozenset(names)


FIELD_NAMES = _list_field_names()
"""The name of each field, as `section.key` or `key`."""


def check_option_names(arguments: Iterable[str], others: Iterable[str] = ()) -> None:
    """Refuse an option that is neither a field of a configuration nor another option of the command.

    Args:
        arguments: command line without the name of the command.
        others: names of the command's other options, without dashes, which the message may suggest.

    Raises:
        ValueError: If an option is unknown. The message names the first one, and the one that was probably
            meant.
    """
    known = {*FIELD_NAMES, *GENERAL_OPTIONS}
    for argument in arguments:
        name = argument.removeprefix("--").partition("=")[0]
        if argument.startswith("--") and name not in known:
            if name in SECTIONS:
                raise ValueError(f"--{name} is a section; {_name_a_field(name)}")
            raise ValueError(f"--{name} is not an option{suggest_name(name, {*known, *others}, SECTIONS)}")


def _name_a_field(section: str) -> str:
    """Return which field of a section was probably meant, or which ones it has."""
    keys = _keys_of(section, sorted(FIELD_NAMES))
    meant = [f"{section}.{key}" for key in MAIN_KEYS if key in keys]
    if meant:
        return f"did you mean {' or '.join(meant)}?"
    return f"it has {', '.join(keys)}"


def names_of_options(arguments: Iterable[str]) -> set[str]:
    """Return the names of the options in a command line, given as `--name value` or `--name=value`.

    Args:
        arguments: command line without the name of the command.

    Returns:
        The names, without dashes.
    """
    names = set()
    for argument in arguments:
        if argument.startswith("--"):
            names.add(argument.removeprefix("--").partition("=")[0])
    return names


def suggest_name(name: str, names: Collection[str], sections: Collection[str] = ()) -> str:
    """Return the end of a message about an unknown name: the name that was probably meant.

    Args:
        name: unknown name.
        names: all known names, as `section.key` or `key`.
        sections: names of sections.

    Returns:
        A clause that starts with a semicolon.
    """
    known = sorted(names)
    meant = _find_meant(name, known, sections)
    if meant is not None:
        return f"; did you mean {meant}?"
    section, _, _ = name.rpartition(".")
    if section in sections:
        return f"; {section} has {', '.join(_keys_of(section, known))}"
    return "; `nestnet train --help` lists all options"


def _find_meant(name: str, known: list[str], sections: Collection[str]) -> str | None:
    section, _, key = name.rpartition(".")
    # The right key in the wrong section, or in none: `lr` for `optimizer.lr`.
    for other in known:
        if other.rpartition(".")[2] == key:
            return other
    # A misspelt key in the right section. A similar name from another section would only confuse.
    if section in sections:
        near = difflib.get_close_matches(key, _keys_of(section, known), n=1)
        if near:
            return f"{section}.{near[0]}"
        return None
    near = difflib.get_close_matches(name, [*known, *sections], n=1)
    if near:
        return near[0]
    if section:
        return None
    # A misspelt key without its section: `weight-decay` for `optimizer.weight_decay`.
    by_key = {other.rpartition(".")[2]: other for other in known}
    near = difflib.get_close_matches(name, by_key, n=1, cutoff=0.75)
    if near:
        return by_key[near[0]]
    return None


def _keys_of(section: str, names: Iterable[str]) -> list[str]:
    """Return the keys of a section, in the order of the names."""
    return [name.partition(".")[2] for name in names if name.startswith(f"{section}.")]
