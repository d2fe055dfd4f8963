"""Checks of the section `schedule`."""

import math

from nestnet.config.refusal import refuse
from nestnet.config.schema import Config
from nestnet.config.schema_sections import HIGHEST_LR, ScheduleConfig

SCHEDULES_BY_SETTING = {
    "interval": ("cosine", "tanh", "step", "multistep", "poly"),
    "warmup_epochs": ("cosine", "tanh", "step", "multistep", "poly"),
    "min_lr": ("cosine", "tanh", "poly"),
    "further_epochs": ("cosine", "tanh", "poly"),
    "decay_epochs": ("step",),
    "decay_milestones": ("multistep",),
    "decay_rate": ("step", "multistep", "poly"),
}
"""Names of the schedules that have a setting, by the name of the setting."""


def check_schedule(config: Config) -> None:
    """Check the schedule, also against the number of epochs and the learning rate.

    Args:
        config: configuration, each of whose values is in its own range.

    Raises:
        ValueError: If a field breaks a rule. The message names the field, its value, the rule and the remedy.
    """
    schedule = config.schedule
    _check_settings(schedule)
    if config.epochs > 0:
        if not 0 <= schedule.warmup_epochs < config.epochs:
            reason = f"it must be from 0 to below epochs = {config.epochs}"
            refuse("schedule.warmup_epochs", schedule.warmup_epochs, reason)
        _check_decays(schedule, "epochs", config.epochs)
        _check_warm_up(schedule, config.optimizer.lr)
        _check_rates(config, "optimizer.lr", config.optimizer.lr, config.epochs)
    # The epochs that extend the base have the schedule without its warm-up.
    if config.finish_epochs > 0:
        _check_rates(config, "finish_lr", config.first_finish_lr, config.finish_epochs)
    if config.extends_given_base:
        if schedule.warmup_epochs != 0:
            reason = "finish_epochs have no warm-up, and epochs = 0; leave it out"
            refuse("schedule.warmup_epochs", schedule.warmup_epochs, reason)
        _check_decays(schedule, "finish_epochs", config.finish_epochs)
        _check_warm_up(schedule, config.optimizer.lr)


def _check_settings(schedule: ScheduleConfig) -> None:
    """Refuse a setting that the schedule does not have."""
    defaults = ScheduleConfig()
    for name, schedules in SCHEDULES_BY_SETTING.items():
        value = getattr(schedule, name)
        if value != getattr(defaults, name) and schedule.name not in schedules:
            has_none = f"schedule.name = {schedule.name!r} has no such setting"
            refuse(f"schedule.{name}", value, f"{has_none}; leave it out, it is for {', '.join(schedules)}")


def _check_decays(schedule: ScheduleConfig, field: str, epochs: int) -> None:
    """Refuse decays that do not come before training ends.

    Args:
        schedule: section `schedule` of a configuration.
        field: name of the field that holds the number of epochs.
        epochs: number of epochs.
    """
    end = f"{field} = {epochs}"
    if schedule.warmup_prefix:
        # The schedule starts after warm-up, and counts its own epochs.
        epochs -= schedule.warmup_epochs
        end += f", without the {schedule.warmup_epochs} of warm-up"
    if schedule.name == "multistep":
        milestones = schedule.decay_milestones
        is_rising = milestones == sorted(set(milestones))
        is_within = all(0 < epoch < epochs for epoch in milestones)
        if not milestones or not is_rising or not is_within:
            reason = f"it must be rising numbers of epochs, from 1 to below {end}"
            refuse("schedule.decay_milestones", milestones, reason)
    if schedule.name == "step":
        decays = schedule.decay_epochs < epochs
        if schedule.interval == "epoch":
            # A learning rate that changes after whole epochs alone is last changed before the last one.
            decays = schedule.decay_epochs <= epochs - 1
        if not decays:
            refuse("schedule.decay_epochs", schedule.decay_epochs, f"it must be below {end}, or nothing decays")


def _check_rates(config: Config, field: str, lr: float, epochs: int) -> None:
    """Refuse learning rates that would rise to the end where they should fall, or grow too high.

    Args:
        config: configuration of a run.
        field: name of the field that holds the first learning rate.
        lr: first learning rate.
        epochs: number of epochs.
    """
    schedule = config.schedule
    if schedule.min_lr > lr:
        reason = f"it must be at most {field} = {lr}, from where it falls"
        refuse("schedule.min_lr", schedule.min_lr, reason)
    # A factor above 1 is multiplied again and again.
    if schedule.decay_rate <= 1 or schedule.name not in ("step", "multistep"):
        return
    times: float = len(schedule.decay_milestones)
    if schedule.name == "step":
        times = epochs / schedule.decay_epochs
    # In logarithms, because the product itself may be too high for a float.
    highest = math.log10(lr) + times * math.log10(schedule.decay_rate)
    highest += math.log10(max(1.0, config.optimizer.differential_lr_scale))
    if highest > math.log10(HIGHEST_LR):
        grows = f"above 1 the learning rate grows, in {times:g} times to more than {HIGHEST_LR:g}"
        refuse("schedule.decay_rate", schedule.decay_rate, f"{grows}; lower it")


def _check_warm_up(schedule: ScheduleConfig, lr: float) -> None:
    if schedule.warmup_epochs > 0:
        if schedule.warmup_lr > lr:
            reason = f"it must be at most optimizer.lr = {lr}, where warm-up ends"
            refuse("schedule.warmup_lr", schedule.warmup_lr, reason)
        return
    defaults = ScheduleConfig()
    for name in ("warmup_lr", "warmup_prefix"):
        value = getattr(schedule, name)
        if value != getattr(defaults, name):
            reason = "there is no warm-up; give schedule.warmup_epochs, or leave it out"
            refuse(f"schedule.{name}", value, reason)
