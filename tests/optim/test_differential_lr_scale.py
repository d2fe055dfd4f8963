"""The factor on the learning rate of differential weights, against loops with two learning rates written by hand."""

import math
from dataclasses import replace

import pytest
import torch
from helpers import make
from torch import nn

from nestnet import Mode, share_step_counts
from nestnet.config import schema
from nestnet.data.image_data import load_data
from nestnet.optim.factory import create_optimizer
from nestnet.optim.schedule import create_scheduler
from nestnet.recipes.command_line import parse_with_recipe
from nestnet.runs.reading import read_table
from nestnet.training.trainer import Trainer

SCALE = 3.0


def settings(name="momentum", lr=0.05, scale=SCALE, **more):
    return schema.Config(optimizer=schema.OptimizerConfig(name, lr=lr, differential_lr_scale=scale, **more))


def by_hand(name, net, lr, weight_decay):
    """torch's own optimizer with a group for each combination of weight decay and learning rate."""
    of_base = {id(p) for p in net.subnet("base").parameters()}
    groups = []
    for is_differential in (False, True):
        for decays in (False, True):
            parameters = [
                p for p in net.parameters() if (p.ndim > 1) == decays and (id(p) not in of_base) == is_differential
            ]
            rate = lr * SCALE if is_differential else lr
            groups.append({"params": parameters, "lr": rate, "weight_decay": weight_decay if decays else 0.0})
    if name == "adamw":
        return torch.optim.AdamW(groups)
    return torch.optim.SGD(groups, momentum=0.9)


def cosine(lr, step, steps):
    return 0.5 * lr * (1 + math.cos(math.pi * step / steps))


@pytest.mark.parametrize(
    ("family", "name", "lr", "step_count"),
    [
        ("resnet", "momentum", 0.05, "own"),
        ("resnet", "adamw", 1e-3, "own"),
        ("efficientnet", "momentum", 0.05, "own"),
        ("efficientnet", "adamw", 1e-3, "literal"),
    ],
)
def test_steps_are_those_of_two_learning_rates(family, name, lr, step_count):
    """Whole blocks in one family, parts of weights in the other; along a cosine."""
    modes = [Mode.BASE, Mode.MOTIVATED, Mode.BASE, Mode.MOTIVATED]
    images, labels = torch.randn(len(modes), 4, 3, 32, 32), torch.arange(4)
    weights = []
    for is_ours in (True, False):
        torch.manual_seed(0)
        net = make(family)
        if is_ours:
            optimizer = create_optimizer(net, settings(name, lr, weight_decay=0.01))
            schedule = create_scheduler(optimizer, schema.ScheduleConfig(), 1, len(modes))
        else:
            optimizer = by_hand(name, net, lr, 0.01)
        if step_count == "literal":
            share_step_counts(optimizer, net)
        for step, mode in enumerate(modes):
            loss = nn.functional.cross_entropy(net(images[step], mode), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if is_ours:
                schedule.step_update(step + 1)
            else:
                rate = cosine(lr, step + 1, len(modes))
                for group, factor in zip(optimizer.param_groups, (1, 1, SCALE, SCALE), strict=True):
                    group["lr"] = rate * factor
        weights.append(net.state_dict())
    assert all(torch.equal(tensor, weights[1][key]) for key, tensor in weights[0].items())


@pytest.mark.parametrize("schedule", ["cosine", "none"])
def test_a_run_is_a_loop_with_two_learning_rates(schedule, tmp_path):
    run = parse_with_recipe(
        ["--model.base", "resnet8", "--model.motivated", "resnet14", "--epochs", "2", "--data.batch_size", "16",
         "--optimizer.differential_lr_scale", str(SCALE), "--motivation.name", "periodic", "--motivation.period", "2",
         "--schedule.name", schedule, "--run_dir", str(tmp_path / "run")]
    )  # fmt: skip
    images = load_data(run.data, run.model).resplit(range(64), range(64, 80))
    trainer = Trainer(run, images=images)
    trainer.fit()
    rows = read_table(tmp_path / "run" / "steps.csv")
    assert len(rows) == 8
    assert {row["mode"] for row in rows} == {"base", "motivated"}

    alone = Trainer(replace(run, run_dir=str(tmp_path / "alone")), images=images)
    net, lr = alone.net.train(), run.optimizer.lr
    optimizer = by_hand("momentum", net, lr, run.optimizer.weight_decay)
    step = 0
    for epoch in range(2):
        alone.epochs_done = epoch
        for batch, labels in alone.epoch_batches():
            rate = cosine(lr, step, 8) if schedule == "cosine" else lr
            assert float(rows[step]["lr"]) == rate, "the run records the rate of the other weights"
            for group, factor in zip(optimizer.param_groups, (1, 1, SCALE, SCALE), strict=True):
                group["lr"] = rate * factor
            loss = nn.functional.cross_entropy(net(batch, rows[step]["mode"]), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    state = trainer.net.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in net.state_dict().items())


@pytest.mark.parametrize("family", ["resnet", "vit"])
def test_the_groups_are_timm_s_divided_in_two(family):
    net = make(family)
    names = {parameter: name for name, parameter in net.named_parameters()}
    differential = dict(net.differential_parameters())

    def names_of(config):
        optimizer = create_optimizer(net, config)
        return [({names[p] for p in group["params"]}, group) for group in optimizer.param_groups]

    plain = names_of(settings(scale=1.0))
    divided = names_of(settings())
    assert not any("lr_scale" in group or group["lr"] != 0.05 for _, group in plain)
    assert [group.get("lr_scale", 1.0) for _, group in divided] == [1.0, 1.0, SCALE, SCALE]
    assert [group["lr"] for _, group in divided] == [0.05, 0.05, 0.05 * SCALE, 0.05 * SCALE]
    assert set().union(*(names for names, _ in divided[2:])) == set(differential)
    for part in (0, 1):
        assert plain[part][0] == divided[part][0] | divided[part + 2][0]
        assert plain[part][1]["weight_decay"] == divided[part][1]["weight_decay"]
        assert plain[part][1]["weight_decay"] == divided[part + 2][1]["weight_decay"]


def test_a_network_alone_has_no_differential_weights():
    alone = make("resnet").standalone("motivated")
    groups = create_optimizer(alone, settings()).param_groups
    assert [group["lr"] for group in groups] == [0.05, 0.05]


def test_separate_norms_of_the_motivated_network_are_differential():
    net = make("resnet", batch_norm="separate")
    groups = create_optimizer(net, settings()).param_groups
    scaled = {p for group in groups if group.get("lr_scale") for p in group["params"]}
    assert net.bn1.weight in scaled
    assert net.bn1.base_weight not in scaled


def test_warm_up_and_the_lowest_rate_are_scaled_too():
    optimizer = create_optimizer(make("resnet"), settings())
    schedule = create_scheduler(optimizer, schema.ScheduleConfig(warmup_epochs=1, min_lr=0.01), 3, 2)
    for step in range(7):
        schedule.step_update(step)
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates[2] == rates[0] * SCALE
    assert rates[0] == pytest.approx(0.01)
