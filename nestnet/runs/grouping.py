"""Groups of runs that train the same thing and differ at most in their seed."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, Protocol, TypeVar

from nestnet.config.data_sets import DATA_SETS
from nestnet.config.schema import Config, dotted
from nestnet.runs.parts import RunPart
from nestnet.runs.resumable import RESUMABLE_FIELDS, config_differences


class HasConfig(Protocol):
    """Anything that holds the configuration of a run, and its parts."""

    @property
    def config(self) -> Config: ...

    @property
    def parts(self) -> Sequence[RunPart]: ...


RunT = TypeVar("RunT", bound=HasConfig)


def group_by_training(runs: Iterable[RunT]) -> list[list[RunT]]:
    """Return runs in groups whose members train the same thing and differ at most in their seed.

    Args:
        runs: runs, each with its configuration as `config`, and its parts, which are part of what was trained.

    Returns:
        The groups in the order of their first runs, each with its runs in the order in which they were given.
    """
    groups: list[list[RunT]] = []
    for run in runs:
        # Training the same thing is transitive, so that comparing with one member of a group suffices.
        for group in groups:
            first = group[0]
            if list(run.parts) == list(first.parts) and not training_differences(run.config, first.config):
                group.append(run)
                break
        else:
            groups.append([run])
    return groups


def training_differences(config: Config, other: Config) -> dict[str, Any]:
    """Return the fields, except the seed, by which one configuration trains something other than another does.

    Args:
        config: configuration of a run.
        other: configuration with which it is compared.

    Returns:
        The values of `config` in the fields that differ, by dotted name such as `data.batch_size`.
    """
    # `data.root` counts if either of the two runs has a folder of images.
    decisive = training_fields(config).keys() | training_fields(other).keys()
    differing = {}
    for name, _, value in config_differences(asdict(other), asdict(config)):
        if name in decisive:
            differing[name] = value
    return differing


def training_fields(config: Config) -> dict[str, Any]:
    """Return the fields of a configuration that decide what is trained, except the seed.

    The location of the images counts only for a folder of images, because another folder holds other images.

    Args:
        config: configuration of a run.

    Returns:
        The values of these fields, by dotted name.
    """
    left_out = RESUMABLE_FIELDS | {"seed"}
    if DATA_SETS[config.data.name].is_own:
        left_out = left_out - {"data.root", "data.labels"}
    return {name: value for name, value in dotted(asdict(config)).items() if name not in left_out}
