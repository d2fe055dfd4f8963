"""Each tracker, offline: what it stores, and that a resumed run continues there.

Trackio needs an older pillow than the rest, so a module in its place records the calls.
"""

import sqlite3
import sys
from types import SimpleNamespace

import pytest
from made_up_rows import EPOCH, batch_row

from nestnet.trackers.callback import TrackedRun
from nestnet.trackers.mlflow import MLflow
from nestnet.trackers.trackio import Trackio
from nestnet.trackers.wandb import WandB


def track(tracker_class, path, done, steps, epochs, status):
    """Two batches of a run, and an epoch if it ends well."""
    tracker = tracker_class()
    tracker.on_run_start(TrackedRun(path, {"epochs": epochs, "optimizer": {"lr": 0.1}}, done, 0))
    for step in range(done + 1, steps + 1):
        tracker.on_batch_end(batch_row(step, loss=1 / step))
    if status == "finished":
        tracker.on_epoch_end(EPOCH, steps)
    tracker.on_run_end(status)


def killed_and_resumed(tracker_class, path):
    path.mkdir()
    track(tracker_class, path, 0, 2, 1, "interrupted")
    track(tracker_class, path, 1, 3, 4, "finished")  # from the checkpoint of the first batch, for more epochs


# wandb and what it imports warn of their own use of pydantic and multiprocessing.
@pytest.mark.filterwarnings("ignore")
def test_wandb(tmp_path, monkeypatch):
    for name, value in {"MODE": "offline", "SILENT": "true", "CONSOLE": "off"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    killed_and_resumed(WandB, tmp_path / "run")
    folder = tmp_path / "run" / "wandb"
    run_id = (folder / "run_id").read_text().strip()
    # Each part is a file of its own, and `wandb sync` joins those of one identifier.
    files = sorted(folder.glob(f"offline-run-*-{run_id}/run-{run_id}.wandb"))
    assert len(files) == len(list(folder.glob("offline-run-*"))) >= 1
    logs = b"".join(file.read_bytes() for file in files)
    assert logs.count(b"batch/loss") >= 4
    assert b"epoch/motivated_top1" in logs


@pytest.mark.slow  # it makes the tables of a database
@pytest.mark.filterwarnings("ignore")  # mlflow's database uses what SQLAlchemy deprecates
def test_mlflow(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    killed_and_resumed(MLflow, tmp_path / "run")
    run_id = (tmp_path / "run" / "mlflow" / "run_id").read_text().strip()
    with sqlite3.connect(tmp_path / "run" / "mlflow" / "mlflow.db") as database:
        assert database.execute("select run_uuid, name, status from runs").fetchall() == [(run_id, "run", "FINISHED")]
        losses = database.execute("select distinct step, value from metrics where key = 'batch/loss' order by step")
        assert losses.fetchall() == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
        epochs = database.execute("select step, value from metrics where key = 'epoch/motivated_top1'")
        assert epochs.fetchall() == [(3, 0.75)]
        params = dict(database.execute("select key, value from params").fetchall())
        assert params == {"epochs": "1", "optimizer.lr": "0.1"}
        tags = dict(database.execute("select key, value from tags").fetchall())
        assert tags["resumed.epochs"] == "4"
    database.close()


def test_trackio(tmp_path, monkeypatch):
    calls = []

    def init(**arguments):
        calls.append(arguments)
        return SimpleNamespace(
            log=lambda values, step: calls.append((values, step)), finish=lambda: calls.append("finish")
        )

    monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(init=init))
    monkeypatch.setenv("TRACKIO_PROJECT", "photos")
    killed_and_resumed(Trackio, tmp_path / "run")
    first, second = (call for call in calls if isinstance(call, dict))
    assert first["name"] == second["name"]
    assert first["name"].startswith("run-")
    assert (first["project"], first["resume"], first["config"]) == (
        "photos",
        "allow",
        {"epochs": 1, "optimizer.lr": 0.1},
    )
    logged = [(step, list(values)) for values, step in (call for call in calls if isinstance(call, tuple))]
    batch = ["batch/loss", "batch/lr", "batch/motivated"]
    assert logged[:4] == [(1, batch), (2, batch), (2, batch), (3, batch)]
    assert logged[4] == (3, [f"epoch/{name}" for name in EPOCH])
    assert calls.count("finish") == 2
