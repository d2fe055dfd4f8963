"""The last phase of a run, which extends the finished base."""

import json
import re
from dataclasses import replace

import pytest
import torch
from interrupted import Killed, content, few, kill, whole_run

from nestnet import Mode
from nestnet.analysis.report.findings import describe_results
from nestnet.analysis.report.summary import read_summary
from nestnet.cli.main import main
from nestnet.config import parsing
from nestnet.optim.schedule import create_scheduler
from nestnet.paper.finished_run import read_finished_run
from nestnet.recipes.command_line import parse_with_recipe
from nestnet.runs.checkpoint_file import read_checkpoint
from nestnet.runs.checkpoints import Checkpoints
from nestnet.runs.directory import RunDirectory
from nestnet.runs.history import motivated_counts, read_history, read_run_tables
from nestnet.runs.reading import read_cost, read_table
from nestnet.training.earlier_runs import mean_motivated_counts
from nestnet.training.resume import resume
from nestnet.training.trainer import Trainer

TINY = ["--model.base", "resnet8", "--model.motivated", "resnet14", "--model.drop_rate", "0.2", "--data.batch_size", "16",
        "--data.mixup", "0.2", "--motivation.k", "1", "--ema_decay", "0.9", "--epochs", "2", "--finish_epochs", "2",
        "--finish_lr", "0.05", "--recalibration_batches", "1", "--optimizer.clip_grad", "1", "--checkpoint_steps", "1",
        "--schedule.warmup_epochs", "1"]  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return whole_run(TINY, tmp_path_factory.mktemp("runs") / "whole")


def of_the_base(trainer):
    """All of a trainer that belongs to the base, by names that say where it is."""
    found = {}
    nets = {"net": trainer.net, "average": trainer.step.averaged}
    for kind, net in nets.items():
        for name, tensor in net.subnet("base").state_dict().items():
            found[f"{kind}.{name}"] = tensor.clone()
    for name, parameter in trainer.net.subnet("base").named_parameters():
        for key, value in trainer.optimizer.state[parameter].items():
            found[f"optimizer.{name}.{key}"] = torch.as_tensor(value).clone()
    return found


@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
@pytest.mark.parametrize("literal", [False, True])
def test_the_base_stands_still_in_every_respect(optimizer, literal, tmp_path):
    if literal and optimizer == "momentum":
        pytest.skip("SGD counts no steps")
    arguments = ["--optimizer.name", optimizer, "--optimizer.lr", "1e-2", "--optimizer.weight_decay", "0.1",
                 "--optimizer.step_count", "literal" if literal else "own"]  # fmt: skip
    run = parse_with_recipe([*TINY, *arguments, "--run_dir", str(tmp_path / "run")])
    trainer = Trainer(run, images=few(run))
    stood_still = []

    def finish_epoch(accuracies, original=trainer._finish_epoch):
        original(accuracies)
        stood_still.append((of_the_base(trainer), accuracies["base_top1"]))
        trainer.export(Mode.BASE, tmp_path / f"{trainer.epochs_done}.safetensors")

    trainer._finish_epoch = finish_epoch
    trainer.fit()
    (before, top1), *later = stood_still[1:]
    trained = {name: tensor for name, tensor in before.items() if name.startswith("net.")}
    assert all(torch.equal(tensor, before[name.replace("net.", "average.", 1)]) for name, tensor in trained.items())
    for found, other_top1 in later:
        assert found.keys() == before.keys()
        assert all(torch.equal(found[name], before[name]) for name in before)
        assert other_top1 == top1
    exports = [(tmp_path / f"{epoch}.safetensors").read_bytes() for epoch in (2, 3, 4)]
    assert exports[0] == exports[1] == exports[2] == (tmp_path / "run" / "base.safetensors").read_bytes()
    assert any(not torch.equal(before[name], stood_still[0][0][name]) for name in before), "it was trained before"


def test_a_run_that_is_killed_anywhere_ends_as_the_whole_one(tiny, tmp_path, monkeypatch):
    """Before, at and after the boundary: every batch has a checkpoint."""
    run, whole = tiny
    kill(run, tmp_path / "run", monkeypatch, "add_step", 2)
    original = RunDirectory.add_step
    steps = len(read_table(whole / "steps.csv"))
    for last in range(4, steps, 3):

        def killing(directory, row, last=last):
            original(directory, row)
            if row["step"] == last:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(RunDirectory, "add_step", killing)
            with pytest.raises(Killed):
                resume(tmp_path / "run", images=few(run))
    assert content(resume(tmp_path / "run", images=few(run))) == content(whole)


@pytest.mark.parametrize(("method", "number"), [("save_cost", 2), ("add_epoch", 2), ("add_epoch", 3), ("save_cost", 4)])
def test_a_run_that_is_killed_at_the_end_of_an_epoch(tiny, tmp_path, monkeypatch, method, number):
    run, whole = tiny
    kill(run, tmp_path / "run", monkeypatch, method, number)
    assert content(resume(tmp_path / "run", images=few(run))) == content(whole)


def test_the_tables_tell_the_phase(tiny):
    _, path = tiny
    config, steps, metrics = read_run_tables(path)
    length = len(steps) // 4
    assert list(metrics["epoch"]) == [1, 2, 3, 4]
    assert set(steps.mode[: 2 * length]) <= {"base", "motivated"}
    assert set(steps.mode[2 * length :]) == {"finish"}
    assert list(metrics["motivated_fraction"][2:]) == [1, 1]
    assert config.total_epochs == 4
    by_hand = [int(((steps.epoch == epoch) & (steps.mode == "motivated")).sum()) for epoch in (1, 2)]
    assert motivated_counts(steps) == by_hand
    assert read_history(path, "x").modes[3].tolist() == ["finish"] * length
    with pytest.raises(ValueError, match="has finished 2 epochs, but this run has 3"):
        mean_motivated_counts([str(path)], 3)
    assert mean_motivated_counts([str(path)], 2) == motivated_counts(steps)


def test_the_learning_rate_has_a_schedule_of_its_own(tiny):
    run, path = tiny
    rows = read_table(path / "steps.csv")
    length = len(rows) // 4
    weight = torch.nn.Parameter(torch.zeros(1))
    expected = []
    for lr, epochs, schedule in (
        (run.optimizer.lr, 2, run.schedule),
        (0.05, 2, replace(run.schedule, warmup_epochs=0)),
    ):
        optimizer = torch.optim.SGD([weight], lr=lr)
        scheduler = create_scheduler(optimizer, schedule, epochs, length)
        for step in range(1, epochs * length + 1):
            expected.append(optimizer.param_groups[0]["lr"])
            scheduler.step_update(step)
    assert [float(row["lr"]) for row in rows] == expected
    assert expected[2 * length] == 0.05


@pytest.mark.parametrize("settings", [["--schedule.name", "none"], ["--schedule.interval", "epoch"]])
def test_other_schedules(settings, tmp_path):
    run = parse_with_recipe(["--model.base", "resnet8", "--model.motivated", "resnet14", "--epochs", "1", "--finish_epochs",
                             "2", "--data.batch_size", "16", "--motivation.k", "1", *settings, "--run_dir",
                             str(tmp_path / "run")])  # fmt: skip
    Trainer(run, images=few(run)).fit()
    rows = read_table(tmp_path / "run" / "steps.csv")
    rates = [sorted({float(row["lr"]) for row in rows if row["epoch"] == epoch}) for epoch in "123"]
    last = [0.1] if settings[1] == "none" else [pytest.approx(0.05)]
    assert rates == [[0.1], [0.1], last], "by default the first learning rate is that of the optimizer"


def test_the_cost_by_hand(tiny):
    run, path = tiny
    cost, rows = read_cost(path), read_table(path / "steps.csv")
    modes = [row["mode"] for row in rows]
    length = len(rows) // 4
    total = sum(cost["base"] if mode == "base" else cost["motivated"] for mode in modes)
    assert cost["actual"] == total / len(rows)
    assert cost["relative_to_base"] == total / (2 * length * cost["base"])
    newest = read_checkpoint(Checkpoints(path / "checkpoints").paths()[0])
    assert newest["cost"]["finish_steps"] == 2 * length
    trainer = Trainer(parsing.load(path / "config.yaml"), images=few(run))
    share = trainer.expected_fraction
    average = cost["base"] + share * (cost["motivated"] - cost["base"])
    assert cost["expected"] == pytest.approx((2 * average + 2 * cost["motivated"]) / 4)
    assert json.loads((path / "cost.json").read_text())["convention"] == "macs"


def test_the_report_and_the_table_state_the_whole_cost(tiny, tmp_path, capsys):
    _, path = tiny
    cost, run = read_cost(path), read_summary(path)
    modes = [row["mode"] for row in read_table(path / "steps.csv")]
    half = len(modes) // 2
    assert run.average_cost == pytest.approx(cost["actual"])
    assert run.training_cost == pytest.approx(cost["relative_to_base"] * cost["base"])
    assert run.expected_cost == pytest.approx(cost["expected"])
    assert run.expected_training_cost == pytest.approx(2 * cost["expected"])
    assert run.motivated_fraction == modes.count("motivated") / half
    assert run.trained_batches == {"base": modes.count("base"), "motivated": modes.count("motivated") + half}
    assert run.is_finished
    assert run.trained_modes == tuple(Mode)
    assert read_finished_run(path).cost == pytest.approx(run.training_cost)
    found = describe_results(run)[0]
    assert found.startswith(
        "Both networks together, with 2 epochs in which the finished base stood still, cost "
        f"{cost['relative_to_base']:.2f} times what resnet8 costs alone"
    )
    assert main(["table", str(path), "--format", "csv"]) == 0
    assert "-finish," in capsys.readouterr().out
    assert main(["report", str(path), "--output", str(tmp_path / "report"), "--no_images"]) == 0
    page = (tmp_path / "report" / "report.html").read_text()
    assert "<dt>base unchanged</dt><dd>in the last 2 epochs</dd>" in page
    assert main(["plot", str(path), "--output", str(tmp_path / "run.png")]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "epochs = 0: it must be at least 1, or 0 with finish_epochs to extend a finished base"),
        (["--finish_lr", "0.1"], "finish_lr = 0.1: it is for finish_epochs; give them, or leave it out"),
        (["--finish_epochs", "-1"], "finish_epochs = -1: it must be at least 0"),
        (["--finish_epochs", "1", "--model.batch_norm", "shared"], "finish_epochs = 1: with model.batch_norm = 'shared'"),
        (["--finish_epochs", "1", "--model.motivated", "resnet8"], "finish_epochs = 1: base and motivated are both resnet8"),
        (["--finish_epochs", "1", "--epochs", "0"], "epochs = 0: the base is not trained then; give model.base_weights"),
        (["--finish_epochs", "1", "--epochs", "0", "--model.base_weights", "x", "--motivation.name", "never"],
         "motivation.name = 'never': with epochs = 0 no condition chooses"),
        (["--finish_epochs", "1", "--epochs", "0", "--model.base_weights", "x", "--schedule.warmup_epochs", "1"],
         "schedule.warmup_epochs = 1: finish_epochs have no warm-up, and epochs = 0; leave it out"),
        (["--finish_epochs", "1", "--finish_lr", "0.01", "--schedule.min_lr", "0.02"],
         "schedule.min_lr = 0.02: it must be at most finish_lr = 0.01, from where it falls"),
    ],
)  # fmt: skip
def test_mistakes(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_with_recipe(["--model.base", "resnet8", "--model.motivated", "resnet14", *arguments])
