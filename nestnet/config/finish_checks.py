"""Checks of the epochs that extend a finished base: `finish_epochs`, `finish_lr`, and `epochs` = 0."""

import dataclasses

from nestnet.config.refusal import refuse
from nestnet.config.schema import Config, MotivationConfig
from nestnet.config.schema_sections import SLICE


def check_finish(config: Config) -> None:
    """Check the epochs in which the base stands still.

    Args:
        config: configuration, each of whose values is in its own range, with known networks.

    Raises:
        ValueError: If a field breaks a rule. The message names the field, its value, the rule and the remedy.
    """
    finish_epochs = config.finish_epochs
    if finish_epochs == 0:
        if config.epochs == 0:
            reason = "it must be at least 1, or 0 with finish_epochs to extend a finished base"
            refuse("epochs", config.epochs, reason)
        if config.finish_lr is not None:
            refuse("finish_lr", config.finish_lr, "it is for finish_epochs; give them, or leave it out")
        return
    if config.model.base == config.model.motivated and config.model.batch_norm != "separate":
        reason = f"base and motivated are both {config.model.base}, so that nothing remains to train; leave it out"
        refuse("finish_epochs", finish_epochs, reason)
    if config.model.batch_norm == "shared":
        refuse(
            "finish_epochs",
            finish_epochs,
            "with model.batch_norm = 'shared' the base has the statistics of the motivated network, which these epochs "
            "train; set model.batch_norm to private",
        )
    if config.extends_given_base:
        _check_extension(config)


def _check_extension(config: Config) -> None:
    """Check a run that extends a base and trains it no further."""
    if config.model.base_weights in (None, SLICE):
        reason = "the base is not trained then; give model.base_weights, the weights of a finished base"
        refuse("epochs", config.epochs, reason)
    for field in dataclasses.fields(MotivationConfig):
        value = getattr(config.motivation, field.name)
        if value != getattr(MotivationConfig(), field.name):
            reason = "with epochs = 0 no condition chooses the network that a batch trains; leave it out"
            refuse(f"motivation.{field.name}", value, reason)
