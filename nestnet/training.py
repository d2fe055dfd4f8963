"""The training loop: fit, epoch, step.

It reads as the method does (Algorithm 1, arXiv 2602.21064): the condition names the mode of each batch and takes in its loss.
There is no switch to make: a mode is an argument of the forward pass. Joint training takes both modes at every batch.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nestnet.build import (
    check_compiler,
    check_share,
    held_out_batch,
    make_optimizer,
    make_schedule,
    motivation,
    resolved,
    started,
    torch_device,
)
from nestnet.config import Config
from nestnet.data import ImageData, load_data, mixed
from nestnet.evaluation import recalibrated, top1
from nestnet.export import export
from nestnet.loaders import eval_batches, train_batches
from nestnet.mode import Mode
from nestnet.motivation import JOINT, Condition
from nestnet.nested import NestedModel
from nestnet.objective import Objective
from nestnet.optim import fill_momentum, share_step_counts
from nestnet.place import Place
from nestnet.precision import autocast
from nestnet.processes import join, synchronise_batch_norm
from nestnet.progress import Progress
from nestnet.run_cost import RunCost
from nestnet.run_directory import Elsewhere, RunDirectory, network
from nestnet.step import Outcome, TrainStep


class Trainer:
    """Builds all that a configuration names, then trains it.

    Everything that can be wrong with a configuration is found here, before the run directory is made. Of several
    processes each has a trainer, and all call the same methods.

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
        self.joint = config.motivation.name == JOINT and condition is None
        self.condition = condition or motivation(config, len(self.images.train) // config.data.batch_size)
        self.watches = getattr(self.condition, "watches", "loss")
        if self.watches == "held_out_loss":
            self.images, self.held_out = held_out_batch(self.images, config)
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # all batches have one shape: the search for the fastest kernels pays
        self.processes = join(self.device)
        check_share(config, self.processes)
        check_compiler(config, self.device)
        memory_format = torch.channels_last if config.channels_last else torch.preserve_format
        self.place = Place(self.device, memory_format, self.processes)
        self.train_batches = train_batches(self.images, config.data, config.seed, self.place)
        self.test_batches = eval_batches(self.images, config.data, self.place)
        torch.manual_seed(config.seed)
        self.net = started(network(config), config).to(self.device).to(memory_format=memory_format)
        if not self.processes.first:  # another dropout for other images
            torch.manual_seed(mixed(config.seed, self.processes.rank))
        if config.sync_batch_norm and self.processes.size > 1:
            synchronise_batch_norm(self.net)
        self.optimizer = make_optimizer(self.net, config)
        if config.optimizer.step_count == "literal":
            share_step_counts(self.optimizer, self.net)
        fill_momentum(self.optimizer)
        self.schedule = make_schedule(self.optimizer, config.schedule, config.epochs, len(self.train_batches))
        share = config.motivation.distillation or 0.0
        self.objective = Objective(config.data, config.loss, self.net.num_classes, distillation=share)
        self.step = TrainStep(
            self.net,
            self.optimizer,
            self.objective,
            precision=config.precision,
            accumulate=config.accumulate,
            clip_grad=config.optimizer.clip_grad,
            gradient_norm=self.watches == "gradient_norm",
            distil=share > 0,
            ema_decay=config.ema_decay,
            compile="inductor" if config.compile else None,
            cuda_graphs=config.cuda_graphs,
            processes=self.processes,
        )
        self.cost = RunCost(self.net, self.images.input_size, self.condition, joint=self.joint)
        self.epochs_done = self.steps_done = 0

    def fit(self) -> Path:
        """Train all epochs; returns the run directory with the two exported subnets.

        Raises:
            FloatingPointError: when a loss is NaN or infinite.
        """
        first = self.processes.first
        bar = Progress(self.config.epochs, len(self.train_batches), quiet=not first)
        with RunDirectory(self.config) if first else Elsewhere() as self.run, bar as self.progress:
            self.config = replace(self.config, run_dir=self.processes.from_first(str(self.run.path)))
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
        return Path(self.config.run_dir or "")

    def epoch(self) -> dict[str, float]:
        """Train on every batch once; returns the epoch's metrics."""
        self.net.train()
        self.condition.reset()
        losses, motivated, cost, waited, begun = 0.0, 0, 0, 0.0, time.perf_counter()
        batches, number = self.epoch_batches(), len(self.train_batches)
        for _ in range(number):
            asked = time.perf_counter()
            images, targets = self.mixed(*next(batches))
            waited += time.perf_counter() - asked
            modes = (Mode.MOTIVATED, Mode.BASE) if self.joint else (self.condition.mode,)
            lr = self.optimizer.param_groups[0]["lr"]
            outcome = self.step(images, targets, *modes)
            self.steps_done += 1
            if self.config.schedule.interval == "step" and self.schedule is not None:
                self.schedule.step_update(self.steps_done)
            loss = outcome.loss()
            self.condition.update(self.watched(outcome, modes[0]))
            mode = JOINT if self.joint else modes[0]
            self.run.steps.add(step=self.steps_done, epoch=self.epochs_done + 1, mode=mode, loss=loss, lr=lr)
            self._stop_unless_finite(loss, mode)
            self._snapshot()
            self.progress.step_done(loss, mode)
            losses, motivated = losses + loss, motivated + (Mode.MOTIVATED in modes)
            cost += self.cost.add(modes)
        seconds = time.perf_counter() - begun
        return {
            "epoch": self.epochs_done + 1,
            "train_loss": losses / number,
            "motivated_fraction": motivated / number,
            "average_cost": round(cost / number),
            "images_per_second": round(number * self.config.data.batch_size / seconds, 1),
            "data_wait": round(waited / seconds, 4),
            "seconds": round(seconds, 3),
        }

    def epoch_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of the present epoch, on the device: images `[B, C, H, W]` and labels `[B]`."""
        return self.train_batches.epoch(self.epochs_done)

    def mixed(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """A batch as it is trained: as it is, or mixed images and targets `[B, K]`."""
        return self.objective.mix(images, labels, mixed(self.config.seed, self.epochs_done, self.steps_done))

    def watched(self, outcome: Outcome, mode: Mode) -> float:
        """The number that the condition wants to know of a step: the same in all processes."""
        match self.watches:
            case "gradient_norm":
                assert outcome.gradient_norm is not None
                return outcome.gradient_norm()
            case "held_out_loss":
                return self._held_out_loss(mode)
        return outcome.loss()

    def evaluate(self) -> dict[str, float]:
        """Both subnets' top-1 on the test images, in percent."""
        for net in dict.fromkeys((self.net, self.step.averaged)):  # one and the same without a moving average
            self.processes.average_statistics(net)
        accuracies: dict[Mode, float] = {}
        for modes in [[mode] for mode in Mode] if self.config.recalibration_batches else [list(Mode)]:
            net = self.ready(modes[0]).eval()
            accuracies |= top1(net, self.test_batches, modes, precision=self.config.precision, processes=self.processes)
        return {f"{mode}_top1": accuracy for mode, accuracy in accuracies.items()}

    def ready(self, mode: Mode) -> NestedModel:
        """The network as `mode` is evaluated and exported: averaged, and with new statistics, where that is wanted."""
        number = self.config.recalibration_batches
        if not number:
            return self.step.averaged
        net = recalibrated(self.step.averaged, mode, self.epoch_batches(), number)
        self.processes.average_statistics(net)
        return net

    def export(self, mode: Mode, path: Path) -> None:
        """Write the subnet of `mode` as timm loads it."""
        net, images = self.ready(mode), self.images
        if self.processes.first:
            export(
                net,
                mode,
                path,
                class_names=images.class_names,
                input_size=(images.input_size[0], *images.eval_size),
                mean=images.mean,
                std=images.std,
            )

    def state(self) -> dict[str, Any]:
        """All that the next epoch depends on, and what an export says of the data."""
        average = self.step.average
        return {
            "net": dict(self.net.state_dict()),
            "average": dict(average.module.state_dict()) if average is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict() if self.schedule is not None else None,
            "condition": self.condition.state_dict(),
            "epochs_done": self.epochs_done,
            "steps_done": self.steps_done,
            "class_names": list(self.images.class_names),
            "input_size": [self.images.input_size[0], *self.images.eval_size],
        }

    @torch.no_grad()
    def _held_out_loss(self, mode: Mode) -> float:
        """The loss of the subnet just trained on the batch that is kept out of training."""
        images, labels = self.place.put(*self.held_out)
        with autocast(self.device, self.config.precision):
            logits = self.net.eval()(images, mode)
        self.net.train()
        return self.processes.average(nn.functional.cross_entropy(logits.float(), labels)).item()

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
