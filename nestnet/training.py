"""The training loop: fit, epoch, step.

It reads as the method does (Algorithm 1, arXiv 2602.21064): each epoch starts in base mode; the condition takes in each
batch's loss and names the mode of the next. There is no switch to make: a mode is an argument of the forward pass.
"""

import math
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn
from torch.optim import Optimizer

from nestnet.config import Config, ScheduleConfig
from nestnet.data import EpochBatches, ImageData, eval_loader, load_data, train_loader
from nestnet.export import export
from nestnet.mode import Mode
from nestnet.motivation import Condition, LossDecrease
from nestnet.optim import fill_momentum, share_step_counts
from nestnet.progress import Progress
from nestnet.run_directory import RunDirectory, network


class Trainer:
    """Builds all that a configuration names, then trains it.

    Everything that can be wrong with a configuration is found here, before the run directory is made.

    Raises:
        ValueError: naming the field, its value, the rule and the remedy.
    """

    def __init__(self, config: Config) -> None:
        self.device = torch_device(config.device)
        self.images = load_data(config.data, config.model)
        self.config = config = resolved(config, self.images)
        torch.manual_seed(config.seed)
        self.memory_format = torch.channels_last if config.channels_last else torch.preserve_format
        self.net = network(config).to(self.device).to(memory_format=self.memory_format)
        self.optimizer = make_optimizer(self.net, config)
        if config.optimizer.step_count == "literal":
            share_step_counts(self.optimizer, self.net)
        fill_momentum(self.optimizer)
        self.condition: Condition = LossDecrease(config.motivation.k)
        on_gpu = self.device.type == "cuda"
        self.train_batches = train_loader(self.images, config.data, config.seed, pin_memory=on_gpu)
        self.test_batches = eval_loader(self.images, config.data, pin_memory=on_gpu)
        self.schedule = make_schedule(self.optimizer, config.schedule, config.epochs, len(self.train_batches))
        self.epochs_done = self.steps_done = 0

    def fit(self) -> Path:
        """Train all epochs; returns the run directory with the two exported subnets.

        Raises:
            FloatingPointError: when a loss is NaN or infinite.
        """
        path = Path(self.config.run_dir) if self.config.run_dir else None
        bar = Progress(self.config.epochs, len(self.train_batches))
        with RunDirectory(path, self.config) as self.run, bar as self.progress:
            self.config = replace(self.config, run_dir=str(self.run.path))
            self.run.save_config(self.config)
            self.progress.started(self.net, self.run.path)
            while self.epochs_done < self.config.epochs:
                metrics = self.epoch() | self.evaluate()
                self.epochs_done += 1
                if self.config.schedule.interval == "epoch" and self.schedule is not None:
                    self.schedule.step(self.epochs_done)
                self.run.metrics.add(**metrics)
                self.run.save_checkpoint(self.state())
                self.progress.epoch_done(metrics)
            for mode in Mode:
                self.export(mode, self.run.path / f"{mode}.safetensors")
        return self.run.path

    def epoch(self) -> dict[str, float]:
        """Train on every batch once; returns the epoch's metrics."""
        self.net.train()
        self.condition.reset()
        assert isinstance(self.train_batches.batch_sampler, EpochBatches)
        self.train_batches.batch_sampler.set_epoch(self.epochs_done)
        losses, motivated, started = 0.0, 0, time.perf_counter()
        for images, labels in self.train_batches:
            mode, lr = self.condition.mode, self.optimizer.param_groups[0]["lr"]
            loss = self.step(images, labels, mode)
            self.condition.update(loss)
            self.steps_done += 1
            if self.config.schedule.interval == "step" and self.schedule is not None:
                self.schedule.step_update(self.steps_done)
            self.run.steps.add(step=self.steps_done, epoch=self.epochs_done + 1, mode=mode, loss=loss, lr=lr)
            self._stop_unless_finite(loss, mode)
            self.progress.step_done(loss, mode)
            losses, motivated = losses + loss, motivated + (mode is Mode.MOTIVATED)
        seconds, batches = time.perf_counter() - started, len(self.train_batches)
        return {
            "epoch": self.epochs_done + 1,
            "train_loss": losses / batches,
            "motivated_fraction": motivated / batches,
            "images_per_second": round(batches * self.config.data.batch_size / seconds, 1),
            "seconds": round(seconds, 3),
        }

    def step(self, images: Tensor, labels: Tensor, mode: Mode) -> float:
        """Train the subnet of `mode` on one batch; returns its loss."""
        images, labels = self.to_device(images), labels.to(self.device, non_blocking=True)
        with autocast(self.device, self.config.precision):
            loss = F.cross_entropy(self.net(images, mode), labels)
        self.optimizer.zero_grad()
        loss.backward()
        if self.config.optimizer.clip_grad is not None:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.config.optimizer.clip_grad)
        self.optimizer.step()
        return loss.item()

    def evaluate(self) -> dict[str, float]:
        """Both subnets' top-1 on the test images, in percent."""
        accuracies = top1(self.net.eval(), self.test_batches, device=self.device, precision=self.config.precision)
        return {f"{mode}_top1": accuracy for mode, accuracy in accuracies.items()}

    def export(self, mode: Mode, path: Path) -> None:
        """Write the subnet of `mode` as timm loads it."""
        images = self.images
        export(
            self.net,
            mode,
            path,
            class_names=images.class_names,
            input_size=images.input_size,
            mean=images.mean,
            std=images.std,
        )

    def state(self) -> dict[str, Any]:
        """All that the next epoch depends on, and what an export says of the data."""
        return {
            "net": dict(self.net.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict() if self.schedule is not None else None,
            "condition": self.condition.state_dict(),
            "epochs_done": self.epochs_done,
            "steps_done": self.steps_done,
            "class_names": list(self.images.class_names),
            "input_size": list(self.images.input_size),
        }

    def to_device(self, images: Tensor) -> Tensor:
        return images.to(self.device, non_blocking=True, memory_format=self.memory_format)

    def _stop_unless_finite(self, loss: float, mode: Mode) -> None:
        if not math.isfinite(loss):
            lr = self.config.optimizer.lr
            kept = f"; {self.run.path / 'checkpoint.pt'} is of the epoch before" if self.epochs_done else ""
            raise FloatingPointError(
                f"the loss is {loss} at step {self.steps_done} (epoch {self.epochs_done + 1}, {mode} mode): lower "
                f"optimizer.lr = {lr:g}, lengthen schedule.warmup_epochs, or set optimizer.clip_grad{kept}"
            )


@torch.inference_mode()
def top1(
    net: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    modes: Iterable[Mode] = tuple(Mode),
    *,
    device: torch.device,
    precision: str = "float32",
) -> dict[Mode, float]:
    """The share of images, in percent, for which the subnet of each mode gives the right class the largest logit."""
    correct, total = dict.fromkeys(modes, 0), 0
    for images, labels in batches:
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        total += len(labels)
        for mode in correct:
            with autocast(device, precision):
                logits = net(images, mode)
            correct[mode] += int((logits.argmax(dim=1) == labels).sum())
    return {mode: 100 * count / total for mode, count in correct.items()}


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Autocast to bfloat16, or nothing for `"float32"`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


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
        num_epochs=epochs,
        warmup_epochs=config.warmup_epochs,
        warmup_lr=config.warmup_lr,
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
        ValueError: if `model.num_classes` is less than the data has.
    """
    classes = len(images.class_names)
    if config.model.num_classes not in (None, classes):
        raise ValueError(
            f"model.num_classes = {config.model.num_classes}: the data has {classes} classes; leave it out"
        )
    model = replace(config.model, num_classes=classes, in_chans=images.input_size[0])
    data = replace(config.data, img_size=images.input_size[1], mean=images.mean, std=images.std, augment=images.augment)
    return replace(config, model=model, data=data)


def torch_device(name: str) -> torch.device:
    """The device of a name, with `auto` for CUDA where there is one.

    Raises:
        ValueError: for a name that torch does not know, or a device that is not there.
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device = {name!r}: {reason}; `auto` takes what there is") from error
    return device
