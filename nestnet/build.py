"""From a configuration to what it names: condition, optimizer, schedule, initial weights, device."""

import math
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn
from torch.optim import Optimizer

from nestnet.config import Config, ScheduleConfig
from nestnet.data import ImageData, mixed
from nestnet.messages import first_line
from nestnet.mode import Mode
from nestnet.models.registry import ARCHITECTURES, takes_img_size
from nestnet.motivation import (
    JOINT,
    Always,
    Condition,
    can_motivate,
    make_condition,
    motivated_counts,
    watched_by,
)
from nestnet.nested import NestedModel
from nestnet.notices import notice
from nestnet.optimizer_trials import check_trainable
from nestnet.pretrained import load_subnet
from nestnet.processes import Processes
from nestnet.run_directory import read_table
from nestnet.sources import KNOWN
from nestnet.torchrun import local_launch


def motivation(config: Config, batches: int) -> Condition:
    """The condition of a configuration, for epochs of so many batches; in joint training it has no effect.

    Raises:
        ValueError: for a setting that the condition does not have, and for earlier runs that cannot be read or are shorter.
    """
    m = config.motivation
    settings: dict[str, Any] = {**m.options}
    for name in ("decay", "min_drop", "period", "distillation"):
        if getattr(m, name) is not None:
            settings[name] = getattr(m, name)
    if m.name == "random_like":
        settings["counts"] = earlier_counts(config)
    else:
        for name in ("runs", "counts"):
            if getattr(m, name) is not None:
                settings[name] = getattr(m, name)
    if m.name == JOINT:
        settings.pop("distillation", None)
        if settings:
            name, value = next(iter(settings.items()))
            raise ValueError(f"motivation.{name} = {value!r}: joint has no such setting; it has distillation")
        return Always()
    return make_condition(m.name, settings, k=m.k, batches=batches, seed=config.seed, period=math.factorial(m.k + 1))


def earlier_counts(config: Config) -> list[int]:
    """How many motivated batches each epoch of a `random_like` run is to have: as it records them, or those of earlier runs.

    Raises:
        ValueError: as `average_counts`.
    """
    if config.motivation.counts is not None:
        return config.motivation.counts
    return average_counts(config.motivation.runs or [], config.epochs)


def planned_motivation(config: Config, images: int, given: Condition | None = None) -> tuple[Condition, int]:
    """Return the condition of a run on so many training images, and the number of batches of its epochs.

    Args:
        given: condition in place of the one that the configuration names.

    Raises:
        ValueError: as `motivation`, and if no batch of an epoch can be motivated although the condition is to motivate some.
    """
    condition, batches = _plan(config, images, given)
    # fewer images than a batch takes are refused where the batches are made
    if batches and not can_motivate(condition, batches):
        name = f"motivation.name = {config.motivation.name!r}" if given is None else "condition"
        remedies = _ways_to_motivate(config, images, given)
        raise ValueError(
            f"{name}: {condition!r} can motivate none of the {batches} batches of an epoch, with which it starts anew; "
            + (" or ".join(remedies) or "take more training images, or train with --motivation.name joint")
        )
    return condition, batches


def _plan(config: Config, images: int, given: Condition | None) -> tuple[Condition, int]:
    """As `planned_motivation`, whether or not any batch can be motivated."""
    size = config.data.batch_size
    batches = images // size
    condition = given or motivation(config, max(batches, 1))
    if watched_by(condition) == "held_out_loss":
        # the batch that is held out is not trained, and a condition may go by the number of those that are
        batches = max(images - size, 0) // size
        condition = given or motivation(config, max(batches, 1))
    return condition, batches


def _ways_to_motivate(config: Config, images: int, given: Condition | None) -> list[str]:
    """Return changes of one field each, with any of which a batch can be motivated."""
    data, motivation = config.data, config.motivation
    # each part of a batch has at least two images, and mixing takes pairs
    unit = config.accumulate * (2 if data.mixup or data.cutmix else 1)
    least = max(2 * config.accumulate, data.repeats)
    ways: list[str] = []
    for size in range(data.batch_size - 1, least - 1, -1):
        changed = replace(config, data=replace(data, batch_size=size))
        if size % unit == 0 and _motivates(changed, images, given):
            ways.append(f"lower data.batch_size = {data.batch_size} to {size}")
            break
    if given is not None:
        return ways
    for k in range(motivation.k - 1, 0, -1):
        if _motivates(replace(config, motivation=replace(motivation, k=k)), images, given):
            ways.append(f"lower motivation.k = {motivation.k} to {k}")
            break
    for period in range((motivation.period or 1) - 1, 0, -1):
        if _motivates(replace(config, motivation=replace(motivation, period=period)), images, given):
            ways.append(f"lower motivation.period = {motivation.period} to {period}")
            break
    return ways


def _motivates(config: Config, images: int, given: Condition | None) -> bool:
    """Return whether a batch can be motivated by a configuration."""
    try:
        condition, batches = _plan(config, images, given)
    except ValueError:
        return False
    return batches > 0 and can_motivate(condition, batches)


def average_counts(runs: list[str], epochs: int) -> list[int]:
    """How many motivated batches earlier runs had in each of the first `epochs` epochs, on average.

    Raises:
        ValueError: if a folder is no run directory or its tables are damaged, or if the run was joint or did not finish so
            many epochs.
    """
    counts = [_motivated_counts(run, epochs) for run in runs]
    return [round(sum(epoch) / len(epoch)) for epoch in zip(*counts, strict=True)]


def _motivated_counts(run: str, epochs: int) -> list[int]:
    """The motivated batches of each of the first `epochs` epochs of a run."""
    batches = [(int(row["epoch"]), row["mode"]) for row in read_table(Path(run) / "steps.csv")]
    finished = len(read_table(Path(run) / "metrics.csv"))
    if any(mode == JOINT for _, mode in batches):
        raise ValueError(
            f"motivation.runs: {run} trained both networks at every batch (joint), so that none was motivated; name runs of "
            "another condition"
        )
    if finished < epochs:
        raise ValueError(
            f"motivation.runs: {run} has finished {finished} epochs, and this run is to have {epochs}; name a run of as many, "
            "or give fewer --epochs"
        )
    numbers = [epoch for epoch, _ in batches]
    if numbers != sorted(numbers) or numbers[-1] < finished:
        raise ValueError(
            f"motivation.runs: {run} is damaged: its steps.csv does not have the batches of epochs 1 to {finished} in order"
        )
    return motivated_counts(batches)[:epochs]


def held_out_batch(images: ImageData, config: Config) -> tuple[ImageData, tuple[Tensor, Tensor]]:
    """The data without a batch of training images, drawn by the seed, and that batch as test images are treated."""
    generator, size = torch.Generator().manual_seed(mixed(config.seed)), config.data.batch_size
    order = torch.randperm(len(images.train), generator=generator).tolist()
    rest = images.split(sorted(order[size:]), order[:size])
    drawn = [rest.test[index] for index in range(len(order[:size]))]
    batch = torch.stack([image for image, _ in drawn]), torch.tensor([label for _, label in drawn])
    return replace(rest, test=images.test), batch


def started(net: NestedModel, config: Config, class_names: Sequence[str]) -> NestedModel:
    """The network with the trained weights that the configuration names: the motivated's first, the base's over them.

    Where a head is left out, or taken without knowing its classes, a notice says so.

    Args:
        class_names: names of the classes of the data, in order.

    Raises:
        ValueError: if a file cannot be read or is of another network.
    """
    known = KNOWN.get(config.data.name)
    usual_classes = config.data.name == "digits" or (known is not None and known[0] == len(class_names))
    for mode, source in ((Mode.MOTIVATED, config.model.motivated_weights), (Mode.BASE, config.model.base_weights)):
        if source is None:
            continue
        try:
            remark = load_subnet(net, mode, source, class_names=class_names, usual_classes=usual_classes)
        except ValueError as error:
            raise ValueError(f"model.{mode}_weights: {error}") from error
        if remark is not None:
            notice(f"model.{mode}_weights: {source}: {remark}")
    return net


def make_optimizer(module: nn.Module, config: Config) -> Optimizer:
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


def make_schedule(optimizer: Optimizer, config: ScheduleConfig, epochs: int, steps_an_epoch: int) -> Any:
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


def resolved(config: Config, images: ImageData) -> Config:
    """The configuration with what the data decides filled in.

    Raises:
        ValueError: if `model.num_classes` is not what the data has, or a network made for one size is to be tested at another.
    """
    classes = len(images.class_names)
    if config.model.num_classes not in (None, classes):
        raise ValueError(
            f"model.num_classes = {config.model.num_classes}: the data has {classes} classes; leave it out"
        )
    name = config.model.motivated
    if takes_img_size(name) and images.eval_size != images.input_size[1:]:
        raise ValueError(
            f"data.eval_img_size = {config.data.eval_img_size}: a {ARCHITECTURES[name].family} is made for one size; leave it "
            "out, or give data.img_size"
        )
    model = replace(config.model, num_classes=classes, in_chans=images.input_size[0])
    data = replace(config.data, img_size=images.input_size[1], mean=images.mean, std=images.std, augment=images.augment)
    motivation = config.motivation
    if motivation.name == "random_like":
        motivation = replace(motivation, counts=earlier_counts(config))
    return replace(config, model=model, data=data, motivation=motivation)


def check_share(config: Config, processes: Processes) -> None:
    """Raises ValueError where a batch cannot be shared equally, in as many parts as it is to be trained in."""
    batch, parts = config.data.batch_size, processes.size * config.accumulate
    if batch % parts:
        divided = f"{processes.size} processes" + (
            f" with accumulate = {config.accumulate}" if config.accumulate > 1 else ""
        )
        raise ValueError(f"data.batch_size = {batch}: it must be a multiple of {parts}, for equal parts in {divided}")
    if (config.data.mixup or config.data.cutmix) and batch // processes.size % 2:
        raise ValueError(
            f"data.batch_size = {batch}: each of {processes.size} processes must have an even part, to mix pairs"
        )
    if batch == parts:
        raise ValueError(f"data.batch_size = {batch}: BatchNorm needs more than one image in each of {parts} parts")


def check_compiler(config: Config, device: torch.device) -> None:
    """Raises ValueError where a step is to be compiled, and what that takes is not there."""
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    compiled = {"compile = True": config.compile}
    compiled[f"optimizer.name = {config.optimizer.name!r}"] = config.optimizer.name.startswith("kron")
    for setting, is_compiled in compiled.items():
        if is_compiled and device.type == "cpu" and shutil.which(compiler) is None:
            raise ValueError(f"{setting}: on a CPU it takes a C++ compiler, and there is no {compiler}; install one")


def set_algorithms(device: torch.device, *, deterministic: bool) -> None:
    """On CUDA: search for the fastest kernels, which pays because all batches have one shape, or repeat the same bits.

    These are settings of the whole process: what an earlier run in it has set is set anew.
    """
    if device.type == "cuda":
        if deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = not deterministic
        torch.use_deterministic_algorithms(deterministic)


def torch_device(name: str) -> torch.device:
    """The device of a name, with `auto` for CUDA where there is one; of several processes each has its own GPU.

    Raises:
        ValueError: for a name that torch does not know, or a device that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    rank, processes = local_launch()
    if name == "cuda" and processes > 1:
        if processes > torch.cuda.device_count():
            raise ValueError(
                f"device = 'cuda': {processes} processes on {torch.cuda.device_count()} GPUs, and each needs one of its own; "
                "lower torchrun's --nproc-per-node"
            )
        name = f"cuda:{rank}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error)
        raise ValueError(f"device = {name!r}: {reason}; `auto` takes what there is") from error
    return device
