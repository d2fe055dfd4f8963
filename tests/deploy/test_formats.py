"""Files for devices, in their own runtimes, against the networks that they hold; and the way there from a run."""

import os
import re
from pathlib import Path

import pytest
import torch
from helpers import FAMILIES, randomised
from PIL import Image

import nestnet
from nestnet import Mode
from nestnet.cli.main import main
from nestnet.config.parsing import parse
from nestnet.data.image_data import load_data
from nestnet.deploy.export_format import ExportFormat
from nestnet.deploy.formats import EXPORT_FORMATS, choose_format
from nestnet.deploy.logit_check import TOLERANCE, compare_logits
from nestnet.deploy.onnx_format import OnnxFormat
from nestnet.runs.reading import read_run
from nestnet.training.trainer import Trainer
from nestnet.weights.export_file import read_export
from nestnet.weights.metadata import Metadata

CONFIG = str(Path(__file__).parents[2] / "configs" / "digits_resnet20_32.yaml")

PAIR = ["--model.base", "resnet8", "--model.motivated", "resnet14"]
CIFAR = ("resnet8", "resnet14", {"in_chans": 1})
VIT = FAMILIES["vit"]
EFFICIENTNET = FAMILIES["efficientnet"]


@pytest.mark.parametrize(
    ("name", "mode", "nested"),
    [
        ("onnx", "base", CIFAR),
        ("torch-export", "base", CIFAR),
        *(
            pytest.param(name, mode, nested, marks=pytest.mark.slow)
            for name, mode, nested in [
                ("onnx", "motivated", CIFAR),
                ("onnx", "base", VIT),
                ("onnx", "base", EFFICIENTNET),
                ("torch-export", "base", EFFICIENTNET),
            ]
        ),
    ],
)
def test_a_file_computes_what_the_network_computes(name, mode, nested, tmp_path):
    (base, motivated, options), mode = nested, Mode(mode)
    net = randomised(nestnet.create_model(base, motivated, num_classes=5, **options)).eval()
    metadata = Metadata.from_network(net, mode, class_names=list("abcde"), input_size=(net.in_chans, 32, 32))
    path = tmp_path / f"caf\udce9{EXPORT_FORMATS[name].suffix}"  # its name is not UTF-8
    EXPORT_FORMATS[name].write(net, metadata, path)
    assert os.listdir(tmp_path) == [path.name], "a single file"
    classify = EXPORT_FORMATS[name].load(path, metadata)
    batches = [torch.randn(size, *metadata.input_size) for size in (1, 2, 7)]
    difference, scale = compare_logits(classify, net.subnet(mode), batches)
    assert difference <= TOLERANCE * scale
    assert scale > 0.1
    usage, names = EXPORT_FORMATS[name].usage(str(path), metadata), {"images": torch.zeros(1, *metadata.input_size)}
    exec("\n".join([*usage.imports, f"{usage.name} = {usage.load}", *usage.setup, f"logits = {usage.call}"]), names)
    assert tuple(names["logits"].shape) == (1, 5)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A short run, both of whose subnets differ from new ones."""
    path = tmp_path_factory.mktemp("run") / "digits"
    settings = ["--config", CONFIG, *PAIR, "--epochs", "1", "--data.batch_size", "256", "--run_dir", str(path)]
    Trainer(parse(settings)).fit()
    return path


def test_the_format_follows_the_ending():
    found = {file: choose_format(Path(file)).name for file in ("a.onnx", "a.PT2", "a.bin", "a")}
    assert found == {"a.onnx": "onnx", "a.PT2": "torch-export", "a.bin": "safetensors", "a": "safetensors"}
    assert choose_format(Path("a.onnx"), "torch-export").name == "torch-export"


@pytest.mark.parametrize(
    ("file", "options", "load"),
    [
        (
            "base.safetensors",
            [],
            'timm.create_model("resnet8", num_classes=10, in_chans=1, checkpoint_path="{path}")',
        ),
        ("base.pt2", [], 'torch.export.load("{path}").module()'),
        (
            "base.bin",
            ["--format", "safetensors", "--recalibrate", "2"],
            'model = timm.create_model("resnet8", num_classes=10, in_chans=1)\n'
            'model.load_state_dict(safetensors.torch.load_file("{path}"))',
        ),
    ],
)
def test_export_writes_checks_and_says_how_to_load(file, options, load, run_dir, tmp_path, capsys):
    path = tmp_path / file
    assert main(["export", str(run_dir), "--mode", "base", "--output", str(path), *options]) == 0
    out, err = capsys.readouterr()
    assert out == load.format(path=path) + "\n"
    assert f"wrote {path} and {tmp_path / 'base.md'}; checked with" in err
    assert "on 25 test images, in batches of 1, 8 and 16: the largest difference of a logit is 0, " in err
    assert sorted(os.listdir(tmp_path)) == sorted([file, "base.md"])


@pytest.mark.slow
def test_an_export_to_onnx_serves_predict(run_dir, tmp_path, capsys):
    run = read_run(run_dir)
    images = load_data(run.config.data, run.config.model)
    (tmp_path / "digits").mkdir()
    for index in range(40):
        Image.fromarray(images.test.dataset[index][0][0].numpy()).save(tmp_path / "digits" / f"{index:03}.png")
    answers = []
    for file in ("motivated.safetensors", "motivated.onnx"):
        path = tmp_path / file
        assert main(["export", str(run_dir), "--mode", "motivated", "--output", str(path)]) == 0
        capsys.readouterr()
        assert main(["predict", str(tmp_path / "digits"), "--model", str(path), "--top", "1"]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1]
    with torch.inference_mode():
        expected = run.net.eval()(torch.stack([images.test[index][0] for index in range(40)]), "motivated").argmax(1)
    assert [int(line.split("  ")[1].split()[0]) for line in answers[0].splitlines()] == expected.tolist()

    file = (tmp_path / "motivated.onnx").read_bytes()
    for damaged in (file[:-9], file[:500_000] + b"x" + file[500_001:], file.replace(b"resnet14", b"resnet20", 1), b""):
        (tmp_path / "bad.onnx").write_bytes(damaged)
        with pytest.raises(ValueError, match=re.escape(str(tmp_path / "bad.onnx")) + " is damaged"):
            OnnxFormat().read(tmp_path / "bad.onnx")


class Wrong(ExportFormat):
    """A format whose files hold other weights than they should."""

    name, suffix, runtime = "safetensors", ".safetensors", "a wrong runtime"

    def __init__(self, off: float) -> None:
        self.off = off

    def usage(self, path, metadata): ...

    def write(self, net, metadata, path) -> None:
        path.write_bytes(b"wrong")
        self.network = net.subnet(metadata.mode)

    def load(self, path, metadata):
        return lambda images: self.network(images) + self.off


@pytest.mark.parametrize("off", [0.01, float("nan")])
def test_a_file_that_computes_something_else_is_refused_and_leaves_nothing(off, run_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(EXPORT_FORMATS, "safetensors", Wrong(off))
    path = tmp_path / "base.safetensors"
    path.write_text("what was there")
    assert main(["export", str(run_dir), "--mode", "base", "--output", str(path)]) == 2
    error = capsys.readouterr().err
    assert "it was not written, its logits are not those of the network: a wrong runtime on 25 test images" in error
    assert error.count("\n") == 1
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_text() == "what was there"


def test_random_images_stand_in_for_those_that_are_not_there(run_dir, tmp_path, monkeypatch, capsys):
    def load_nothing(*arguments, **options):
        raise ValueError("data.root = 'gone': there is no such folder")

    monkeypatch.setattr("nestnet.runs.reading.load_data", load_nothing)
    command = ["export", str(run_dir), "--mode", "base", "--output", str(tmp_path / "base.safetensors")]
    assert main(command) == 0
    error = capsys.readouterr().err
    assert (
        "on 25 random images (those of the run cannot be read: data.root = 'gone': there is no such folder (run `"
        in error
    )
    assert read_export(tmp_path / "base.safetensors").num_classes == 10
    assert main([*command, "--recalibrate", "1"]) == 2
    assert "data.root = 'gone'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("", "it is a folder; name a file"),
        ("absent/base.onnx", "there is no folder "),
        ("base.md", "the model card takes this name"),
        ("notes.onnx", "notes.md exists and is not a model card of nestnet; move it, or name another file"),
    ],
)
def test_what_is_in_the_way_is_said_first(file, message, run_dir, tmp_path, capsys):
    (tmp_path / "notes.md").write_text("# My notes\n")
    assert main(["export", str(run_dir), "--mode", "base", "--output", str(tmp_path / file)]) == 2
    error = capsys.readouterr().err
    assert f"output = '{tmp_path / file}': " in error
    assert message in error
    assert os.listdir(tmp_path) == ["notes.md"]
    assert (tmp_path / "notes.md").read_text() == "# My notes\n"


def test_packages_that_are_absent_are_named_first(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name.startswith("onnx") else object())
    assert main(["export", str(tmp_path), "--mode", "base", "--output", str(tmp_path / "x.onnx")]) == 2
    assert capsys.readouterr().err == (
        "nestnet export: error: format = 'onnx': it needs onnx, onnxscript, onnxruntime; "
        'install them with pip install "nestnet[onnx]"\n'
    )
