"""The callback of a run: the protocol between training and whatever follows it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from nestnet.storage.paths import real_path

RunStatus = Literal["finished", "interrupted", "failed"]
"""How training ended in this process: at the end of the run, by a signal, or by an error."""


@dataclass(frozen=True)
class TrackedRun:
    """A run as callbacks see it when training starts or resumes.

    Attributes:
        path: run directory.
        config: resolved configuration, as nested dictionaries.
        steps_done: number of batches that were trained before, 0 for a new run.
        epochs_done: number of epochs that were trained before.
    """

    path: Path
    config: Mapping[str, Any]
    steps_done: int
    epochs_done: int

    @property
    def name(self) -> str:
        """Name of the run directory."""
        return real_path(self.path).name


class Callback:
    """A follower of a run, whose methods are called in the first process only. By default they do nothing.

    Give callbacks of your own to `Trainer(config, callbacks=[...])`, or register them as trackers for the command
    line: see `nestnet.register_tracker`. They cannot change what is trained. An exception in a method does not end
    the run: it is logged once, and the callback is not called again.

    Attributes:
        package: Python package that must be installed; `None` if none is needed.

    Example:
        >>> class PrintAccuracy(Callback):
        ...     def on_epoch_end(self, metrics, step):
        ...         print(f"{metrics['base_top1']:.1f} % after {step} batches")
        >>> PrintAccuracy().on_epoch_end({"epoch": 1, "base_top1": 80.0}, step=390)
        80.0 % after 390 batches
    """

    package: ClassVar[str | None] = None

    def on_run_start(self, run: TrackedRun) -> None:
        """Prepare for a run that starts or resumes.

        Args:
            run: the run. After a resume, batches and epochs after `run.steps_done` may be told a second time, with the
                same values on a CPU.
        """

    def on_batch_end(self, row: Mapping[str, Any]) -> None:
        """Note a batch. This is called after every batch, and must not take long.

        Args:
            row: row of `steps.csv`, by column: `step`, `epoch`, `mode`, `loss` and `lr`.
        """

    def on_epoch_end(self, metrics: Mapping[str, Any], step: int) -> None:
        """Note an epoch that was trained and evaluated.

        Args:
            metrics: row of `metrics.csv`, by column, such as `epoch`, `base_top1` and `motivated_top1` in percent.
            step: number of batches of the run so far.
        """

    def on_test_end(self, accuracies: Mapping[str, float], step: int) -> None:
        """Note the accuracies of the exports on the test images, if the epochs were evaluated on validation images.

        Args:
            accuracies: accuracies in percent by column of `metrics.csv`, such as `base_top1` and `motivated_top1`.
            step: number of batches of the run.
        """

    def on_run_end(self, status: RunStatus) -> None:
        """Finish, because training ends in this process.

        Args:
            status: how it ends.
        """
