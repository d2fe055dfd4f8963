"""The configuration of a run that extends a finished base to a bigger network.

The base is that of a run, whose configuration it then takes, or a file of weights that timm loads. The base is not
trained any further: all epochs are those of `finish_epochs`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from nestnet.config import parsing
from nestnet.config.names import names_of_options
from nestnet.config.network_checks import check_networks
from nestnet.config.schema import Config, ModelConfig, MotivationConfig
from nestnet.config.schema_rules import as_img_size
from nestnet.config.validation import validate
from nestnet.nn.mode import Mode
from nestnet.optim.schedule import without_warm_up
from nestnet.recipes.command_line import Recipe, merge_fields
from nestnet.runs.reading import read_config
from nestnet.text.commands import format_command
from nestnet.weights.metadata import Metadata
from nestnet.weights.timm_folder import find_weights_file, is_timm_folder
from nestnet.weights.weights_file import read_file_metadata

GIVEN_BY_EXTENSION = {
    "epochs": "the base is finished; give finish_epochs",
    "model.base_weights": "they are those of the base that is extended; leave it out",
    "model.motivated": "the bigger network is named by motivated; leave it out",
    "schedule.warmup_epochs": "an extension has no warm-up; leave it out",
    "schedule.warmup_lr": "an extension has no warm-up; leave it out",
    "schedule.warmup_prefix": "an extension has no warm-up; leave it out",
}
"""Fields that an extension determines, and what to do instead of setting them."""


def parse_extension(
    source: Path,
    motivated: str,
    arguments: Sequence[str],
    *,
    prog: str = "nestnet extend",
    others: Iterable[str] = (),
) -> Config:
    """Return the configuration of a run that extends a finished base.

    Args:
        source: directory of a finished run, whose base is extended with the data and the settings of the run; or
            a file of weights that timm loads.
        motivated: timm's name of the bigger network.
        arguments: command line with fields that replace those of the run, or those that are usual for the data.
            `model.base` is needed for a file that does not name its network. Without `finish_epochs` there are as
            many epochs as the configuration has to train both networks.
        prog: name of the command, for messages.
        others: names of options that the command has besides the fields of a configuration.

    Returns:
        The configuration, with every field validated.

    Raises:
        ValueError: If the source is absent or holds no base, a field is determined by the extension, or the
            configuration is invalid.
    """
    _check_names(names_of_options(arguments))
    given = parsing.read_given(arguments, prog=prog, others=others)
    if given.get("model", {}).get("batch_norm") == "shared" and "model.batch_norm" not in names_of_options(arguments):
        # That of a configuration file is for training both networks; the base must keep its statistics.
        arguments = [*arguments, parsing.argument("model.batch_norm", "null")]
    if source.is_dir() and not is_timm_folder(source):
        config, weights, known = _configure_from_run(source, motivated, arguments, given, prog, others)
    else:
        config, known = _configure_from_file(source, motivated, arguments, given, prog, others)
        weights = source
    if config.finish_epochs == 0:
        raise ValueError("finish_epochs = 0: nothing would be trained; it must be at least 1")
    _check_images(config, known)
    return validate(
        replace(
            config,
            model=_choose_start(config, str(weights), given),
            schedule=without_warm_up(config.schedule),
            motivation=MotivationConfig(),
            epochs=0,
        )
    )


def _check_names(names: set[str]) -> None:
    for name in sorted(names):
        if name in GIVEN_BY_EXTENSION:
            raise ValueError(f"{name}: {GIVEN_BY_EXTENSION[name]}")
        if name.startswith("motivation."):
            raise ValueError(f"{name}: no condition chooses the batches of an extension; leave it out")


def _check_images(config: Config, known: dict[str, Any]) -> None:
    """Refuse images that are prepared in another way than those that the base was trained on.

    Args:
        config: configuration of the extension.
        known: fields of `data` as the base was trained with, where they are known.
    """
    for name in ("img_size", "mean", "std"):
        value, trained = getattr(config.data, name), known.get(name)
        if None not in (value, trained) and value != trained:
            raise ValueError(
                f"data.{name} = {value}: the base was trained with {trained}, and must see the same; leave it out"
            )


def _choose_start(config: Config, base_weights: str, given: dict[str, Any]) -> ModelConfig:
    """Return the section `model` with the weights of the base, and a start at which both networks are equal if possible.

    The bigger network then begins at the accuracy of the base.
    """
    model = replace(config.model, base_weights=base_weights)
    if given.get("model", {}).get("differential_init") is not None:
        return model
    equal = replace(model, differential_init="zero")
    # Everything else has been checked before.
    try:
        check_networks(replace(config, model=equal))
    except ValueError:
        return replace(model, differential_init="random")
    return equal


def _name_networks(base: str | None, motivated: str, arguments: Sequence[str], given: dict[str, Any]) -> list[str]:
    """Return the arguments that name both networks, in place of those in a configuration file.

    Args:
        base: network of the source; `None` if it is not known.
        motivated: bigger network.
        arguments: command line. A base that it names is compared with the source when the weights are loaded.
        given: fields that the command line and its files set.

    Raises:
        ValueError: If both are the same network.
    """
    networks = [parsing.argument("model.motivated", motivated)]
    if base is None or "model.base" in names_of_options(arguments):
        base = given.get("model", {}).get("base")
    else:
        networks.append(parsing.argument("model.base", base))
    if base == motivated:
        raise ValueError(f"motivated = {motivated!r}: that is the base itself; name a bigger network")
    return networks


# A base of a run


def _configure_from_run(
    run_dir: Path, motivated: str, arguments: Sequence[str], given: dict[str, Any], prog: str, others: Iterable[str]
) -> tuple[Config, Path, dict[str, Any]]:
    """Return the configuration of a run with another motivated network, the file of its base, and its section `data`."""
    stored = read_config(run_dir)
    weights = run_dir / f"{Mode.BASE}.safetensors"
    if not weights.is_file():
        finish = format_command("resume", run_dir)
        raise ValueError(f"{run_dir} has no {weights.name}, because it is not finished: `{finish}` finishes it")
    fields = asdict(_as_ordinary_run(stored, motivated))
    imports = [parsing.argument("import", module) for module in stored.imports]
    networks = _name_networks(stored.model.base, motivated, arguments, given)
    config = parsing.parse(
        [*imports, *arguments, *networks],
        prog=prog,
        others=others,
        literal=parsing.paths_of(stored),
        choose=lambda _: fields,
        run_dirs=[run_dir],
    )
    return config, weights, asdict(stored.data)


def _as_ordinary_run(stored: Config, motivated: str) -> Config:
    """Return the configuration of a run as one that trains its base and another motivated network from the start."""
    # The run may be an extension itself.
    epochs = stored.epochs or stored.finish_epochs
    return replace(
        stored,
        model=_extended_model(stored.model, motivated),
        motivation=MotivationConfig(),
        epochs=epochs,
        finish_epochs=epochs,
        finish_lr=None,
        run_dir=None,
        # The base stands still.
        snapshot_steps=0,
    )


def _extended_model(model: ModelConfig, motivated: str) -> ModelConfig:
    """Return the section `model` of a run with another motivated network."""
    batch_norm = model.batch_norm
    if batch_norm == "shared":
        batch_norm = None  # the family's default, with which the base keeps its statistics
    # The classes of the data are compared with those of the base when it is loaded.
    return replace(
        model,
        motivated=motivated,
        num_classes=None,
        batch_norm=batch_norm,
        differential_init="random",
        base_weights=None,
        motivated_weights=None,
        select=None,
        freeze=None,
    )


# A base in a file


def _configure_from_file(
    path: Path, motivated: str, arguments: Sequence[str], given: dict[str, Any], prog: str, others: Iterable[str]
) -> tuple[Config, dict[str, Any]]:
    """Return a configuration for the network of a file, as for training it from the start, and what is known of its data."""
    metadata = _read_metadata(path)
    known = _known_fields(metadata)
    base = None if metadata is None else metadata.architecture
    networks = _name_networks(base, motivated, arguments, given)
    if base is None and not given.get("model", {}).get("base"):
        raise ValueError(f"{path} does not name its network: set model.base to timm's name of it")
    data = given.get("data", {})
    if "config" not in given and data.get("root") is None and data.get("name") is None:
        raise ValueError(f"{path}: give the images too: set data.root or data.name, or take a configuration file")
    recipe = Recipe()

    def choose(given: dict[str, Any]) -> dict[str, Any]:
        # The recipe for a folder of images chooses what the file leaves open.
        chosen = merge_fields(recipe.choose(merge_fields(known, given)), known)
        # As many epochs as are usual for training from the start.
        chosen["finish_epochs"] = given.get("epochs") or chosen.get("epochs") or Config().epochs
        return chosen

    config = parsing.parse([*arguments, *networks], prog=prog, others=others, choose=choose)
    return config, known.get("data", {})


def _read_metadata(path: Path) -> Metadata | None:
    """Return the metadata of a file of weights, if nestnet exported it."""
    if not path.exists():
        raise ValueError(f"{path} is neither a run directory nor a file of weights: there is nothing of this name")
    if is_timm_folder(path):
        path = find_weights_file(path)
    return read_file_metadata(path)


def _known_fields(metadata: Metadata | None) -> dict[str, Any]:
    """Return the fields of a configuration that the metadata of a file determines; none without metadata."""
    if metadata is None:
        return {}
    # The base must see the images as it did when it was trained.
    data: dict[str, Any] = {"mean": metadata.mean, "std": metadata.std}
    data["img_size"] = as_img_size(metadata.size)
    if metadata.crop_pct is not None:
        data["crop_pct"] = metadata.crop_pct
    return {"model": {"in_chans": metadata.input_size[0]}, "data": data}
