"""The end of a run before its last epoch, when accuracy no longer rises or the time is over."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nestnet.conditions.description import trained_alone
from nestnet.config.schema import Config
from nestnet.nn.mode import Mode

if TYPE_CHECKING:
    from nestnet.training.trainer import Trainer

SECONDS_PER_HOUR = 3600


@dataclass
class Stopping:
    """What decides whether a run ends before its last epoch. Checkpoints store the fields by name.

    Attributes:
        best: best value of the metric of `early_stopping` so far; `None` before the first epoch.
        best_epoch: epoch of the best value; 0 before the first one.
        waited: number of epochs since then, without those before `motivation.start`.
        seconds: seconds of training and evaluation in all parts of the run, at the last call of `stop_clock`.
        epoch_end: the same at the end of the last epoch.
        longest_epoch: seconds of the longest epoch so far with its evaluation.
    """

    best: float | None = None
    best_epoch: int = 0
    waited: int = 0
    seconds: float = 0.0
    epoch_end: float = 0.0
    longest_epoch: float = 0.0

    def __post_init__(self) -> None:
        """Start the clock."""
        self.start_clock()

    def start_clock(self) -> None:
        """Count time from now on."""
        self._started = time.monotonic()

    def stop_clock(self) -> None:
        """Add the time since the clock was started, and start it again."""
        now = time.monotonic()
        self.seconds += now - self._started
        self._started = now

    def end_epoch(self, config: Config, metrics: Mapping[str, Any]) -> None:
        """Note an epoch that was evaluated.

        Args:
            config: configuration of the run.
            metrics: row of `metrics.csv`.
        """
        self.stop_clock()
        self.longest_epoch = max(self.longest_epoch, self.seconds - self.epoch_end)
        self.epoch_end = self.seconds
        value = metric_value(config, metrics)
        self.waited += 1
        if self.best is None or value > self.best + config.early_stopping.min_delta:
            self.best = value
            self.best_epoch = int(metrics["epoch"])
            self.waited = 0
        # The motivated network is not trained before, and must not be left out because the base has become as good as it can.
        if not _has_motivation_started(config, int(metrics["epoch"])):
            self.waited = 0

    def reason(self, patience: int | None, max_hours: float | None) -> str | None:
        """Return what ends the run after its last finished epoch.

        Args:
            patience: `early_stopping.patience` of the configuration.
            max_hours: `max_hours` of the configuration.

        Returns:
            `early_stopping` or `max_hours`; `None` if neither does.
        """
        if patience is not None and self.waited >= patience:
            return "early_stopping"
        if max_hours is None or self.longest_epoch == 0:
            return None
        # Times are those of the end of the epoch, so that a resumed run decides as the run itself did.
        if self.epoch_end + self.longest_epoch > max_hours * SECONDS_PER_HOUR:
            return "max_hours"
        return None


def _has_motivation_started(config: Config, epochs_done: int) -> bool:
    """Return whether batches may be motivated by now: the run has passed `motivation.start`."""
    if trained_alone(config) is Mode.BASE:
        return True
    return epochs_done > config.motivation.start * config.epochs


def find_end_reason(trainer: "Trainer") -> str | None:
    """Return what has ended a run. All processes must call this function.

    Args:
        trainer: trainer of the run.

    Returns:
        `epochs` if all are trained, `early_stopping` or `max_hours` if these ended the run before; `None` while it trains.
    """
    config = trainer.config
    if trainer.epochs_done >= config.total_epochs:
        return "epochs"
    # An epoch that has begun is trained to its end.
    if trainer.totals.batches > 0:
        return None
    reason = trainer.stopping.reason(config.early_stopping.patience, config.max_hours)
    # Each process has its own clock.
    return trainer.process_group.broadcast_object(reason)


def metric_value(config: Config, metrics: Mapping[str, Any]) -> float:
    """Return the value of the metric that early stopping watches.

    Args:
        config: configuration of a run.
        metrics: row of `metrics.csv`.

    Returns:
        The top-1, or the mean average precision if images may have several labels, in percent. The mean of both networks
        is that of the trained one if only one is trained.
    """
    metric = config.early_stopping.metric
    alone = trained_alone(config)
    # With several labels per image the mean average precision is what counts.
    column = "map" if config.data.multi_label else "top1"
    if metric != "mean":
        return float(metrics[f"{metric}_{column}"])
    if alone is not None:
        return float(metrics[f"{alone}_{column}"])
    return sum(float(metrics[f"{mode}_{column}"]) for mode in Mode) / len(Mode)


def describe_end(config: Config, stopping: Stopping, reason: str, epochs_done: int) -> str:
    """Return why a run ends, and how it can be trained further.

    Args:
        config: configuration of the run.
        stopping: state that decides.
        reason: what `Stopping.reason` returned.
        epochs_done: number of finished epochs.
    """
    ends = f"the run ends after epoch {epochs_done} of {config.total_epochs}"
    if reason == "early_stopping":
        early = config.early_stopping
        of = {"base": "the base's accuracy", "motivated": "the motivated network's accuracy", "mean": "the accuracy"}
        return (
            f"early_stopping.patience = {early.patience}: {of[early.metric]} was best after epoch {stopping.best_epoch}, so "
            f"{ends}; resume it with early_stopping.patience = null to train further"
        )
    hours = stopping.epoch_end / SECONDS_PER_HOUR
    return (
        f"max_hours = {config.max_hours:g}: {hours:.3g} hours are over, and another epoch may take "
        f"{stopping.longest_epoch / SECONDS_PER_HOUR:.3g}, so {ends}; resume it with a higher max_hours to train further"
    )
