"""Checks of the values of a configuration, each by itself and in combination.

The checks use the configuration alone, so that errors are found before any image is read or any process is
joined. Whether files and devices exist is checked later, because a run may also be evaluated where its own
do not.
"""

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any

import torch

from nestnet.config.condition_checks import check_condition, check_condition_name, check_policy
from nestnet.config.data_checks import check_data
from nestnet.config.fine_tuning_checks import check_freeze
from nestnet.config.finish_checks import check_finish
from nestnet.config.network_checks import check_networks
from nestnet.config.optimizer_checks import check_differential_lr_scale, check_optimizer, check_optimizer_name
from nestnet.config.pair_checks import check_pairs
from nestnet.config.refusal import refuse
from nestnet.config.schedule_checks import check_schedule
from nestnet.config.schema import SECTIONS, Config
from nestnet.config.stopping_checks import check_early_stopping
from nestnet.trackers.registry import check_trackers

FLOAT32 = torch.finfo(torch.float32)


def validate(config: Config) -> Config:
    """Return a configuration, if every value is in range and none would be without effect.

    Args:
        config: configuration to check.

    Returns:
        The same configuration.

    Raises:
        ValueError: If a field breaks a rule. The message names the first such field, its value, the rule and the remedy.
    """
    # Later checks rely on earlier ones: a number is used in computations only after its range was checked.
    for name, value in _leaves(dataclasses.asdict(config)):
        _check_plain(name, value)
    _check_ranges(config)
    _check_device(config.device)
    check_condition_name(config)
    check_optimizer_name(config.optimizer.name)
    check_networks(config)
    check_finish(config)
    check_freeze(config)
    check_pairs(config)
    check_data(config)
    _check_loss(config)
    _check_step(config)
    check_schedule(config)
    check_optimizer(config.optimizer)
    check_differential_lr_scale(config)
    check_condition(config.motivation)
    check_policy(config)
    check_early_stopping(config)
    check_trackers(config.trackers)
    return config


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each single value in nested dictionaries and lists, with the dotted name of its field."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _leaves(entry, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for entry in value:
            yield from _leaves(entry, name)
    else:
        yield name, value


def _check_plain(name: str, value: Any) -> None:
    """Refuse an empty text, and a number that is NaN, infinite, or too large or small to compute with."""
    if isinstance(value, float):
        if not math.isfinite(value):
            refuse(name, value, "it must be a finite number")
        fits = FLOAT32.tiny <= abs(value) <= FLOAT32.max
        if value != 0 and not fits:
            limits = f"from {FLOAT32.tiny:.2g} to {FLOAT32.max:.2g}, or 0"
            refuse(name, value, f"it must be of a size that float32 holds: {limits}")
    # Integers of torch and of many CSV readers have 64 bits.
    if isinstance(value, int) and abs(value) >= 2**63:
        refuse(name, value, f"it must be below {2**63} in size")
    if value == "":
        refuse(name, value, "it must not be empty; leave the field out, or give it a value")


def _check_ranges(config: Config) -> None:
    """Check each value by the rules that its field declares in the schema."""
    _check_fields(config, "")
    for section in SECTIONS:
        _check_fields(getattr(config, section), f"{section}.")


def _check_fields(section: Any, prefix: str) -> None:
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if value is None:
            continue
        # A list obeys the rule of its field where each of its values does.
        values = value if isinstance(value, list) else [value]
        for rule in field.metadata.get("rules", ()):
            if not all(map(rule.holds, values)):
                refuse(f"{prefix}{field.name}", value, f"it must be {rule.text}")


def _check_device(device: str) -> None:
    if re.fullmatch(r"auto|(cpu|cuda|mps|xpu)(:\d+)?", device) is None:
        refuse("device", device, "it must be auto, cpu, cuda, or cuda:N for GPU number N")


def _check_loss(config: Config) -> None:
    threshold = config.loss.target_threshold
    if threshold is None:
        return
    if config.loss.name != "bce":
        refuse("loss.target_threshold", threshold, "it must be null: it is for loss.name = bce")
    if config.data.mixup == 0 and config.data.cutmix == 0:
        reason = "it is for mixed images; give data.mixup or data.cutmix, or leave it out"
        refuse("loss.target_threshold", threshold, reason)


def _check_step(config: Config) -> None:
    """Check how a batch is divided into parts, and on which device its step is captured."""
    if config.data.batch_size == "auto":
        _check_auto_batch_size(config)
    else:
        _check_parts(config)
    if config.grad_checkpointing:
        _check_checkpointing(config)
    may_be_cuda = config.device == "auto" or config.device.startswith("cuda")
    if config.cuda_graphs and not may_be_cuda:
        reason = f"it is for CUDA, and device = {config.device!r}; leave one of them out"
        refuse("cuda_graphs", config.cuda_graphs, reason)


def _check_auto_batch_size(config: Config) -> None:
    if config.cuda_graphs:
        reason = (
            "it is found by running out of memory, after which nothing can be captured as a CUDA graph; leave cuda_graphs "
            "out, or give a number"
        )
        refuse("data.batch_size", config.data.batch_size, reason)


def _check_parts(config: Config) -> None:
    """Check the parts that a batch is divided into."""
    # Each part of a batch has as many images, and BatchNorm computes a variance over them.
    batch_size = config.data.images_per_batch
    if batch_size % config.accumulate != 0:
        refuse("accumulate", config.accumulate, f"it must be a divisor of data.batch_size = {batch_size}")
    if batch_size // config.accumulate < 2:
        refuse(
            "accumulate",
            config.accumulate,
            f"it must be at most half of data.batch_size = {batch_size}, because BatchNorm needs more than one image per part",
        )


def _check_checkpointing(config: Config) -> None:
    """Refuse settings with which activations cannot be computed again, or none are kept."""
    conflicts = [
        (config.compile, "torch.compile decides itself what to compute again; leave compile out"),
        (config.cuda_graphs, "a CUDA graph cannot restore random numbers within a step; leave cuda_graphs out"),
        (config.model.freeze is not None, "no activations of a frozen backbone are kept; leave it out"),
    ]
    for is_set, reason in conflicts:
        if is_set:
            refuse("grad_checkpointing", config.grad_checkpointing, reason)
