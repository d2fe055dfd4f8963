"""The callbacks of a run, of which one that fails never ends the run."""

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any

from nestnet.runtime.log import log_notice
from nestnet.text.messages import in_one_line, message_of
from nestnet.trackers.callback import Callback, RunStatus, TrackedRun


class Callbacks:
    """The callbacks of a run. In a `with` statement, its end tells them how training ended.

    A callback that raises an exception is dropped with a notice: an experiment tracker whose server is gone must not
    end a run that has trained for hours.

    Args:
        callbacks: the callbacks, in the order in which they are called.

    Attributes:
        active: the callbacks that have not failed.
        has_started: whether they were told about the run, so that they must be told about its end.
    """

    def __init__(self, callbacks: Iterable[Callback] = ()) -> None:
        self.active = list(callbacks)
        self.has_started = False

    def start(self, run: TrackedRun) -> None:
        """Tell all callbacks that a run starts or resumes.

        Args:
            run: the run.
        """
        self.has_started = True
        self._call(lambda callback: callback.on_run_start(run))

    def batch_end(self, row: Mapping[str, Any]) -> None:
        """Tell all callbacks about a batch.

        Args:
            row: row of `steps.csv`.
        """
        # Most runs have no callbacks, and this is called for each batch.
        if self.active:
            self._call(lambda callback: callback.on_batch_end(row))

    def epoch_end(self, metrics: Mapping[str, Any], step: int) -> None:
        """Tell all callbacks about an epoch.

        Args:
            metrics: row of `metrics.csv`.
            step: number of batches of the run so far.
        """
        self._call(lambda callback: callback.on_epoch_end(metrics, step))

    def test_end(self, accuracies: Mapping[str, float], step: int) -> None:
        """Tell all callbacks the accuracies of the exports on the test images.

        Args:
            accuracies: accuracies in percent, by column of `metrics.csv`.
            step: number of batches of the run.
        """
        self._call(lambda callback: callback.on_test_end(accuracies, step))

    def __enter__(self) -> "Callbacks":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self.has_started:
            return
        status: RunStatus = "finished"
        if kind is not None:
            status = "interrupted" if issubclass(kind, KeyboardInterrupt) else "failed"
        self._call(lambda callback: callback.on_run_end(status))

    def _call(self, method: Callable[[Callback], None]) -> None:
        for callback in list(self.active):
            try:
                method(callback)
            except Exception as error:
                self.active.remove(callback)
                name = type(callback).__name__
                reason = f"{type(error).__name__}: {in_one_line(message_of(error))}"
                log_notice(f"{name} failed, and is left out from here on; the run continues without it: {reason}")
