"""What the values of a configuration must be, each by itself and beside the others.

All of it follows from the configuration alone, so that it is known before any image is read or any process is met. Whether
files and devices are there is found later: a run is also evaluated where its own are not.
"""

import dataclasses
import difflib
import inspect
import math
import re
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from timm.optim import create_optimizer_v2, get_optimizer_class, get_optimizer_info, list_optimizers
from torch import nn

from nestnet.conditions.base import JOINT
from nestnet.conditions.registry import CONDITIONS, create_condition
from nestnet.config.schema import IMG_SIZES, Config, ModelConfig, MotivationConfig, OptimizerConfig, ScheduleConfig
from nestnet.models.registry import check_pair, options_of, takes_img_size
from nestnet.models.vit import PATCH
from nestnet.nn.mode import per_mode
from nestnet.optim.state import is_scalar
from nestnet.text.messages import first_line

AUTO_AUGMENT_RULE = "cifar10, imagenet, or timm's RandAugment by its magnitude m (0 to 10) such as rand-m9-mstd0.5-inc1"
DOWNLOADED = ("cifar10", "cifar100", "flowers102", "oxford_pets")
IMAGE_FILES = ("folder", "imagenet", "flowers102", "oxford_pets")
CLASSES = {"digits": 10, "cifar10": 10, "cifar100": 100, "flowers102": 102, "oxford_pets": 37}

OPTIONS = [
    field.name
    for field in dataclasses.fields(ModelConfig)
    if field.name not in ("base", "motivated", "num_classes", "in_chans", "base_weights", "motivated_weights")
]
"""Of `model`, those that not every family has."""

SCHEDULE_SETTINGS = {
    "interval": ("cosine", "tanh", "step", "multistep", "poly"),
    "warmup_epochs": ("cosine", "tanh", "step", "multistep", "poly"),
    "min_lr": ("cosine", "tanh", "poly"),
    "decay_epochs": ("step",),
    "decay_milestones": ("multistep",),
    "decay_rate": ("step", "multistep", "poly"),
}
"""Which schedules have a setting."""

FLOAT32 = torch.finfo(torch.float32)

HIGHEST_LR = 1e30
"""Which a schedule may reach, so that the products that an optimizer makes of a learning rate are float32 numbers too."""

Rule = tuple[str, Any, bool, str]
"""A field, its value, whether that is fine, and what it must be; or, after a colon, what is wrong and the remedy."""


def validate(config: Config) -> Config:
    """The configuration, if every value is in range and none would be without effect.

    Raises:
        ValueError: naming the first field that is not, its value, and the rule.
    """
    # later ones may rely on earlier ones
    for rules in (_plain, _ranges, _networks, _images, _training, _schedule):
        for name, value, fine, rule in rules(config):
            if not fine:
                shown = "null" if value is None else repr(value)
                raise ValueError(f"{name} = {shown}: " + (rule[2:] if rule.startswith(": ") else f"it must be {rule}"))
    _check_optimizer(config.optimizer)
    _check_condition(config.motivation)
    return config


def _plain(c: Config) -> Iterator[Rule]:
    """No empty text, and no number that is NaN, infinite, or of a size that computing with it does not allow, anywhere."""
    for name, value in _leaves(dataclasses.asdict(c)):
        if isinstance(value, float):
            yield name, value, math.isfinite(value), "a finite number"
            fits = value == 0 or FLOAT32.tiny <= abs(value) <= FLOAT32.max
            yield name, value, fits, f"of a size that float32 holds: from {FLOAT32.tiny:.2g} to {FLOAT32.max:.2g}, or 0"
        if isinstance(value, int):
            yield name, value, abs(value) < 2**63, f"below {2**63} in size"
        if isinstance(value, str):
            yield name, value, value != "", "a text; leave the field out where there is nothing to say"


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _leaves(entry, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for entry in value:
            yield from _leaves(entry, name)
    else:
        yield name, value


def _ranges(c: Config) -> list[Rule]:
    d, o, s, m = c.data, c.optimizer, c.schedule, c.motivation
    optimizers = [str(name) for name in list_optimizers() if why_refused(str(name)) is None]
    near = difflib.get_close_matches(o.name, optimizers, n=3) or ["momentum", "adamw", "rmsprop", "lamb"]
    why_not = why_refused(o.name)
    conditions = [*CONDITIONS, JOINT]
    condition = difflib.get_close_matches(m.name, conditions, n=1)[:1] or conditions
    return [
        ("epochs", c.epochs, c.epochs >= 1, "at least 1"),
        ("seed", c.seed, 0 <= c.seed < 2**32, "from 0 to 4294967295"),
        ("device", c.device, re.fullmatch(r"auto|(cpu|cuda|mps|xpu)(:\d+)?", c.device) is not None,
         "auto, cpu, cuda, or cuda:N for GPU number N"),
        ("accumulate", c.accumulate, c.accumulate >= 1, "at least 1"),
        ("ema_decay", c.ema_decay, c.ema_decay is None or 0 < c.ema_decay < 1, "above 0 and below 1, or null for none"),
        ("recalibration_batches", c.recalibration_batches, c.recalibration_batches >= 0, "at least 0"),
        ("snapshot_steps", c.snapshot_steps, c.snapshot_steps >= 0, "at least 0"),
        ("checkpoint_steps", c.checkpoint_steps, c.checkpoint_steps >= 0, "at least 0"),
        ("checkpoint_minutes", c.checkpoint_minutes, c.checkpoint_minutes >= 0, "at least 0"),
        ("motivation.name", m.name, m.name in conditions, f"a condition, such as {', '.join(condition)}"),
        ("motivation.k", m.k, m.k >= 1, "at least 1, the falling losses that motivate"),
        ("motivation.k", m.k, m.k <= 20, "at most 20, where one batch in 51090942171709440000 is motivated"),
        ("motivation.decay", m.decay, m.decay is None or 0 <= m.decay < 1, "from 0 to below 1"),
        ("motivation.min_drop", m.min_drop, m.min_drop is None or 0 <= m.min_drop < 1, "from 0 to below 1"),
        ("motivation.period", m.period, m.period is None or m.period >= 1, "at least 1"),
        ("motivation.runs", m.runs, m.runs is None or len(m.runs) > 0, "a list of run directories"),
        ("motivation.runs", m.runs, m.name != "random_like" or m.runs is not None or m.counts is not None,
         "a list of run directories"),
        ("motivation.counts", m.counts, m.counts is None or min(m.counts, default=0) >= 0, "numbers of at least 0"),
        ("motivation.counts", m.counts, m.counts is None or m.name != "random_like" or len(m.counts) >= c.epochs,
         f"a number for each of the {c.epochs} epochs, or null to count the motivated batches of motivation.runs"),
        ("motivation.options", m.options, not set(m.options) & {f.name for f in dataclasses.fields(m)},
         "arguments of a condition of your own; the others are fields of motivation"),
        ("motivation.distillation", m.distillation, 0 <= (m.distillation or 0) <= 1, "from 0 to 1"),
        ("data.batch_size", d.batch_size, d.batch_size >= 2, "at least 2, BatchNorm needs more than one image"),
        ("data.eval_batch_size", d.eval_batch_size, d.eval_batch_size >= 1, "at least 1"),
        ("data.img_size", d.img_size, d.img_size is None or d.img_size >= 1, "at least 1 pixel"),
        ("data.eval_img_size", d.eval_img_size, d.eval_img_size is None or d.eval_img_size >= 1, "at least 1 pixel"),
        ("data.crop_pct", d.crop_pct, d.crop_pct is None or 0 < d.crop_pct <= 1, "above 0, at most 1"),
        ("data.crop_pct", d.crop_pct, d.crop_pct is None or d.crop_pct >= 0.01, "at least 0.01, images are enlarged by it"),
        ("data.auto_augment", d.auto_augment, _is_policy(d.auto_augment), AUTO_AUGMENT_RULE),
        ("data.random_erasing", d.random_erasing, 0 <= d.random_erasing <= 1, "from 0 to 1"),
        ("data.cutout", d.cutout, d.cutout >= 0, "at least 0 pixels"),
        ("data.mixup", d.mixup, d.mixup >= 0, "at least 0"),
        ("data.cutmix", d.cutmix, d.cutmix >= 0, "at least 0"),
        ("data.mixup_prob", d.mixup_prob, 0 <= d.mixup_prob <= 1, "from 0 to 1"),
        ("data.repeats", d.repeats, d.repeats >= 1, "at least 1"),
        ("data.workers", d.workers, d.workers >= 0, "at least 0"),
        ("data.mean", d.mean, d.mean is None or all(0 <= value <= 1 for value in d.mean),
         "from 0 to 1 for each channel, as the values of the images are; divide one of bytes by 255"),
        ("data.std", d.std, d.std is None or all(value > 0 for value in d.std), "above 0 for each channel"),
        ("data.std", d.std, d.std is None or all(value <= 1 for value in d.std),
         "at most 1 for each channel, the values of the images are from 0 to 1; divide one of bytes by 255"),
        ("loss.label_smoothing", c.loss.label_smoothing, 0 <= c.loss.label_smoothing < 1, "from 0 to below 1"),
        ("loss.target_threshold", c.loss.target_threshold, 0 <= (c.loss.target_threshold or 0) < 1, "from 0 to below 1"),
        ("optimizer.name", o.name, why_not is None, f": {why_not}; take another one, such as {near[0]}"),
        ("optimizer.name", o.name, o.name in optimizers, f"an optimizer of timm's, such as {', '.join(near)}"),
        ("optimizer.lr", o.lr, o.lr > 0, "above 0"),
        ("optimizer.lr", o.lr, o.lr <= HIGHEST_LR, f"at most {HIGHEST_LR:g}, and usual are 1e-5 to 10"),
        ("optimizer.weight_decay", o.weight_decay, o.weight_decay >= 0, "at least 0"),
        ("optimizer.weight_decay", o.weight_decay, o.weight_decay <= 1e6, "at most 1e+06, and usual are 0 to 0.3"),
        ("optimizer.momentum", o.momentum, 0 <= o.momentum < 1, "from 0 to below 1"),
        ("optimizer.clip_grad", o.clip_grad, o.clip_grad is None or o.clip_grad > 0, "above 0, or null for no clipping"),
        ("schedule.warmup_epochs", s.warmup_epochs, 0 <= s.warmup_epochs < c.epochs, f"from 0 to below epochs = {c.epochs}"),
        ("schedule.warmup_lr", s.warmup_lr, s.warmup_lr >= 0, "at least 0"),
        ("schedule.min_lr", s.min_lr, s.min_lr >= 0, "at least 0"),
        ("schedule.decay_epochs", s.decay_epochs, s.decay_epochs > 0, "above 0"),
        ("schedule.decay_rate", s.decay_rate, s.decay_rate > 0, "above 0"),
    ]  # fmt: skip


def _networks(c: Config) -> Iterator[Rule]:
    """The pair, and options that its family has."""
    m, d = c.model, c.data
    try:
        pair = check_pair(m.base, m.motivated)
    except ValueError as error:
        raise ValueError(f"model.{error}") from error
    family = pair.motivated.family
    options = [name for name in options_of(pair.motivated) if name in OPTIONS]
    for name in OPTIONS:
        value = getattr(m, name)
        has = f": {family} has no such option; it has {', '.join(options)}"
        yield f"model.{name}", value, value is None or name in options, has
        if name in ("depth_map", "qkv_map"):
            wrong = f": base and motivated are both {m.motivated}, which it does not change; leave it out"
            yield f"model.{name}", value, value is None or m.base != m.motivated, wrong
        if value is not None and name.endswith("_rate"):
            try:
                per_mode(f"model.{name}", value)
            except ValueError as error:
                yield f"model.{name}", value, False, ": " + str(error).partition(": ")[2]
    yield ("model.zero_init_last", m.zero_init_last, m.zero_init_last is None or m.motivated_weights is None,
           ": model.motivated_weights take the place of the initial weights; leave it out")  # fmt: skip
    classes = CLASSES.get(d.name)
    yield "model.num_classes", m.num_classes, m.num_classes is None or m.num_classes >= 1, "at least 1"
    yield ("model.num_classes", m.num_classes, classes is None or m.num_classes in (None, classes),
           f": the data has {classes} classes; leave it out")  # fmt: skip
    if d.name == "digits":
        yield "model.in_chans", m.in_chans, m.in_chans in (None, 1), ": the digits have 1 channel; leave it out"
    elif d.name in DOWNLOADED:
        wrong = f": the images of {d.name} have 3 channels; leave it out"
        yield "model.in_chans", m.in_chans, m.in_chans in (None, 3), wrong
    else:
        yield "model.in_chans", m.in_chans, m.in_chans in (None, 1, 3), "1 or 3, as image files are read"
    size = d.img_size or IMG_SIZES.get(d.name, 224)
    if takes_img_size(m.motivated):
        yield ("data.eval_img_size", d.eval_img_size, d.eval_img_size in (None, size),
               f": a {family} is made for one size; leave it out, or give data.img_size")  # fmt: skip
    if family == "ViT":
        yield ("data.img_size", d.img_size, size % PATCH == 0,
               f": a ViT needs a multiple of its patch, {PATCH} pixels; take {max(size // PATCH, 1) * PATCH}")  # fmt: skip
        wrong = ": a ViT has no BatchNorm statistics; leave it out"
        yield "recalibration_batches", c.recalibration_batches, c.recalibration_batches == 0, wrong
        yield "sync_batch_norm", c.sync_batch_norm, not c.sync_batch_norm, wrong
        yield "model.batch_norm", m.batch_norm, m.batch_norm in (None, "private"), wrong


def _images(c: Config) -> list[Rule]:
    """What goes together in `data`."""
    d, mixed = c.data, c.data.mixup > 0 or c.data.cutmix > 0
    channels, size = 1 if d.name == "digits" else c.model.in_chans or 3, d.img_size or IMG_SIZES.get(d.name, 224)
    grey = ": it is for colour images, and these are grey; leave it out"
    return [
        ("data.root", d.root, d.name != "folder" or d.root is not None, "a folder of images: give --data.root FOLDER"),
        ("data.root", d.root, d.name != "digits" or d.root is None,
         ": the digits come with scikit-learn; leave it out, or say by data.name what lies there, such as --data.name folder"),
        ("data.download", d.download, not d.download or d.name in DOWNLOADED,
         f": it is for {', '.join(DOWNLOADED)}; leave it out"),
        ("data.corrupt", d.corrupt, d.corrupt == "stop" or d.name in IMAGE_FILES,
         f": {d.name} has no image files; it is for {', '.join(IMAGE_FILES)}"),
        ("data.mean", d.mean, d.mean is None or len(d.mean) == channels, f"a number for each of the {channels} channels"),
        ("data.std", d.std, d.std is None or len(d.std) == channels, f"a number for each of the {channels} channels"),
        ("data.auto_augment", d.auto_augment, d.auto_augment is None or channels == 3, grey),
        ("data.cutout", d.cutout, d.cutout <= size, f"at most the {size} pixels of an image"),
        ("data.batch_size", d.batch_size, not mixed or d.batch_size % 2 == 0, "even, Mixup and CutMix mix pairs"),
        ("data.mixup_prob", d.mixup_prob, mixed or d.mixup_prob == 1,
         ": nothing is mixed; give data.mixup or data.cutmix, or leave it out"),
        ("data.mixup_prob", d.mixup_prob, not mixed or d.mixup_prob > 0,
         "above 0, or data.mixup and data.cutmix have no effect"),
        ("data.repeats", d.repeats, d.repeats <= d.batch_size, f"at most data.batch_size = {d.batch_size}"),
    ]  # fmt: skip


def _training(c: Config) -> list[Rule]:
    """What goes together in the loss, in the optimizer, and at the top level."""
    d, o, defaults = c.data, c.optimizer, OptimizerConfig()
    return [
        ("loss.target_threshold", c.loss.target_threshold, c.loss.target_threshold is None or c.loss.name == "bce",
         "null: it is for --loss.name bce"),
        ("loss.target_threshold", c.loss.target_threshold, c.loss.target_threshold is None or d.mixup > 0 or d.cutmix > 0,
         ": it is for mixed images; give data.mixup or data.cutmix, or leave it out"),
        ("accumulate", c.accumulate, d.batch_size % c.accumulate == 0, f"a divisor of data.batch_size = {d.batch_size}"),
        ("accumulate", c.accumulate, d.batch_size // c.accumulate >= 2,
         f"at most half of data.batch_size = {d.batch_size}, BatchNorm needs more than one image in a part"),
        ("cuda_graphs", c.cuda_graphs, not c.cuda_graphs or c.device == "auto" or c.device.startswith("cuda"),
         f": it is for CUDA, and device = {c.device!r}; leave one of them out"),
        ("optimizer.momentum", o.momentum, o.momentum == defaults.momentum or get_optimizer_info(o.name).has_momentum,
         f": {o.name} has none; leave it out"),
        ("motivation.options", c.motivation.options, not c.motivation.options or not _is_own(c.motivation.name),
         f": {c.motivation.name} takes none; they are for a condition of your own"),
    ]  # fmt: skip


def _schedule(c: Config) -> Iterator[Rule]:
    s, defaults = c.schedule, ScheduleConfig()
    for name, schedules in SCHEDULE_SETTINGS.items():
        value = getattr(s, name)
        yield (f"schedule.{name}", value, value == getattr(defaults, name) or s.name in schedules,
               f": schedule.name = {s.name!r} has no such setting; leave it out, it is for {', '.join(schedules)}")  # fmt: skip
    lr, milestones = c.optimizer.lr, s.decay_milestones
    after_warmup, end = c.epochs, f"epochs = {c.epochs}"
    if s.warmup_prefix:
        after_warmup -= s.warmup_epochs
        end += f", without the {s.warmup_epochs} of warm-up"
    if s.name == "multistep":
        rising = milestones == sorted(set(milestones)) and all(0 < epoch < after_warmup for epoch in milestones)
        yield ("schedule.decay_milestones", milestones, rising and bool(milestones),
               f"rising numbers of epochs, from 1 to below {end}")  # fmt: skip
    if s.name == "step":
        # a learning rate that changes after whole epochs alone is last changed before the last one
        decays = s.decay_epochs <= after_warmup - 1 if s.interval == "epoch" else s.decay_epochs < after_warmup
        yield "schedule.decay_epochs", s.decay_epochs, decays, f"below {end}, or nothing decays"
    if s.decay_rate > 1 and s.name in ("step", "multistep"):
        times = c.epochs / s.decay_epochs if s.name == "step" else len(milestones)
        fits = math.log10(lr) + times * math.log10(s.decay_rate) <= math.log10(HIGHEST_LR)
        grows = f": above 1 the learning rate grows, in {times:g} times to more than {HIGHEST_LR:g}; lower it"
        yield "schedule.decay_rate", s.decay_rate, fits, grows
    if s.warmup_epochs:
        yield "schedule.warmup_lr", s.warmup_lr, s.warmup_lr <= lr, f"at most optimizer.lr = {lr}, where warm-up ends"
    for name in ("warmup_lr", "warmup_prefix"):
        value = getattr(s, name)
        yield (f"schedule.{name}", value, s.warmup_epochs > 0 or value == getattr(defaults, name),
               ": there is no warm-up; give schedule.warmup_epochs, or leave it out")  # fmt: skip
    yield "schedule.min_lr", s.min_lr, s.min_lr <= lr, f"at most optimizer.lr = {lr}, from where it falls"


def why_refused(name: str) -> str | None:
    """Why nestnet does not train with an optimizer that timm knows by this name; `None` of others."""
    wrapper, _, wrapped = name.partition("_")
    if wrapper == "lookahead" and wrapped:
        return (
            "Lookahead pulls weights back to a slow copy at every sixth step, and differential weights would miss those that "
            "train the base"
        )
    try:
        info = get_optimizer_info(name)
    except ValueError:
        return None
    if isinstance(info.opt_class, str):
        return f"it needs the package {info.opt_class.partition('.')[0]}, and nestnet takes what timm and PyTorch have"
    if info.second_order:
        return "it needs second derivatives of the loss, which training does not compute"
    return None


def _check_optimizer(o: OptimizerConfig) -> None:
    """One weight is enough to ask timm's optimizer what it takes."""
    start = f"optimizer.name = {o.name!r} with options {o.options}: "
    fields = {f.name for f in dataclasses.fields(o)} & set(o.options)
    if fields:
        raise ValueError(f"{start}{min(fields)} is a field of its own: give --optimizer.{min(fields)}")
    parameters = inspect.signature(get_optimizer_class(o.name, bind_defaults=False)).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        known = [name for name in parameters if name != "params" and name not in vars(o)]
        for option in o.options:
            if option not in known:
                near = difflib.get_close_matches(str(option), known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}"
                raise ValueError(f"{start}it has no argument {option}; {hint}")
    weight = nn.Parameter(torch.zeros(1, 1))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is to be said is said when it is made for the network
            optimizer = create_optimizer_v2(
                [weight], opt=o.name, lr=o.lr, weight_decay=o.weight_decay, momentum=o.momentum, **o.options
            )
            if o.step_count == "literal":
                weight.sum().backward()
                optimizer.step()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(start + first_line(error)) from error
    if o.step_count == "literal" and not any(is_scalar(value) for value in optimizer.state[weight].values()):
        raise ValueError(
            f"optimizer.step_count = 'literal': {o.name} does not count the steps of each weight; leave it out"
        )


def _check_condition(m: MotivationConfig) -> None:
    """Settings of another condition. A condition of one's own, and the earlier runs, are looked at when it is made."""
    own = ("decay", "min_drop", "period", "distillation")
    settings: dict[str, Any] = {name: getattr(m, name) for name in own if getattr(m, name) is not None}
    if m.name == JOINT:
        for name in settings.keys() - {"distillation"}:
            raise ValueError(f"motivation.{name} = {settings[name]!r}: joint has no such setting; it has distillation")
    elif _is_own(m.name):
        if m.name == "random_like":
            settings["counts"] = [0]
        create_condition(m.name, settings, k=m.k, batches=1, seed=0, period=1)


def _is_own(name: str) -> bool:
    """Whether a condition is nestnet's own."""
    return name == JOINT or getattr(CONDITIONS[name], "__module__", "").startswith("nestnet.conditions.")


def _is_policy(name: str | None) -> bool:
    """Whether this is a policy of AutoAugment's or timm's notation of RandAugment; timm itself passes over what it does
    not know."""
    pattern = r"cifar10|imagenet|rand(-(m(10|\d)|n\d+|p\d*\.?\d+|mstd\d*\.?\d+|mmax\d+|inc[01]))+"
    return name is None or re.fullmatch(pattern, name) is not None
