"""From a configuration to what it names: condition, optimizer, schedule, initial weights, device."""

import itertools
import math
import os
import shutil
import sys
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
from nestnet.mode import Mode
from nestnet.motivation import JOINT, Always, Condition, make_condition, motivated_counts
from nestnet.nested import NestedModel
from nestnet.pretrained import load_weights
from nestnet.processes import Processes
from nestnet.run_directory import read_table
from nestnet.torchrun import local_launch


def motivation(config: Config, batches: int) -> Condition:
    """The condition of a configuration, for epochs of so many batches; of joint training one that has no say.

    Raises:
        ValueError: for a setting that the condition does not have, and for earlier runs that cannot be read or are shorter.
    """
    m = config.motivation
    settings: dict[str, Any] = {**m.options}
    for name in ("decay", "min_drop", "period", "distillation"):
        if getattr(m, name) is not None:
            settings[name] = getattr(m, name)
    if m.runs is not None:
        settings |= {"counts": average_counts(m.runs, config.epochs)} if m.name == "random_like" else {"runs": m.runs}
    if m.name == JOINT:
        settings.pop("distillation", None)
        if settings:
            name, value = next(iter(settings.items()))
            raise ValueError(f"motivation.{name} = {value!r}: joint has no such setting; it has distillation")
        return Always()
    return make_condition(m.name, settings, k=m.k, batches=batches, seed=config.seed, period=math.factorial(m.k + 1))


def average_counts(runs: list[str], epochs: int) -> list[int]:
    """How many motivated batches earlier runs had in each of the first `epochs` epochs, on average.

    Raises:
        ValueError: if a folder is no run directory, or its run is shorter.
    """
    counts = []
    for run in runs:
        rows = read_table(Path(run) / "steps.csv")
        counts.append(motivated_counts([(int(row["epoch"]), row["mode"]) for row in rows]))
        if len(counts[-1]) < epochs:
            raise ValueError(f"motivation.runs: {run} has {len(counts[-1])} epochs, and this run is to have {epochs}")
    return [round(sum(each) / len(each)) for each in itertools.islice(zip(*counts, strict=False), epochs)]


def held_out_batch(images: ImageData, config: Config) -> tuple[ImageData, tuple[Tensor, Tensor]]:
    """The data without a batch of training images, drawn by the seed, and that batch as test images are treated."""
    generator, size = torch.Generator().manual_seed(mixed(config.seed)), config.data.batch_size
    order = torch.randperm(len(images.train), generator=generator).tolist()
    rest = images.split(sorted(order[size:]), order[:size])
    drawn = [rest.test[index] for index in range(len(order[:size]))]
    batch = torch.stack([image for image, _ in drawn]), torch.tensor([label for _, label in drawn])
    return replace(rest, test=images.test), batch


def started(net: NestedModel, config: Config) -> NestedModel:
    """The network with the trained weights that the configuration names: the motivated's first, the base's over them.

    Raises:
        ValueError: if a file cannot be read or is of another network.
    """
    for mode, source in ((Mode.MOTIVATED, config.model.motivated_weights), (Mode.BASE, config.model.base_weights)):
        if source is not None:
            try:
                load_weights(net, mode, source)
            except ValueError as error:
                raise ValueError(f"model.{mode}_weights: {error}") from error
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
        ValueError: if `model.num_classes` is not what the data has, or a ViT is to be tested at another size.
    """
    classes = len(images.class_names)
    if config.model.num_classes not in (None, classes):
        raise ValueError(
            f"model.num_classes = {config.model.num_classes}: the data has {classes} classes; leave it out"
        )
    if config.model.motivated.startswith("vit") and images.eval_size != images.input_size[1:]:
        raise ValueError(
            f"data.eval_img_size = {config.data.eval_img_size}: a ViT is made for one size; leave it out, or give data.img_size"
        )
    model = replace(config.model, num_classes=classes, in_chans=images.input_size[0])
    data = replace(config.data, img_size=images.input_size[1], mean=images.mean, std=images.std, augment=images.augment)
    return replace(config, model=model, data=data)


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
    if config.compile and device.type == "cpu" and shutil.which(compiler) is None:
        raise ValueError(f"compile = True: on a CPU it takes a C++ compiler, and there is no {compiler}; install one")


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
        reason = str(error).splitlines()[0]
        raise ValueError(f"device = {name!r}: {reason}; `auto` takes what there is") from error
    return device
