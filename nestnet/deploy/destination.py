"""The place of an export: a file with its model card beside it, or a folder with the card in it."""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from nestnet.deploy.card_file import choose_card_path, read_described_file
from nestnet.deploy.export_format import ExportFormat
from nestnet.runs.outputs import check_output_beside_runs
from nestnet.storage.atomic import move_into_place, resolve_destination, resolve_new_folder, write_atomically
from nestnet.text.escape import quoted

FOLDER_CARD = "README.md"
"""Name of the model card in a folder, as model hubs show it."""


class Destination(ABC):
    """Place of an export and of its model card, neither of which exists yet or both of which may be replaced.

    Args:
        path: path as the user gives it.

    Attributes:
        card: path of the model card.
        target: path to write, at the end of symbolic links.
        name: name of the file or folder.
        again: path under which another export can be written afterwards.

    Raises:
        ValueError: If something else is in the way, or nothing can be written there.
    """

    card: Path
    target: Path
    name: str
    again: Path

    @abstractmethod
    def put(self, unfinished: Path, card: str) -> None:
        """Move an export to its place, with its model card.

        Args:
            unfinished: file or folder that the format wrote.
            card: text of the model card.

        Raises:
            OSError: If either cannot be written.
        """


class FileDestination(Destination):
    """Place of a file. Its card has the same name with the suffix `.md`, or `.md` appended to the whole name.

    The other arguments, and the attributes and errors, are those of `Destination`.

    Args:
        path: path as the user gives it.
        companion_suffixes: suffixes of further files that are written beside it, under the same name.
    """

    def __init__(self, path: Path, companion_suffixes: Sequence[str] = ()) -> None:
        check_output_beside_runs(path)
        self.card = _check_card(path)
        self.target = resolve_destination(path)
        self.name = path.name
        self.again = path
        self.companion_suffixes = companion_suffixes
        for suffix in companion_suffixes:
            companion = path.with_suffix(suffix)
            # A file of this name belongs to the file that is replaced, or to something else.
            if os.path.lexists(companion) and not os.path.exists(path):
                raise ValueError(
                    f"output = {quoted(path)}: {companion}, which it needs as well, exists; move it, or name another file"
                )

    def put(self, unfinished: Path, card: str) -> None:
        # The card comes first, so that a file always has its card, and then what belongs to the file.
        write_atomically(self.card, card)
        for suffix in self.companion_suffixes:
            move_into_place(unfinished.with_suffix(suffix), resolve_destination(self.again.with_suffix(suffix)))
        move_into_place(unfinished, self.target)


class FolderDestination(Destination):
    """Place of a folder, which must be absent or empty. Its card is `README.md` in it.

    The arguments, attributes and errors are those of `Destination`.
    """

    def __init__(self, path: Path) -> None:
        check_output_beside_runs(path, is_folder=True)
        self.card = path / FOLDER_CARD
        self.target = resolve_new_folder(path)
        self.name = self.target.name
        # A folder is not replaced.
        self.again = path.with_name(f"{self.name}-2")

    def put(self, unfinished: Path, card: str) -> None:
        # The folder gets its name when everything is in it.
        write_atomically(unfinished / FOLDER_CARD, card)
        move_into_place(unfinished, self.target)


def choose_destination(path: Path, export_format: ExportFormat) -> Destination:
    """Return the place of an export, after checking that it can be written there.

    Args:
        path: path as the user gives it.
        export_format: format of the export.

    Raises:
        ValueError: If something else is in the way, or nothing can be written there.
    """
    if export_format.weights_name is None:
        return FileDestination(path, export_format.companion_suffixes)
    return FolderDestination(path)


def _check_card(path: Path) -> Path:
    """Return the path of a file's model card, after checking that it can be written."""
    card = choose_card_path(path)
    field = f"output = {quoted(path)}"
    if path == card:
        raise ValueError(f"{field}: the model card takes this name; name a file with another ending")
    # A card that nestnet wrote for this file may be replaced, but not a file of the user.
    if os.path.exists(card) and read_described_file(card) != path.name:
        raise ValueError(f"{field}: {card} exists and is not a model card of nestnet; move it, or name another file")
    # The card may be a symbolic link into an absent folder, for example.
    try:
        resolve_destination(card)
    except OSError as error:
        raise ValueError(f"{field}: {card}, the model card, cannot be written: {error.strerror}") from error
    return card
