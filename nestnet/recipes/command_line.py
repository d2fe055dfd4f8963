"""Completes a command line by a recipe: for a folder of images, and for the exports that a run starts from."""

from collections.abc import Callable, Iterable
from typing import Any

from nestnet.config import parsing
from nestnet.config.schema import Config
from nestnet.recipes.folder import FolderSummary, inspect_folder
from nestnet.weights.pretrained import fields_from_exports


def parse_with_recipe(
    arguments: list[str],
    *,
    prog: str = "nestnet train",
    others: Iterable[str] = (),
    tell: Callable[[str], None] | None = None,
) -> Config:
    """Parse a command line, and choose what it leaves open.

    Without a configuration file, `data.root` alone is enough for a folder of images: all other fields are chosen by its images.
    Where a run starts from exports and names no networks, the networks and the image size are those of the exports.
    Fields that are given always take precedence.

    Args:
        arguments: command line without the name of the command.
        prog: name of the command, for messages.
        others: names of options that the command has besides the fields of a configuration.
        tell: function that is called with a summary of the folder and of what was chosen for it.

    Returns:
        The configuration, with every field validated.

    Raises:
        ValueError: as `nestnet.config.parsing.parse`, and for a folder or an export that cannot be read.
    """
    recipe = _Recipe()
    config = parsing.parse(arguments, prog=prog, others=others, choose=recipe.choose)
    if recipe.folder is not None and tell is not None:
        tell(recipe.folder.told(config))
    return config


class _Recipe:
    """Chooses fields, and remembers the folder of images that they were chosen for."""

    def __init__(self) -> None:
        self.folder: FolderSummary | None = None

    def choose(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return the fields to use where `given` has none, as nested dictionaries."""
        model = given.get("model", {})
        data = given.get("data", {})
        chosen: dict[str, Any] = {}
        if model.get("base_weights") or model.get("motivated_weights"):
            chosen = fields_from_exports(model, data)
        names_a_folder = data.get("root") is not None and data.get("name", "folder") == "folder"
        if "config" in given or not names_a_folder:
            return chosen
        self.folder = inspect_folder(data["root"])
        return self.folder.recipe(_merge(chosen, given))


def _merge(chosen: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return nested fields in which the given ones take precedence over the chosen ones."""
    merged = dict(given)
    for section, fields in chosen.items():
        merged[section] = {**fields, **given.get(section, {})}
    return merged
