"""A frozen backbone: only timm's classifier is trained, with the gradients of timm's network in evaluation mode."""

import copy

import pytest
import timm
import torch
from helpers import batch, make, randomised
from interrupted import content, few, train_and_copy
from torch import nn

import nestnet
from nestnet import Mode
from nestnet.nn.batch_norm import BatchNorm2d
from nestnet.optim.factory import create_optimizer
from nestnet.recipes.command_line import parse_with_recipe
from nestnet.recipes.extension import parse_extension
from nestnet.runs.reading import read_table
from nestnet.training.resume import resume


def small(family, **options):
    if family == "resnet":
        return nestnet.create_model("resnet8", "resnet14", num_classes=5, **options)
    return make(family, **options)


def head_names(model):
    """The names of the parameters of the module that timm calls the classifier."""
    classifier = {id(parameter) for parameter in model.get_classifier().parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in classifier}


@pytest.mark.parametrize(
    ("family", "options"),
    [("resnet", {"batch_norm": "separate"}), ("resnet", {"batch_norm": "shared"}), ("vit", {}), ("nest", {})],
    ids=["separate", "shared", "vit", "nest"],
)
def test_only_the_classifier_moves(family, options):
    torch.manual_seed(0)
    net = nestnet.freeze_backbone(randomised(small(family, **options)).train())
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    config = parse_with_recipe(["--optimizer.name", "adamw", "--optimizer.lr", "0.01"])
    optimizer = create_optimizer(net, config)
    images, labels = batch()
    for mode in (Mode.BASE, Mode.MOTIVATED):
        alone = net.standalone(mode).eval()
        nn.functional.cross_entropy(alone(images), labels).backward()
        loss = nn.functional.cross_entropy(net.train()(images, mode), labels)
        optimizer.zero_grad()
        loss.backward()
        # The gradients are those of timm's network with its running statistics.
        expected = {name: alone.get_parameter(name).grad for name in head_names(alone)}
        subnet = dict(net.subnet(mode).named_parameters())
        for name in expected.keys() & subnet.keys():
            assert torch.allclose(subnet[name].grad, expected[name], rtol=1e-4, atol=1e-6)
        assert {name for name, parameter in alone.named_parameters() if parameter.requires_grad} == expected.keys()
        optimizer.step()
    head = head_names(net.standalone("motivated"))
    moved = {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == head


def test_a_copy_is_frozen_too_and_the_rest_trains_as_usual():
    net = copy.deepcopy(nestnet.freeze_backbone(small("resnet").eval()))
    assert not net.training
    net.train()
    norms = [module for module in net.modules() if isinstance(module, BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)
    assert net.head_drop.training


def test_a_network_without_a_named_head_is_refused():
    net = nestnet.nest(nn.Sequential(nn.Linear(4, 3)), nn.Sequential(nn.Linear(4, 3)), check=False)
    with pytest.raises(
        ValueError, match="Sequential does not say which of its modules is the head, so that all others"
    ):
        nestnet.freeze_backbone(net)


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Both exports of a network for the digits."""
    folder = tmp_path_factory.mktemp("exports")
    torch.manual_seed(0)
    net = randomised(nestnet.create_model("resnet8", "resnet14", num_classes=10, in_chans=1))
    for mode in Mode:
        nestnet.export(net, mode, folder / f"{mode}.safetensors", class_names=[f"class {i}" for i in range(10)])
    return folder


def test_a_run_resumes_and_exports_the_backbone_that_it_started_from(exports, tmp_path, monkeypatch, capsys):
    arguments = [
        "--model.base", "resnet8", "--model.motivated", "resnet14", "--model.freeze", "backbone", "--epochs", "1",
        "--model.motivated_weights", str(exports / "motivated.safetensors"), "--ema_decay", "0.5",
        "--model.base_weights", str(exports / "base.safetensors"), "--data.batch_size", "16", "--checkpoint_steps", "2",
        "--motivation.name", "periodic", "--motivation.period", "2", "--optimizer.weight_decay", "0.1",
    ]  # fmt: skip
    run = parse_with_recipe(arguments)
    train_and_copy(run, tmp_path / "whole", tmp_path / "killed", monkeypatch, 3)
    assert "running BatchNorm statistics" not in capsys.readouterr().err
    resume(tmp_path / "killed", images=few(run))
    assert content(tmp_path / "killed") == content(tmp_path / "whole")

    assert {row["mode"] for row in read_table(tmp_path / "whole" / "steps.csv")} == {"base", "motivated"}
    for mode, name in ((Mode.BASE, "resnet8"), (Mode.MOTIVATED, "resnet14")):
        states = []
        for folder in (exports, tmp_path / "whole"):
            path = folder / f"{mode}.safetensors"
            states.append(timm.create_model(name, num_classes=10, in_chans=1, checkpoint_path=path).state_dict())
        before, after = states
        changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
        assert changed == {"fc.weight", "fc.bias"}
    # What extends the base trains more than a head.
    extension = parse_extension(tmp_path / "whole", "resnet20", [])
    assert (extension.model.freeze, extension.model.motivated) == (None, "resnet20")
