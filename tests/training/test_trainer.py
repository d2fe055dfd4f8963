"""Runs from a configuration, and the command line over them."""

import json
import math
import multiprocessing
import re
import runpy
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from helpers import randomised
from PIL import Image
from timm.data import Mixup
from torch import nn

import nestnet
from nestnet import Condition, LossDecrease, Mode, Periodic, register_condition
from nestnet.cli.main import main
from nestnet.conditions.registry import CONDITIONS
from nestnet.config import parsing, schema
from nestnet.data.image_data import load_data
from nestnet.data.loaders import create_eval_loader, create_train_loader
from nestnet.data.seeding import mix_seed, seeded_rng
from nestnet.optim.factory import create_optimizer
from nestnet.optim.schedule import create_scheduler
from nestnet.recipes.command_line import parse_with_recipe
from nestnet.runs.checkpoint_file import read_checkpoint, write_checkpoint
from nestnet.runs.reading import read_run, read_table
from nestnet.training.condition_plan import plan_condition
from nestnet.training.evaluation import top1
from nestnet.training.trainer import Trainer
from nestnet.weights.export_file import read_metadata

QUICK = ["--model.base", "resnet8", "--model.motivated", "resnet8", "--data.batch_size", "256", "--epochs", "2"]
SMALL_PAIR = ["--model.base", "resnet8", "--model.motivated", "resnet14"]
DIGITS = Path(__file__).parents[2] / "configs" / "digits_resnet20_32.yaml"


def few(run, train=256, test=64):
    """Some of a run's training images, and others of them as test images."""
    return load_data(run.data, run.model).resplit(range(train), range(train, train + test))


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A short run of ResNet-20 in ResNet-32 on the digits."""
    path = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", "--config", str(DIGITS), "--epochs", "2", "--run_dir", str(path)]) == 0
    return path


def test_the_run_directory(run_dir):
    names = {path.name for path in run_dir.iterdir()}
    assert names >= {
        "config.yaml",
        "steps.csv",
        "metrics.csv",
        "cost.json",
        "checkpoints",
        "base.safetensors",
        "motivated.safetensors",
    }
    steps, epochs = read_table(run_dir / "steps.csv"), read_table(run_dir / "metrics.csv")
    assert [row["epoch"] for row in epochs] == ["1", "2"]
    assert [int(row["step"]) for row in steps] == list(range(1, 45))
    for row in epochs:
        own = [step for step in steps if step["epoch"] == row["epoch"]]
        losses = [float(step["loss"]) for step in own]
        assert float(row["train_loss"]) == pytest.approx(sum(losses) / len(losses))
        motivated = sum(step["mode"] == "motivated" for step in own) / len(own)
        assert float(row["motivated_fraction"]) == motivated
        assert 0 <= float(row["base_top1"]) <= 100
        assert 0 <= float(row["data_wait"]) <= 1
    resolved = parsing.load(run_dir / "config.yaml")
    assert (resolved.model.num_classes, resolved.model.in_chans, resolved.data.img_size) == (10, 1, 8)


def test_the_modes_are_those_of_the_condition(run_dir):
    condition, epoch = LossDecrease(2), None
    for row in read_table(run_dir / "steps.csv"):
        if row["epoch"] != epoch:
            condition.reset()
            epoch = row["epoch"]
        assert row["mode"] == condition.mode
        condition.update(float(row["loss"]))


def test_the_exports_give_the_recorded_accuracy(run_dir):
    last, run = read_table(run_dir / "metrics.csv")[-1], read_run(run_dir)
    images = load_data(run.config.data, run.config.model)
    for mode in Mode:
        found = read_metadata(run_dir / f"{mode}.safetensors")
        model = timm.create_model(
            found["architecture"], num_classes=10, in_chans=1, checkpoint_path=str(run_dir / f"{mode}.safetensors")
        ).eval()
        with torch.inference_mode():
            correct = sum(int((model(x).argmax(1) == y).sum()) for x, y in create_eval_loader(images, run.config.data))
        assert 100 * correct / 360 == pytest.approx(float(last[f"{mode}_top1"]))
        assert json.loads(found["class_names"]) == [str(digit) for digit in range(10)]
        assert json.loads(found["input_size"]) == [1, 8, 8]
        assert json.loads(found["mean"]) == run.config.data.mean


def test_evaluate_export_and_plot(run_dir, capsys, tmp_path):
    last = read_table(run_dir / "metrics.csv")[-1]
    for mode, name in (("base", "resnet20"), ("motivated", "resnet32")):
        assert main(["evaluate", str(run_dir), "--mode", mode]) == 0
        first = capsys.readouterr().out.splitlines()[0]
        assert first == f"{name} ({mode}): top-1 {float(last[f'{mode}_top1']):.2f} %"
        output = tmp_path / f"{name}.safetensors"
        assert main(["export", str(run_dir), "--mode", mode, "--output", str(output)]) == 0
        printed = capsys.readouterr().out
        assert printed == f'timm.create_model("{name}", num_classes=10, in_chans=1, checkpoint_path="{output}")\n'
        assert eval(printed, {"timm": timm}).num_classes == 10
        assert output.read_bytes() == (run_dir / f"{mode}.safetensors").read_bytes()
    assert main(["plot", str(run_dir), "--output", str(tmp_path / "run.png")]) == 0
    assert (tmp_path / "run.png").stat().st_size > 10_000


def test_a_run_is_never_written_over(run_dir, capsys):
    before = {path.name: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    assert main(["train", *QUICK, "--run_dir", str(run_dir)]) == 2
    error = capsys.readouterr().err
    assert error == (
        f"nestnet train: error: run_dir = {str(run_dir)!r}: a run is there, and `nestnet resume {run_dir}` continues it; "
        "name another folder\n"
    )
    assert before == {path.name: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}


def test_unnamed_runs_get_folders_of_their_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(["train", *QUICK, "--epochs", "1"]) == 0
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        "resnet8-resnet8-digits",
        "resnet8-resnet8-digits-2",
    }
    assert "epoch 1/1  loss " in capsys.readouterr().out


@pytest.mark.slow
def test_a_seed_gives_the_same_run_and_another_seed_another(tmp_path):
    names = ("steps.csv", "base.safetensors", "motivated.safetensors")
    arguments = ["--config", str(DIGITS), *SMALL_PAIR, "--epochs", "2"]
    arguments += ["--data.batch_size", "32", "--motivation.k", "1"]
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        run = parse_with_recipe([*arguments, "--seed", seed, "--run_dir", str(tmp_path / name)])
        Trainer(run, images=few(run)).fit()
        assert {row["mode"] for row in read_table(tmp_path / name / "steps.csv")} == set(Mode)
    a, b, c = ([(tmp_path / run / name).read_bytes() for name in names] for run in "abc")
    assert a == b
    assert all(ours != theirs for ours, theirs in zip(a, c, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("condition", "mode"), [("never", Mode.BASE), ("always", Mode.MOTIVATED)])
def test_classical_training_is_training_timm_s_network_alone(condition, mode, tmp_path):
    """A whole run against a plain loop over a plain timm model: the same bits, dropout, Mixup and schedule included."""
    run = parse_with_recipe([*QUICK, "--model.motivated", "resnet14", "--model.drop_rate", "0.2", "--data.mixup", "0.3",
                        "--data.batch_size", "64",
                        "--optimizer.clip_grad", "1.0", "--motivation.name", condition, "--recalibration_batches", "1",
                        "--run_dir", str(tmp_path / "run")])  # fmt: skip
    images = few(run)
    trainer = Trainer(run, images=images)
    model = trainer.net.standalone(mode)
    optimizer = create_optimizer(model, run)
    batches = create_train_loader(images, run.data, run.seed)
    schedule = create_scheduler(optimizer, run.schedule, run.epochs, len(batches))
    mixup = Mixup(0.3, 0.0, label_smoothing=0.0, num_classes=10)

    state = torch.get_rng_state()
    trainer.fit()
    torch.set_rng_state(state)
    model.train()
    step, losses = 0, []
    for epoch in range(run.epochs):
        for x, y in batches.epoch(epoch):
            with seeded_rng(mix_seed(run.seed, epoch, step)):
                x, y = mixup(x, y)
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
            schedule.step_update(step)
            losses.append(loss.item())
    ours = trainer.net.subnet(mode).state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(ours[name], tensor), name
    rows = read_table(tmp_path / "run" / "steps.csv")
    assert [float(row["loss"]) for row in rows] == losses
    assert {row["mode"] for row in rows} == {str(mode)}


@pytest.mark.parametrize(
    "overrides",
    [
        ["--optimizer.name", "adamw", "--optimizer.lr", "1e-3", "--optimizer.step_count", "literal"],
        ["--optimizer.name", "lamb", "--optimizer.lr", "1e-2", "--optimizer.clip_grad", "1.0"],
        ["--optimizer.name", "rmsprop", "--optimizer.lr", "1e-3", "--schedule.name", "step", "--schedule.interval", "epoch",
         "--schedule.decay_epochs", "1"],
        ["--optimizer.options", "{fused: true}", "--motivation.k", "1", "--schedule.name", "none"],
        ["--precision", "bfloat16", "--channels_last", "true", "--schedule.warmup_epochs", "1"],
        ["--model.base", "efficientnet_b0", "--model.motivated", "efficientnet_b1", "--data.img_size", "32",
         "--model.batch_norm", "shared", "--model.drop_rate", "[0.1, 0.2]"],
        ["--data.mixup", "0.2", "--data.cutmix", "1", "--loss.name", "bce", "--loss.label_smoothing", "0.1"],
        ["--data.repeats", "3", "--data.random_erasing", "0.5", "--loss.label_smoothing", "0.1"],
        ["--model.base", "vit_one_head", "--model.motivated", "vit_two_heads", "--data.img_size", "16"],
    ],
    ids=["adamw", "lamb", "rmsprop", "fused sgd", "bfloat16", "efficientnet", "mixup", "repeats", "vit"],
)  # fmt: skip
def test_settings_train(overrides, tmp_path):
    run = parse_with_recipe([*QUICK, "--model.motivated", "resnet14", "--data.batch_size", "64", *overrides])
    trainer = Trainer(run, images=few(run))
    trainer.net.train()
    for (images, labels), mode in zip(trainer.epoch_batches(), [*Mode, *Mode], strict=True):
        assert math.isfinite(trainer.step(*trainer.mix_batch(images, labels), mode).loss())
    accuracies = trainer.evaluate()
    assert set(accuracies) == {"base_top1", "motivated_top1"}
    assert not torch.isnan(torch.cat([p.flatten() for p in trainer.net.parameters()])).any()


EVERY_WAY = {
    **{name: ["--motivation.name", name] for name in CONDITIONS if name != "random_like"},
    "gradient_agreement": ["--motivation.name", "gradient_agreement", "--motivation.trains", "both"],
    "both": ["--motivation.trains", "both", "--motivation.distillation", "0.5"],
    "both_always": ["--motivation.name", "always", "--motivation.trains", "both", "--motivation.start", "0.5"],
}


@pytest.mark.slow
@pytest.mark.parametrize("way", [*EVERY_WAY, "random_like"])
def test_every_way_of_training_leaves_the_same_kind_of_run(way, run_dir, tmp_path):
    arguments = EVERY_WAY.get(way, ["--motivation.name", way, "--motivation.runs", f"[{run_dir}]"])
    path = tmp_path / "run"
    run = parse_with_recipe([*QUICK, "--model.motivated", "resnet14", "--data.batch_size", "16", "--snapshot_steps", "20",
                        *arguments, "--epochs", "1", "--run_dir", str(path)])  # fmt: skip
    Trainer(run, images=few(run, train=22 * 16)).fit()  # as many batches as the run before
    assert {file.name for file in path.iterdir()} == {file.name for file in run_dir.iterdir()} | {"snapshots"}
    assert sorted(file.name for file in (path / "snapshots").iterdir()) == [
        "step-000000.safetensors",
        "step-000020.safetensors",
    ]
    for name in ("steps.csv", "metrics.csv"):
        assert read_table(path / name)[0].keys() == read_table(run_dir / name)[0].keys()
    steps, (row,) = read_table(path / "steps.csv"), read_table(path / "metrics.csv")
    modes, cost = [step["mode"] for step in steps], json.loads((path / "cost.json").read_text())
    assert set(modes) <= {"base", "both" if "both" in EVERY_WAY.get(way, []) else "motivated"}
    macs = {"base": cost["base"], "motivated": cost["motivated"], "both": cost["base"] + cost["motivated"]}
    actual = sum(macs[mode] for mode in modes) / len(modes)
    assert cost["actual"] == pytest.approx(actual)
    assert int(row["average_cost"]) == round(actual)
    assert float(row["motivated_fraction"]) == sum(mode != "base" for mode in modes) / len(modes)
    if way == "periodic":
        assert [i for i, mode in enumerate(modes, 1) if mode == "motivated"] == [6, 12, 18], "(k+1)! with k = 2"
    if way == "random_like":
        first = [step["mode"] for step in read_table(run_dir / "steps.csv") if step["epoch"] == "1"]
        assert modes.count("motivated") == first.count("motivated")
    if way in ("always", "never", "both_always"):
        assert cost["expected"] == cost["actual"]
    if way == "both_always":
        assert modes == ["base"] * 11 + ["both"] * 11
    assert read_run(path).config.motivation == run.motivation or way == "random_like"


@pytest.mark.parametrize("watched", ["base", "motivated", "mean"])
def test_the_condition_watches_the_loss_that_the_configuration_names(watched):
    both = ["--motivation.trains", "both", "--motivation.watched_loss", watched]
    trainer = Trainer(parse_with_recipe([*QUICK, "--model.motivated", "resnet14", *both]))
    trainer.net.train()
    images, labels = next(trainer.epoch_batches())
    outcome = trainer.step(images, labels, Mode.MOTIVATED)
    losses = outcome.losses()
    expected = losses[Mode(watched)] if watched != "mean" else (losses["base"] + losses["motivated"]) / 2
    assert trainer.watched_quantity(outcome) == trainer.watched_quantity.loss(outcome) == expected
    outcome = trainer.step(images, labels, Mode.BASE)
    assert trainer.watched_quantity(outcome) == outcome.loss() == outcome.losses()["base"]


def test_a_batch_is_skipped_and_recorded_as_such_if_either_loss_is_not_finite():
    both = ["--model.motivated", "resnet14", "--motivation.trains", "both", "--motivation.watched_loss", "base"]
    trainer = Trainer(parse_with_recipe([*QUICK, *both]))
    trainer.net.train()
    base = {id(parameter) for parameter in trainer.net.subnet("base").parameters()}
    differential = next(parameter for parameter in trainer.net.parameters() if id(parameter) not in base)
    nn.init.constant_(differential, math.nan)
    outcome = trainer.step(*next(trainer.epoch_batches()), Mode.MOTIVATED)
    assert outcome.skipped
    assert math.isfinite(outcome.losses()["base"])
    assert math.isnan(trainer.watched_quantity.loss(outcome))


@pytest.mark.parametrize("clip", ["null", "0.01"])
def test_the_gradient_norm_is_that_before_clipping(clip):
    trainer = Trainer(parse_with_recipe([*QUICK, "--motivation.name", "gradient_norm_increase",
                                    "--optimizer.clip_grad", clip, "--optimizer.lr", "1e-30",
                                    "--model.zero_init_last", "false"]))  # fmt: skip
    trainer.net.train()
    images, labels = next(trainer.epoch_batches())
    outcome = trainer.step(images, labels, Mode.MOTIVATED)
    watched, net = trainer.watched_quantity(outcome), trainer.net
    net.zero_grad()
    nn.functional.cross_entropy(net(images, "motivated"), labels).backward()
    norm = math.sqrt(sum((p.grad**2).sum().item() for p in net.parameters() if p.grad is not None))
    assert watched == pytest.approx(norm, rel=1e-4)
    assert watched != pytest.approx(outcome.loss())


@pytest.mark.parametrize(
    "loss", [[], ["--loss.name", "bce", "--loss.label_smoothing", "0.2", "--data.mixup", "0.2"]], ids=["default", "bce"]
)
def test_the_held_out_batch_is_not_trained_and_judges_the_subnet_just_trained(loss, monkeypatch):
    run = parse_with_recipe(
        [*QUICK, "--motivation.name", "held_out_loss_decrease", "--model.motivated", "resnet14", *loss]
    )
    trainer, everything = Trainer(run), load_data(run.data, run.model)
    held_out, labels = trainer.watched_quantity.held_out
    assert held_out.shape == (256, 1, 8, 8)
    assert len(trainer.images.train) == len(everything.train) - 256
    assert len(trainer.images.test) == len(everything.test)
    plain = [everything.eval_transform(trainer.images.train.dataset[i][0]) for i in range(len(trainer.images.train))]
    apart = {tuple(image.flatten().tolist()) for image in plain} & {tuple(x.flatten().tolist()) for x in held_out}
    assert len(apart) <= 1, "one digit was scanned twice"
    trainer.net.train()
    images, own = trainer.mix_batch(*next(trainer.epoch_batches()))
    monkeypatch.setattr("nestnet.device.DeviceContext.to_device", None)  # it is on the device already
    for mode in Mode:
        watched = trainer.watched_quantity(trainer.step(images, own, mode))
        assert trainer.net.training
        logits = trainer.net.eval()(held_out, mode)
        expected = nn.functional.cross_entropy(logits, labels).item()
        if loss:
            smooth = nn.functional.one_hot(labels, 10) * 0.8 + 0.02
            expected = nn.functional.binary_cross_entropy_with_logits(logits, smooth).item()
        assert watched == pytest.approx(expected, rel=1e-5)
        trainer.net.train()


BOTH = ["--model.motivated", "resnet14", "--motivation.trains", "both"]


def test_the_base_is_judged_on_the_held_out_batch_whatever_was_trained():
    trainer = Trainer(parse_with_recipe([*QUICK, *BOTH, "--motivation.name", "bandit"]))
    held_out, labels = trainer.watched_quantity.held_out
    assert len(held_out) + len(trainer.images.train) == 1437
    trainer.net.train()
    for mode in Mode:
        outcome = trainer.step(*trainer.mix_batch(*next(trainer.epoch_batches())), mode)
        watched = trainer.watched_quantity(outcome)
        expected = nn.functional.cross_entropy(trainer.net.eval()(held_out, "base"), labels).item()
        assert watched == pytest.approx(expected, rel=1e-5)
        trainer.net.train()


def test_the_condition_receives_the_agreement_of_the_gradients():
    arguments = [*QUICK, *BOTH, "--motivation.name", "gradient_agreement", "--accumulate", "2"]
    trainer = Trainer(parse_with_recipe(arguments))
    trainer.net.train()
    images, labels = next(trainer.epoch_batches())
    assert math.isnan(trainer.watched_quantity(trainer.step(images, labels, Mode.BASE)))
    outcome = trainer.step(images, labels, Mode.MOTIVATED)
    assert trainer.watched_quantity(outcome) == outcome.gradient_agreement() != 0
    assert -1 <= outcome.gradient_agreement() <= 1.000001


def test_a_condition_that_compares_gradients_needs_both_networks():
    class Agreeing(LossDecrease):
        watches = "gradient_agreement"

    with pytest.raises(
        ValueError, match="gradient_agreement: it is between two networks that a batch trains; set trains to"
    ):
        Trainer(parse_with_recipe(QUICK), condition=Agreeing(1))
    register_condition("agreeing")(Agreeing)
    try:
        with pytest.raises(ValueError, match=r"motivation.trains = 'motivated': it must be both for .* = agreeing"):
            parse_with_recipe([*QUICK, "--motivation.name", "agreeing"])
    finally:
        del CONDITIONS["agreeing"]


def test_a_condition_of_one_s_own_by_name_and_by_hand(tmp_path):
    @register_condition("first_batches")
    class FirstBatches(Periodic):
        def __init__(self, number: int, batches: int) -> None:
            super().__init__(batches)
            self.number = number

        @property
        def mode(self):
            return Mode.MOTIVATED if self.position < self.number else Mode.BASE

    try:
        run = parse_with_recipe([*QUICK, "--motivation.name", "first_batches", "--motivation.options", "{number: 2}",
                            "--data.batch_size", "64", "--run_dir", str(tmp_path / "a")])  # fmt: skip
        with pytest.raises(ValueError, match=r"motivation.speed = 3: first_batches has no such setting; it has number"):
            Trainer(replace(run, motivation=replace(run.motivation, options={"speed": 3})))
        Trainer(run, images=few(run, train=5 * 64)).fit()
    finally:
        del CONDITIONS["first_batches"]
    assert [row["mode"] for row in read_table(tmp_path / "a" / "steps.csv")] == (["motivated"] * 2 + ["base"] * 3) * 2
    assert Trainer(parse_with_recipe(QUICK), condition=FirstBatches(1, 5)).condition.mode is Mode.MOTIVATED


def test_a_condition_of_one_s_own_may_say_its_mode_in_a_word(tmp_path):
    class Words(Condition):
        def __init__(self):
            self.batches = 0

        @property
        def mode(self):
            return "motivated" if self.batches == 1 else "base"

        def update(self, loss):
            self.batches += 1

    run = parse_with_recipe([*QUICK, "--data.batch_size", "64", "--epochs", "1", "--run_dir", str(tmp_path / "a")])
    Trainer(run, images=few(run, train=3 * 64), condition=Words()).fit()
    assert [row["mode"] for row in read_table(tmp_path / "a" / "steps.csv")] == ["base", "motivated", "base"]


def test_a_condition_that_watches_nothing_known_is_refused_by_name():
    class Misspelt(LossDecrease):
        watches = "held_out_los"

    message = "condition Misspelt: watches = 'held_out_los': it must be one of loss, held_out_loss, held_out_base_loss"
    with pytest.raises(ValueError, match=message):
        Trainer(parse_with_recipe(QUICK), condition=Misspelt(1))
    register_condition("misspelt")(Misspelt)
    try:
        with pytest.raises(ValueError, match=message):
            Trainer(parse_with_recipe([*QUICK, "--motivation.name", "misspelt"]))
    finally:
        del CONDITIONS["misspelt"]


SHORT_EPOCHS = [
    # settings, batches of an epoch, what is advised
    (["--data.batch_size", "400"], 3, {"data.batch_size": "359", "motivation.k": "1"}),
    (["--data.batch_size", "400", "--accumulate", "4"], 3, {"data.batch_size": "356", "motivation.k": "1"}),
    (["--data.batch_size", "718", "--data.cutmix", "1"], 2, {"data.batch_size": "358"}),
    (["--data.batch_size", "400", "--motivation.name", "ema_decrease"], 3, {"data.batch_size": "359", "motivation.k": "1"}),
    (["--data.batch_size", "360", "--motivation.name", "held_out_loss_decrease"], 2, {"data.batch_size": "287"}),
    (["--data.batch_size", "400", "--motivation.name", "periodic"], 3, {"data.batch_size": "239", "motivation.k": "1"}),
    (["--data.batch_size", "400", "--motivation.name", "periodic", "--motivation.period", "9"], 3,
     {"data.batch_size": "159", "motivation.period": "3"}),
    (["--data.batch_size", "400", "--motivation.name", "periodic", "--motivation.period", str(10**15)], 3,
     {"motivation.period": "3"}),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "batches", "advised"), SHORT_EPOCHS)
def test_epochs_without_a_batch_that_can_be_motivated_are_refused_with_what_helps(settings, batches, advised):
    with pytest.raises(ValueError, match=f"can motivate none of the {batches} batches of an epoch") as caught:
        plan_condition(parse_with_recipe(settings), 1437)
    assert dict(re.findall(r"lower (\S+) = \d+ to (\d+)", str(caught.value))) == advised
    for field, value in advised.items():
        plan_condition(parse_with_recipe([*settings, f"--{field}", value]), 1437)
        higher = str(
            int(value) + (int(settings[3]) if "--accumulate" in settings else 2 if "cutmix" in str(settings) else 1)
        )
        with pytest.raises(ValueError, match="can motivate none"):
            plan_condition(parse_with_recipe([*settings, f"--{field}", higher]), 1437)


def test_a_condition_by_hand_that_can_motivate_nothing_is_refused():
    with pytest.raises(ValueError, match=r"^condition: LossDecrease\(k=9\) can motivate none of the 5 batches"):
        Trainer(parse_with_recipe(QUICK), condition=LossDecrease(9))


@pytest.mark.slow
def test_recalibrated_runs_export_and_evaluate_alike(tmp_path, capsys):
    path, output = tmp_path / "run", tmp_path / "again.safetensors"
    assert main(["train", *QUICK, "--model.motivated", "resnet14", "--model.batch_norm", "shared",
                 "--recalibration_batches", "2", "--data.batch_size", "128", "--epochs", "1",
                 "--run_dir", str(path)]) == 0  # fmt: skip
    capsys.readouterr()
    last = read_table(path / "metrics.csv")[-1]
    for mode in Mode:
        assert main(["export", str(path), "--mode", mode, "--output", str(output)]) == 0
        assert output.read_bytes() == (path / f"{mode}.safetensors").read_bytes()
        assert main(["export", str(path), "--mode", mode, "--output", str(output), "--recalibrate", "0"]) == 0
        assert output.read_bytes() != (path / f"{mode}.safetensors").read_bytes()
        capsys.readouterr()
        assert main(["evaluate", str(path), "--mode", mode, "--recalibrate", "2"]) == 0
        found = float(re.search(r"top-1 (.*) %", capsys.readouterr().out)[1])
        assert abs(found - float(last[f"{mode}_top1"])) < 5, "the run took the batches of another epoch"
    assert main(["evaluate", str(path), "--mode", "base", "--recalibrate", "-1"]) == 2
    assert "recalibrate = -1: it must be at least 0 training batches" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_starts_from_the_exports_of_another(run_dir, tmp_path):
    """The nested network, to the bit; and each network alone, with a new head where the classes differ."""
    both = [f"--model.{mode}_weights={run_dir / f'{mode}.safetensors'}" for mode in Mode]
    trainer = Trainer(parse_with_recipe(["--config", str(DIGITS), *both]))
    trained = read_run(run_dir).net.state_dict()
    assert all(torch.equal(tensor, trained[name]) for name, tensor in trainer.net.state_dict().items())
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for index in range(4):
                Image.new("L", (8, 8), 20 * index).save(tmp_path / part / name / f"{index}.png")
    for mode, own in ((Mode.BASE, both[0]), (Mode.MOTIVATED, both[1])):
        run = parse_with_recipe(["--config", str(DIGITS), own, "--data.name", "folder", "--data.root", str(tmp_path),
                            "--data.img_size", "8", "--model.in_chans", "1", "--data.batch_size", "2",
                            "--run_dir", str(tmp_path / mode), "--epochs", "1"])  # fmt: skip
        net = Trainer(run).net.subnet(mode)
        state = read_run(run_dir).net.subnet(mode).state_dict()
        for name, tensor in net.state_dict().items():
            assert (
                tensor.shape == (2, 64)
                if name == "fc.weight"
                else name == "fc.bias" or torch.equal(tensor, state[name])
            )
        assert Trainer(run).fit().joinpath("base.safetensors").is_file()


@pytest.mark.parametrize("statistics", ["private", "shared", "separate"])
def test_both_networks_start_from_a_trained_base(statistics, tmp_path):
    trained = nestnet.create_model("resnet8", "resnet14", num_classes=10, in_chans=1)
    nestnet.export(randomised(trained), "base", tmp_path / "base.safetensors")
    run = parse_with_recipe(["--model.base", "resnet8", "--model.motivated", "resnet14", "--model.differential_init",
                             "zero", "--model.base_weights", str(tmp_path / "base.safetensors"),
                             "--model.batch_norm", statistics])  # fmt: skip
    net = Trainer(run).net.eval()
    images = torch.randn(4, 1, 8, 8)
    expected = trained.eval()(images, "base")
    assert all(torch.equal(net(images, mode), expected) for mode in Mode)


def test_schedule_moves_the_learning_rate_as_timm_does():
    run = parse_with_recipe([*QUICK, "--epochs", "4", "--schedule.warmup_epochs", "1", "--schedule.interval", "epoch"])
    trainer = Trainer(run)
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(1e-5), "warm-up starts at once"
    by_steps = [
        scheduled(run, warmup_epochs=1, warmup_prefix=prefix, decay_epochs=1, decay_rate=0.5)
        for prefix in (True, False)
    ]
    assert by_steps == [pytest.approx([1e-5, 0.1, 0.05, 0.025]), pytest.approx([1e-5, 0.05, 0.025, 0.0125])]
    assert Trainer(replace(run, schedule=schema.ScheduleConfig())).optimizer.param_groups[0]["lr"] == 0.1


def scheduled(run, **settings):
    """The learning rate of each epoch under timm's step schedule."""
    optimizer = create_optimizer(nn.Linear(1, 1), run)
    schedule = create_scheduler(optimizer, schema.ScheduleConfig("step", "epoch", **settings), 4, 5)
    rates = []
    for epoch in range(1, 5):
        rates.append(optimizer.param_groups[0]["lr"])
        schedule.step(epoch)
    return rates


def test_the_folder_config_trains_on_jpeg_files(tmp_path, capsys):
    for part, count in (("train", 6), ("test", 3)):
        for name in ("cat", "dog"):
            (tmp_path / "images" / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = torch.randint(256, (32, 32, 3), dtype=torch.uint8).numpy()
                Image.fromarray(pixels).save(tmp_path / "images" / part / name / f"{index}.jpg")
    arguments = ["--config", str(DIGITS.with_name("cifar10_folder_resnet20_32.yaml")), "--epochs", "2"]
    arguments += ["--data.root", str(tmp_path / "images"), "--data.batch_size", "3", "--run_dir", str(tmp_path / "run")]
    assert main(["train", *arguments]) == 0
    assert len(read_table(tmp_path / "run" / "steps.csv")) == 8
    found = read_metadata(tmp_path / "run" / "base.safetensors")
    assert json.loads(found["class_names"]) == ["cat", "dog"]
    assert json.loads(found["mean"]) == [0.4914, 0.4822, 0.4465], "CIFAR-10's, as of the network"
    (tmp_path / "images" / "train" / "cat" / "3.jpg").write_bytes(b"cut short")
    capsys.readouterr()
    for workers in ("0", "1"):
        assert main(["train", *arguments[:-1], str(tmp_path / f"run{workers}"), "--data.workers", workers]) == 2
        error = capsys.readouterr().err
        assert "3.jpg cannot be read as an image" in error
        assert error.count("\n") == 1


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, capsys):
    path = tmp_path / "run"
    assert main(["train", *QUICK, "--optimizer.lr", "1e30", "--run_dir", str(path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("nestnet train: stopped: the loss is ")
    assert "lower optimizer.lr = 1e+30" in error
    assert error.count("\n") == 1
    assert read_table(path / "steps.csv"), "the steps up to there are on disk"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--model.base", "resnet21"], "base = 'resnet21' is not a network of timm's; did you mean resnet"),
        (["train", "--model.motivated", "vit_tiny_patch16_224"], "does not fit inside"),
        (["train", "--model.num_classes", "7"], "model.num_classes = 7: the data has 10 classes"),
        (["train", "--model.in_chans", "3"], "model.in_chans = 3: the digits have 1 channel"),
        (["train", "--model.qkv_map", "heads"], "qkv_map = 'heads': ResNet has no such option"),
        (["train", "--device", "cuda:7"], "device = 'cuda:7': "),
        (["train", "--device", "gpu"], "device = 'gpu': "),
        (["train", "--optimizer.options", "{speed: 3}"], "optimizer.name = 'momentum' with options {'speed': 3}: "),
        (
            ["train", "--data.name", "folder", "--data.root", "/absent"],
            "data.root = '/absent': there is no such folder",
        ),
        (["train", "--run_dir", "/dev/null/x"], "run_dir = '/dev/null/x': /dev/null is a device; name a folder"),
        (["evaluate", "/absent", "--mode", "base"], "/absent is not a run directory: it has no config.yaml"),
        (["plot", "/absent"], "/absent is not a run directory: it has no config.yaml"),
        (["evaluate", "runs/x"], "the following arguments are required: --mode; see `nestnet evaluate --help`"),
        (["export", "runs/x", "--mode", "small", "--output", "x"], "argument --mode: invalid choice: 'small'"),
        (
            ["evaluate", "/absent", "--mode", "base", "--recalibrate", "x"],
            "argument --recalibrate: invalid int value: 'x'",
        ),
        (["table", "/absent"], "/absent is not a run directory"),
        (["dynamics", "/absent"], "/absent is not a run directory"),
        (["cost", "--model.base", "resnet21"], "base = 'resnet21' is not a network of timm's; did you mean resnet"),
        (["train", "--motivation.period", "3"], "motivation.period = 3: loss_decrease has no such setting; it has k"),
        (
            ["train", "--motivation.distillation", "0.5"],
            "motivation.distillation = 0.5: it is for motivation.trains = both; leave it out, or train both",
        ),
        (
            ["train", "--motivation.name", "joint"],
            "motivation.name = 'joint': it must be a condition, such as",
        ),
        (
            ["train", "--motivation.name", "random_like", "--motivation.runs", "[/absent]"],
            "/absent is not a run directory",
        ),
        (
            ["train", "--model.base_weights", "/absent.pth"],
            "model.base_weights: /absent.pth cannot be read as weights: there is no",
        ),
        (["train", "--data.auto_augment", "cifar10"], "data.auto_augment = 'cifar10': it is for colour images"),
        (
            ["check", "--motivation.name", "gradient_norm_increase"],
            "the check only provides losses; set sequence to random",
        ),
        (
            ["train", "--motivation.runs", "[/absent]"],
            "motivation.runs = ['/absent']: loss_decrease has no such setting",
        ),
        (["check", "--steps", "many"], "argument --steps: invalid int value: 'many'"),
        (["check", "--steps", "0"], "--steps 0: it must be at least 1"),
        (["fly"], "'fly' is not a command; the commands are train, extend, resume, models, "),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "pickle", "other", "absent"])
def test_a_damaged_checkpoint_is_named(run_dir, tmp_path, damage, capsys):
    path = shutil.copytree(run_dir, tmp_path / "copy")
    for file in (path / "checkpoints").iterdir():
        if damage == "cut":
            file.write_bytes(file.read_bytes()[:-100])
        elif damage == "pickle":
            torch.save({"net": print}, file)
        elif damage == "other":
            write_checkpoint(file, read_checkpoint(file) | {"net": {"x": torch.zeros(1)}})
        elif damage == "absent":
            file.unlink()
    assert main(["evaluate", str(path), "--mode", "base"]) == 2
    error = capsys.readouterr().err
    assert f"{path}" in error
    assert "checkpoint" in error
    assert error.count("\n") == 1


def test_the_best_checkpoint_of_a_mode(run_dir, capsys):
    rows = read_table(run_dir / "metrics.csv")
    for mode in Mode:
        best = max(rows, key=lambda row: float(row[f"{mode}_top1"]))
        found = read_run(run_dir, best=mode)
        assert found.checkpoint["epochs_done"] == int(best["epoch"])
        images = load_data(found.config.data, found.config.model)
        accuracy = top1(found.net.eval(), create_eval_loader(images, found.config.data), [mode])[mode]
        assert accuracy == pytest.approx(float(best[f"{mode}_top1"]))
        assert main(["evaluate", str(run_dir), "--mode", mode, "--best"]) == 0
        assert f"top-1 {accuracy:.2f} %" in capsys.readouterr().out


def test_check(capsys):
    arguments = ["--config", str(DIGITS), *SMALL_PAIR, "--steps", "24"]
    arguments += ["--sequence", "random", "--data.batch_size", "16"]
    assert main(["check", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "\nrandom modes\n24 batches, " in printed
    assert "identical to the copy-based reference, bit for bit" in printed
    adamw = ["--optimizer.name", "adamw", "--optimizer.lr", "1e-3", "--optimizer.step_count", "literal"]
    mixed = ["--data.mixup", "0.2", "--data.batch_size", "128"]
    assert main(["check", "--config", str(DIGITS), *SMALL_PAIR, "--steps", "14", *adamw, *mixed]) == 0
    printed = capsys.readouterr().out
    assert "adamw at lr 0.001 (step count: literal)" in printed
    assert "identical to the copy-based reference, bit for bit" in printed


@pytest.mark.slow
def test_the_check_trains_what_the_run_trains(tmp_path, monkeypatch, capsys):
    """The modes of a run over two epochs, within its limits, from the loss that it watches."""
    chosen = []
    choose_mode = Trainer.choose_mode
    monkeypatch.setattr(Trainer, "choose_mode", lambda trainer: chosen.append(choose_mode(trainer)) or chosen[-1])
    arguments = ["--model.base", "resnet8", "--model.motivated", "resnet14", "--data.batch_size", "128", "--epochs", "2",
                 "--schedule.name", "none", "--motivation.k", "1", "--motivation.trains", "both",
                 "--motivation.watched_loss", "mean", "--motivation.distillation", "0.5", "--motivation.start", "0.1",
                 "--motivation.until", "0.9", "--motivation.budget", "1.35"]  # fmt: skip
    Trainer(parse_with_recipe([*arguments, "--run_dir", str(tmp_path / "run")])).fit()
    of_run, chosen[:] = list(chosen), []
    assert main(["check", *arguments, "--steps", str(len(of_run))]) == 0
    assert chosen == of_run
    assert 2 < of_run.count(Mode.MOTIVATED) < len(of_run) / 2
    printed = capsys.readouterr().out
    assert (
        "\nloss_decrease, k = 1, trains = both, watched_loss = mean, distillation = 0.5, start = 0.1, until = 0.9, "
        f"budget = 1.35\n{len(of_run)} batches, {of_run.count(Mode.MOTIVATED)} of them motivated, "
    ) in printed
    assert "identical to the copy-based reference, bit for bit\n" in printed
    # Where no batch was motivated, the policy was not compared.
    start = ["--motivation.name", "always", "--motivation.start", "0.5"]
    assert main(["check", *arguments[:6], *start, "--epochs", "20", "--steps", "2"]) == 0
    assert (
        "bit for bit; but no batch was motivated, which batch 111 is the first to be: take more steps, or the sequence random"
    ) in capsys.readouterr().out


def test_help_and_version(monkeypatch, capsys):
    assert main([]) == main(["--help"]) == 0
    assert "usage: nestnet <command>" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["nestnet", "--version"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module("nestnet", run_name="__main__")  # as `python -m nestnet` does
    assert capsys.readouterr().out == "nestnet 0.1.0\n"


def test_top1_counts_every_image():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x, mode):
            return self.scale * (x if mode is Mode.BASE else -x)

    batches = [(torch.eye(3), torch.tensor([0, 1, 0])), (torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([0]))]
    assert top1(Fixed(), batches) == {
        Mode.BASE: 50.0,
        Mode.MOTIVATED: pytest.approx(100 * 2 / 4),
    }


def test_the_processes_that_read_images_end_with_the_run(tmp_path):
    """Not only when the garbage collector finds the trainer, which then waits for them."""
    before = set(multiprocessing.active_children())
    arguments = [*QUICK, "--data.loader", "files", "--data.workers", "1", "--data.batch_size", "8"]
    run = parse_with_recipe([*arguments, "--run_dir", str(tmp_path / "run")])
    trainer = Trainer(run, images=few(run))
    trainer.fit()
    assert set(multiprocessing.active_children()) <= before
    assert len(next(trainer.epoch_batches())[1]) == run.data.batch_size, "another epoch starts new ones"
    trainer.train_batches.stop_workers()


@pytest.mark.slow
def test_the_demo_reaches_97_percent(tmp_path):
    path = tmp_path / "run"
    assert main(["train", "--config", str(DIGITS), "--run_dir", str(path)]) == 0
    last = read_table(path / "metrics.csv")[-1]
    assert float(last["base_top1"]) >= 97
    assert float(last["motivated_top1"]) >= 97
