"""Checks of the section `model`: the pair of networks, its options, and what it needs of the images."""

import dataclasses
import inspect

from nestnet.config.data_sets import DATA_SETS
from nestnet.config.refusal import refuse
from nestnet.config.schema import Config
from nestnet.config.schema_rules import as_img_size, as_size
from nestnet.config.schema_sections import SLICE, ModelConfig
from nestnet.config.timm_pair_checks import check_timm_pair
from nestnet.models.architecture import Architecture
from nestnet.models.registry import check_pair
from nestnet.models.timm_architecture import TimmArchitecture
from nestnet.nn.meta_device import meta_device
from nestnet.nn.mode import PerMode, parse_rates
from nestnet.nn.residual import zero_differential_branches

COMMON_FIELDS = (
    "base",
    "motivated",
    "num_classes",
    "in_chans",
    "differential_init",
    "base_weights",
    "motivated_weights",
    "select",
    "freeze",
)
"""Fields of `model` that concern every family."""

NEEDS_TWO_NETWORKS = ("depth_map", "qkv_map")
"""Options that decide where the base lies within a bigger motivated network."""


def check_networks(config: Config) -> None:
    """Check the pair of networks, their options, and what they need of the images.

    Args:
        config: configuration, each of whose values is in its own range.

    Raises:
        ValueError: If a field breaks a rule. The message names the field, its value, the rule and the remedy.
    """
    # The registry knows the networks, but not the section that names them.
    try:
        pair = check_pair(config.model.base, config.model.motivated)
    except ValueError as error:
        raise ValueError(f"model.{error}") from error
    _check_options(config.model, pair.motivated)
    _check_weights(config.model)
    _check_differential_init(config.model, pair)
    _check_head_and_stem(config)
    _check_sizes(config, pair.motivated)
    if isinstance(pair.motivated, TimmArchitecture):
        check_timm_pair(config, pair.motivated)
    if not pair.motivated.has_batch_norm:
        _check_no_batch_norm(config, pair.motivated.family)


def _check_options(model: ModelConfig, architecture: Architecture) -> None:
    # Options that only some families have are null unless they are given.
    all_options = [field.name for field in dataclasses.fields(model) if field.name not in COMMON_FIELDS]
    options = [name for name in architecture.option_names if name in all_options]
    for name in all_options:
        value = getattr(model, name)
        if value is None:
            continue
        if name not in options:
            reason = f"{architecture.family} has no such option; it has {', '.join(options) or 'none'}"
            refuse(f"model.{name}", value, reason)
        if name in NEEDS_TWO_NETWORKS and model.base == model.motivated:
            reason = f"base and motivated are both {model.motivated}, so that it has no effect; leave it out"
            refuse(f"model.{name}", value, reason)
        if name.endswith("_rate"):
            parse_rates(f"model.{name}", value)
    if model.zero_init_last is not None and model.motivated_weights is not None:
        reason = "model.motivated_weights take the place of the initial weights; leave it out"
        refuse("model.zero_init_last", model.zero_init_last, reason)


def _check_weights(model: ModelConfig) -> None:
    """Refuse initial weights that contradict one another."""
    if model.base_weights == SLICE and model.motivated_weights is None:
        refuse(
            "model.base_weights", model.base_weights, "give model.motivated_weights, of which the base gets its part"
        )
    if model.select is not None and (model.motivated_weights is None or model.base_weights not in (None, SLICE)):
        reason = "it chooses which part of model.motivated_weights the base starts from; give these, and no other base_weights"
        refuse("model.select", model.select, reason)


def _check_differential_init(model: ModelConfig, pair: PerMode[Architecture]) -> None:
    """Refuse a start at zero that is impossible for the networks, or that would have no effect."""
    value = model.differential_init
    if value == "random":
        return
    if model.base == model.motivated:
        reason = f"base and motivated are both {model.motivated}, without differential blocks; leave it out"
        refuse("model.differential_init", value, reason)
    if model.motivated_weights is not None:
        reason = "model.motivated_weights take the place of the initial weights; leave it out"
        refuse("model.differential_init", value, reason)
    if isinstance(pair.motivated, TimmArchitecture):
        reason = (
            "only networks of nestnet's own families can start equal: ResNets, and EfficientNet B0 in B1; leave it out"
        )
        refuse("model.differential_init", value, reason)
    # Only the structure of the networks decides whether they can start equal.
    names = PerMode(model.base, model.motivated)
    with meta_device():
        net = pair.motivated.nest(names, pair, num_classes=1, in_chans=3)
    try:
        zero_differential_branches(net)
    except ValueError as error:
        refuse("model.differential_init", value, f"{error}; leave it out")
    if _zeroes_all_blocks(model, pair.motivated) and model.base_weights is None:
        reason = "model.zero_init_last starts all blocks at zero, as is the default; leave it out, or set that to false"
        refuse("model.differential_init", value, reason)


def _zeroes_all_blocks(model: ModelConfig, architecture: Architecture) -> bool:
    """Return whether the family starts the blocks of the base at zero too."""
    option = inspect.signature(architecture.nest).parameters.get("zero_init_last")
    if option is None:
        return False
    return bool(option.default if model.zero_init_last is None else model.zero_init_last)


def _check_head_and_stem(config: Config) -> None:
    """Compare the numbers of classes and channels with those of the data, if these are known."""
    # Numbers that depend on a folder of images are compared when it is read.
    facts = DATA_SETS[config.data.name]
    num_classes = config.model.num_classes
    if facts.num_classes is not None and not facts.may_be_subset and num_classes not in (None, facts.num_classes):
        refuse("model.num_classes", num_classes, f"the data has {facts.num_classes} classes; leave it out")
    in_chans = config.model.in_chans
    if facts.channels is None:
        if in_chans not in (None, 1, 3):
            refuse("model.in_chans", in_chans, "it must be 1 or 3, as image files are read")
    elif in_chans not in (None, facts.channels):
        if config.data.name == "digits":
            refuse("model.in_chans", in_chans, "the digits have 1 channel; leave it out")
        reason = f"the images of {config.data.name} have {facts.channels} channels; leave it out"
        refuse("model.in_chans", in_chans, reason)


def _check_sizes(config: Config, architecture: Architecture) -> None:
    data = config.data
    family = architecture.family
    for name in ("img_size", "eval_img_size"):
        value = getattr(data, name)
        if isinstance(value, list) and len(value) != 2:
            refuse(f"data.{name}", value, "it must be one number, or a pair [height, width]")
    size = as_size(data.img_size or DATA_SETS[data.name].img_size)
    if architecture.takes_img_size and data.eval_img_size is not None and as_size(data.eval_img_size) != size:
        reason = f"a {family} is made for one size; leave it out, or give data.img_size"
        refuse("data.eval_img_size", data.eval_img_size, reason)
    # The patches of a ViT must fill an image.
    divisor = architecture.img_size_divisor
    if any(side % divisor for side in size):
        nearest = as_img_size([max(side // divisor, 1) * divisor for side in size])
        reason = f"a {family} needs a multiple of its patch, {divisor} pixels; take {nearest}"
        refuse("data.img_size", data.img_size, reason)


def _check_no_batch_norm(config: Config, family: str) -> None:
    """Refuse settings of BatchNorm for a family without BatchNorm."""
    reason = f"a {family} has no BatchNorm statistics; leave it out"
    if config.recalibration_batches != 0:
        refuse("recalibration_batches", config.recalibration_batches, reason)
    if config.sync_batch_norm:
        refuse("sync_batch_norm", config.sync_batch_norm, reason)
    if config.model.batch_norm not in (None, "private"):
        refuse("model.batch_norm", config.model.batch_norm, reason)
