"""What `nestnet train --dry_run` prints against counts and forecasts that are made elsewhere."""

import re

import pytest
from torch import nn

from nestnet.cli.main import main
from nestnet.cost.network import network_cost
from nestnet.nn.mode import Mode
from nestnet.planning import measurement
from nestnet.planning.dry_run import dry_run
from nestnet.recipes.command_line import parse_with_recipe
from nestnet.text.units import format_duration
from nestnet.training.trainer import Trainer

QUICK = ["--model.motivated", "resnet32", "--data.batch_size", "64", "--data.eval_batch_size", "180", "--device", "cpu"]


def rows(text):
    """The figures of each row of the table, by name."""
    found = [re.split(r"  +", line.strip()) for line in text.splitlines()]
    return {name: figures for name, *figures in found if figures}


def number(text):
    return float(text.replace(",", ""))


@pytest.fixture
def steady(monkeypatch):
    """Everything takes a quarter of a second."""
    monkeypatch.setattr(measurement, "measure_seconds", lambda work, trainer: (work(), 0.25)[1])


def test_the_counts(steady, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer = Trainer(parse_with_recipe([*QUICK, "--epochs", "3"]))
    text = dry_run(trainer)
    table = rows(text)
    costs = [network_cost(name, img_size=8, num_classes=10, in_chans=1) for name in ("resnet20", "resnet32")]
    assert table["network"] == ["resnet20", "resnet32"]
    assert list(map(number, table["trained parameters"])) == [cost.parameters for cost in costs]
    assert list(map(number, table["MACs, forward pass of an image"])) == [cost.macs for cost in costs]
    gradients = [round(4 * cost.parameters / 2**20, 1) for cost in costs]
    assert list(map(number, table["gradients"])) == gradients
    assert list(map(number, table["optimizer's state"])) == gradients[1:] * 2, "a momentum a parameter"
    for counted, cost in zip(table["activations of a batch"], costs, strict=True):
        assert number(counted) == pytest.approx(64 * cost.activation_bytes / 2**20, abs=0.1, rel=0.01)
    parts = (
        "weights and statistics",
        "optimizer's state",
        "images kept on the device",
        "gradients",
        "activations of a batch",
    )
    for column in (0, 1):
        assert number(table["together"][column]) == pytest.approx(sum(number(table[p][column]) for p in parts), abs=0.3)
    assert "a training batch:    images [64, 1, 8, 8], targets [64], logits [64, 10]" in text
    assert "an evaluation batch: images [180, 1, 8, 8], logits [180, 10]" in text
    assert "expected of loss_decrease, k = 2: 14.39% motivated batches" in text, "19 of 22 in 3!"
    assert list(tmp_path.iterdir()) == []


def test_the_forecast(steady):
    text = dry_run(Trainer(parse_with_recipe([*QUICK, "--epochs", "3", "--motivation.k", "1"])))
    # 22 batches at a quarter of a second, and as much for the data; two evaluation batches of half a second
    assert text.splitlines()[-4:] == [
        "66 batches of 64, 22 per epoch, 45.45% motivated",
        "a batch with its data: 500 ms",
        "evaluation in both modes: 1.00 s per epoch",
        "an epoch takes about 12 s, and all 3 about 36 s",
    ]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--motivation.name", "always", "--motivation.trains", "both"], ["100.00% motivated", "both", "resnet20"]),
        (["--motivation.name", "ema_decrease"], ["with none to all of them motivated", "cannot be forecast"]),
        (["--motivation.name", "gradient_agreement", "--motivation.trains", "both", "--motivation.start", "0.9"],
         ["with none to 10.00% of them motivated"]),
        (["--motivation.name", "never"], ["0.00% motivated"]),
        (["--finish_epochs", "2"], ["44 batches of 64, 22 per epoch, all of which extend the base", "resnet32 beside the base",
                                    "and all 2 about 24 s", "all 22 epochs take about 4.4 min"]),
        (["--motivation.name", "held_out_loss_decrease"], ["1,373 training", "21 per epoch"]),
        (["--accumulate", "2", "--ema_decay", "0.9"], ["activations of a part, of 2, of a batch", "moving average of them"]),
        (["--data.cutmix", "1", "--channels_last", "true"], ["targets [64, 10]"]),
        (["--optimizer.name", "adamw", "--data.loader", "files", "--recalibration_batches", "2"], ["without recalibration"]),
    ],
    ids=["both", "unknown", "unknown in a part", "never", "finish", "held out", "parts", "mixed", "files"],
)  # fmt: skip
def test_every_kind_of_run(arguments, wanted, steady):
    text = dry_run(Trainer(parse_with_recipe([*QUICK, *arguments])))
    for part in wanted:
        assert part in text


def test_it_is_a_flag_of_train_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *QUICK, "--dry_run", "--run_dir", "run"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(
        "dry run on cpu in float32: digits, 1,437 training and 360 test images, 10 classes; nothing"
    )
    assert printed.count("\n") > 15
    assert main(["cost", "--dry_run"]) == 2
    (tmp_path / "own.yaml").write_text("dry_run: true\n")
    assert main(["train", "--config", "own.yaml"]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["own.yaml"]


def test_steps_that_are_not_typical_are_not_timed(monkeypatch):
    trainer = Trainer(parse_with_recipe(QUICK))
    for seconds, typical in (([25.0], 25.0), ([4.0, 3.0], 3.0), ([1.5, 0.9, 0.8, 1.0], 0.8)):
        times = iter(seconds)
        monkeypatch.setattr(measurement, "measure_seconds", lambda work, trainer, times=times: next(times))
        assert measurement.measure_typical_seconds(nn.Identity(), trainer) == typical
        assert list(times) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0123, "12.3 ms"),
        (1.5, "1.50 s"),
        (61, "61 s"),
        (150, "2.5 min"),
        (7300, "2.03 h"),
        (200_000, "2.31 d"),
        (0, "0 ms"),
    ],
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text


def test_a_dry_run_where_each_network_sees_its_own_batch(steady):
    arguments = ["--data.mixup", "0.2", "--data.mixup_prob", "[0.5, 1]", "--data.random_erasing", "[0, 0.2]"]
    text = dry_run(Trainer(parse_with_recipe([*QUICK, *arguments, "--motivation.trains", "both"])))
    assert "a training batch:    images [64, 1, 8, 8], targets [64, 10], logits [64, 10]" in text
    plain = dry_run(Trainer(parse_with_recipe([*QUICK, "--data.mixup", "0.2", "--motivation.trains", "both"])))
    assert rows(text)["activations of a batch"] == rows(plain)["activations of a batch"]


def test_counting_what_is_kept_for_the_backward_pass_keeps_nothing():
    """A graph that holds its own tensors would never be freed, nor would the accumulators of the gradients."""
    trainer = Trainer(parse_with_recipe(QUICK))
    images, targets = next(trainer.epoch_batches())
    assert measurement.measure_activations(trainer, images, targets, Mode.BASE) > 0
    parameter = trainer.net.conv1.weight
    accumulator = parameter.view_as(parameter).grad_fn.next_functions[0][0]
    accumulator.metadata["seen"] = True
    del accumulator
    measurement.measure_activations(trainer, images, targets, Mode.BASE)
    assert "seen" not in parameter.view_as(parameter).grad_fn.next_functions[0][0].metadata
