"""Exported files that prepare raw pixels themselves, from a run over files of many shapes to predictions."""

import os
import re

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

import nestnet
from nestnet import Mode
from nestnet.cli.main import main
from nestnet.config.parsing import parse
from nestnet.deploy.class_check import check_classes
from nestnet.deploy.exported_program import create_standalone
from nestnet.deploy.formats import EXPORT_FORMATS
from nestnet.deploy.onnx_format import OnnxFormat
from nestnet.deploy.raw_pixels import run_raw, to_raw_pixels
from nestnet.runs.reading import read_run
from nestnet.training.trainer import Trainer
from nestnet.weights.metadata import Metadata

FILES = {"program.pt2": [], "net.onnx": ["--opset", "18"], "intel.xml": []}
"""Files of each format that can prepare images, and the options with which they are written."""

PREDICTING = ["net.onnx", "intel.xml"]

SIZES = [(16, 16), (70, 16), (15, 40), (90, 9), (41, 33), (8, 8), (24, 60), (3, 50)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Images of several heights and widths, among them tall and very wide ones."""
    path = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for part in ("train", "test"):
        for number, name in enumerate(("dark", "light", "red")):
            (path / part / name).mkdir(parents=True)
            for index, size in enumerate(SIZES):
                levels = generator.integers(30 + 60 * number, 120 + 60 * number, size=(*size, 3), dtype=np.uint8)
                levels[..., 1:] //= number // 2 + 1
                Image.fromarray(levels).save(path / part / name / f"{index}.png")
    return path


@pytest.fixture(scope="module")
def run_dir(root, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    # The crop is given, so that the shorter side is resized and the centre is cropped.
    data = ["--data.root", str(root), "--data.img_size", "16", "--data.crop_pct", "0.8", "--data.batch_size", "6"]
    networks = ["--model.base", "resnet8", "--model.motivated", "resnet14"]
    Trainer(parse(["--data.name", "folder", *data, *networks, "--epochs", "2", "--run_dir", str(path)])).fit()
    return path


def export(run_dir, path, *options):
    return main(
        ["export", str(run_dir), "--mode", "base", "--output", str(path), "--preprocessing", "inside", *options]
    )


def expected_logits(run_dir):
    """The run's own logits of all test images, and the images as raw pixels."""
    run = read_run(run_dir)
    images = run.images()
    with torch.inference_mode():
        prepared = torch.stack([images.test[index][0] for index in range(len(images.test))])
        logits = run.net.eval()(prepared, "base")
    return logits, [to_raw_pixels(images.test.dataset[index][0]) for index in range(len(images.test))]


def logits_by_card(card, folder, images, monkeypatch):
    """The logits that the Python of a model card computes, image by image."""
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    assert "torch.zeros(1, 480, 640, 3, dtype=torch.uint8)  # raw pixels" in code
    *loading, _, call = code.splitlines()
    monkeypatch.chdir(folder)
    names: dict = {}
    exec("\n".join(loading), names)

    def classify(raw):
        names["images"] = raw
        exec(call, names)
        return torch.as_tensor(names["logits"])

    return run_raw(classify, images)


@pytest.fixture(scope="module")
def exports(run_dir, tmp_path_factory):
    """A folder with the base in each format that can prepare images."""
    folder = tmp_path_factory.mktemp("exports")
    for file, options in FILES.items():
        assert export(run_dir, folder / file, *options) == 0
    return folder


@pytest.mark.parametrize("file", FILES)
def test_raw_pixels_give_the_run_s_own_logits(file, run_dir, exports, monkeypatch):
    expected, images = expected_logits(run_dir)
    assert len(expected.argmax(1).unique()) > 1
    card = (exports / file).with_suffix(".md").read_text()
    assert "on all 24 test images, from raw pixels: each class is that of the run" in card
    found = logits_by_card(card, exports, images, monkeypatch)
    assert torch.equal(found.argmax(1), expected.argmax(1))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert "| input | raw pixels, uint8 [batch, height, width, 3], of any height and width, red, green, blue |" in card
    assert "| size | by the file itself: resized to 20 pixels along its shorter side" in card


def test_an_onnx_file_names_its_axes_and_records_its_opset(exports):
    path = exports / "net.onnx"
    proto = onnx.load(path)
    assert proto.opset_import[0].version == 18
    entries = {entry.key: entry.value for entry in proto.metadata_props}
    assert (entries["opset"], entries["preprocessing"]) == ("18", "inside")
    session = onnxruntime.InferenceSession(path)
    assert session.get_inputs()[0].shape == ["batch", "height", "width", 3]
    assert session.get_inputs()[0].type == "tensor(uint8)"
    assert session.get_outputs()[0].shape == ["batch", 3]


@pytest.mark.parametrize("file", PREDICTING)
def test_predict_takes_raw_pixels(file, exports, run_dir, root, capsys):
    answers = []
    for model in (exports / file, run_dir / "base.safetensors"):
        arguments = ["predict", str(root / "test"), "--model", str(model), "--top", "1", "--batch_size", "7"]
        assert main(arguments) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1]
    assert answers[0].count("\n") == 24


class Flipped(OnnxFormat):
    """A format whose files give all images the first class."""

    runtime = "a wrong runtime"

    def write(self, net, metadata, path) -> None:
        path.write_bytes(b"wrong")

    def load(self, path, metadata):
        return lambda images: torch.tensor([[float("nan"), 0.0, 0.0]]).expand(len(images), 3)


class Kept(OnnxFormat):
    """A format that keeps the network in place of writing it, which takes less time."""

    def with_opset(self, opset):
        return self

    def write(self, net, metadata, path) -> None:
        path.write_bytes(b"kept")
        self.network = create_standalone(net, metadata)

    def load(self, path, metadata):
        return self.network


def test_a_recommended_command_exports_in_the_same_way(run_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(EXPORT_FORMATS, "onnx", Kept())
    path = tmp_path / "base.onnx"
    assert export(run_dir, path, "--opset", "18") == 0
    command = f"nestnet export {run_dir} --mode base --output {path} --opset 18 --preprocessing inside --recalibrate 50"
    assert f"`{command}` recomputes them" in capsys.readouterr().err


def test_a_file_that_gives_another_class_is_refused_and_leaves_nothing(run_dir, root, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(EXPORT_FORMATS, "onnx", Flipped())
    path = tmp_path / "base.onnx"
    assert export(run_dir, path) == 2
    error = capsys.readouterr().err
    different = int((expected_logits(run_dir)[0].argmax(1) != 0).sum())
    assert different > 0
    assert (
        f"base.onnx': it was not written, from raw pixels it gives other classes than the run to {different} of 24"
        in error
    )
    assert re.search(
        r"test images, such as '?\S+/test/\w+/\d\.png'?: dark instead of (light|red) \(a wrong runtime", error
    )
    assert "the largest difference of a logit is nan); set preprocessing to outside" in error
    assert error.count("\n") == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("multi_label", "logits", "different", "example"),
    [
        (False, [0.5, 2.0, 1.0], 0, ""),
        (False, [0.5, 1.0, 2.0], 5, "number 0: red instead of light"),
        (True, [0.5, 2.0, 1.0], 0, ""),
        (True, [-0.5, 2.0, 1.0], 5, "number 0: light, red instead of dark, light, red"),
        (True, [-1.0, -1.0, -1.0], 5, "number 0: no class instead of dark, light, red"),
    ],
)
def test_all_labels_of_an_image_count(multi_label, logits, different, example):
    network = nestnet.create_model("resnet8", "resnet14", num_classes=3)
    given = {"class_names": ["dark", "light", "red"], "multi_label": multi_label}
    metadata = Metadata.from_network(network, Mode.BASE, input_size=(3, 16, 16), **given)

    def answer(row):
        return lambda images: torch.tensor([row]).expand(len(images), 3)

    check = check_classes(answer(logits), "a runtime", answer([0.5, 2.0, 1.0]), None, "gone", metadata)
    assert (check.different, check.count, check.example) == (different, 5, example)
    assert check.passed == (different == 0)
    assert not check_classes(answer([float("nan")] * 3), "", answer([-1.0] * 3), None, "gone", metadata).passed


@pytest.mark.parametrize(
    ("file", "options", "message"),
    [
        (
            "base.safetensors",
            ["--preprocessing", "inside"],
            "preprocessing = 'inside': files of the format safetensors hold weights alone; set format to onnx, or to another",
        ),
        ("folder", ["--preprocessing", "inside", "--format", "timm"], "files of the format timm hold weights alone"),
        ("base.pt2", ["--opset", "18"], "opset = 18: it is for ONNX files; leave it out, or set format to onnx"),
        ("base.onnx", ["--opset", "17"], "opset = 17: torch writes 18 or newer, and onnx "),
        ("base.onnx", ["--opset", "1000"], f"knows up to {onnx.defs.onnx_opset_version()}"),
        (
            "base.onnx",
            ["--preprocessing", "inside", "--precision", "int8"],
            "files in 8-bit integers take normalised images",
        ),
        ("base.onnx", ["--opset", "x"], "argument --opset: invalid int value: 'x'"),
        ("base.onnx", ["--preprocessing", "both"], "argument --preprocessing: invalid choice: 'both'"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_before_the_run_is_read(file, options, message, tmp_path, capsys):
    command = ["export", str(tmp_path / "absent"), "--mode", "base", "--output", str(tmp_path / file), *options]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
