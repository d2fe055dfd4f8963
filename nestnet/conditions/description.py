"""A condition in words, for forecasts, reports, tables and model cards."""

import inspect

from nestnet.conditions.registry import CONDITIONS
from nestnet.config.schema_sections import MotivationConfig


def describe_condition(motivation: MotivationConfig) -> str:
    """Return the name of a configuration's condition, with k where the condition has one.

    Args:
        motivation: section `motivation` of the configuration. A name that is not registered in this process
            is described by the name alone.

    Returns:
        A description of a few words, such as `loss_decrease, k = 2`.

    Example:
        >>> describe_condition(MotivationConfig(name="gradient_norm_increase", k=3))
        'gradient_norm_increase, k = 3'
        >>> describe_condition(MotivationConfig(name="always"))
        'always'
    """
    condition_class = CONDITIONS.get(motivation.name)
    if condition_class is None or "k" not in inspect.signature(condition_class).parameters:
        return motivation.name
    return f"{motivation.name}, k = {motivation.k}"
