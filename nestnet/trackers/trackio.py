"""Tracking with Trackio, whose package is an extra: `pip install "nestnet[trackio]"`."""

import os
from collections.abc import Mapping
from typing import Any

from nestnet.trackers.callback import Callback, RunStatus, TrackedRun
from nestnet.trackers.measurements import batch_measurements, epoch_measurements, flatten
from nestnet.trackers.run_id import find_run_id


class Trackio(Callback):
    """Tracker for Trackio, which keeps all runs of a project in one local database: `trackio show` displays them.

    The environment configures trackio as everywhere: `TRACKIO_DIR` names the folder of the database, and
    `TRACKIO_SPACE_ID` a Space to send to. `TRACKIO_PROJECT` names the project, which is `nestnet` by default.

    Attributes:
        run: trackio's run, once training has started.
    """

    package = "trackio"

    def on_run_start(self, run: TrackedRun) -> None:
        # The package is an extra, and its import takes seconds.
        import trackio

        self.run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", "nestnet"),
            # Trackio knows a run by its name, and two folders may have the same one.
            name=find_run_id(run.path / "trackio", f"{run.name}-"),
            config=flatten(run.config),
            resume="allow",
            # A notebook would show the dashboard otherwise.
            embed=False,
        )

    def on_batch_end(self, row: Mapping[str, Any]) -> None:
        self.run.log(batch_measurements(row), step=row["step"])

    def on_epoch_end(self, metrics: Mapping[str, Any], step: int) -> None:
        self.run.log(epoch_measurements(metrics), step=step)

    def on_test_end(self, accuracies: Mapping[str, float], step: int) -> None:
        self.run.log(epoch_measurements(accuracies, "test"), step=step)

    def on_run_end(self, status: RunStatus) -> None:
        self.run.finish()
