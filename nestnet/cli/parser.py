"""Parsing the arguments of a command: its own options, and those that are fields of a configuration."""

import argparse
import difflib
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from nestnet.cli.terminal import print_text
from nestnet.config.names import check_option_names
from nestnet.storage.paths import expand_home

if TYPE_CHECKING:
    from nestnet.config.schema import Config

TRACEBACK = "--traceback"
"""The option of every command that shows the whole stack of an error."""


COMMON_OPTIONS = """\
--import MODULE, which may be repeated, imports a module of your own first, such as one that registers a condition or a
family. --traceback shows the whole stack of an error."""
"""Part of the help of each command that takes a configuration: the options that are not fields."""


class Parser(argparse.ArgumentParser):
    """The parser of one command, which raises a ValueError for wrong arguments, for `main` to print in one line.

    Args:
        command: the command, such as `nestnet plot`.
        description: what the command does.
    """

    def __init__(self, command: str, description: str | None) -> None:
        # An abbreviated name would hide a misspelt one.
        super().__init__(command, description=description, allow_abbrev=False)
        self.add_argument(TRACEBACK, action="store_true", help="show the whole stack of an error")

    def parse_args(self, *arguments: Any, **settings: Any) -> Any:
        """Parse as argparse does. The message about an unknown option names the one that was probably meant."""
        options, unknown = self.parse_known_args(*arguments, **settings)
        if not unknown:
            return options
        # Only the first unknown argument is reported, because it may be the cause of the others.
        if not unknown[0].startswith("-"):
            raise ValueError(f"unrecognized arguments: {' '.join(unknown)}; see `{self.prog} --help`")
        name = unknown[0].partition("=")[0]
        near = difflib.get_close_matches(name, self._option_string_actions, n=1)
        hint = f"did you mean {near[0]}?" if near else f"see `{self.prog} --help`"
        raise ValueError(f"{unknown[0]} is not an option of {self.prog}; {hint}")

    def print_help(self, file: Any = None) -> None:
        """Print the help. Unlike argparse, raise an error if it cannot be written."""
        print_text(self.format_help().rstrip("\n"), file)

    def error(self, message: str) -> NoReturn:
        """Raise a ValueError with the message that argparse would print."""
        raise ValueError(f"{message}; see `{self.prog} --help`")


def path(text: str) -> Path:
    """Return the path that an argument names: the `type` of arguments that are files or folders.

    Args:
        text: argument, in which a `~` at the beginning is the home directory.

    Returns:
        The path, with the home directory in place of `~`.

    Raises:
        argparse.ArgumentTypeError: If there is no such home directory.
    """
    try:
        return Path(expand_home(text, "path"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_state_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that select the weights and the BatchNorm statistics of a run's network.

    Args:
        parser: parser of a command that reads a run.
    """
    parser.add_argument(
        "--best",
        action="store_true",
        help="use the weights after the epoch with the subnet's highest top-1, instead of the last ones",
    )
    parser.add_argument(
        "--recalibrate",
        type=int,
        metavar="N",
        help="recompute the BatchNorm statistics on N training batches; 0: keep them; by default as many as in the run",
    )


def split_settings(arguments: Sequence[str], own_options: Collection[str] = ()) -> tuple[list[str], list[str]]:
    """Divide a command's arguments into those of the configuration and its own, such as a folder.

    An option of the configuration has one value, which follows it as the next argument or after `=`. An
    argument after that value is a positional argument of the command, and not a further value of an earlier
    option: `--k 2 --epochs 3 4` has no second k.

    Args:
        arguments: command line without the name of the command.
        own_options: names of the command's own options, without dashes. Any other option belongs to the
            configuration.

    Returns:
        The arguments of the configuration, and the command's own arguments, positional ones first.
    """
    settings: list[str] = []
    positional: list[str] = []
    own: list[str] = []
    waiting = list(arguments)
    after_own_option = False
    while waiting:
        argument = waiting.pop(0)
        name, equals, _ = argument.removeprefix("--").partition("=")
        is_own = name in own_options or not argument.startswith("--") or name in ("", "help")
        if not is_own:
            settings.append(argument)
            after_own_option = False
            has_value = bool(equals)
            if not has_value and waiting and not waiting[0].startswith("--"):
                settings.append(waiting.pop(0))
        elif argument.startswith("-") or after_own_option:
            own.append(argument)
            after_own_option = True
        else:
            # It is moved to the front, where argparse cannot take it for a value of an option.
            positional.append(argument)
    return settings, [*positional, *own]


def parse_configuration(
    arguments: list[str],
    command: str,
    description: str | None,
    others: Collection[str] = (),
    tell: Callable[[str], None] | None = None,
    *,
    needs_k: bool = False,
) -> "Config":
    """Return the configuration of a run that a command line describes, completed by a recipe.

    Args:
        arguments: arguments of the configuration.
        command: the command, such as `nestnet train`.
        description: description of the command, with which its help starts.
        others: names of the command's options that are not fields, without dashes.
        tell: function that is called with a summary of a folder of images and of the settings chosen for it;
            `None` to call none.
        needs_k: whether the recipe for a folder must choose a condition that has a k.

    Returns:
        The configuration, with every field validated.

    Raises:
        ValueError: If an option or a value is wrong.
        SystemExit: After the help was printed.
    """
    # Errors that can be found without torch are reported before it is imported.
    check_option_names(arguments, [*others, TRACEBACK.removeprefix("--")])
    if "--help" in arguments or "-h" in arguments:
        from nestnet.config.parsing import format_help

        print_text(format_help(command, f"{description}\n\n{COMMON_OPTIONS}"))
        raise SystemExit(0)

    from nestnet.recipes.command_line import parse_with_recipe

    return parse_with_recipe(arguments, prog=command, others=others, tell=tell, needs_k=needs_k)
