"""The completion of a command line by a recipe, for a folder of images or for the exports that a run starts from."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from nestnet.config import parsing
from nestnet.config.data_checks import check_source
from nestnet.config.data_sets import DATA_SETS
from nestnet.config.schema import Config
from nestnet.config.schema_sections import DataConfig, ModelConfig
from nestnet.models.pairs import complete_pair, nests
from nestnet.recipes.folder_recipe import choose_fields, describe_choice
from nestnet.recipes.folder_summary import FolderSummary, summarise_images
from nestnet.weights.config_fields import read_config_fields


def parse_with_recipe(
    arguments: list[str],
    *,
    prog: str = "nestnet train",
    others: Iterable[str] = (),
    tell: Callable[[str], None] | None = None,
    needs_k: bool = False,
) -> Config:
    """Parse a command line, and choose values for the fields that it leaves open.

    Without a configuration file, `data.root` alone is enough for a folder of images: all other fields are
    chosen to suit its images. The same holds for images whose labels are stored beside them, once they are named.
    Where a run starts from exports and names no networks, the networks and the image size are those of the exports.
    Fields that are given always take precedence.

    Args:
        arguments: command line without the name of the command.
        prog: name of the command, for messages.
        others: names of options that the command has besides the fields of a configuration.
        tell: function that is called with a description of the folder and of the chosen fields; `None` for no
            description.
        needs_k: whether the recipe for a folder must choose a condition that has a k.

    Returns:
        The configuration, with every field validated.

    Raises:
        ValueError: For the same reasons as `nestnet.config.parsing.parse`, and for a folder or an export that
            cannot be read.
    """
    recipe = Recipe(needs_k=needs_k)
    config = parsing.parse(arguments, prog=prog, others=others, choose=recipe.choose)
    if recipe.folder is not None and tell is not None:
        tell(describe_choice(recipe.folder, config))
    return config


class Recipe:
    """Choice of fields, with the folder of images that they were chosen for.

    Args:
        needs_k: whether the condition must have a k.

    Attributes:
        folder: summary of the folder; `None` if the fields were not chosen for a folder.
    """

    def __init__(self, *, needs_k: bool = False) -> None:
        self.needs_k = needs_k
        self.folder: FolderSummary | None = None

    def choose(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return the fields to use where `given` has none, as nested dictionaries.

        Args:
            given: fields that are set by the user, as nested dictionaries; `config` if there is a
                configuration file.
        """
        model = given.get("model", {})
        data = given.get("data", {})
        # Exports determine the networks and the size of the images.
        chosen: dict[str, Any] = {}
        if model.get("base_weights") or model.get("motivated_weights"):
            chosen = read_config_fields(model, data)
        elif "config" not in given:
            chosen = _complete_networks(model)
        # A configuration file is complete, and other data sets have their own usual values.
        facts = DATA_SETS.get(data.get("name", "folder"))
        names_a_folder = bool(data.get("root")) and facts is not None and facts.is_own
        if "config" in given or not names_a_folder:
            return chosen
        own = _name_images(data)
        check_source(own)
        self.folder = summarise_images(own)
        return choose_fields(self.folder, merge_fields(chosen, given), needs_k=self.needs_k)


def _name_images(data: Mapping[str, Any]) -> DataConfig:
    """Return a configuration that only says where a user's own images are."""
    source = {"name": data.get("name", "folder"), "root": data["root"], "corrupt": data.get("corrupt", "stop")}
    for field in DATA_SETS[source["name"]].fields:
        if field in data:
            source[field] = data[field]
    return DataConfig(**source)


def _complete_networks(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the network that is not named, if exactly one is and the default for the other does not nest with it."""
    base = model.get("base")
    motivated = model.get("motivated")
    if bool(base) == bool(motivated):
        return {}
    defaults = ModelConfig()
    if nests(base or defaults.base, motivated or defaults.motivated):
        return {}
    base, motivated = complete_pair(base, motivated)
    # The message about the default pair says more than a pair of twice the same network would.
    if base == motivated:
        return {}
    return {"model": {"base": base, "motivated": motivated}}


def merge_fields(chosen: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return fields of which the given ones take precedence over the chosen ones.

    Args:
        chosen: fields as nested dictionaries.
        given: fields as nested dictionaries.

    Returns:
        All fields of both.
    """
    merged = {**chosen, **given}
    for name, fields in chosen.items():
        # A section has fields of both.
        if isinstance(fields, dict):
            merged[name] = {**fields, **given.get(name, {})}
    return merged
