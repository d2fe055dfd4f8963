"""Each example runs as it is."""

import runpy
import sys
from pathlib import Path

import pytest
import timm
import torch
from registries import forgotten
from safetensors.torch import save_file

from nestnet import Mode
from nestnet.cli.main import main
from nestnet.models.registry import create_model
from nestnet.runs.reading import read_table

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs an example as a program, in a new folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        return runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")

    with forgotten():
        yield run


@pytest.mark.slow
def test_own_loop_learns_and_can_go_on(run):
    variables = run("own_loop")
    assert all(value > 15 for value in variables["top1"].values()), "a tenth of the digits is chance"
    assert {"base", "motivated"} == set(variables["modes"])
    saved = torch.load("loop.pt", weights_only=True)
    again = create_model("resnet20", "resnet32", num_classes=10, in_chans=1)
    again.load_state_dict(saved["net"])
    images = variables["test_images"]
    with torch.inference_mode():
        assert torch.equal(again.eval()(images, "base"), variables["net"](images, "base"))
    optimizer = torch.optim.AdamW(variables["optimizer"].param_groups)
    optimizer.load_state_dict(saved["optimizer"])


@pytest.fixture
def train_with_own_condition(monkeypatch, tmp_path):
    """Runs the command of the guide with some options, in a new folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)
    with forgotten():
        yield lambda *options: main(["train", "--import", "own_condition", "--motivation.name", "budget", *options])


def test_own_condition_keeps_to_its_budget(train_with_own_condition):
    options = ["--motivation.options", '{"share": 0.3}', "--epochs", "1", "--run_dir", "run"]
    assert train_with_own_condition(*options) == 0
    modes = [row["mode"] for row in read_table(Path("run/steps.csv"))]
    assert (len(modes), modes.count("motivated")) in [(11, 1), (11, 2), (11, 3)]


def test_own_condition_refuses_a_wrong_share(train_with_own_condition, capsys):
    assert train_with_own_condition("--motivation.options", "{share: 2}") == 2
    assert "share = 2: it must be from 0 to 1" in capsys.readouterr().err


def test_own_family_is_the_reference_to_the_bit(run, capsys):
    variables = run("own_family")
    assert "inside plain32 fit plain8, plain16, plain32" in capsys.readouterr().out
    assert variables["comparison"].identical
    assert variables["comparison"].switches == 8
    net, images = variables["net"].eval(), torch.randn(2, 3, 32, 32)
    for mode, name in zip(Mode, ("plain8", "plain32"), strict=True):
        alone = timm.create_model(name, num_classes=10)
        assert list(net.subnet(mode).state_dict()) == list(alone.state_dict())
        alone.load_state_dict(net.subnet(mode).state_dict())
        assert torch.equal(alone.eval()(images), net(images, mode))


def test_deployed_networks_are_timm_s(run, capsys):
    assert run("deploy")["difference"] == 0
    assert capsys.readouterr().out.count("largest difference of a logit 0.0") == 2


def test_an_own_network_is_nested_in_five_lines(run):
    variables = run("own_cnn")
    saved = torch.load("own_small.pt", weights_only=True)
    own = variables["own_small"](num_classes=10, in_chans=3)
    own.load_state_dict(saved)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(own.eval()(images), variables["net"].eval()(images, "base"))


def test_networks_of_torchvision_nest(run):
    comparison = run("torchvision_network")["comparison"]
    assert comparison.identical
    assert comparison.switches >= 3


def test_a_convnext_starts_from_a_part_of_the_bigger_one(run, tmp_path):
    trained = timm.create_model("convnextv2_femto", num_classes=10)
    save_file(trained.state_dict(), tmp_path / "trained.safetensors")
    assert run("convnext", str(tmp_path / "trained.safetensors"))["difference"] == 0
