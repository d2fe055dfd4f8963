"""The registry of trackers by name, and their creation from the names in a configuration."""

import importlib.util
from collections.abc import Callable, Sequence
from typing import TypeVar

from nestnet.text.suggestions import suggest_known
from nestnet.trackers.callback import Callback
from nestnet.trackers.mlflow import MLflow
from nestnet.trackers.tensorboard import TensorBoard
from nestnet.trackers.trackio import Trackio
from nestnet.trackers.wandb import WandB

TRACKERS: dict[str, type[Callback]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
    "trackio": Trackio,
}
"""The class of each tracker, by its name in `trackers`."""

EXTRAS = tuple(TRACKERS)
"""Trackers whose packages are extras of nestnet of the same name."""

CallbackClass = TypeVar("CallbackClass", bound=type[Callback])


def register_tracker(name: str) -> Callable[[CallbackClass], CallbackClass]:
    """Register a callback as a tracker, under a name for the field `trackers` of configurations.

    Args:
        name: name of the tracker.

    Returns:
        A decorator for a subclass of `Callback` whose constructor needs no arguments, which it returns as it is.

    Raises:
        ValueError: If there is a tracker of this name already. The decorator raises it if the class is not a
            subclass of `Callback`.

    Example:
        >>> @register_tracker("silent")
        ... class Silent(Callback): ...
        >>> len(create_trackers(["silent"]))
        1
        >>> del TRACKERS["silent"]
    """
    if name in TRACKERS:
        raise ValueError(f"tracker {name!r}: there is one of this name already")

    def register(callback_class: CallbackClass) -> CallbackClass:
        if not (isinstance(callback_class, type) and issubclass(callback_class, Callback)):
            raise ValueError(f"tracker {name!r}: {callback_class!r} must be a subclass of nestnet.Callback")
        TRACKERS[name] = callback_class
        return callback_class

    return register


def check_trackers(names: Sequence[str]) -> None:
    """Check that trackers are known, and that none is named twice.

    Args:
        names: names of trackers.

    Raises:
        ValueError: If one is unknown or named twice, or there is no list.
    """
    if names is None:  # a configuration that breaks off after the name of the field
        raise ValueError("trackers = null: it must be a list of names, such as [tensorboard]; [] for none")
    for name in names:
        if name not in TRACKERS:
            raise ValueError(f"trackers = {list(names)}: {name!r} is no tracker; {suggest_known(name, TRACKERS)}")
        if names.count(name) > 1:
            raise ValueError(f"trackers = {list(names)}: {name!r} is there more than once; name it once")


def check_trackers_installed(names: Sequence[str]) -> None:
    """Check that the packages of trackers are installed.

    Args:
        names: names of registered trackers.

    Raises:
        ValueError: If a package is not installed.
    """
    for name in names:
        package = TRACKERS[name].package
        if package is None or importlib.util.find_spec(package) is not None:
            continue
        install = f'pip install "nestnet[{name}]"' if name in EXTRAS else f"pip install {package}"
        raise ValueError(f"trackers = {list(names)}: the package {package} is not installed; `{install}`")


def create_trackers(names: Sequence[str]) -> list[Callback]:
    """Create trackers by their names.

    Args:
        names: names of registered trackers.

    Returns:
        The trackers, in the same order.
    """
    return [TRACKERS[name]() for name in names]
