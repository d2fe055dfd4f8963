"""Tracking with MLflow, whose package is an extra: `pip install "nestnet[mlflow]"`."""

import os
import time
from collections.abc import Mapping
from typing import Any

from nestnet.storage.folders import make_folder
from nestnet.trackers.callback import Callback, RunStatus, TrackedRun
from nestnet.trackers.measurements import batch_measurements, epoch_measurements, flatten
from nestnet.trackers.run_id import read_run_id, write_run_id

BATCHES_PER_WRITE = 100
"""Number of batches whose measurements are sent together: a request for each would take longer than a small batch."""

LONGEST_PARAM = 500
"""Longest value of a parameter that every version of MLflow stores, in characters."""

STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
"""MLflow's name for each way in which training ends."""


class MLflow(Callback):
    """Tracker for MLflow, with the database `mlflow/mlflow.db` in the run directory.

    The environment configures mlflow as everywhere: `MLFLOW_TRACKING_URI` names a server or a database to use in its
    place, and `MLFLOW_EXPERIMENT_NAME` the experiment, which is `nestnet` by default.

    Attributes:
        client: mlflow's client, once training has started.
        run_id: mlflow's identifier of the run.
        waiting: measurements that are not sent yet.
        batches: number of batches since the last sending.
    """

    package = "mlflow"

    def on_run_start(self, run: TrackedRun) -> None:
        # The package is an extra, and its import takes seconds.
        from mlflow import MlflowClient

        folder = run.path / "mlflow"
        make_folder(folder)
        database = f"sqlite:///{os.path.abspath(folder)}/mlflow.db"
        self.client = MlflowClient(tracking_uri=os.environ.get("MLFLOW_TRACKING_URI", database))
        self.waiting: list[Any] = []
        self.batches = 0
        known = read_run_id(folder)
        if known is not None:
            self.run_id = known
            self.client.update_run(known, status="RUNNING")
        else:
            created = self.client.create_run(self._find_experiment(), run_name=run.name)
            self.run_id = created.info.run_id
            write_run_id(folder, self.run_id)
        self._log_config(run.config)

    def on_batch_end(self, row: Mapping[str, Any]) -> None:
        self._add(batch_measurements(row), row["step"])
        self.batches += 1
        if self.batches >= BATCHES_PER_WRITE:
            self._send()

    def on_epoch_end(self, metrics: Mapping[str, Any], step: int) -> None:
        self._add(epoch_measurements(metrics), step)
        self._send()

    def on_test_end(self, accuracies: Mapping[str, float], step: int) -> None:
        self._add(epoch_measurements(accuracies, "test"), step)

    def on_run_end(self, status: RunStatus) -> None:
        self._send()
        self.client.set_terminated(self.run_id, STATUS[status])

    def _find_experiment(self) -> str:
        """Return the identifier of the experiment, which is created if it is absent."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "nestnet")
        experiment = self.client.get_experiment_by_name(name)
        if experiment is not None:
            return experiment.experiment_id
        return self.client.create_experiment(name)

    def _log_config(self, config: Mapping[str, Any]) -> None:
        """Log the configuration as parameters; a field that was changed for a resume becomes a tag."""
        from mlflow.entities import Param, RunTag

        # A parameter can never be changed in MLflow.
        before = self.client.get_run(self.run_id).data.params
        params = []
        tags = []
        for name, value in flatten(config).items():
            text = str(value)[:LONGEST_PARAM]
            if name not in before:
                params.append(Param(name, text))
            elif before[name] != text:
                tags.append(RunTag(f"resumed.{name}", text))
        # MLflow takes at most 100 parameters at once.
        for first in range(0, len(params), 100):
            self.client.log_batch(self.run_id, params=params[first : first + 100])
        self.client.log_batch(self.run_id, tags=tags)

    def _add(self, measurements: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        for name, value in measurements.items():
            self.waiting.append(Metric(name, float(value), now, step))

    def _send(self) -> None:
        if self.waiting:
            self.client.log_batch(self.run_id, metrics=self.waiting)
        self.waiting = []
        self.batches = 0
