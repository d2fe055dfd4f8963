"""A family of a user's own that is built for one size of images, from the command line to the exported file."""

import re
from dataclasses import dataclass

import pytest
import timm
import torch
import yaml
from PIL import Image
from registries import forgotten
from timm.models import build_model_with_cfg, register_model
from torch import nn

import nestnet
import nestnet.cost
from nestnet.cli.main import main
from nestnet.data.image_data import load_data
from nestnet.deploy.predictor import Predictor
from nestnet.models.architecture import Architecture
from nestnet.models.registry import ARCHITECTURES
from nestnet.nn.layers import Conv2d, Linear
from nestnet.nn.mode import Mode, PerMode, Width
from nestnet.nn.parameter import create_weight, select_weight
from nestnet.recipes.command_line import parse_with_recipe
from nestnet.training.resolve import resolve_config
from nestnet.weights.export_file import read_export
from nestnet.weights.metadata import Metadata

WIDTHS = {"sized4": 4, "sized8": 8}


class SizedNet(nn.Module):
    """The network alone: a learned number for each channel and pixel, and a head."""

    def __init__(self, width, img_size=32, num_classes=1000, in_chans=3):
        super().__init__()
        self.conv = nn.Conv2d(in_chans, width, 3, padding=1, bias=False)
        self.position = nn.Parameter(torch.ones(1, width, img_size, img_size))
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.head((self.conv(x) * self.position).relu().mean((2, 3)))


class NestedSizedNet(nestnet.NestedModel):
    def __init__(self, names, width, num_classes, in_chans, img_size):
        options = PerMode({"img_size": img_size}, {"img_size": img_size})
        super().__init__(names, num_classes=num_classes, in_chans=in_chans, timm_options=options)
        self.conv = Conv2d(Width(in_chans, in_chans), width, 3, padding=1, bias=False)
        self.position = create_weight((1, width.motivated, img_size, img_size), (1, width.base, img_size, img_size))
        self.head = Linear(width, Width(num_classes, num_classes))

    def forward_features(self, x, mode):
        mode = Mode(mode)
        return (self.conv(x, mode) * select_weight(self.position, mode)).relu()

    def forward_head(self, x, mode, pre_logits=False):
        mode = Mode(mode)
        return x.mean((2, 3)) if pre_logits else self.head(x.mean((2, 3)), mode)


@dataclass(frozen=True)
class Sized(Architecture):
    family = "SizedNet"
    width: int

    def contains(self, base):
        return base.width <= self.width

    @staticmethod
    def nest(names, architectures, *, num_classes, in_chans, img_size=32):
        width = Width(architectures.base.width, architectures.motivated.width)
        return NestedSizedNet(names, width, num_classes, in_chans, img_size)


default_cfgs = {name: {"input_size": (3, 32, 32), "first_conv": "conv", "classifier": "head"} for name in WIDTHS}


@pytest.fixture(autouse=True)
def _known():
    with forgotten():
        for name, width in WIDTHS.items():

            def build(pretrained=False, name=name, width=width, **options):
                return build_model_with_cfg(SizedNet, name, pretrained, width=width, **options)

            build.__name__ = name
            register_model(build)
            ARCHITECTURES[name] = Sized(width)
        yield


@pytest.fixture
def folder(tmp_path):
    """Two classes that differ in brightness."""
    torch.manual_seed(0)
    for name, low in (("dark", 0), ("bright", 128)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(20):
            pixels = (low + torch.randint(128, (16, 16, 3))).byte().numpy()
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{index}.png")
    return tmp_path / "images"


NETWORKS = ["--model.base", "sized4", "--model.motivated", "sized8"]


def test_a_folder_is_trained_at_its_size_exported_and_predicted(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["--data.root", "images", "--data.img_size", "16", "--epochs", "1", "--motivation.k", "1"]
    assert main(["train", *NETWORKS, *options, "--run_dir", "run"]) == 0
    printed = capsys.readouterr().out
    assert "trained as sized4 in sized8 at 16 x 16" in printed
    assert re.search(r"adamw at lr \S+ \(usual values, there is no recipe for SizedNet\)", printed)
    stored = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (stored["optimizer"]["name"], stored["channels_last"]) == ("adamw", True)
    for command in (
        ["evaluate", "run", "--mode", "base"],
        ["export", "run", "--mode", "base", "--output", "b.safetensors"],
    ):
        assert main(command) == 0
    assert "img_size=16" in capsys.readouterr().out
    assert main(["report", "run", "--output", "report"]) == 0
    assert read_export("b.safetensors").input_size == (3, 16, 16)
    alone = timm.create_model("sized4", num_classes=2, img_size=16, checkpoint_path="b.safetensors").eval()
    images = torch.randn(3, 3, 16, 16)
    assert torch.equal(Predictor("b.safetensors").network(images), alone(images))


def test_every_part_builds_it_at_the_size_of_the_images(folder):
    assert ARCHITECTURES["sized8"].takes_img_size
    assert not ARCHITECTURES["resnet20"].takes_img_size
    macs = 16 * 16 * 3 * 4 * 9 + 4 * 2
    assert nestnet.cost.forward_cost("sized4", img_size=16, num_classes=2) == macs
    net = nestnet.create_model("sized4", "sized8", num_classes=2, img_size=16)
    assert Metadata.from_network(net, nestnet.Mode.BASE).input_size == (3, 16, 16)
    given = [*NETWORKS, "--data.name", "folder", "--data.root", str(folder), "--data.img_size", "16"]
    with pytest.raises(ValueError, match=r"data\.eval_img_size = 24: a SizedNet is made for one size; leave it out"):
        parse_with_recipe([*given, "--data.eval_img_size", "24"])
    run = parse_with_recipe(given)
    run.data.eval_img_size = 24
    with pytest.raises(ValueError, match=r"data\.eval_img_size = 24: a SizedNet is made for one size; leave it out"):
        resolve_config(run, load_data(run.data, run.model))


def test_its_weights_start_another_run(folder, tmp_path):
    net = nestnet.create_model("sized4", "sized8", num_classes=2, img_size=16)
    nestnet.export(net, "base", tmp_path / "b.safetensors", class_names=["dark", "bright"])
    found = parse_with_recipe(["--data.root", str(folder), "--model.base_weights", str(tmp_path / "b.safetensors")])
    assert (found.model.base, found.model.motivated, found.data.img_size) == ("sized4", "sized8", 16)
    other = nestnet.create_model("sized4", "sized8", num_classes=2, img_size=16)
    nestnet.load_weights(other, "base", tmp_path / "b.safetensors", class_names=["bright", "dark"])
    assert torch.equal(other.state_dict()["head.weight"][:, :4], net.state_dict()["head.weight"][:, :4].flip(0))
