"""Parsing a command line and YAML files into a `Config`. The only file that calls jsonargparse."""

import dataclasses
import functools
import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import yaml

from nestnet.config.schema import SECTIONS, Config, dotted
from nestnet.config.yaml_files import contents, nearest
from nestnet.storage.files import write_atomically
from nestnet.storage.paths import expand_home
from nestnet.text.escape import is_utf8
from nestnet.text.messages import in_one_line

PATHS = ("run_dir", "data.root", "model.base_weights", "model.motivated_weights", "motivation.runs")
"""Fields that name files or folders: a `~` at their beginning is the home directory."""


def parse(
    arguments: list[str],
    *,
    prog: str = "nestnet train",
    others: Iterable[str] = (),
    literal: Collection[str] | None = (),
    choose: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> Config:
    """The configuration of a command line: `--config FILE` and `--section.key value`, later ones over earlier ones.

    A file may start from others: `include: FILE`, or a list of them, taken from its own folder; its own fields go over theirs.

    Args:
        others: names of options that the verb has besides, so that a misspelt one can be told from them.
        literal: paths whose `~` is not the home directory, such as those that an earlier run has resolved; `None`: all.
        choose: function from the given fields, as nested dictionaries, to fields that take the place of the schema's defaults,
            such as those of a recipe (`nestnet.recipes`).

    Raises:
        ValueError: for an unknown key, a value of the wrong type or out of range, values that do not go together, or an absent
            file: one line that names the field, its value, the rule and the remedy.
    """
    from nestnet.config.validation import validate  # they know the networks, which take a second to import

    parser, arguments = _parser(prog), _expanded(arguments, others)
    try:
        given = _at_home(parser.parse_args(arguments, defaults=False), literal).as_dict()
        chosen = {} if choose is None else choose(given)
        if chosen:
            arguments = [f"--config={json.dumps(chosen)}", *arguments]
        namespace = _at_home(parser.parse_args(arguments), literal)
    except jsonargparse.ArgumentError as error:
        raise ValueError(_one_line(str(error))) from error
    namespace.pop("config", None)
    return validate(Config(**vars(parser.instantiate(namespace))))


def split(arguments: Sequence[str], own_options: Collection[str] = ()) -> tuple[list[str], list[str]]:
    """Divide a verb's arguments into those of the configuration and its own, such as the folder of `nestnet resume`.

    An option of the configuration has one value, which follows it or stands behind `=`. What comes after that value belongs to
    the verb itself, and not to an option of the verb further ahead: `--k 2 --epochs 3 4` has no second k.

    Args:
        own_options: names of the verb's own options; an unknown one is left to `parse`, which refuses it.

    Returns:
        The arguments for `parse`, and the verb's own, of which those that belong to no option come first.
    """
    settings: list[str] = []
    positional: list[str] = []
    own: list[str] = []
    rest = list(arguments)
    after_own_option = False
    while rest:
        argument = rest.pop(0)
        name, equals, _ = argument.removeprefix("--").partition("=")
        is_own = name in own_options or not argument.startswith("--") or name in ("", "help")
        if not is_own:
            settings.append(argument)
            after_own_option = False
            if not equals and rest and not rest[0].startswith("--"):
                settings.append(rest.pop(0))
        elif argument.startswith("-") or after_own_option:
            own.append(argument)
            after_own_option = True
        else:
            positional.append(argument)
    return settings, [*positional, *own]


def _at_home(namespace: jsonargparse.Namespace, literal: Collection[str] | None) -> jsonargparse.Namespace:
    """The same namespace, whose paths have the home directory in place of `~`, unless they are `literal`."""

    def expanded(path: str, name: str) -> str:
        return path if literal is None or path in literal else expand_home(path, name)

    for name in PATHS:
        value = namespace.get(name)
        if isinstance(value, str):
            namespace[name] = expanded(value, name)
        elif isinstance(value, list):
            namespace[name] = [expanded(path, name) for path in value]
    return namespace


def paths_of(config: Config) -> list[str]:
    """The files and folders that a configuration names."""
    fields = dotted(dataclasses.asdict(config))
    paths: list[str] = []
    for name in PATHS:
        value = fields[name]
        if isinstance(value, str):
            paths.append(value)
        elif value is not None:
            paths += value
    return paths


def load(path: Path) -> Config:
    """The configuration in a YAML file, with its paths as they are. Raises ValueError as `parse` does."""
    return parse([option_of(path)], literal=None)


def option_of(path: Path) -> str:
    """The option that names a configuration file, whose `~` is not the home directory."""
    return f"--config={os.path.join(os.curdir, path)}"


def dump(config: Config, path: Path) -> None:
    """Write all fields as YAML, so that `load` gives the same configuration."""
    write_atomically(path, yaml.safe_dump(dataclasses.asdict(config), sort_keys=False))


ABOUT = {
    "nestnet train": "Train a nested network and export both subnets. Without --config, --data.root FOLDER alone trains on a "
    "folder of images. With --dry_run, take some steps, tell what the run will need and take, and write nothing."
}
"""What `--help` says first."""


@functools.cache
def _parser(prog: str) -> jsonargparse.ArgumentParser:
    """It takes a tenth of a second to make."""
    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)  # the fields' docstrings are the help
    jsonargparse.set_loader("nestnet", _value, exceptions=(yaml.YAMLError,))
    parser = jsonargparse.ArgumentParser(
        prog=prog,
        exit_on_error=False,
        description=ABOUT.get(prog, "A configuration of a run."),
        parser_mode="nestnet",
    )
    parser.add_argument("--config", action="config", metavar="FILE", help="YAML file with any of the fields below.")
    parser.add_class_arguments(Config)
    return parser


def _value(text: str) -> Any:
    """The value of an option, or the contents of a configuration file, which `_expanded` gives as JSON.

    YAML reads JSON too, but not the escapes of an emoji, or of a byte of a path that is not UTF-8.
    """
    if text.startswith("{"):
        try:
            return json.loads(text, parse_constant=str)  # no field can be infinite or NaN: as a text it is refused
        except json.JSONDecodeError:
            pass  # a mapping of YAML, or a name
    if not is_utf8(text):
        return text  # a path, which YAML's reader refuses
    value = jsonargparse.get_loader("yaml")(text)
    if value is None and text.strip().lower() not in ("", "~", "null"):
        return text  # a name that YAML takes for a comment or an anchor
    return value


def _expanded(arguments: list[str], others: Iterable[str]) -> list[str]:
    """The arguments with the contents of configuration files in place of their names.

    Unknown names are refused with the nearest right one, among them those of the verb's `others`.
    """
    names = {"config", "help", "print_config", *(f.name for f in dataclasses.fields(Config) if f.name not in SECTIONS)}
    names |= {f"{section}.{f.name}" for section, kind in SECTIONS.items() for f in dataclasses.fields(kind)}
    expanded, previous = [], ""
    for argument in arguments:
        name, _, value = argument.removeprefix("--").partition("=")
        if argument.startswith("--") and name not in names:
            raise ValueError(f"--{name} is no option{nearest(name, {*names, *others}, SECTIONS)}")
        if path := argument if previous == "--config" else value if argument.startswith("--config=") else "":
            files = contents(Path(expand_home(path, "config")), names, SECTIONS)
            expanded += [f"--config={json.dumps(content)}" for content in files]
        elif argument != "--config":
            expanded.append(argument)
        previous = argument
    return [*expanded, "--config"] if previous == "--config" else expanded


def _one_line(message: str) -> str:
    """jsonargparse's message about a value as `field = value: rule`."""
    found = re.search(r'Parser key "(.+?)":\s*(.*)', message, re.DOTALL)
    if not found:
        line = in_one_line(message)
        if line.startswith("unrecognized arguments"):
            line += (
                "; images are given as --data.root FOLDER, a file as --config FILE, any field as --section.key value"
            )
        return line
    name, rest = found[1], found[2]
    value = re.search(r"(?:Got value|Given value): (.*?)(?:\n|$)", rest)
    kinds = re.findall(r"Expected an? (.+?)(?:\. Got|\n|$)", rest)
    plain = sorted({_plain(kind) for kind in kinds}, key=lambda kind: (kind == "null", kind))
    rule = " or ".join(plain) or in_one_line(rest)
    return f"{name} = {value[1] if value else '?'}: it must be {rule}"


def _plain(kind: str) -> str:
    """`typing.Literal['a', 'b']` and `<class 'int'>` in plain words."""
    if kind.startswith("typing.Literal["):
        return "one of " + kind.removeprefix("typing.Literal[").rstrip("]").replace("'", "")
    words = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text", "list": "a list"}
    return {f"<class '{k}'>": v for k, v in (words | {"NoneType": "null", "dict": "a mapping"}).items()}.get(kind, kind)
