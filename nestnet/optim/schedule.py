"""The learning rate schedule of a configuration, created by timm."""

from dataclasses import replace
from typing import Any

from timm.scheduler import create_scheduler_v2
from torch.optim import Optimizer

from nestnet.config.schema_sections import ScheduleConfig


def create_scheduler(optimizer: Optimizer, config: ScheduleConfig, epochs: int, steps_per_epoch: int) -> Any:
    """Create the learning rate schedule of a configuration with timm, and set the first learning rate.

    Args:
        optimizer: optimizer whose learning rates it sets.
        config: settings of the schedule.
        epochs: number of epochs of the run.
        steps_per_epoch: number of batches of an epoch.

    Returns:
        timm's scheduler, or `None` for a constant learning rate.
    """
    # With `warmup_prefix` timm adds the warm-up before the epochs of the schedule. A run has `epochs` in all.
    num_epochs = epochs
    if config.warmup_prefix:
        num_epochs -= config.warmup_epochs
    # Decay and warm-up are counted in epochs, also where the rate changes with every batch.
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched=config.name,
        num_epochs=num_epochs,
        warmup_epochs=config.warmup_epochs,
        warmup_lr=config.warmup_lr,
        warmup_prefix=config.warmup_prefix,
        min_lr=config.min_lr,
        decay_epochs=config.decay_epochs,
        decay_milestones=config.decay_milestones,
        decay_rate=config.decay_rate,
        step_on_epochs=config.interval == "epoch",
        updates_per_epoch=steps_per_epoch,
    )
    return scheduler


def without_warm_up(config: ScheduleConfig) -> ScheduleConfig:
    """Return the settings of a schedule without its warm-up.

    Args:
        config: settings of a schedule.

    Returns:
        The settings, in which those of the warm-up have their defaults.
    """
    defaults = ScheduleConfig()
    return replace(
        config,
        warmup_epochs=defaults.warmup_epochs,
        warmup_lr=defaults.warmup_lr,
        warmup_prefix=defaults.warmup_prefix,
    )
