"""The training loop: fit, epoch, step.

It reads as the method does (Algorithm 1, arXiv 2602.21064): the condition names the mode of each batch and takes in its loss.
There is no switch to make: a mode is an argument of the forward pass. Joint training takes both modes at every batch.
"""

import itertools
import math
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn
from torch.optim import Optimizer

from nestnet.config import Config, ScheduleConfig
from nestnet.data import ImageData, eval_loader, in_epoch, load_data, mixed, train_loader
from nestnet.evaluation import autocast, recalibrated, top1
from nestnet.export import export
from nestnet.mode import Mode
from nestnet.motivation import JOINT, Always, Condition, make_condition, motivated_counts
from nestnet.nested import NestedModel
from nestnet.objective import Objective
from nestnet.optim import fill_momentum, share_step_counts
from nestnet.pretrained import load_weights
from nestnet.progress import Progress
from nestnet.run_cost import RunCost
from nestnet.run_directory import RunDirectory, network, read_table


class Trainer:
    """Builds all that a configuration names, then trains it.

    Everything that can be wrong with a configuration is found here, before the run directory is made.

    Args:
        config: of the run.
        images: in place of those that the configuration names, such as a fold of them.
        condition: in place of the one that the configuration names.

    Raises:
        ValueError: naming the field, its value, the rule and the remedy.
    """

    def __init__(self, config: Config, *, images: ImageData | None = None, condition: Condition | None = None) -> None:
        self.device = torch_device(config.device)
        self.images = images or load_data(config.data, config.model)
        self.config = config = resolved(config, self.images)
        on_gpu = self.device.type == "cuda"
        self.train_batches = train_loader(self.images, config.data, config.seed, pin_memory=on_gpu)
        self.joint = config.motivation.name == JOINT and condition is None
        self.condition = condition or motivation(config, len(self.train_batches))
        self.watches = getattr(self.condition, "watches", "loss")
        if self.watches == "held_out_loss":
            self.images, self.held_out = held_out_batch(self.images, config)
            self.train_batches = train_loader(self.images, config.data, config.seed, pin_memory=on_gpu)
        self.test_batches = eval_loader(self.images, config.data, pin_memory=on_gpu)
        torch.manual_seed(config.seed)
        self.memory_format = torch.channels_last if config.channels_last else torch.preserve_format
        self.net = started(network(config), config).to(self.device).to(memory_format=self.memory_format)
        share = config.motivation.distillation or 0.0
        self.objective = Objective(config.data, config.loss, self.net.num_classes, distillation=share)
        self.optimizer = make_optimizer(self.net, config)
        if config.optimizer.step_count == "literal":
            share_step_counts(self.optimizer, self.net)
        fill_momentum(self.optimizer)
        self.schedule = make_schedule(self.optimizer, config.schedule, config.epochs, len(self.train_batches))
        self.cost = RunCost(self.net, self.images.input_size, self.condition, joint=self.joint)
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
            self._snapshot()
            while self.epochs_done < self.config.epochs:
                metrics = self.epoch() | self.evaluate()
                self.epochs_done += 1
                if self.config.schedule.interval == "epoch" and self.schedule is not None:
                    self.schedule.step(self.epochs_done)
                self.run.metrics.add(**metrics)
                self.run.save_cost(self.cost.summary())
                self.run.save_checkpoint(self.state())
                self.progress.epoch_done(metrics)
            for mode in Mode:
                self.export(mode, self.run.path / f"{mode}.safetensors")
        return self.run.path

    def epoch(self) -> dict[str, float]:
        """Train on every batch once; returns the epoch's metrics."""
        self.net.train()
        self.condition.reset()
        losses, motivated, cost, started = 0.0, 0, 0, time.perf_counter()
        for images, labels in self.epoch_batches():
            modes = (Mode.MOTIVATED, Mode.BASE) if self.joint else (self.condition.mode,)
            lr = self.optimizer.param_groups[0]["lr"]
            loss, watched = self.step(*self.batch(images, labels), modes)
            self.condition.update(watched)
            self.steps_done += 1
            if self.config.schedule.interval == "step" and self.schedule is not None:
                self.schedule.step_update(self.steps_done)
            mode = JOINT if self.joint else modes[0]
            self.run.steps.add(step=self.steps_done, epoch=self.epochs_done + 1, mode=mode, loss=loss, lr=lr)
            self._stop_unless_finite(loss, mode)
            self._snapshot()
            self.progress.step_done(loss, mode)
            losses, motivated = losses + loss, motivated + (Mode.MOTIVATED in modes)
            cost += self.cost.add(modes)
        seconds, batches = time.perf_counter() - started, len(self.train_batches)
        return {
            "epoch": self.epochs_done + 1,
            "train_loss": losses / batches,
            "motivated_fraction": motivated / batches,
            "average_cost": round(cost / batches),
            "images_per_second": round(batches * self.config.data.batch_size / seconds, 1),
            "seconds": round(seconds, 3),
        }

    def step(self, images: Tensor, targets: Tensor, modes: tuple[Mode, ...]) -> tuple[float, float]:
        """Train the subnets of `modes` on one batch; returns its loss, and the number that the condition watches.

        With two subnets the loss is their mean; their gradients are added up for one step of the optimizer (the sandwich
        rule for two networks: Yu and Huang 2019, arXiv 1903.05134), and the second subnet learns from the first one's
        output too where the objective says so.
        """
        self.optimizer.zero_grad()
        losses, teacher = [], None
        for mode in modes:
            with autocast(self.device, self.config.precision):
                logits = self.net(images, mode)
            loss = self.objective(logits, targets, teacher)
            loss.backward()
            losses.append(loss.detach())
            teacher = logits.detach()
        norm = self._gradient_norm()
        self.optimizer.step()
        mean = torch.stack(losses).mean().item()
        match self.watches:
            case "gradient_norm":
                return mean, norm.item()
            case "held_out_loss":
                return mean, self._held_out_loss(modes[0])
        return mean, mean

    def epoch_batches(self) -> Iterable[tuple[Tensor, Tensor]]:
        """The batches of the present epoch."""
        return in_epoch(self.train_batches, self.epochs_done)

    def batch(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """A batch on the device, as it is trained: `[B, C, H, W]` and labels `[B]`, or mixed images and targets `[B, K]`."""
        seed = mixed(self.config.seed, self.epochs_done, self.steps_done)
        return self.objective.mix(self.to_device(images), labels.to(self.device, non_blocking=True), seed)

    def evaluate(self) -> dict[str, float]:
        """Both subnets' top-1 on the test images, in percent."""
        batches, device, precision = self.test_batches, self.device, self.config.precision
        if not self.config.recalibration_batches:
            accuracies = top1(self.net.eval(), batches, device=device, precision=precision)
        else:
            accuracies = {}
            for mode in Mode:
                accuracies |= top1(self.ready(mode).eval(), batches, [mode], device=device, precision=precision)
        return {f"{mode}_top1": accuracy for mode, accuracy in accuracies.items()}

    def ready(self, mode: Mode) -> NestedModel:
        """The network as `mode` is evaluated and exported: with statistics computed anew where the configuration says so."""
        number = self.config.recalibration_batches
        return recalibrated(self.net, mode, self.epoch_batches(), number, self.to_device)

    def export(self, mode: Mode, path: Path) -> None:
        """Write the subnet of `mode` as timm loads it."""
        images = self.images
        export(
            self.ready(mode),
            mode,
            path,
            class_names=images.class_names,
            input_size=(images.input_size[0], *images.eval_size),
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
            "input_size": [self.images.input_size[0], *self.images.eval_size],
        }

    def to_device(self, images: Tensor) -> Tensor:
        return images.to(self.device, non_blocking=True, memory_format=self.memory_format)

    def _gradient_norm(self) -> Tensor:
        """The norm of all gradients together, after which they are clipped where the configuration says so."""
        limit = self.config.optimizer.clip_grad
        if limit is None and self.watches != "gradient_norm":
            return torch.tensor(math.nan)  # nobody asks for it
        return nn.utils.clip_grad_norm_(self.net.parameters(), math.inf if limit is None else limit)

    @torch.no_grad()
    def _held_out_loss(self, mode: Mode) -> float:
        """The loss of the subnet just trained on the batch that is kept out of training."""
        images, labels = (tensor.to(self.device) for tensor in self.held_out)
        with autocast(self.device, self.config.precision):
            logits = self.net.eval()(images, mode)
        self.net.train()
        return nn.functional.cross_entropy(logits.float(), labels).item()

    def _snapshot(self) -> None:
        every = self.config.snapshot_steps
        if every and self.steps_done % every == 0:
            self.run.save_snapshot(self.steps_done, dict(self.net.subnet(Mode.BASE).named_parameters()))

    def _stop_unless_finite(self, loss: float, mode: str) -> None:
        if not math.isfinite(loss):
            lr = self.config.optimizer.lr
            kept = f"; {self.run.path / 'checkpoint.pt'} is of the epoch before" if self.epochs_done else ""
            raise FloatingPointError(
                f"the loss is {loss} at step {self.steps_done} (epoch {self.epochs_done + 1}, {mode} mode): lower "
                f"optimizer.lr = {lr:g}, lengthen schedule.warmup_epochs, or set optimizer.clip_grad{kept}"
            )


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
