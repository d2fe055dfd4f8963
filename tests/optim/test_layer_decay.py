"""Learning rates that decay from layer to layer, against timm's groups and against a loop with timm's optimizer."""

from dataclasses import replace

import pytest
import timm
import torch
from helpers import make
from torch import nn

import nestnet
from nestnet.config import schema
from nestnet.data.image_data import load_data
from nestnet.nn.parameter import state_dict_name
from nestnet.optim.factory import create_optimizer
from nestnet.optim.schedule import create_scheduler
from nestnet.recipes.command_line import parse_with_recipe
from nestnet.runs.reading import read_table
from nestnet.training.trainer import Trainer

DECAY = 0.75


def settings(**more):
    optimizer = schema.OptimizerConfig("adamw", lr=0.01, weight_decay=0.05, **more)
    return schema.Config(optimizer=optimizer)


@pytest.fixture(scope="module", params=["resnet", "vit", "nest"])
def net(request):
    if request.param == "resnet":
        return nestnet.create_model("resnet8", "resnet14", num_classes=5)
    return make(request.param)


def test_the_layers_are_those_of_the_motivated_network_in_timm(net):
    alone = net.standalone("motivated")
    exempt = alone.no_weight_decay() if hasattr(alone, "no_weight_decay") else ()
    alone_names = {parameter: name for name, parameter in alone.named_parameters()}
    expected = {}
    for group in timm.optim.param_groups_layer_decay(alone, 0.05, exempt, layer_decay=DECAY):
        for parameter in group["params"]:
            expected[alone_names[parameter]] = (group["lr_scale"], group["weight_decay"])
    assert len(set(expected.values())) >= 4

    names = {parameter: name for name, parameter in net.named_parameters()}
    differential = {parameter for _, parameter in net.differential_parameters()}
    # The second factor undoes that of the layer before the head.
    for scale in (1.0, 1 / DECAY):
        optimizer = create_optimizer(net, settings(layer_decay=DECAY, differential_lr_scale=scale))
        seen = 0
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                name = state_dict_name(names[parameter]).removeprefix("motivated.").removeprefix("base.")
                layer_scale, weight_decay = expected[name]
                if parameter in differential:
                    layer_scale *= scale
                assert group["lr"] == pytest.approx(0.01 * layer_scale)
                assert group.get("lr_scale", 1.0) == pytest.approx(layer_scale)
                assert group["weight_decay"] == weight_decay
                seen += 1
        assert seen == len(names)
        assert optimizer.param_groups[0]["lr"] == 0.01, "the rate that a run records is that of the head"


def test_the_schedule_keeps_the_factors():
    net = nestnet.create_model("resnet8", "resnet14", num_classes=5)
    optimizer = create_optimizer(net, settings(layer_decay=DECAY))
    schedule = create_scheduler(optimizer, schema.ScheduleConfig(warmup_epochs=1, min_lr=0.001), 3, 2)
    for step in range(7):
        schedule.step_update(step)
        head = optimizer.param_groups[0]["lr"]
        for group in optimizer.param_groups:
            assert group["lr"] == pytest.approx(head * group.get("lr_scale", 1.0))
    assert head == pytest.approx(0.001)


def test_a_run_is_a_loop_with_timm_s_optimizer(tmp_path):
    run = parse_with_recipe(
        ["--model.base", "resnet8", "--model.motivated", "resnet14", "--epochs", "1", "--data.batch_size", "16",
         "--optimizer.layer_decay", str(DECAY), "--motivation.name", "periodic", "--motivation.period", "2",
         "--run_dir", str(tmp_path / "run")]
    )  # fmt: skip
    images = load_data(run.data, run.model).resplit(range(64), range(64, 80))
    trainer = Trainer(run, images=images)
    trainer.fit()
    rows = read_table(tmp_path / "run" / "steps.csv")

    alone = Trainer(replace(run, run_dir=str(tmp_path / "alone")), images=images)
    net = alone.net.train()
    optimizer = timm.optim.create_optimizer_v2(
        net, "momentum", lr=0.1, weight_decay=5e-4, momentum=0.9, layer_decay=DECAY
    )
    schedule, _ = timm.scheduler.create_scheduler_v2(
        optimizer, num_epochs=1, step_on_epochs=False, updates_per_epoch=len(rows)
    )
    for step, (batch, labels) in enumerate(alone.epoch_batches()):
        assert float(rows[step]["lr"]) == max(group["lr"] for group in optimizer.param_groups)
        loss = nn.functional.cross_entropy(net(batch, rows[step]["mode"]), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step_update(step + 1)
    state = trainer.net.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in net.state_dict().items())


def test_a_network_without_layers_is_refused():
    def own(width):
        return nn.Sequential(nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5))

    net = nestnet.nest(own(4), own(6))
    with pytest.raises(
        ValueError, match=r"^optimizer.layer_decay = 0.75: timm finds no layers in the network; give it"
    ):
        create_optimizer(net, settings(layer_decay=DECAY))
