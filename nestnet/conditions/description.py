"""The motivation of a run in words, for forecasts, reports, tables and model cards."""

import inspect
import math
from dataclasses import fields
from typing import Any

from nestnet.conditions.registry import CONDITIONS
from nestnet.config.schema import Config
from nestnet.config.schema_sections import MotivationConfig
from nestnet.nn.mode import Mode

CONDITION_SETTINGS = ("decay", "min_drop", "period", "min_rate", "max_rate")
"""Fields of `motivation` that only some of nestnet's built-in conditions have, `None` for the condition's own default."""

POLICY_FIELDS = (
    "trains",
    "watched_loss",
    "distillation",
    "temperature",
    "motivated_loss_weight",
    "start",
    "until",
    "budget",
)
"""Fields of `motivation` that say what a motivated batch trains and when in the run: all but the condition."""


def describe_motivation(motivation: MotivationConfig) -> str:
    """Return the condition of a configuration with its settings, and what differs from the paper's policy.

    Args:
        motivation: section `motivation` of the configuration. A name that is not registered in this process
            is described by the name alone.

    Returns:
        A description of a few words, such as `loss_decrease, k = 2`.

    Example:
        >>> describe_motivation(MotivationConfig(name="gradient_norm_increase", k=3))
        'gradient_norm_increase, k = 3'
        >>> describe_motivation(MotivationConfig(name="periodic", period=2))
        'periodic, period = 2'
        >>> describe_motivation(MotivationConfig(name="always", trains="both", start=0.5))
        'always, trains = both, start = 0.5'
    """
    words = [motivation.name]
    condition_class = CONDITIONS.get(motivation.name)
    if condition_class is not None and "k" in inspect.signature(condition_class).parameters:
        words.append(f"k = {motivation.k}")
    settings = given_settings(motivation) | motivation.options
    if motivation.name == "periodic":
        settings.setdefault("period", default_period(motivation))
    for name, value in settings.items():
        words.append(f"{name} = {value}")
    # Without motivated batches the policy has no effect.
    if classical_mode(motivation) is not Mode.BASE:
        for name in _changed_policy_fields(motivation):
            words.append(f"{name} = {getattr(motivation, name)}")
    return ", ".join(words)


def given_settings(motivation: MotivationConfig) -> dict[str, Any]:
    """Return the settings of a built-in condition that a configuration gives, beside k, runs and counts.

    Args:
        motivation: section `motivation` of the configuration.

    Example:
        >>> given_settings(MotivationConfig(name="periodic", period=2))
        {'period': 2}
    """
    settings: dict[str, Any] = {}
    for name in CONDITION_SETTINGS:
        value = getattr(motivation, name)
        if value is not None:
            settings[name] = value
    return settings


def default_period(motivation: MotivationConfig) -> int:
    """Return the period of `periodic` for a configuration that gives none.

    Args:
        motivation: section `motivation` of the configuration.

    Example:
        >>> default_period(MotivationConfig(k=2))
        6
    """
    # k falling losses in a row are expected about once in (k+1)! batches, if losses are independent.
    return math.factorial(motivation.k + 1)


def classical_mode(motivation: MotivationConfig) -> Mode | None:
    """Return the mode of the network that a configuration trains alone.

    Args:
        motivation: section `motivation` of the configuration.

    Returns:
        The mode in classical training; `None` if both networks are trained.

    Example:
        >>> classical_mode(MotivationConfig(name="always"))
        <Mode.MOTIVATED: 'motivated'>
        >>> classical_mode(MotivationConfig(name="always", trains="both")) is None
        True
    """
    if motivation.name == "never":
        return Mode.BASE
    if motivation.name == "always" and has_paper_policy(motivation):
        return Mode.MOTIVATED
    return None


def trained_alone(config: Config) -> Mode | None:
    """Return the mode of the network that a run trains alone.

    Args:
        config: configuration of the run.

    Returns:
        The mode in classical training; `None` if both networks are trained, also one after the other.
    """
    if config.finish_epochs > 0:
        return None
    return classical_mode(config.motivation)


def has_paper_policy(motivation: MotivationConfig) -> bool:
    """Return whether motivated batches train the motivated network alone, at any time of the run.

    Args:
        motivation: section `motivation` of the configuration.
    """
    return not _changed_policy_fields(motivation)


def _changed_policy_fields(motivation: MotivationConfig) -> list[str]:
    """Return the fields of the policy that differ from their defaults, which are the paper's."""
    changed = []
    for field in fields(motivation):
        if field.name in POLICY_FIELDS and getattr(motivation, field.name) != field.default:
            changed.append(field.name)
    return changed
