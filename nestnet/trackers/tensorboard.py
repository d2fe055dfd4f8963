"""Curves of a run for TensorBoard, whose package is an extra: `pip install "nestnet[tensorboard]"`."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from nestnet.storage.folders import make_folder
from nestnet.storage.opening import utf8_name
from nestnet.trackers.callback import Callback, RunStatus, TrackedRun
from nestnet.trackers.measurements import batch_measurements, epoch_measurements


class TensorBoard(Callback):
    """Writer of the rows of a run's tables as curves, to `tensorboard/` in the run directory.

    Attributes:
        writer: torch's writer, once the run has started.
        closing: stack of the resources that are closed with the writer.
    """

    package = "tensorboard"

    def on_run_start(self, run: TrackedRun) -> None:
        # The package is an extra, and its import takes seconds.
        from torch.utils.tensorboard import SummaryWriter

        folder = run.path / "tensorboard"
        make_folder(folder)
        self.closing = ExitStack()
        # The writer may open files by this name at any time, so the name must exist as long as the writer.
        name = self.closing.enter_context(utf8_name(folder))
        # TensorBoard does not show values of later batches that were written before the run was resumed.
        self.writer = SummaryWriter(name, purge_step=run.steps_done + 1)

    def on_batch_end(self, row: Mapping[str, Any]) -> None:
        self._write(batch_measurements(row), row["step"])

    def on_epoch_end(self, metrics: Mapping[str, Any], step: int) -> None:
        self._write(epoch_measurements(metrics), step)
        # The curves of an epoch can be viewed as soon as it ends.
        self.writer.flush()

    def on_test_end(self, accuracies: Mapping[str, float], step: int) -> None:
        self._write(epoch_measurements(accuracies, "test"), step)

    def on_run_end(self, status: RunStatus) -> None:
        self.writer.close()
        self.closing.close()

    def _write(self, measurements: Mapping[str, float], step: int) -> None:
        for name, value in measurements.items():
            self.writer.add_scalar(name, value, step)
