"""Checks of the fields with which trained weights are fine-tuned: `model.freeze`."""

from typing import Any

from nestnet.conditions.description import trained_alone
from nestnet.config.refusal import refuse
from nestnet.config.schema import Config
from nestnet.nn.mode import Mode


def check_freeze(config: Config) -> None:
    """Refuse to freeze layers that have no trained weights, and settings of layers that are frozen.

    Args:
        config: configuration, each of whose values is in its own range, with known networks.

    Raises:
        ValueError: If a field breaks a rule. The message names the field, its value, the rule and the remedy.
    """
    model = config.model
    freeze = model.freeze
    if freeze is None:
        return
    has_one_backbone = model.base == model.motivated or trained_alone(config) is Mode.BASE
    if model.motivated_weights is None and model.base_weights is None:
        refuse(
            "model.freeze", freeze, "it freezes trained weights; give model.motivated_weights and model.base_weights"
        )
    if model.motivated_weights is None and not has_one_backbone:
        reason = (
            "what the motivated network has beside the base would be frozen at random weights; give model.motivated_weights, "
            "or set motivation.name to never to train the base alone"
        )
        refuse("model.freeze", freeze, reason)

    # What the frozen layers leave without effect, or would change in them.
    only_head = "model.freeze = 'backbone' trains the head alone; leave one of them out"
    keeps_statistics = "model.freeze = 'backbone' keeps the BatchNorm statistics as they are; leave one of them out"
    settings: list[tuple[str, Any, Any, str]] = [
        ("finish_epochs", config.finish_epochs, 0, only_head),
        ("optimizer.layer_decay", config.optimizer.layer_decay, None, only_head),
        ("optimizer.differential_lr_scale", config.optimizer.differential_lr_scale, 1, only_head),
        ("recalibration_batches", config.recalibration_batches, 0, keeps_statistics),
        ("sync_batch_norm", config.sync_batch_norm, False, keeps_statistics),
    ]
    for name, value, neutral, reason in settings:
        if value != neutral:
            refuse(name, value, reason)
