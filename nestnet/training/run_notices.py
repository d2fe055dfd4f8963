"""Notices about a run whose configuration is valid but may not do what its user expects."""

import math
from typing import TYPE_CHECKING

import torch

from nestnet.config.schema import Config
from nestnet.nn.mode import Mode
from nestnet.precision import detect_bfloat16
from nestnet.runtime.log import log_notice
from nestnet.training.subnet_warnings import subnet_warnings

if TYPE_CHECKING:
    from nestnet.training.trainer import Trainer


def log_short_average(config: Config, batches_per_epoch: int) -> None:
    """Log a notice if the moving average of the weights reaches back further than the run is long.

    Args:
        config: configuration of the run.
        batches_per_epoch: number of batches of an epoch.
    """
    if config.ema_decay is None:
        return
    steps = config.total_epochs * batches_per_epoch
    # This is the mean age of the weights in an exponential average. It is rounded, because 1 - 0.999 is not exact.
    reach = round(1 / (1 - config.ema_decay), 6)
    if reach <= steps:
        return
    # The value is rounded down to the six digits that are printed, so that the printed value satisfies the rule.
    largest_decay = math.floor((1 - 1 / steps) * 1e6) / 1e6
    remedy = "leave it out"
    if largest_decay:
        remedy = f"take at most {largest_decay:g}"
    log_notice(
        f"ema_decay = {config.ema_decay:g}: the average reaches back over about {reach:,.0f} steps, and this run has "
        f"{steps:,}, so it lags behind the weights; {remedy}"
    )


def log_early_end(config: Config, *, has_val: bool) -> None:
    """Log a notice about what a run does not adapt to if it may end before its last epoch.

    Args:
        config: configuration of the run.
        has_val: whether there are validation images.
    """
    early = config.early_stopping
    fields = []
    if early.patience is not None:
        fields.append(f"early_stopping.patience = {early.patience}")
    if config.max_hours is not None:
        fields.append(f"max_hours = {config.max_hours:g}")
    if not fields:
        return
    log_notice(
        f"{' and '.join(fields)}: the learning rate schedule is that of all {config.total_epochs} epochs, also if the run ends "
        "before"
    )
    if early.patience is not None and not has_val:
        log_notice(
            f"early_stopping.patience = {early.patience}: there are no validation images, so the test images decide when the "
            "run ends, and its accuracy on them is higher than to be expected elsewhere; hold out validation images instead"
        )


def log_emulated_precision(config: Config, device: torch.device) -> None:
    """Log a notice if a run computes in bfloat16 on a CPU or a GPU that does not have it in hardware.

    Args:
        config: configuration of the run.
        device: device of the run, which may be another one than that on which the run was started.
    """
    if config.precision != "bfloat16" or device.type not in ("cpu", "cuda"):
        return
    support = detect_bfloat16(device)
    if not support.is_native:
        log_notice(
            f"precision = 'bfloat16': {support.reason}, so that a step may take many times as long as in float32; a new run "
            "with precision set to auto takes the faster one"
        )


def log_subnet_warnings(trainer: "Trainer") -> None:
    """Log warnings about the exported subnets, such as that no batch has trained one of them.

    Args:
        trainer: trainer of a finished run.
    """
    for mode in Mode:
        warnings = subnet_warnings(
            trainer.step.averaged,
            mode,
            trainer.cost.batches,
            recalibrated=trainer.config.recalibration_batches,
            run_dir=trainer.run.path,
            output=trainer.run.path / f"{mode}-recalibrated.safetensors",
            base_is_given=trainer.config.extends_given_base,
            statistics_are_given=trainer.config.model.freeze is not None,
        )
        # A run exports two files: name the one that is meant.
        for warning in warnings:
            log_notice(f"{mode}.safetensors: {warning}")
