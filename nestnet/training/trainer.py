"""The training loop: fit, epoch, step, evaluation (Algorithm 1, arXiv 2602.21064).

The condition decides the mode of each batch, and is updated with its loss. No weights are copied between the two
networks: the mode is an argument of the forward pass. The policy says what a motivated batch trains: the motivated
network, as in the paper, or both. The last phase, if there is one, extends the finished base.

`setup` builds everything that the loop needs, `state` saves and restores it, `ending` handles signals and failures.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from nestnet.conditions.base import Condition, chosen_mode
from nestnet.config.schema import Config
from nestnet.data.image_data import ImageData
from nestnet.data.image_record import ImageRecord
from nestnet.data.loaders import TrainBatch
from nestnet.data.seeding import mix_seed
from nestnet.data.transformed_images import Views
from nestnet.nn.mode import FINISH, Mode, PerMode
from nestnet.runs.directory import RunDirectory
from nestnet.runs.null_directory import NullRunDirectory
from nestnet.runs.parts import RunPart
from nestnet.runtime.interrupts import Interrupts
from nestnet.storage.state_codec import State
from nestnet.trackers.callback import Callback, TrackedRun
from nestnet.trackers.callbacks import Callbacks
from nestnet.trackers.registry import create_trackers
from nestnet.training.checkpointing import Checkpointer
from nestnet.training.ending import check_interrupts, end_early
from nestnet.training.epoch_totals import EpochTotals
from nestnet.training.exports import export_run
from nestnet.training.finish_phase import is_finishing, step_schedule, train_batch
from nestnet.training.non_finite import check_skipped_batch
from nestnet.training.progress import Progress
from nestnet.training.recording import make_step_row, record_batch, record_epoch, save_snapshot_if_due
from nestnet.training.run_notices import log_early_end, log_emulated_precision, log_short_average, log_subnet_warnings
from nestnet.training.setup import build_training
from nestnet.training.state import get_state, restore_state
from nestnet.training.stopping import Stopping, find_end_reason
from nestnet.training.subnet_evaluation import evaluate_subnets, export_subnet, kept_statistics
from nestnet.training.views import mix_views


class Trainer:
    """Trainer of a run, built from a configuration.

    Every mistake in the configuration is reported by the constructor, before the run directory is created. With
    several processes each has a trainer, and all of them must call the same methods.

    Args:
        config: configuration of the run.
        images: images to train on in place of those that the configuration names, such as a fold of them.
        record: record of the run's images if it is resumed; the images are looked up by the names in it.
        condition: motivation condition in place of the one that the configuration names.
        initial_weights: whether to load the initial weights that the configuration names. A resumed run does
            not need them.
        callbacks: callbacks that follow the run, in addition to the trackers that the configuration names. Only
            those of the first process are called.

    Attributes:
        config: resolved configuration. The parts that are built from it are attributes too, as `TrainingSetup`
            describes them: `images`, `condition`, `net`, `optimizer`, `schedule`, `objectives`, `step`, `cost`
            and more.
        totals: sums over the batches of the current epoch.
        epochs_done: number of epochs that have been trained and evaluated.
        steps_done: number of batches that have been trained, over all epochs.
        best: for each mode the checkpoint, the number and the top-1, or mean average precision, of its best epoch;
            `None` before the first evaluation.
        parts: parts of the run: a run that is resumed for more epochs begins another one.
        stopping: what decides whether the run ends before its last epoch.
        recalibrated: for each mode the BatchNorm statistics that it was last evaluated with, if they were
            recalibrated.
        callbacks: trackers and other callbacks that follow the run.
        is_stepping: whether a batch is being trained, so that there is no consistent state to save.
        run: directory of the run, after `fit` has begun.

    Raises:
        ValueError: If a setting is invalid; the message names field, value, rule and remedy.
    """

    run: RunDirectory | NullRunDirectory

    def __init__(
        self,
        config: Config,
        *,
        images: ImageData | None = None,
        record: ImageRecord | None = None,
        condition: Condition | None = None,
        initial_weights: bool = True,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        setup = build_training(
            config, images=images, record=record, condition=condition, initial_weights=initial_weights
        )
        self.config = setup.config
        self.images = setup.images
        self.record = setup.record
        self.condition = setup.condition
        self.limits = setup.limits
        self.watched_quantity = setup.watched_quantity
        self.watches = setup.watched_quantity.name
        self.expected_fraction = setup.expected_fraction
        self.cost = setup.cost
        self.device_context = setup.device_context
        self.device = setup.device_context.device
        self.process_group = setup.device_context.process_group
        self.train_batches = setup.batches.train
        self.test_batches = setup.batches.test
        self.val_batches = setup.batches.val
        # The test images choose nothing if there are validation images.
        self.eval_batches = self.test_batches if self.val_batches is None else self.val_batches
        self.net = setup.net
        self.optimizer = setup.optimizer
        self.schedule = setup.schedule
        self.objectives = setup.objectives
        self.step = setup.step

        # Position in the run and results so far, which `state` saves.
        self.epochs_done = 0
        self.steps_done = 0
        self.totals = EpochTotals()
        self.best: dict[str, dict[str, Any] | None] = {str(mode): None for mode in Mode}
        self.parts = [RunPart(0, 0, self.config.epochs)]
        self.stopping = Stopping()
        self.recalibrated: dict[str, dict[str, Tensor]] = {}
        # Signals, display, callbacks, and checkpoints.
        self.is_stepping = False
        self.interrupts = Interrupts()
        self.progress = Progress(config.total_epochs, len(self.train_batches), quiet=True)
        self.callbacks = Callbacks()
        if self.process_group.is_first:
            self.callbacks = Callbacks([*create_trackers(self.config.trackers), *callbacks])
        self.checkpointer = Checkpointer(self)

    def fit(self, run: RunDirectory | NullRunDirectory | None = None) -> Path:
        """Train all remaining epochs, and export both subnets.

        Args:
            run: directory of a resumed run, after `load_state`. By default the directory that the configuration
                names is created.

        Returns:
            The run directory.

        Raises:
            FloatingPointError: If a loss is NaN or infinite and such batches are not to be skipped.
            RunStopped: If the run cannot continue for an external reason, such as a full disk.
            Interrupted: After Ctrl-C or SIGTERM, once a checkpoint has been written.
        """
        if run is None:
            run = RunDirectory.new(self.config) if self.process_group.is_first else NullRunDirectory()
        progress = Progress(
            self.config.total_epochs,
            len(self.train_batches),
            expected_fraction=self.expected_fraction,
            quiet=not self.process_group.is_first,
        )
        with run, self.interrupts, progress as self.progress, self.callbacks:
            self._begin(run)
            try:
                if self.steps_done == 0:
                    # A run that is interrupted in its first epoch can resume from its initial weights.
                    log_short_average(self.config, len(self.train_batches))
                    log_early_end(self.config, has_val=self.val_batches is not None)
                    save_snapshot_if_due(self)
                    self.checkpointer.save()
                # Train the remaining epochs.
                while self.end_reason is None:
                    self.epoch()
                    self._finish_epoch(self.evaluate())
                    check_interrupts(self)
                export_run(self, self.end_reason)
                self.progress.finished(self.cost)
                log_subnet_warnings(self)
            except (Exception, KeyboardInterrupt) as error:
                end_early(self, error)
                raise
            finally:
                self.train_batches.stop_workers()
        return Path(self.config.run_dir or "")

    def epoch(self) -> None:
        """Train on the remaining batches of the current epoch."""
        self.net.train()
        self.recalibrated = kept_statistics(self)
        first = self.totals.batches  # a resumed run continues within its epoch
        if first == 0 and not self.is_finishing:
            self.condition.reset()
        batches = self.epoch_batches(first)
        for _ in range(first, len(self.train_batches)):
            # Get the next batch, on the device.
            started = time.perf_counter()
            images, targets = self.mix_batch(*next(batches))
            waited = time.perf_counter() - started

            # The condition decides the mode, and the step trains what the policy says for it.
            mode = FINISH if self.is_finishing else self.choose_mode()
            self.is_stepping = True
            outcome = train_batch(self.step, images, targets, mode)
            row = make_step_row(self, self.watched_quantity.loss(outcome), mode, outcome.modes)
            if outcome.skipped:
                check_skipped_batch(self, row)
            self.steps_done += 1
            step_schedule(self, "step")
            if mode != FINISH:
                self.condition.update(self.watched_quantity(outcome))

            # Count the batch. From here on the state is consistent again.
            seconds = time.perf_counter() - started
            self.totals.add_batch(skipped=outcome.skipped, waited=waited, seconds=seconds)
            if not outcome.skipped:
                cost = self.cost.add(outcome.modes, finish=mode == FINISH)
                self.totals.add_trained(loss=row["loss"], motivated=mode != Mode.BASE, cost=cost)
            self.is_stepping = False
            # Write the row of the batch, then a checkpoint if one is due.
            record_batch(self, row)
            self.checkpointer.save_if_due()

    @property
    def end_reason(self) -> str | None:
        """What has ended the run: see `find_end_reason`; `None` while it trains."""
        return find_end_reason(self)

    @property
    def is_finishing(self) -> bool:
        """Whether the base is finished, and the rest of the run extends it."""
        return is_finishing(self.config, self.epochs_done)

    def choose_mode(self) -> Mode:
        """Return the mode of the next batch: that of the condition, within the limits of the configuration."""
        if chosen_mode(self.condition) is Mode.BASE:
            return Mode.BASE
        if self.limits.allow(self.steps_done, spent=self.cost.total, counted=self.cost.steps):
            return Mode.MOTIVATED
        self.condition.overrule()
        return Mode.BASE

    def epoch_batches(self, start: int = 0) -> Iterator[TrainBatch]:
        """Return the batches of the current epoch, on the device.

        Args:
            start: number of the first batch to return, from 0.

        Returns:
            An iterator over images `[B, C, H, W]`, or a tuple of what each network sees of them, and labels `[B]`.
        """
        return self.train_batches.epoch(self.epochs_done, start)

    def mix_batch(self, images: Views, labels: Tensor) -> tuple[Tensor | PerMode[Tensor], Tensor | PerMode[Tensor]]:
        """Mix a batch by Mixup and CutMix if the configuration has them: see `mix_views`.

        Args:
            images: images `[B, C, H, W]`, or a tuple of what each network sees of them.
            labels: labels `[B]`.

        Returns:
            The images and their labels or soft targets `[B, K]`, a `PerMode` where those of each network may differ.
        """
        seed = mix_seed(self.config.seed, self.epochs_done, self.steps_done)
        return mix_views(self.objectives, images, labels, seed)

    def evaluate(self) -> dict[str, float]:
        """Return the top-1 accuracy of both subnets in percent, by column of `metrics.csv`: see `evaluate_subnets`."""
        self.progress.evaluating()
        return evaluate_subnets(self)

    def export(self, mode: Mode, path: Path) -> None:
        """Write the subnet of a mode as a checkpoint that timm loads: see `export_subnet`.

        Args:
            mode: mode of the subnet.
            path: file to write.
        """
        export_subnet(self, mode, path)

    def state(self, *, end_of_epoch: bool = False) -> State:
        """Return the content of a checkpoint: see `get_state`.

        Args:
            end_of_epoch: whether an epoch has just been evaluated.

        Returns:
            The state, the same in all processes.
        """
        return get_state(self, end_of_epoch=end_of_epoch)

    def load_state(self, state: State) -> None:
        """Continue where a checkpoint was written: see `restore_state`.

        Args:
            state: content of a checkpoint of the same run.

        Raises:
            ValueError: If the state is damaged or of another run.
        """
        restore_state(self, state)

    def _begin(self, run: RunDirectory | NullRunDirectory) -> None:
        """Create the run's files, or continue them."""
        self.run = run
        # Only the first process knows the name of a new folder: send it to the others.
        self.config = replace(self.config, run_dir=self.process_group.broadcast_object(str(run.path)))
        run.begin(self.config, self.record, self.steps_done, self.epochs_done)
        if len(self.parts) > 1:
            run.save_parts(self.parts)
        self.stopping.start_clock()
        self.progress.started(
            self.net,
            run.path,
            self.config.precision,
            self.epochs_done,
            self.totals.batches,
            has_ended=self.end_reason is not None,
        )
        log_emulated_precision(self.config, self.device)
        self.callbacks.start(TrackedRun(run.path, asdict(self.config), self.steps_done, self.epochs_done))
        self.checkpointer.start()

    def _finish_epoch(self, accuracies: dict[str, float]) -> None:
        """Count the epoch after its evaluation, step the schedule, and write the epoch's row and checkpoint."""
        totals = self.totals.metrics(self.config.data.images_per_batch)
        self.epochs_done += 1
        self.totals = EpochTotals()
        step_schedule(self, "epoch")
        metrics = {"epoch": self.epochs_done, **totals, **accuracies}
        if self.images.val is not None:
            metrics["val_images"] = len(self.images.val)
        record_epoch(self, metrics)
        self.stopping.end_epoch(self.config, metrics)
        self.checkpointer.save(end_of_epoch=True)
        self.progress.epoch_done(metrics)
