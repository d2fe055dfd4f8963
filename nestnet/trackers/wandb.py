"""Tracking with Weights & Biases, whose package is an extra: `pip install "nestnet[wandb]"`."""

import os
from collections.abc import Mapping
from typing import Any

from nestnet.trackers.callback import Callback, RunStatus, TrackedRun
from nestnet.trackers.measurements import batch_measurements, epoch_measurements
from nestnet.trackers.run_id import find_run_id


class WandB(Callback):
    """Tracker for Weights & Biases, which keeps its files in `wandb/` in the run directory.

    The environment configures wandb as everywhere: `WANDB_MODE=offline` sends nothing, and `WANDB_PROJECT` names the
    project, which is `nestnet` by default.

    Attributes:
        run: wandb's run, once training has started.
    """

    package = "wandb"

    def on_run_start(self, run: TrackedRun) -> None:
        # The package is an extra, and its import takes seconds.
        import wandb

        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "nestnet"),
            name=run.name,
            id=find_run_id(run.path / "wandb"),
            # wandb adds the folder `wandb` itself.
            dir=run.path,
            resume="allow",
            config=dict(run.config),
            # A resumed run may have other settings, such as more epochs.
            allow_val_change=True,
            # Several runs may be trained in one process.
            reinit="create_new",
        )

    def on_batch_end(self, row: Mapping[str, Any]) -> None:
        # wandb ignores batches that it has from before a resume, and sends in the background.
        self.run.log(batch_measurements(row), step=row["step"])

    def on_epoch_end(self, metrics: Mapping[str, Any], step: int) -> None:
        self.run.log(epoch_measurements(metrics), step=step)

    def on_test_end(self, accuracies: Mapping[str, float], step: int) -> None:
        self.run.log(epoch_measurements(accuracies, "test"), step=step)

    def on_run_end(self, status: RunStatus) -> None:
        self.run.finish(exit_code=0 if status == "finished" else 1)
