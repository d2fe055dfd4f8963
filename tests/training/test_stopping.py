"""Runs that end before their last epoch, and continue later."""

import json
from dataclasses import replace

import pytest
from interrupted import content, few, kill, whole_run

from nestnet.analysis.report.findings import describe_results
from nestnet.analysis.report.summary import read_summary
from nestnet.config import parsing
from nestnet.paper.finished_run import read_finished_run
from nestnet.runs.parts import RunPart, describe_parts, read_parts, write_parts
from nestnet.runs.reading import read_config
from nestnet.runs.result import read_result
from nestnet.training.resume import resume
from nestnet.training.stopping import Stopping, metric_value
from nestnet.training.trainer import Trainer

TINY = ["--model.base", "resnet8", "--model.motivated", "resnet14", "--data.batch_size", "32", "--motivation.name", "periodic",
        "--motivation.period", "2", "--epochs", "4", "--optimizer.lr", "1e-30"]  # fmt: skip
"""2 batches an epoch, which change almost nothing, so that the first epoch stays among the best ones."""

PATIENT = ["--early_stopping.patience", "2", "--early_stopping.min_delta", "100"]
"""The run ends after its third epoch, because no accuracy rises by more than 100 points."""


def row(epoch, base, motivated=0.0):
    return {"epoch": epoch, "base_top1": base, "motivated_top1": motivated}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    return whole_run([*TINY, *PATIENT], tmp_path_factory.mktemp("runs") / "stopped")


# The decision


@pytest.mark.parametrize(
    ("values", "min_delta", "ends_after"),
    [
        ([50, 60, 59, 58, 70], 0, 4),
        ([50, 60, 59, 61, 60, 61], 0, 6),  # an equal value is no better one
        ([50, 51, 52, 53], 5, 3),  # each rises by too little
        ([50, 56, 62, 68], 5, None),
        ([10, 20, 30], 0, None),
    ],
)
def test_patience_counts_epochs_without_a_better_value(values, min_delta, ends_after):
    arguments = [*TINY, "--early_stopping.patience", "2", "--early_stopping.metric", "base"]
    config = parsing.parse([*arguments, "--early_stopping.min_delta", str(min_delta)])
    stopping = Stopping()
    ends = []
    for epoch, value in enumerate(values, 1):
        stopping.end_epoch(config, row(epoch, value))
        if stopping.reason(2, None):
            ends.append(epoch)
    assert ends[:1] == ([] if ends_after is None else [ends_after])


@pytest.mark.parametrize(
    ("arguments", "ends_after"),
    [
        ([], 3),
        (["--motivation.start", "0.5"], 12),  # the first half of 20 epochs does not count
        (["--motivation.start", "0.5", "--motivation.name", "never"], 3),
    ],
)
def test_epochs_before_the_motivated_network_is_trained_do_not_count(arguments, ends_after):
    config = parsing.parse([*TINY[:6], "--epochs", "20", "--early_stopping.patience", "2", *arguments])
    stopping = Stopping()
    epoch = 0
    while stopping.reason(2, None) is None:
        epoch += 1
        stopping.end_epoch(config, row(epoch, 50.0))
    assert epoch == ends_after


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ([], 50.0),
        (["--early_stopping.metric", "base"], 40.0),
        (["--early_stopping.metric", "motivated"], 60.0),
        (["--motivation.name", "never"], 40.0),  # the other network is not trained
        (["--motivation.name", "always"], 60.0),
    ],
)
def test_the_metric(arguments, value):
    config = parsing.parse([*TINY[:6], "--early_stopping.patience", "1", *arguments])
    assert metric_value(config, row(1, 40.0, 60.0)) == value


@pytest.mark.parametrize(("hours", "reason"), [(1.0, None), (0.9, "max_hours"), (0.5, "max_hours"), (None, None)])
def test_the_time_must_suffice_for_another_epoch(hours, reason):
    # Half an hour is over, and the longest epoch took as long.
    assert Stopping(seconds=1900, epoch_end=1800, longest_epoch=1800).reason(None, hours) == reason


def test_a_run_has_at_least_one_epoch():
    assert Stopping(seconds=1900).reason(None, 0.001) is None


def test_the_clock_counts_all_parts(monkeypatch):
    config = parsing.parse(TINY)
    now = [100.0]
    monkeypatch.setattr("nestnet.training.stopping.time.monotonic", lambda: now[0])
    stopping = Stopping(seconds=50, epoch_end=30, longest_epoch=10)  # killed 20 seconds after the last epoch
    now[0] = 500.0
    stopping.start_clock()  # reading the data took long, and does not count
    now[0] = 507.0
    stopping.end_epoch(config, row(2, 0))
    assert (stopping.seconds, stopping.epoch_end, stopping.longest_epoch) == (57, 57, 27)


# Runs


def test_a_run_that_ends_early_ends_properly(stopped, tmp_path, capsys):
    run, path = stopped
    assert len((path / "metrics.csv").read_text().splitlines()) == 1 + 3
    result = read_result(path, run, 3)
    assert (result.ended_by, result.epochs, result.exported_epochs) == (
        "early_stopping",
        3,
        {"base": 3, "motivated": 3},
    )
    assert result.test is None  # there are no validation images, so that the test images were evaluated in each epoch
    assert (path / "motivated.safetensors").exists()
    # It counts as finished wherever runs are shown.
    summary = read_summary(path)
    assert summary.is_finished
    assert describe_results(summary)[1].startswith("After epoch 3 of 4 ")
    assert read_finished_run(path) is not None
    # Resumed as it is, it stays as it is.
    before = content(path)
    resume(path, images=few(run))
    assert content(path) == before
    captured = capsys.readouterr()
    assert "the run was finished; its exports are written once more" in captured.out
    assert (
        "early_stopping.patience = 2: the accuracy was best after epoch 1, so the run ends after epoch 3 of 4; resume it with "
        "early_stopping.patience = null to train further" in captured.err
    )
    with pytest.raises(
        ValueError, match=r"^epochs = 8: the run ends after epoch 3, because of early_stopping\.patience = 2; raise"
    ):
        resume(path, ["--epochs", "8"], images=few(run))


def test_a_run_that_ended_early_continues_as_if_it_had_not(tmp_path):
    run, path = whole_run([*TINY, *PATIENT], tmp_path / "run")
    _, whole = whole_run(TINY, tmp_path / "whole")
    export = (path / "base.safetensors").read_bytes()
    resume(path, ["--early_stopping.patience", "null", "--early_stopping.min_delta", "0"], images=few(run))
    assert (path / "steps.csv").read_bytes() == (whole / "steps.csv").read_bytes()
    assert (path / "motivated.safetensors").read_bytes() == (whole / "motivated.safetensors").read_bytes()
    assert (path / "base-epoch-3.safetensors").read_bytes() == export
    assert (
        describe_parts(read_parts(path, read_config(path))) == "trained further after epoch 3, where it had ended early"
    )
    assert read_result(path, run, 4).ended_by == "epochs"


def test_a_killed_run_ends_early_where_it_would_have(stopped, tmp_path, monkeypatch):
    run, whole = stopped
    kill(run, tmp_path / "run", monkeypatch, "add_step", 6)
    assert content(resume(tmp_path / "run", images=few(run))) == content(whole)


def test_hours_end_a_run_and_more_of_them_continue_it(tmp_path, caplog):
    run, path = whole_run([*TINY, "--max_hours", "1e-9"], tmp_path / "run")
    assert read_result(path, run, 1).ended_by == "max_hours"
    assert "max_hours = 1e-09: " in caplog.text
    assert "so the run ends after epoch 1 of 4; resume it with a higher max_hours to train further" in caplog.text
    resume(path, ["--max_hours", "1"], images=few(run))
    assert json.loads((path / "result.json").read_text())["ended_by"] == "epochs"
    assert len((path / "metrics.csv").read_text().splitlines()) == 1 + 4


def test_notices_at_the_start(tmp_path, caplog):
    run = parsing.parse([*TINY, *PATIENT, "--max_hours", "1e-9", "--run_dir", str(tmp_path / "run")])
    Trainer(run, images=few(run)).fit()
    notices = [record.getMessage() for record in caplog.records]
    assert notices[0] == (
        "early_stopping.patience = 2 and max_hours = 1e-09: the learning rate schedule is that of all 4 epochs, also if the "
        "run ends before"
    )
    assert notices[1].startswith(
        "early_stopping.patience = 2: there are no validation images, so the test images decide when"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--early_stopping.patience", "0"], r"^early_stopping\.patience = 0: it must be at least 1$"),
        (["--early_stopping.min_delta", "1"], r"^early_stopping\.min_delta = 1\.0: nothing stops early; give"),
        (
            ["--early_stopping.patience", "1", "--finish_epochs", "1"],
            r"^early_stopping\.patience = 1: finish_epochs follow after all epochs, so that the run cannot end before; leave",
        ),
        (
            ["--early_stopping.patience", "1", "--early_stopping.metric", "motivated", "--motivation.name", "never"],
            r"^early_stopping\.metric = 'motivated': only the base network is trained; leave it out$",
        ),
        (["--max_hours", "0"], r"^max_hours = 0\.0: it must be above 0$"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        parsing.parse([*TINY[:6], *arguments])


def test_a_damaged_result(tmp_path):
    path = tmp_path / "result.json"
    config = parsing.parse([*TINY[:6], "--epochs", "2"])
    good = {"ended_by": "epochs", "epochs": 2, "parts": 1, "exported_epochs": {"base": 2, "motivated": 1}, "test": None}
    path.write_text(json.dumps(good))
    assert read_result(tmp_path, config, 2).exported_epochs == {"base": 2, "motivated": 1}
    # It trains further.
    assert read_result(tmp_path, config, 3) is None
    assert read_result(tmp_path, replace(config, epochs=3), 2) is None
    write_parts(tmp_path, [RunPart(0, 0, 2), RunPart(2, 4, 2)])
    assert read_result(tmp_path, config, 2) is None
    (tmp_path / "parts.json").unlink()
    for broken in (
        {"ended_by": "x"},
        {"exported_epochs": {"base": 1}},
        {"test": {"base_top1": 101, "motivated_top1": 1}},
    ):
        path.write_text(json.dumps(good | broken))
        with pytest.raises(ValueError, match=r"result\.json is damaged"):
            read_result(tmp_path, config, 2)
