"""The training loop: fit, epoch, step.

It reads as the method does (Algorithm 1, arXiv 2602.21064): the condition names the mode of each batch and takes in its loss.
There is no switch to make: a mode is an argument of the forward pass. Joint training takes both modes at every batch.

A run can be stopped between any two batches, and goes on from there as if it had not been: `Trainer.state` is all that what
follows depends on.
"""

import math
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nestnet.conditions.base import JOINT, Condition, expected_fraction, watched_quantity
from nestnet.config.schema import Config
from nestnet.cost.run import RunCost
from nestnet.data.held_out import split_off_held_out_batch
from nestnet.data.image_data import ImageData, check_present, load_data
from nestnet.data.image_record import ImageRecord
from nestnet.data.loaders import eval_batches, train_batches
from nestnet.data.seeding import mix_seed
from nestnet.device import DeviceContext, autocast, check_compiler, choose_device, configure_algorithms
from nestnet.distributed.gradients import synchronise_batch_norm
from nestnet.distributed.rendezvous import init_process_group
from nestnet.models.build import build_model
from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel
from nestnet.nn.recalibration import has_statistics, statistics_of, with_statistics
from nestnet.optim.factory import check_optimizer, create_optimizer, create_scheduler
from nestnet.optim.state import load_optimizer
from nestnet.optim.step_counts import fill_momentum, share_step_counts
from nestnet.runs.checkpoints import file_name
from nestnet.runs.directory import NullRunDirectory, RunDirectory
from nestnet.runs.resumable import check_same_run
from nestnet.runs.stopped import Stopped
from nestnet.runs.tensorboard import check_installed
from nestnet.runtime.interrupts import Interrupted, Interrupts, Watched
from nestnet.runtime.notices import log_notice
from nestnet.storage.state_codec import State, check_tensors
from nestnet.text.escape import for_shell
from nestnet.text.messages import message_of
from nestnet.training.condition_plan import plan_condition
from nestnet.training.evaluation import recalibration_images, top1
from nestnet.training.failures import explain_failure
from nestnet.training.objective import Objective
from nestnet.training.progress import Progress
from nestnet.training.random_state import random_state, restore_random_state, seed_all
from nestnet.training.setup import check_batch_divides, resolve_config
from nestnet.training.step import Outcome, TrainStep
from nestnet.training.subnet_warnings import subnet_warnings
from nestnet.weights.exporting import export
from nestnet.weights.initial import load_initial_weights

ASK_EVERY = 10
"""Batches after which several processes ask one another whether a checkpoint is due, which takes them a moment."""


@dataclass
class EpochTotals:
    """What an epoch has come to up to now; sums over its batches."""

    batches: int = 0
    skipped: int = 0
    """Those whose loss was NaN or infinite; they are in no other sum but `batches` and the times."""
    losses: float = 0.0
    motivated: int = 0
    cost: int = 0
    waited: float = 0.0
    """Seconds without data."""
    seconds: float = 0.0

    def metrics(self, batch_size: int) -> dict[str, float]:
        """The epoch's row of `metrics.csv`, but for its number and the accuracies."""
        trained = max(self.batches - self.skipped, 1)
        seconds = max(self.seconds, 1e-9)
        return {
            "train_loss": self.losses / trained,
            "motivated_fraction": self.motivated / trained,
            "average_cost": round(self.cost / trained),
            "skipped_steps": self.skipped,
            "images_per_second": round(self.batches * batch_size / seconds, 1),
            "data_wait": round(self.waited / seconds, 4),
            "seconds": round(self.seconds, 3),
        }


class Trainer:
    """Builds all that a configuration names, then trains it.

    Everything that can be wrong with a configuration is found here, before the run directory is made. Of several
    processes each has a trainer, and all call the same methods.

    Args:
        config: of the run.
        images: in place of those that the configuration names, such as a fold of them.
        record: of the run's images, if it is resumed: the configuration's images are taken by their names in it.
        condition: in place of the one that the configuration names.
        initial_weights: whether to start from the weights that the configuration names, which a run that goes on does not need.

    Raises:
        ValueError: naming the field, its value, the rule and the remedy.
    """

    def __init__(
        self,
        config: Config,
        *,
        images: ImageData | None = None,
        record: ImageRecord | None = None,
        condition: Condition | None = None,
        initial_weights: bool = True,
    ) -> None:
        self.device = choose_device(config.device)
        if config.tensorboard:
            check_installed()
        self.images = images or load_data(config.data, config.model, record)
        # a resumed run keeps its record, also where files were repaired or are absent now
        self.record = record if record is not None and images is None else self.images.record()
        if record is not None:
            check_present(self.images, config.data)
        self.config = config = resolve_config(config, self.images)
        self.joint = config.motivation.name == JOINT and condition is None
        self.condition, batches = plan_condition(config, len(self.images.train), condition)
        self.watches = watched_quantity(self.condition)
        held_out: tuple[Tensor, Tensor] | None = None
        if self.watches == "held_out_loss":
            self.images, held_out = split_off_held_out_batch(self.images, config)
        configure_algorithms(self.device, deterministic=config.deterministic)
        self.process_group = init_process_group(self.device)
        check_batch_divides(config, self.process_group)
        check_compiler(config, self.device)
        memory_format = torch.channels_last if config.channels_last else torch.preserve_format
        self.device_context = DeviceContext(self.device, memory_format, self.process_group)
        self.train_batches = train_batches(self.images, config.data, config.seed, self.device_context)
        self.test_batches = eval_batches(self.images, config.data, self.device_context)
        self.val_batches = None
        if self.images.val is not None:
            self.val_batches = eval_batches(self.images, config.data, self.device_context, part=self.images.val)
        if held_out is not None:
            self.held_out = self.device_context.put(*held_out)
        seed_all(config.seed)
        net = build_model(config)
        if config.recalibration_batches and not has_statistics(net):
            raise ValueError(
                f"recalibration_batches = {config.recalibration_batches}: {config.model.motivated} has no BatchNorm "
                "statistics; leave it out"
            )
        if initial_weights:
            net = load_initial_weights(net, config, self.images.class_names)
        self.net = net.to(self.device).to(memory_format=memory_format)
        if not self.process_group.is_first:  # another dropout for other images
            seed_all(mix_seed(config.seed, self.process_group.rank))
        if config.sync_batch_norm and self.process_group.size > 1:
            synchronise_batch_norm(self.net)
        self.optimizer = create_optimizer(self.net, config)
        check_optimizer(self.optimizer, config)
        if config.optimizer.step_count == "literal":
            share_step_counts(self.optimizer, self.net)
        fill_momentum(self.optimizer)
        self.schedule = create_scheduler(self.optimizer, config.schedule, config.epochs, len(self.train_batches))
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
            skip_non_finite=True,
            process_group=self.process_group,
        )
        self.expected_fraction = None if self.joint else expected_fraction(self.condition, batches)
        self.cost = RunCost(self.net, self.images.input_size, self.expected_fraction, joint=self.joint)
        self.epochs_done = self.steps_done = 0
        self.totals = EpochTotals()
        self.best: dict[str, dict[str, Any] | None] = {str(mode): None for mode in Mode}
        # statistics that each mode was last evaluated with, where they are computed anew: its export gets the same
        self.recalibrated: dict[str, dict[str, Tensor]] = {}
        self.interrupts, self.progress = Interrupts(), Progress(config.epochs, len(self.train_batches), quiet=True)
        self.stepping, self.saved_at, self.saved_step = False, time.monotonic(), 0

    # The run

    def fit(self, run: RunDirectory | NullRunDirectory | None = None) -> Path:
        """Train all epochs; returns the run directory with the two exported subnets.

        Args:
            run: the folder of a run that goes on, after `load_state`; by default a new one, which the configuration names.

        Raises:
            FloatingPointError: when a loss is NaN or infinite and such batches are not to be skipped.
            Stopped: when the run cannot go on for a reason outside of it, such as a full disk.
            Interrupted: after Ctrl-C or SIGTERM, when a checkpoint is written.
        """
        if run is None:
            run = RunDirectory.new(self.config) if self.process_group.is_first else NullRunDirectory()
        bar = Progress(
            self.config.epochs,
            len(self.train_batches),
            expected_fraction=self.expected_fraction,
            quiet=not self.process_group.is_first,
        )
        with run, self.interrupts, bar as self.progress:
            self.run = run
            self.config = replace(self.config, run_dir=self.process_group.broadcast_object(str(run.path)))
            run.begin(self.config, self.record, self.steps_done, self.epochs_done)
            self.progress.started(self.net, run.path, self.epochs_done, self.totals.batches)
            self.saved_at, self.saved_step = time.monotonic(), self.steps_done
            try:
                if not self.steps_done:
                    self._notice_short_average()
                    self._snapshot()
                    self._save()
                while self.epochs_done < self.config.epochs:
                    self.epoch()
                    self._end_epoch(self.evaluate())
                    self._check_interrupts()
                for mode in Mode:
                    self.export(mode, run.path / f"{mode}.safetensors")
                    self._check_interrupts()
                self.progress.finished(self.cost.batches, self.cost.steps)
                self._notice_shortcomings()
            except (Exception, KeyboardInterrupt) as error:
                self._leave(error)
                raise
        return Path(self.config.run_dir or "")

    def epoch(self) -> None:
        """Train on every batch of the present epoch that is not done yet."""
        self.net.train()
        self.recalibrated = {}
        if not self.totals.batches:
            self.condition.reset()
        batches = self.epoch_batches(self.totals.batches)
        for _ in range(self.totals.batches, len(self.train_batches)):
            begun = time.perf_counter()
            images, targets = self.mix_batch(*next(batches))
            waited = time.perf_counter() - begun
            modes = (Mode.MOTIVATED, Mode.BASE) if self.joint else (self.condition.mode,)
            self.stepping = True
            outcome = self.step(images, targets, *modes)
            row = self._row(outcome.loss(), JOINT if self.joint else modes[0])
            if outcome.skipped:
                self._without(row)
            self.steps_done += 1
            if self.config.schedule.interval == "step" and self.schedule is not None:
                self.schedule.step_update(self.steps_done)
            self.condition.update(self.watched(outcome, modes[0]))
            self._count(outcome, modes, waited, time.perf_counter() - begun)
            self.stepping = False
            self.run.add_step(row)
            self._snapshot()
            self.progress.step_done(row["loss"], row["mode"], self.totals.metrics(self.config.data.batch_size))
            self._pause()

    def epoch_batches(self, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of the present epoch from `start` on, on the device: images `[B, C, H, W]` and labels `[B]`."""
        return self.train_batches.epoch(self.epochs_done, start)

    def mix_batch(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """A batch as it is trained: as it is, or mixed images and targets `[B, K]`."""
        return self.objective.mix(images, labels, mix_seed(self.config.seed, self.epochs_done, self.steps_done))

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
        """Both subnets' top-1 on the test images in percent, and on the validation images where there are some."""
        self.progress.evaluating()
        for net in dict.fromkeys((self.net, self.step.averaged)):  # one and the same without a moving average
            self.process_group.average_buffers(net)
        self.recalibrated = {}
        accuracies: dict[str, float] = {}
        for modes in [[mode] for mode in Mode] if self.config.recalibration_batches else [list(Mode)]:
            net = self.prepare_for_eval(modes[0]).eval()
            for name, batches in (("top1", self.test_batches), ("val_top1", self.val_batches)):
                if batches is None:
                    continue
                # several processes could not end here together
                watched = Watched(batches, self.interrupts) if self.process_group.size == 1 else batches
                found = top1(net, watched, modes, precision=self.config.precision, process_group=self.process_group)
                accuracies |= {f"{mode}_{name}": accuracy for mode, accuracy in found.items()}
        return accuracies

    def prepare_for_eval(self, mode: Mode) -> NestedModel:
        """The network as `mode` is evaluated and exported: averaged, and with new statistics, where that is wanted.

        The statistics are computed once for the weights as they are, so that what is exported is what was evaluated.
        """
        net, number = self.step.averaged, self.config.recalibration_batches
        if not number:
            return net
        if mode not in self.recalibrated:
            images = recalibration_images(self.train_batches, self.epochs_done, number)
            statistics = statistics_of(net, mode, images)
            for name, tensor in statistics.items():
                if tensor.is_floating_point():  # each process has batches of its own
                    statistics[name] = self.process_group.all_reduce_mean(tensor)
            self.recalibrated[str(mode)] = statistics
        return with_statistics(net, mode, self.recalibrated[mode])

    def export(self, mode: Mode, path: Path) -> None:
        """Write the subnet of `mode` as timm loads it."""
        net, images = self.prepare_for_eval(mode), self.images
        if self.process_group.is_first:
            export(
                net,
                mode,
                path,
                class_names=images.class_names,
                input_size=(images.input_size[0], *images.eval_size),
                mean=images.mean,
                std=images.std,
                crop_pct=self.config.data.crop_pct,
            )

    # Its state

    def state(self, *, end_of_epoch: bool = False) -> State:
        """All that what follows depends on, and what an export says of the data; the same in all processes."""
        average = self.step.average
        own: dict[str, Any] = {"random": random_state(self.device), "threads": torch.get_num_threads()}
        if self.process_group.size > 1:  # each has statistics of its own images, until they are averaged
            own |= {"buffers": dict(self.net.named_buffers())}
            own |= {"average_buffers": dict(average.module.named_buffers()) if average is not None else {}}
        return {
            "net": dict(self.net.state_dict()),
            "average": dict(average.module.state_dict()) if average is not None else None,
            "averaged_steps": average.updates if average is not None else 0,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict() if self.schedule is not None else None,
            "condition": self.condition.state_dict(),
            "processes": self.process_group.all_gather_object(own),
            "cost": {"batches": self.cost.batches, "steps": self.cost.steps},
            "recalibrated": self.recalibrated,
            "epoch": asdict(self.totals),
            "epochs_done": self.epochs_done,
            "steps_done": self.steps_done,
            "end_of_epoch": end_of_epoch,
            "best": self.best,
            "config": asdict(self.config),
            "condition_name": type(self.condition).__name__,
            "watches": self.watches,
            "images": self.record.fingerprint,
            "class_names": list(self.images.class_names),
            "input_size": [self.images.input_size[0], *self.images.eval_size],
        }

    def load_state(self, state: State) -> None:
        """Go on from `state`, of this run. Everything about it is checked before anything is changed.

        Raises:
            ValueError: saying what is of another run, or wrong with it.
        """
        check_same_run(state, self.state())
        average = self.step.average
        check_tensors("net", state["net"], self.net.state_dict())
        if average is not None:
            check_tensors("average", state["average"], average.module.state_dict())
        for mode, statistics in state["recalibrated"].items():
            check_tensors(f"recalibrated.{mode}", statistics, dict(self.net.subnet(mode).named_buffers()))
        load_optimizer(self.optimizer, state["optimizer"])
        self.net.load_state_dict(state["net"])
        if average is not None:
            average.module.load_state_dict(state["average"])
            average.updates = state["averaged_steps"]
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        self.condition.load_state_dict(state["condition"])
        self.cost.batches = dict(state["cost"]["batches"])
        self.cost.steps = state["cost"]["steps"]
        self.recalibrated = state["recalibrated"]
        self.totals, self.best = EpochTotals(**state["epoch"]), state["best"]
        self.epochs_done, self.steps_done = state["epochs_done"], state["steps_done"]
        if len(state["processes"]) == self.process_group.size:
            own = state["processes"][self.process_group.rank]
            if self.process_group.size > 1:
                _copy(own["buffers"], self.net)
                if average is not None:
                    _copy(own["average_buffers"], average.module)
            restore_random_state(own["random"], self.device)

    # Between two batches

    def _pause(self) -> None:
        """Write a checkpoint where one is due.

        Raises:
            KeyboardInterrupt: where the run is to end.
        """
        every, minutes = self.config.checkpoint_steps, self.config.checkpoint_minutes
        last_of_epoch = self.totals.batches == len(self.train_batches)
        due = 0 < minutes <= (time.monotonic() - self.saved_at) / 60
        if self.process_group.size == 1 or last_of_epoch or self.steps_done % ASK_EVERY == 0:
            due = any(self.process_group.all_gather_object(due))
            self._check_interrupts()
        else:
            due = False
        # that of the whole epoch follows after the evaluation
        if not last_of_epoch and (due or (every and self.steps_done % every == 0)):
            self._save()

    def _check_interrupts(self) -> None:
        """Called in all processes alike, where a checkpoint can be written or nothing is trained any more.

        Raises:
            KeyboardInterrupt: if one of them got a signal.
        """
        numbers = self.process_group.all_gather_object(self.interrupts.number or 0)
        self.interrupts.agreed = max(numbers) or None
        if self.interrupts.agreed is not None:
            raise KeyboardInterrupt

    def _save(self, *, end_of_epoch: bool = False) -> None:
        if not self._is_finite():
            raise FloatingPointError(
                f"weights are NaN or infinite after step {self.steps_done}, though its loss was not: lower optimizer.lr = "
                f"{self.config.optimizer.lr:g}, or set optimizer.clip_grad; the last checkpoint is of {self.saved_step} steps"
            )
        self.run.save_checkpoint(self.state(end_of_epoch=end_of_epoch))
        self.saved_at, self.saved_step = time.monotonic(), self.steps_done

    def _end_epoch(self, accuracies: dict[str, float]) -> None:
        """After the evaluation: the rows, and the checkpoint of the whole epoch."""
        metrics = self.totals.metrics(self.config.data.batch_size) | accuracies
        self.epochs_done, self.totals = self.epochs_done + 1, EpochTotals()
        metrics = {"epoch": self.epochs_done} | metrics
        if self.config.schedule.interval == "epoch" and self.schedule is not None:
            self.schedule.step(self.epochs_done)
        selecting = "top1" if self.val_batches is None else "val_top1"
        for mode, best in self.best.items():
            accuracy = metrics[f"{mode}_{selecting}"]
            if best is None or accuracy > best["top1"]:
                name = file_name(self.steps_done, self.epochs_done)
                self.best[mode] = {"file": name, "epoch": self.epochs_done, "top1": accuracy}
        self.run.add_epoch(metrics, self.steps_done)
        self.run.save_cost(self.cost.summary())
        self._save(end_of_epoch=True)
        self.progress.epoch_done(metrics)

    def _leave(self, error: BaseException) -> None:
        """What a person needs to know of the end of the run, in place of `error`; with a checkpoint of the present, where
        there is one to be had.

        Raises:
            Interrupted, Stopped: where the reason is known.
        """
        number = self.interrupts.agreed
        if number is None and (self.process_group.size == 1 or self.interrupts.at_once):
            # of several processes, those that outlive another get a signal too, but that is not what ended the run
            number = self.interrupts.number
        why = explain_failure(error, self.config) if isinstance(error, Exception) else None
        if isinstance(error, FloatingPointError) or (why is None and number is None):
            return
        at_hand = not self.stepping and not self.interrupts.at_once and not isinstance(error, OSError)
        is_newer = self.totals.batches > 0  # than the checkpoint at the end of the epoch before
        if at_hand and is_newer and (self.process_group.size == 1 or self.interrupts.agreed):
            self._save_at_the_end()
        where = f"at step {self.steps_done} (epoch {min(self.epochs_done + 1, self.config.epochs)})"
        go_on = f"`nestnet resume {for_shell(self.config.run_dir)}` goes on from the last checkpoint"
        if number is not None:
            said = f"interrupted by {signal.Signals(number).name} {where}; {go_on}"
            raise Interrupted(said, number, agreed=self.interrupts.agreed is not None) from None
        raise Stopped(f"{why} ({where}); {go_on}") from error

    def _save_at_the_end(self) -> None:
        """Write a checkpoint of the present, if that can be done; the one before is whole."""
        try:
            self._save()
        except KeyboardInterrupt:  # a second Ctrl-C does not wait for it
            pass
        except OSError as error:
            log_notice(f"there is no checkpoint of step {self.steps_done}: {message_of(error)}")

    def _row(self, loss: float, mode: str) -> dict[str, Any]:
        """Of the batch just trained, in `steps.csv`; with the learning rate that it was trained at."""
        lr = float(self.optimizer.param_groups[0]["lr"])
        return {"step": self.steps_done + 1, "epoch": self.epochs_done + 1, "mode": mode, "loss": loss, "lr": lr}

    def _without(self, row: dict[str, Any]) -> None:
        """A batch has left no trace because of its loss; where that is wanted, or all of them are so, the run ends.

        Raises:
            FloatingPointError: then.
        """
        config = self.config
        what = f"the loss is {row['loss']} at step {row['step']} (epoch {row['epoch']}, {row['mode']} mode)"
        helps = (
            f"lower optimizer.lr = {config.optimizer.lr:g}, lengthen schedule.warmup_epochs, or set optimizer.clip_grad"
        )
        if not self._is_finite():
            raise FloatingPointError(f"{what}, and weights are NaN or infinite since an earlier one: {helps}")
        if self.totals.skipped + 1 == len(self.train_batches):
            raise FloatingPointError(f"{what}, as it was at all batches of this epoch: {helps}")
        if config.non_finite == "stop":
            self._save()
            self.run.add_step(row)
            raise FloatingPointError(
                f"{what}: {helps}; `nestnet resume {for_shell(config.run_dir)} --non_finite skip` goes on without such batches"
            )

    def _is_finite(self) -> bool:
        return bool(torch.stack([torch.isfinite(tensor).all() for tensor in self.net.parameters()]).all())

    def _count(self, outcome: Outcome, modes: tuple[Mode, ...], waited: float, seconds: float) -> None:
        totals = self.totals
        totals.batches, totals.waited, totals.seconds = (
            totals.batches + 1,
            totals.waited + waited,
            totals.seconds + seconds,
        )
        if outcome.skipped:
            totals.skipped += 1
            return
        totals.losses += outcome.loss()
        totals.motivated += Mode.MOTIVATED in modes
        totals.cost += self.cost.add(modes)

    @torch.no_grad()
    def _held_out_loss(self, mode: Mode) -> float:
        """The loss of the subnet just trained on the batch that is kept out of training."""
        images, labels = self.held_out
        with autocast(self.device, self.config.precision):
            logits = self.net.eval()(images, mode)
        self.net.train()
        return self.process_group.all_reduce_mean(self.objective(logits, labels)).item()

    def _notice_short_average(self) -> None:
        """Say so where a moving average reaches further back than the run."""
        decay = self.config.ema_decay
        steps = self.config.epochs * len(self.train_batches)
        reach = 0.0 if decay is None else round(1 / (1 - decay), 6)
        if reach > steps:
            most = math.floor((1 - 1 / steps) * 1e6) / 1e6
            remedy = f"take at most {most:g}" if most else "leave it out"
            log_notice(
                f"ema_decay = {decay:g}: the average reaches back over about {reach:,.0f} steps, and this run has {steps:,}, "
                f"so that it stays behind the weights; {remedy}"
            )

    def _notice_shortcomings(self) -> None:
        """Say what is wrong with either subnet as it was exported."""
        for mode in Mode:
            found = subnet_warnings(
                self.step.averaged,
                mode,
                self.cost.batches,
                recalibrated=self.config.recalibration_batches,
                run_dir=self.run.path,
                output=self.run.path / f"{mode}-recalibrated.safetensors",
            )
            for shortcoming in found:
                log_notice(f"{mode}.safetensors: {shortcoming}")

    def _snapshot(self) -> None:
        every = self.config.snapshot_steps
        if every and self.steps_done % every == 0:
            self.run.save_snapshot(self.steps_done, dict(self.net.subnet(Mode.BASE).named_parameters()))


def _copy(buffers: dict[str, Tensor], net: nn.Module) -> None:
    with torch.no_grad():
        for name, buffer in net.named_buffers():
            buffer.copy_(buffers[name])
