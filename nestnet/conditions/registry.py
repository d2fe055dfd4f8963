"""Conditions by name."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from nestnet.conditions.base import JOINT, Condition
from nestnet.conditions.by_loss import EMADecrease, GradientNormIncrease, HeldOutLossDecrease, LossDecrease
from nestnet.conditions.by_position import Always, Never, Periodic, RandomBatches, RandomLike

CONDITIONS: dict[str, Callable[..., Condition]] = {
    "loss_decrease": LossDecrease,
    "ema_decrease": EMADecrease,
    "held_out_loss_decrease": HeldOutLossDecrease,
    "gradient_norm_increase": GradientNormIncrease,
    "random": RandomBatches,
    "random_like": RandomLike,
    "periodic": Periodic,
    "always": Always,
    "never": Never,
}


Factory = TypeVar("Factory", bound=Callable[..., Condition])


def register_condition(name: str) -> Callable[[Factory], Factory]:
    """Make a condition of your own known to configurations as `motivation.name`.

    Its constructor may take `k`, `batches` (of an epoch) and `seed`, and whatever `motivation.options` gives it.

    Raises:
        ValueError: if the name is taken.

    >>> @register_condition("every_monday")
    ... class EveryMonday(Never): ...
    >>> create_condition("every_monday")
    EveryMonday()
    >>> del CONDITIONS["every_monday"]
    """
    if name in CONDITIONS or name == JOINT:
        raise ValueError(f"condition {name!r}: there is one of this name already")

    def register(factory: Factory) -> Factory:
        CONDITIONS[name] = factory
        return factory

    return register


def create_condition(name: str, settings: Mapping[str, Any] | None = None, **context: Any) -> Condition:
    """The condition of a name.

    Args:
        settings: what the user asks of it: arguments of the condition.
        context: what it may take if it has such an argument.

    Raises:
        ValueError: for an unknown name, a setting that the condition does not have, or one that it lacks.
    """
    if name not in CONDITIONS:
        near = difflib.get_close_matches(name, CONDITIONS, n=1)
        hint = f"did you mean {near[0]}? Known are " if near else "known are "
        raise ValueError(f"motivation.name = {name!r}: no such condition; {hint}{', '.join(CONDITIONS)}")
    factory, settings = CONDITIONS[name], dict(settings or {})
    parameters = inspect.signature(factory).parameters
    for setting, value in settings.items():
        if setting not in parameters:
            raise ValueError(
                f"motivation.{setting} = {value!r}: {name} has no such setting"
                + (f"; it has {', '.join(parameters)}" if parameters else "; leave it out")
            )
    arguments = {key: value for key, value in context.items() if key in parameters} | settings
    for parameter in parameters.values():
        if parameter.default is parameter.empty and parameter.name not in arguments:
            raise ValueError(f"motivation.{parameter.name}: {name} needs it")
    return factory(**arguments)
