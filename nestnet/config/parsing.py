"""Parsing a command line and YAML files into a `Config`. The only file that calls jsonargparse."""

import copy
import dataclasses
import functools
import json
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import yaml

from nestnet.config.imports import import_modules
from nestnet.config.names import FIELD_NAMES, check_option_names
from nestnet.config.parse_errors import explain_parse_error
from nestnet.config.schema import SECTIONS, Config, dotted
from nestnet.config.yaml_files import read_fields
from nestnet.storage.atomic import write_atomically
from nestnet.storage.paths import expand_home
from nestnet.storage.safe_yaml import dump_yaml
from nestnet.text.escape import is_utf8

PATHS = ("run_dir", "data.root", "data.labels", "model.base_weights", "model.motivated_weights", "motivation.runs")
"""Fields that name files or folders: a `~` at their beginning is the home directory."""


def parse(
    arguments: Sequence[str],
    *,
    prog: str = "nestnet train",
    others: Iterable[str] = (),
    literal: Collection[str] | None = (),
    choose: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    run_dirs: Iterable[Path] = (),
) -> Config:
    """Parse `--config FILE`, `--section.key value` and `--import MODULE`; later values replace earlier ones.

    A file may include others: `include: FILE`, or a list of files, whose paths are relative to its own folder.
    Its own fields replace theirs. The modules of `imports` are imported before any name of a network or a
    condition is looked up.

    Args:
        arguments: command line without the name of the command.
        prog: name of the command, for messages.
        others: names of the command's options that are not fields, which the message about a misspelt option
            may suggest.
        literal: paths whose `~` is not the home directory, such as those that an earlier run has resolved;
            `None` for all.
        choose: function from the given fields to fields that replace the schema's defaults, such as those of a
            recipe (`nestnet.recipes`), both as nested dictionaries; `None` to keep the defaults.
        run_dirs: run directories that are read, from within which no module is imported.

    Returns:
        The configuration, with every field validated.

    Raises:
        ValueError: If a key is unknown, a value has the wrong type or is out of range, values do not fit
            together, or a file is absent. The message names the field, its value, the rule and the remedy.
    """
    check_option_names(arguments, others)
    arguments, modules = _take_imports(arguments)
    # A recipe chooses by which fields are given, whatever their values are.
    arguments, files = _read_files(arguments, keeps_defaults=choose is not None)
    # The given fields decide which modules are imported and what a recipe chooses.
    given = _parse_given(prog, arguments, literal)
    imports = list(dict.fromkeys([*given.get("imports", []), *modules]))
    import_modules(imports, [*run_dirs, *_find_run_directories(files)])
    if choose is not None:
        chosen = choose(given)
        if chosen:
            # In front, so that every field that is given replaces it.
            given = _parse_given(prog, [f"--config={json.dumps(chosen)}", *arguments], literal)
    config = _create_config(given)
    config.imports = imports

    # Validation imports torch, which takes seconds. Misspelt names and wrong types are reported before.
    from nestnet.config.validation import validate

    return validate(config)


def read_given(arguments: Sequence[str], *, prog: str, others: Iterable[str] = ()) -> dict[str, Any]:
    """Return the fields that a command line and its files set, as nested dictionaries.

    Args:
        arguments: command line without the name of the command.
        prog: name of the command, for messages.
        others: names of the command's options that are not fields.

    Returns:
        The fields; `config` if there is a configuration file.

    Raises:
        ValueError: If a key is unknown, a value has the wrong type, or a file is absent.
    """
    check_option_names(arguments, others)
    arguments, _ = _take_imports(arguments)
    arguments, _ = _read_files(arguments, keeps_defaults=True)
    return _parse_given(prog, arguments, None)


def format_help(prog: str, description: str) -> str:
    """Return the help of a command: every field with its type, its default and its docstring.

    Args:
        prog: name of the command, such as `nestnet train`.
        description: description of the command, with which the help starts.

    Returns:
        The help, without a final line break.
    """
    # jsonargparse puts a backspace, which not every terminal obeys, where the name of an option must be one word.
    return _create_parser(prog, description).format_help().replace(" \b", "").rstrip("\n")


def load(path: Path, *, run_dirs: Iterable[Path] = ()) -> Config:
    """Return the configuration in a YAML file. A `~` in its paths is not expanded.

    Args:
        path: path of the file.
        run_dirs: run directories that are read, from within which no module is imported.

    Returns:
        The configuration, with every field validated.

    Raises:
        ValueError: If the file is absent or holds no valid configuration: see `parse`.
    """
    return parse([option_of(path)], literal=None, run_dirs=run_dirs)


def dump(config: Config, path: Path) -> None:
    """Write all fields as YAML, so that `load` gives the same configuration.

    Args:
        config: configuration to write.
        path: path of the file, which is replaced if it exists.

    Raises:
        OSError: If the file cannot be written.
    """
    write_atomically(path, dump_yaml(dataclasses.asdict(config)))


def option_of(path: Path) -> str:
    """Return the option that names a configuration file. A `~` in the path is not the home directory.

    Args:
        path: path of the file.

    Returns:
        The argument `--config=PATH`.
    """
    return f"--config={os.path.join(os.curdir, path)}"


def argument(name: str, value: str) -> str:
    """Return the argument that sets a field, or another option of one value.

    Args:
        name: name of the field, as `section.key` or `key`.
        value: value, as on a command line.

    Returns:
        The argument.
    """
    return f"--{name}={value}"


def paths_of(config: Config) -> list[str]:
    """Return the files and folders that a configuration names.

    Args:
        config: configuration of a run.

    Returns:
        The paths, in the order of `PATHS`.
    """
    fields = dotted(dataclasses.asdict(config))
    paths: list[str] = []
    for name in PATHS:
        value = fields[name]
        if isinstance(value, str):
            paths.append(value)
        elif value is not None:
            paths += value
    return paths


def _take_imports(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the arguments without `--import MODULE`, and those modules."""
    others: list[str] = []
    modules: list[str] = []
    waiting = list(arguments)
    # jsonargparse has no option of another name that adds to a list, so this one is taken out before.
    while waiting:
        argument = waiting.pop(0)
        name, equals, value = argument.partition("=")
        if name != "--import":
            others.append(argument)
            continue
        if not equals:
            if not waiting or waiting[0].startswith("--"):
                raise ValueError("argument --import: expected one argument, the name of a Python module")
            value = waiting.pop(0)
        modules.append(value)
    return others, modules


def _parse_given(prog: str, arguments: list[str], literal: Collection[str] | None) -> dict[str, Any]:
    """Return the fields that arguments set, without defaults and with the home directory in paths, as `parse` takes them."""
    namespace = copy.deepcopy(_parse_arguments(prog, tuple(arguments)))
    return _expand_homes(namespace, literal).as_dict()


# A command reads the configuration of a run several times.
@functools.lru_cache(maxsize=8)
def _parse_arguments(prog: str, arguments: tuple[str, ...]) -> jsonargparse.Namespace:
    """Return the fields that arguments set. The caller must not change them."""
    try:
        return _create_parser(prog).parse_args(list(arguments), defaults=False)
    except jsonargparse.ArgumentError as error:
        raise ValueError(explain_parse_error(str(error))) from error


def _create_config(given: dict[str, Any]) -> Config:
    """Return a configuration with the given fields, whose types have been checked, and the schema's defaults."""
    fields: dict[str, Any] = {}
    for name, value in given.items():
        if name in SECTIONS:
            fields[name] = SECTIONS[name](**value)
        elif name != "config":
            fields[name] = value
    return Config(**fields)


def _find_run_directories(files: Iterable[Path]) -> list[Path]:
    """Return the folders of those configuration files that lie in a run directory."""
    # Training leaves these beside the configuration of a run.
    folders = [file.parent for file in files]
    return [folder for folder in folders if (folder / "steps.csv").exists() or (folder / "checkpoints").exists()]


def _read_files(arguments: Sequence[str], *, keeps_defaults: bool) -> tuple[list[str], list[Path]]:
    """Return the arguments with the fields of configuration files, as JSON, in place of their names; and the files."""
    expanded: list[str] = []
    files: list[Path] = []
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        if argument == "--config" and waiting:
            name = waiting.pop(0)
        elif argument.startswith("--config="):
            name = argument.removeprefix("--config=")
        else:
            expanded.append(argument)
            continue
        file = Path(expand_home(name, "config"))
        files.append(file)
        for fields in read_fields(file, FIELD_NAMES, SECTIONS):
            # What comes first replaces nothing. jsonargparse takes half a millisecond for each field, and the
            # configuration of a run has all of them.
            if not expanded and not keeps_defaults:
                fields = _drop_defaults(fields, dataclasses.asdict(Config()))
            expanded.append(f"--config={json.dumps(fields)}")
    return expanded, files


def _drop_defaults(fields: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Return nested fields without those that have the default's value and type."""
    kept: dict[str, Any] = {}
    for name, value in fields.items():
        default = defaults[name]
        if name in SECTIONS and isinstance(value, dict):
            kept[name] = _drop_defaults(value, default)
        # As JSON, in which 1, 1.0 and true are three values.
        elif json.dumps(value) != json.dumps(default):
            kept[name] = value
    return kept


def _expand_homes(namespace: jsonargparse.Namespace, literal: Collection[str] | None) -> jsonargparse.Namespace:
    """Replace the `~` of each path that is not in `literal` by the home directory; with `None`, replace none."""
    if literal is None:
        return namespace

    def expand(path: str, name: str) -> str:
        if path in literal:
            return path
        return expand_home(path, name)

    for name in PATHS:
        value = namespace.get(name)
        if isinstance(value, str):
            namespace[name] = expand(value, name)
        elif isinstance(value, list):
            namespace[name] = [expand(path, name) for path in value]
    return namespace


@functools.cache
def _create_parser(prog: str, description: str = "The configuration of a run.") -> jsonargparse.ArgumentParser:
    """Return the parser of a command, which takes a tenth of a second to make."""
    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)  # the fields' docstrings are the help
    jsonargparse.set_loader("nestnet", _load_value, exceptions=(yaml.YAMLError,))
    parser = jsonargparse.ArgumentParser(
        prog=prog,
        # The list of all options would fill a screen; they are described below.
        usage=f"{prog} [--config FILE] [--section.key value ...]",
        exit_on_error=False,
        description=description,
        parser_mode="nestnet",
    )
    parser.add_argument("--config", action="config", metavar="FILE", help="YAML file with any of the fields below")
    parser.add_class_arguments(Config)
    return parser


def _load_value(text: str) -> Any:
    """Return the value of an option, or the fields of a configuration file.

    The fields come from `_read_files` as JSON. YAML reads JSON too, but not the escapes of an emoji or of a path
    that is not UTF-8.
    """
    if text.startswith("{"):
        try:
            # No field may be infinite or NaN. Such a constant is kept as text, which is then refused.
            return json.loads(text, parse_constant=str)
        except json.JSONDecodeError:
            pass  # a mapping in YAML's own notation, or a name
    if not is_utf8(text):
        return text  # a path, which YAML's reader refuses
    value = jsonargparse.get_loader("yaml")(text)
    if value is None and text.strip().lower() not in ("", "~", "null"):
        return text  # a name that YAML takes for a comment or an anchor
    return value
