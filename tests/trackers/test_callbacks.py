"""What callbacks are told, and what happens when one fails."""

from contextlib import nullcontext

import pytest
from interrupted import few
from registries import forgotten

import nestnet
from nestnet.config import parsing
from nestnet.trackers.callback import Callback, TrackedRun
from nestnet.trackers.callbacks import Callbacks
from nestnet.trackers.measurements import flatten
from nestnet.trackers.registry import TRACKERS, check_trackers_installed, create_trackers
from nestnet.trackers.run_id import find_run_id
from nestnet.training.resume import resume
from nestnet.training.trainer import Trainer

TINY = ["--model.base", "resnet8", "--model.motivated", "resnet14", "--data.batch_size", "32",
        "--motivation.name", "periodic", "--motivation.period", "2"]  # fmt: skip


class Recorder(Callback):
    def __init__(self):
        self.calls = []

    def on_run_start(self, run):
        self.calls.append(("start", run.name, run.config["epochs"], run.steps_done, run.epochs_done))

    def on_batch_end(self, row):
        self.calls.append(("batch", row["step"]))

    def on_epoch_end(self, metrics, step):
        self.calls.append(("epoch", metrics["epoch"], step))

    def on_run_end(self, status):
        self.calls.append(("end", status))


class Failing(Recorder):
    """Its server is gone after the first batch."""

    def on_batch_end(self, row):
        super().on_batch_end(row)
        raise ConnectionError("no route to host\nsee the log")


def test_a_run_tells_its_callbacks_and_outlives_one_that_fails(tmp_path, caplog):
    run = parsing.parse([*TINY, "--epochs", "2", "--run_dir", str(tmp_path / "mine")])
    recorder, failing = Recorder(), Failing()
    Trainer(run, images=few(run), callbacks=[failing, recorder]).fit()
    epochs = [[("batch", step), ("batch", step + 1), ("epoch", epoch, step + 1)] for epoch, step in ((1, 1), (2, 3))]
    assert recorder.calls == [("start", "mine", 2, 0, 0), *epochs[0], *epochs[1], ("end", "finished")]
    # It is told nothing more, not even the end.
    assert failing.calls == [("start", "mine", 2, 0, 0), ("batch", 1)]
    notices = [record.getMessage() for record in caplog.records if "Failing" in record.getMessage()]
    assert notices == [
        "Failing failed, and is left out from here on; the run continues without it: ConnectionError: no route to host "
        "see the log"
    ]
    # A run that resumes says where.
    recorder = Recorder()
    resume(tmp_path / "mine", images=few(run), callbacks=[recorder])
    assert recorder.calls == [("start", "mine", 2, 4, 2), ("end", "finished")]


@pytest.mark.parametrize(
    ("error", "status"), [(None, "finished"), (KeyboardInterrupt, "interrupted"), (RuntimeError, "failed")]
)
def test_the_end_says_how_training_ended(error, status, tmp_path):
    recorder = Recorder()
    expected = nullcontext() if error is None else pytest.raises(error)
    with expected, Callbacks([recorder]) as callbacks:
        callbacks.start(TrackedRun(tmp_path / "run", {"epochs": 1}, 0, 0))
        if error is not None:
            raise error
    assert recorder.calls[-1] == ("end", status)


def test_before_the_run_begins_there_is_no_end_to_tell():
    recorder = Recorder()
    with Callbacks([recorder]):
        pass
    assert recorder.calls == []


# Names


def test_a_tracker_of_ones_own_is_named_in_a_configuration():
    with forgotten():
        nestnet.register_tracker("recorder")(Recorder)
        run = parsing.parse([*TINY, "--trackers", "[recorder, tensorboard]"])
        assert [type(tracker).__name__ for tracker in create_trackers(run.trackers)] == ["Recorder", "TensorBoard"]
        with pytest.raises(ValueError, match=r"^tracker 'recorder': there is one of this name already$"):
            nestnet.register_tracker("recorder")
    with pytest.raises(ValueError, match=r"^tracker 'x': .* must be a subclass of nestnet\.Callback$"):
        nestnet.register_tracker("x")(dict)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "[tensorbord]",
            r"^trackers = \['tensorbord'\]: 'tensorbord' is no tracker; did you mean tensorboard\? Known are",
        ),
        ("[wandb, wandb]", r"^trackers = \['wandb', 'wandb'\]: 'wandb' is there more than once; name it once$"),
        ("tensorboard", r"^trackers = tensorboard: it must be a list; write \[tensorboard\]$"),
    ],
)
def test_names_that_are_refused(value, message):
    with pytest.raises(ValueError, match=message):
        parsing.parse([*TINY, "--trackers", value])


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow", "trackio"])
def test_a_package_that_is_not_installed_is_refused_at_the_start(name, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    with pytest.raises(ValueError, match=rf'^trackers = .*{name} is not installed; `pip install "nestnet\[{name}\]"`$'):
        check_trackers_installed([name])


def test_a_package_of_ones_own_tracker(monkeypatch):
    class Mine(Callback):
        package = "a_package_that_is_nowhere"

    with forgotten():
        TRACKERS["mine"] = Mine
        with pytest.raises(ValueError, match=r"is not installed; `pip install a_package_that_is_nowhere`$"):
            check_trackers_installed(["mine"])
    check_trackers_installed([])


# What trackers share


def test_an_identifier_is_kept(tmp_path):
    first = find_run_id(tmp_path / "tracker", "run-")
    assert first.startswith("run-")
    assert len(first) == len("run-") + 8
    assert find_run_id(tmp_path / "tracker", "run-") == first
    assert find_run_id(tmp_path / "other", "run-") != first


def test_a_configuration_is_flattened():
    config = {"epochs": 2, "optimizer": {"lr": 0.1, "options": {"betas": [0.9, 0.99]}}, "data": {}}
    flat = {"epochs": 2, "optimizer.lr": 0.1, "optimizer.options.betas": [0.9, 0.99], "data": {}}
    assert flatten(config) == flat
