"""The registry of conditions by name, and the creation of a condition from its name."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from nestnet.conditions.base import Condition
from nestnet.conditions.by_loss import EMADecrease, GradientNormIncrease, HeldOutLossDecrease, LossDecrease
from nestnet.conditions.by_position import Always, Never, Periodic, RandomBatches, RandomLike
from nestnet.conditions.learned import Bandit, GradientAgreement
from nestnet.text.suggestions import suggest_known

CONDITIONS: dict[str, type[Condition]] = {
    "loss_decrease": LossDecrease,
    "ema_decrease": EMADecrease,
    "held_out_loss_decrease": HeldOutLossDecrease,
    "gradient_norm_increase": GradientNormIncrease,
    "random": RandomBatches,
    "random_like": RandomLike,
    "periodic": Periodic,
    "bandit": Bandit,
    "gradient_agreement": GradientAgreement,
    "always": Always,
    "never": Never,
}
"""The class of each condition, by its name in `motivation.name`."""

RUN_ARGUMENTS = ("batches", "seed")
"""Arguments of conditions that come from the run alone, and are no settings of a user."""

ConditionClass = TypeVar("ConditionClass", bound=type[Condition])


def register_condition(name: str) -> Callable[[ConditionClass], ConditionClass]:
    """Register a condition under a name for configurations.

    Its constructor may have the arguments `k`, `batches` (number of batches of an epoch) and `seed`, which a
    run provides, and further arguments, which come from `motivation.options`.

    Args:
        name: value of `motivation.name` that selects the condition.

    Returns:
        A decorator for a subclass of `Condition`, which it returns as it is.

    Raises:
        ValueError: If there is a condition of this name already. The decorator raises it if the class is not a
            subclass of `Condition` or leaves one of its abstract methods undefined.

    Example:
        >>> @register_condition("every_monday")
        ... class EveryMonday(Never): ...
        >>> create_condition("every_monday")
        EveryMonday()
        >>> del CONDITIONS["every_monday"]
    """
    if name in CONDITIONS:
        raise ValueError(f"condition {name!r}: there is one of this name already")

    def register(condition_class: ConditionClass) -> ConditionClass:
        if not (isinstance(condition_class, type) and issubclass(condition_class, Condition)):
            raise ValueError(f"condition {name!r}: {condition_class!r} must be a subclass of nestnet.Condition")
        # Python itself would raise an error only when a run creates the condition.
        undefined = ", ".join(sorted(condition_class.__abstractmethods__))
        if undefined:
            raise ValueError(f"condition {name!r}: {condition_class.__name__} must define {undefined}")
        CONDITIONS[name] = condition_class
        return condition_class

    return register


def create_condition(name: str, settings: Mapping[str, Any] | None = None, **context: Any) -> Condition:
    """Create a condition by its name.

    Args:
        name: name under which the condition is registered.
        settings: arguments that the user gives. The condition must have all of them.
        context: arguments that a run provides. Each is passed if the condition has it and `settings` does not
            give it.

    Returns:
        The condition.

    Raises:
        ValueError: If the name is unknown, a setting is missing or unknown to the condition, or the condition
            refuses a value.
    """
    if name not in CONDITIONS:
        raise ValueError(f"motivation.name = {name!r}: no such condition; {suggest_known(name, CONDITIONS)}")
    # A setting of the user must be an argument of this condition.
    condition_class = CONDITIONS[name]
    parameters = inspect.signature(condition_class).parameters
    arguments = dict(settings or {})
    for setting, value in arguments.items():
        if setting not in parameters:
            # What the run provides cannot be set here.
            settable = [parameter for parameter in parameters if parameter not in RUN_ARGUMENTS]
            remedy = "leave it out"
            if settable:
                remedy = f"it has {', '.join(settable)}"
            raise ValueError(f"motivation.{setting} = {value!r}: {name} has no such setting; {remedy}")
    # An argument that the run provides is passed only if the condition has it.
    for key, value in context.items():
        if key in parameters:
            arguments.setdefault(key, value)
    # An argument that neither of them gives must have a default.
    for parameter in parameters.values():
        is_required = parameter.default is parameter.empty
        if is_required and parameter.name not in arguments:
            raise ValueError(f"motivation.{parameter.name}: {name} needs it")
    return condition_class(**arguments)
