"""A finished run, or one that was killed, is trained for more epochs than it was planned for."""

import csv
import json
import re
import shutil
from dataclasses import replace

import pytest
from interrupted import Killed, content, few, kill, whole_run

from nestnet.analysis.report.summary import read_summary
from nestnet.analysis.run_figure import draw_run
from nestnet.cli.main import main
from nestnet.config import parsing
from nestnet.paper.table import render_table
from nestnet.runs.checkpoints import Checkpoints
from nestnet.runs.directory import RunDirectory
from nestnet.runs.grouping import group_by_training
from nestnet.runs.parts import RunPart, read_parts, restart_epoch, write_parts
from nestnet.runs.reading import read_config
from nestnet.runs.run_files import delete_run
from nestnet.training.resume import resume

TINY = ["--model.base", "resnet8", "--model.motivated", "resnet14", "--data.batch_size", "16", "--motivation.name",
        "periodic", "--motivation.period", "2", "--checkpoint_steps", "2", "--ema_decay", "0.5"]  # fmt: skip
"""4 batches an epoch."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of 2 epochs."""
    return whole_run([*TINY, "--epochs", "2"], tmp_path_factory.mktemp("runs") / "two")


@pytest.fixture(scope="module")
def longer(finished, tmp_path_factory):
    """The same, resumed for 4 epochs."""
    run, path = finished
    copy = shutil.copytree(path, tmp_path_factory.mktemp("runs") / "longer")
    resume(copy, ["--epochs", "4"], images=few(run))
    return run, copy


def learning_rates(path):
    with open(path / "steps.csv") as file:
        return [float(row["lr"]) for row in csv.DictReader(file)]


def test_a_stretched_schedule_continues_as_that_of_a_run_of_all_epochs(finished, longer, tmp_path):
    _, other = whole_run([*TINY, "--epochs", "4"], tmp_path / "other")
    rates = learning_rates(longer[1])
    assert rates[:8] == learning_rates(finished[1])  # what was trained stays
    assert rates[8:] == learning_rates(other)[8:]


def test_a_schedule_that_changes_after_epochs(tmp_path):
    arguments = [*TINY, "--schedule.name", "poly", "--schedule.interval", "epoch"]
    run, path = whole_run([*arguments, "--epochs", "1"], tmp_path / "run")
    resume(path, ["--epochs", "3"], images=few(run))
    # timm's poly with exponent 0.1: 0.1 (1 - t / 3) ** 0.1 after epoch t.
    expected = [0.1] * 4 + [0.1 * (2 / 3) ** 0.1] * 4 + [0.1 * (1 / 3) ** 0.1] * 4
    assert learning_rates(path) == pytest.approx(expected)


def test_a_restarted_schedule_is_that_of_a_run_of_the_further_epochs(finished, tmp_path):
    run, path = finished
    path = shutil.copytree(path, tmp_path / "run")
    resume(path, ["--epochs", "4", "--schedule.further_epochs", "restart"], images=few(run))
    rates = learning_rates(path)
    assert rates[8:] == rates[:8]
    assert read_parts(path, read_config(path))[-1] == RunPart(2, 8, 4, "restart", pytest.approx(0, abs=1e-4), 0.1)


def test_the_record_shows_both_parts(finished, longer):
    (_, before), (_, path) = finished, longer
    config = read_config(path)
    assert config.epochs == 4
    first, second = read_parts(path, config)
    assert first == RunPart(0, 0, 2)
    assert (second.start_epoch, second.start_step, second.epochs, second.schedule) == (2, 8, 4, "stretch")
    assert (second.lr_before, second.lr_after) == pytest.approx((0, 0.05), abs=1e-4)
    entries = json.loads((path / "parts.json").read_text())["parts"]
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", entries[1]["began"])
    # The tables continue, and the earlier exports are kept.
    assert (path / "steps.csv").read_bytes().startswith((before / "steps.csv").read_bytes())
    assert len(learning_rates(path)) == 16
    for mode in ("base", "motivated"):
        export = (before / f"{mode}.safetensors").read_bytes()
        assert (path / f"{mode}-epoch-2.safetensors").read_bytes() == export
        assert (path / f"{mode}.safetensors").read_bytes() != export


def test_a_longer_run_that_is_killed_ends_with_the_same_bits(longer, finished, tmp_path, monkeypatch):
    run, whole = longer
    original = RunDirectory.add_step
    path = shutil.copytree(finished[1], tmp_path / "run")

    # Before its first checkpoint, where only config.yaml knows the new length, and in the middle of an epoch.
    for step in (9, 15):

        def killing(directory, row, step=step):
            if row["step"] == step:
                raise Killed
            original(directory, row)

        with monkeypatch.context() as patch:
            patch.setattr(RunDirectory, "add_step", killing)
            with pytest.raises(Killed):
                resume(path, ["--epochs", "4"] if step == 9 else [], images=few(run))
        # Until the end, the exports are those of the first part.
        assert (path / "base.safetensors").read_bytes() == (path / "base-epoch-2.safetensors").read_bytes()
    assert content(resume(path, images=few(run))) == content(whole)
    assert read_parts(path, read_config(path)) == read_parts(whole, read_config(whole))


def test_a_run_that_was_killed_within_an_epoch_becomes_longer_from_there(finished, tmp_path, monkeypatch, caplog):
    run, _ = finished
    kill(run, tmp_path / "run", monkeypatch, "add_step", 7)  # with a checkpoint of 6 batches
    resume(tmp_path / "run", ["--epochs", "3"], images=few(run))
    parts = read_parts(tmp_path / "run", read_config(tmp_path / "run"))
    assert [(part.start_epoch, part.start_step, part.epochs) for part in parts] == [(0, 0, 2), (1, 6, 3)]
    assert not list((tmp_path / "run").glob("*-epoch-*.safetensors"))  # there were no exports
    assert "epochs = 3 instead of 2, after 1 epoch: the cosine schedule is recomputed" in caplog.text


def test_a_run_that_was_killed_before_its_first_batch_has_one_part(finished, tmp_path, monkeypatch):
    run, _ = finished
    kill(run, tmp_path / "run", monkeypatch, "add_step", 1)
    resume(tmp_path / "run", ["--epochs", "3"], images=few(run))
    assert not (tmp_path / "run" / "parts.json").exists()
    assert learning_rates(tmp_path / "run")[6] == pytest.approx(0.05)  # halfway of 12 batches


def test_two_times_longer(longer, tmp_path):
    run, path = longer
    path = shutil.copytree(path, tmp_path / "run")
    began = json.loads((path / "parts.json").read_text())["parts"][1]["began"]
    resume(path, ["--epochs", "5"], images=few(run))
    entries = json.loads((path / "parts.json").read_text())["parts"]
    assert [entry["epochs"] for entry in entries] == [2, 4, 5]
    assert entries[1]["began"] == began
    assert sorted(file.name for file in path.glob("base-epoch-*")) == [
        "base-epoch-2.safetensors",
        "base-epoch-4.safetensors",
    ]
    # What a run wrote, it can remove again.
    copy = shutil.copytree(path, tmp_path / "copy")
    delete_run(copy)
    assert not copy.exists()


def test_the_notices_say_what_changes(finished, tmp_path, capsys):
    run, path = finished
    copy = shutil.copytree(path, tmp_path / "run")
    images = few(run)
    resume(copy, ["--epochs", "4"], images=images)
    lines = capsys.readouterr().err.splitlines()
    assert re.search(
        r"epochs = 4 instead of 2, after 2 epochs: the cosine schedule is recomputed as if the run had had 4 epochs from the "
        r"start, so the learning rate goes from \S+ to 0\.05 here; with schedule\.further_epochs = restart the",
        lines[0],
    )
    assert lines[1].endswith(
        "the exports of 2 epochs stay in place until the run ends, and are kept as base-epoch-2.safetensors and "
        "motivated-epoch-2.safetensors"
    )


def test_a_constant_rate_and_the_limits_of_motivation(tmp_path, caplog):
    arguments = [*TINY, "--schedule.name", "none", "--motivation.start", "0.5", "--epochs", "2"]
    run, path = whole_run(arguments, tmp_path / "run")
    resume(path, ["--epochs", "4"], images=few(run))
    assert (
        "the learning rate continues at 0.1, because the schedule does not depend on the number of epochs; motivation.start = "
        "0.5 and motivation.until = 1 are parts of all 4 epochs from here on" in caplog.text
    )
    with open(path / "steps.csv") as file:
        modes = [row["mode"] for row in csv.DictReader(file)]
    # The second half of 2 epochs, and then the second half of 4.
    assert "motivated" in modes[4:8]
    assert "motivated" not in modes[:4]
    assert "motivated" in modes[8:]


# Where the record is shown


def test_the_parts_are_shown_wherever_the_run_is(finished, longer, tmp_path, capsys):
    (_, before), (_, path) = finished, longer
    summary = read_summary(path)
    assert [part.start_epoch for part in summary.parts] == [0, 2]
    assert "2 + 2 epochs" in render_table([path, before], "csv")
    assert draw_run(path, tmp_path / "run.svg").read_text().count("resumed for more epochs") >= 1
    assert "resumed for more epochs" not in draw_run(before, tmp_path / "before.svg").read_text()
    # A run of 4 epochs from the start is not the same training.
    whole = replace(summary, parts=[RunPart(0, 0, 4)])
    assert [len(group) for group in group_by_training([summary, whole])] == [1, 1]
    capsys.readouterr()


# What is refused


@pytest.mark.parametrize(
    ("before", "changes", "message"),
    [
        (
            [],
            ["--epochs", "1"],
            r"^epochs = 1: the run has 2, and can only be resumed for more; raise it, or leave it out$",
        ),
        (
            [],
            ["--epochs", "4", "--seed", "1"],
            r"of another configuration: seed = 0 \(now 1\); .*and epochs may be raised$",
        ),
        ([], ["--schedule.further_epochs", "restart"], r"schedule\.further_epochs = 'stretch' \(now 'restart'\)"),
        (
            ["--finish_epochs", "1"],
            ["--epochs", "4"],
            "^epochs = 4: the base was finished after 2 epochs, and finish_epochs trained the rest on top of it; leave epochs",
        ),
        (
            ["--motivation.name", "random_like", "--motivation.counts", "[1, 1]", "--motivation.period", "null"],
            ["--epochs", "4"],
            r"^epochs = 4: motivation\.counts has the motivated batches of 2 epochs only; start a new run$",
        ),
        ([], ["--finish_epochs", "1"], r"finish_epochs = 0 \(now 1\)"),
    ],
    ids=["fewer", "seed", "restart", "finish", "random_like", "finish_epochs"],
)
def test_what_is_refused(before, changes, message, finished, tmp_path):
    run, path = finished
    if before:
        run, path = whole_run([*TINY, *before, "--epochs", "2"], tmp_path / "run")
    entries = sorted(entry.name for entry in path.iterdir())
    config = (path / "config.yaml").read_bytes()
    with pytest.raises(ValueError, match=message):
        resume(path, changes, images=few(run))
    assert sorted(entry.name for entry in path.iterdir()) == entries
    assert (path / "config.yaml").read_bytes() == config


def test_a_run_that_extends_a_given_base_is_refused(finished, tmp_path):
    run, path = finished
    export = str(path / "base.safetensors")
    arguments = [*TINY[:6], "--model.base_weights", export, "--epochs", "0", "--finish_epochs", "1"]
    _, extension = whole_run(arguments, tmp_path / "run")
    with pytest.raises(
        ValueError, match=r"^epochs = 1: the run extends a finished base, which is not trained; leave it out"
    ):
        resume(extension, ["--epochs", "1"], images=few(run))


def test_a_schedule_without_length_cannot_be_restarted():
    with pytest.raises(
        ValueError, match=r"^schedule\.further_epochs = 'restart': schedule\.name = 'none' has no such setting"
    ):
        parsing.parse([*TINY, "--schedule.name", "none", "--schedule.further_epochs", "restart"])


# The record itself


def test_a_damaged_record(tmp_path):
    config = parsing.parse(TINY)
    assert read_parts(tmp_path, config) == [RunPart(0, 0, 20)]
    parts = [RunPart(0, 0, 20), RunPart(20, 80, 60, "restart", 0.0, 0.1)]
    write_parts(tmp_path, parts)
    assert read_parts(tmp_path, config) == parts
    assert restart_epoch(parts) == 20
    # It had ended early, and continues with the same schedule.
    assert restart_epoch([*parts, RunPart(33, 132, 60, "restart", 0.05, 0.05)]) == 20
    assert restart_epoch([*parts, RunPart(33, 132, 90, "stretch", 0.05, 0.07)]) == 0
    path = tmp_path / "parts.json"
    text = path.read_text()
    for broken in ('{"parts": []}', '{"parts": [1]}', text.replace('"restart"', '"other"'), text.replace("80", "-1")):
        path.write_text(broken)
        with pytest.raises(ValueError, match=r"parts\.json is damaged: .*; put back a copy of it, or resume the run"):
            read_parts(tmp_path, config)


def test_the_command(tmp_path, capsys):
    run_dir = ["--run_dir", str(tmp_path / "run")]
    settings = ["--model.base", "resnet8", "--model.motivated", "resnet8", "--motivation.name", "never"]
    assert main(["train", *settings, "--data.batch_size", "700", "--epochs", "1", *run_dir]) == 0
    assert main(["resume", str(tmp_path / "run"), "--epochs", "2"]) == 0
    out = capsys.readouterr().out
    assert "resumes after 1 of 2 epochs and 0 batches" in out
    assert main(["resume", str(tmp_path / "run"), "--epochs", "1"]) == 2
    assert capsys.readouterr().err == (
        "nestnet resume: error: epochs = 1: the run has 2, and can only be resumed for more; raise it, or leave it out\n"
    )
    assert Checkpoints(tmp_path / "run" / "checkpoints").newest()["epochs_done"] == 2
