"""The optimizer and the learning rate schedule of a configuration, both made by timm."""

from typing import Any

from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import nn
from torch.optim import Optimizer

from nestnet.config.schema import Config, ScheduleConfig
from nestnet.optim.trials import check_trainable


def create_optimizer(module: nn.Module, config: Config) -> Optimizer:
    """timm's optimizer of the configuration over a module's parameters, with timm's weight-decay groups.

    Raises:
        ValueError: for an argument that the optimizer does not have, or a value that it refuses.
    """
    o = config.optimizer
    try:
        return create_optimizer_v2(
            module, opt=o.name, lr=o.lr, weight_decay=o.weight_decay, momentum=o.momentum, **o.options
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"optimizer.name = {o.name!r} with options {o.options}: {error}") from error


def check_optimizer(optimizer: Optimizer, config: Config) -> None:
    """Raises ValueError where a run with the optimizer of the configuration would go wrong, or could not be resumed."""
    try:
        check_trainable(optimizer)
    except ValueError as error:
        o = config.optimizer
        raise ValueError(f"optimizer.name = {o.name!r} with options {o.options}: {error}") from error


def create_scheduler(optimizer: Optimizer, config: ScheduleConfig, epochs: int, steps_an_epoch: int) -> Any:
    """timm's schedule of the configuration, or `None` for a constant learning rate. It sets the first learning rate."""
    schedule, _ = create_scheduler_v2(
        optimizer,
        sched=config.name,
        num_epochs=epochs - config.warmup_epochs * config.warmup_prefix,
        warmup_epochs=config.warmup_epochs,
        warmup_lr=config.warmup_lr,
        warmup_prefix=config.warmup_prefix,
        min_lr=config.min_lr,
        decay_epochs=config.decay_epochs,
        decay_milestones=config.decay_milestones,
        decay_rate=config.decay_rate,
        step_on_epochs=config.interval == "epoch",
        updates_per_epoch=steps_an_epoch,
    )
    return schedule
