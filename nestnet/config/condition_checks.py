"""Checks of the section `motivation`."""

import dataclasses
import difflib

from nestnet.conditions.description import given_settings
from nestnet.conditions.registry import CONDITIONS, create_condition
from nestnet.config.refusal import refuse
from nestnet.config.schema import Config
from nestnet.config.schema_sections import MotivationConfig


def check_condition_name(config: Config) -> None:
    """Check that the condition is known, and that `random_like` has runs or counts.

    Args:
        config: configuration, each of whose values is in its own range.

    Raises:
        ValueError: If a field breaks a rule. The message names the field, its value, the rule and the remedy.
    """
    motivation = config.motivation
    if motivation.name not in CONDITIONS:
        near = difflib.get_close_matches(motivation.name, CONDITIONS, n=1) or list(CONDITIONS)
        refuse("motivation.name", motivation.name, f"it must be a condition, such as {', '.join(near)}")
    if motivation.runs == []:
        refuse("motivation.runs", motivation.runs, "it must be a list of run directories")
    if motivation.name == "random_like":
        if motivation.runs is None and motivation.counts is None:
            refuse("motivation.runs", motivation.runs, "it must be a list of run directories")
        if motivation.counts is not None and len(motivation.counts) < config.epochs:
            rule = f"a number for each of the {config.epochs} epochs"
            remedy = "or null to count the motivated batches of motivation.runs"
            refuse("motivation.counts", motivation.counts, f"it must be {rule}, {remedy}")
    # A setting that is both a field and an option could have two values.
    fields = {field.name for field in dataclasses.fields(motivation)}
    if fields.intersection(motivation.options):
        reason = "it must be arguments of a condition of your own; the others are fields of motivation"
        refuse("motivation.options", motivation.options, reason)


def check_condition(motivation: MotivationConfig) -> None:
    """Refuse settings that the condition does not have.

    Conditions of the user, and earlier runs, are checked when the condition is created.

    Args:
        motivation: section `motivation` of a configuration, whose name is known.

    Raises:
        ValueError: If a field breaks a rule. The message names the field, its value, the rule and the remedy.
    """
    if not _is_built_in(motivation.name):
        return
    if motivation.options:
        reason = f"{motivation.name} takes no options; they are for a condition of your own"
        refuse("motivation.options", motivation.options, reason)
    settings = given_settings(motivation)
    # Its counts may come from runs, which are read when training begins.
    if motivation.name == "random_like":
        settings["counts"] = [0]
    try:
        create_condition(motivation.name, settings, k=motivation.k, batches=1, seed=0, period=1)
    except ValueError as error:
        message = str(error)
        # The condition itself names an argument, which is a field of this section.
        if not message.startswith("motivation."):
            message = f"motivation.{message}"
        raise ValueError(message) from None


def _is_built_in(name: str) -> bool:
    return CONDITIONS[name].__module__.startswith("nestnet.conditions.")


def check_policy(config: Config) -> None:
    """Refuse settings of motivated batches that do not go together.

    With `motivation.name = never` none of them has an effect, so that a nested run needs one change to become the
    base trained alone.

    Args:
        config: configuration, each of whose values is in its own range.

    Raises:
        ValueError: If a field breaks a rule. The message names the field, its value, the rule and the remedy.
    """
    motivation = config.motivation
    if motivation.trains == "motivated":
        if CONDITIONS[motivation.name].watches == "gradient_agreement":
            reason = f"it must be both for motivation.name = {motivation.name}, which compares both networks' gradients"
            refuse("motivation.trains", motivation.trains, reason)
        remedy = "it is for motivation.trains = both; leave it out, or train both"
        if motivation.watched_loss != "base":
            refuse("motivation.watched_loss", motivation.watched_loss, remedy)
        if motivation.distillation is not None:
            refuse("motivation.distillation", motivation.distillation, remedy)
        if motivation.motivated_loss_weight != 1:
            refuse("motivation.motivated_loss_weight", motivation.motivated_loss_weight, remedy)
    elif config.model.base == config.model.motivated:
        reason = f"base and motivated are both {config.model.base}, which would be trained twice; leave it out"
        refuse("motivation.trains", motivation.trains, reason)
    if motivation.temperature != 1 and not motivation.distillation:
        reason = "it is for distillation; give motivation.distillation, or leave it out"
        refuse("motivation.temperature", motivation.temperature, reason)
    if motivation.start >= motivation.until:
        reason = f"it must be below motivation.until = {motivation.until}; no batch lies between them"
        refuse("motivation.start", motivation.start, reason)
