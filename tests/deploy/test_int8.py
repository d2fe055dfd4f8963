"""Files in 8-bit integers: their accuracy, against counting right answers of onnxruntime itself, and their refusal."""

import json
import logging
import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import nestnet
from nestnet import Mode
from nestnet.cli.main import main
from nestnet.config.parsing import parse
from nestnet.data.image_data import load_data
from nestnet.deploy import int8_export
from nestnet.deploy.accuracy import TOP1
from nestnet.deploy.accuracy_check import AccuracyCheck
from nestnet.deploy.int8_export import Int8Settings, choose_calibration_images
from nestnet.deploy.loading import load_export
from nestnet.deploy.onnx_format import OnnxFormat
from nestnet.deploy.quantization import quantize
from nestnet.runs.reading import read_run, read_table
from nestnet.training.trainer import Trainer

CONFIG = str(Path(__file__).parents[2] / "configs" / "digits_resnet20_32.yaml")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "digits"
    settings = ["--config", CONFIG, "--epochs", "2", "--data.batch_size", "128", "--run_dir", str(path)]
    Trainer(parse([*settings, "--model.base", "resnet8", "--model.motivated", "resnet14"])).fit()
    return path


@pytest.fixture(scope="module")
def exported(run_dir, tmp_path_factory):
    """The base in 8-bit integers, and the network that it was quantised from."""
    path, traced, trace = tmp_path_factory.mktemp("int8") / "base.onnx", [], OnnxFormat.trace

    def remember(self, net, metadata):
        proto = trace(self, net, metadata)
        traced.append(proto.SerializeToString())
        return proto

    arguments = ["--mode", "base", "--output", str(path), "--precision", "int8", "--calibration_images", "100"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OnnxFormat, "trace", remember)
        assert main(["export", str(run_dir), *arguments, "--tolerance", "5"]) == 0
    return path, traced[0]


def test_the_file_is_as_accurate_as_it_says(exported, run_dir):
    path, _ = exported
    metadata = load_export(path, torch.device("cpu")).metadata
    images = load_data(read_run(run_dir).config.data, read_run(run_dir).config.model)
    session = onnxruntime.InferenceSession(path)
    right = 0
    for image, label in images.test:
        right += int(session.run(["logits"], {"images": image[None].numpy()})[0].argmax() == label)
    measured = float(read_table(run_dir / "metrics.csv")[-1]["base_top1"])
    assert metadata.precision == "int8"
    assert metadata.quantization["calibration_images"] == 100
    assert metadata.quantization["test_images"] == len(images.test) == 360
    assert metadata.quantization["int8_top1"] == pytest.approx(100 * right / 360, abs=1e-3)
    assert metadata.quantization["float32_top1"] == pytest.approx(measured, abs=1e-3)
    assert measured > 20, "the network has learnt something that it could lose"


def test_the_file_holds_integers_and_its_card_says_so(exported):
    path, traced = exported
    types = {tensor.name: tensor.data_type for tensor in onnx.load(path).graph.initializer}
    weights = [kind for name, kind in types.items() if name.endswith("weight_quantized")]
    assert len(weights) == 10, "nine convolutions and the head"
    assert set(weights) == {onnx.TensorProto.INT8}
    assert path.stat().st_size < 0.5 * len(traced)
    card = path.with_suffix(".md").read_text()
    assert "\n- int8\n" in card
    assert "in 8-bit integers" in card
    assert "calibrated on 100 training images" in card


def test_a_file_that_loses_too_much_is_refused_and_leaves_nothing(exported, run_dir, tmp_path, monkeypatch, capsys):
    """The ranges of activations are measured on black images, which no activation of a test image fits into."""
    _, traced = exported
    monkeypatch.setattr(OnnxFormat, "trace", lambda self, net, metadata: onnx.load_from_string(traced))
    monkeypatch.setattr(int8_export, "_stack_batches", lambda images, indices: [torch.full((1, 1, 8, 8), -1e-3)])
    path = tmp_path / "base.onnx"
    path.write_text("what was there")
    command = ["export", str(run_dir), "--mode", "base", "--output", str(path), "--precision", "int8"]
    assert main([*command, "--tolerance", "2.5"]) == 2
    error = capsys.readouterr().err
    assert f"output = '{path}': it was not written, because in 8-bit integers resnet8 (base) loses " in error
    assert "points of top-1, and tolerance = 2.5: " in error
    assert "on 360 test images, calibrated on 512 training images; set another number of calibration_images" in error
    assert error.count("\n") == 1
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_text() == "what was there"


def test_integers_compute_nearly_what_the_network_computes(exported):
    _, traced = exported
    images = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    handlers = list(logging.getLogger().handlers)
    quantized = quantize(onnx.load_from_string(traced), images.split(16))
    assert logging.getLogger().handlers == handlers
    logits = []
    for proto in (traced, quantized.SerializeToString()):
        session = onnxruntime.InferenceSession(proto)
        logits.append(session.run(["logits"], {"images": images.numpy()})[0])
    error = np.abs(logits[1] - logits[0]).max() / np.abs(logits[0]).max()
    assert 0 < error < 0.1


@pytest.mark.parametrize(
    ("float32_top1", "int8_top1", "tolerance", "passed", "text"),
    [
        (90.0, 89.0, 1.0, True, "89.00 % in int8, 1.00 points less than in float32 (90.00 %)"),
        (90.0, 88.99, 1.0, False, "88.99 % in int8, 1.01 points less than in float32 (90.00 %)"),
        (100 * 9 / 11, 100 * 8 / 11, 100 / 11, True, "9.09 points less"),
        (90.0, 90.0, 0.0, True, "90.00 % in int8, the same as in float32 (90.00 %)"),
        (90.0, 91.5, 0.0, True, "91.50 % in int8, 1.50 points more than in float32 (90.00 %)"),
    ],
)
def test_the_tolerance_is_in_points(float32_top1, int8_top1, tolerance, passed, text):
    check = AccuracyCheck("resnet8 (base)", "a runtime", 10, 1000, TOP1, float32_top1, int8_top1, tolerance)
    assert check.passed == passed
    assert text in str(check)


def test_calibration_images_are_drawn_by_the_seed():
    drawn = choose_calibration_images(1000, 100, seed=3)
    assert len(set(drawn)) == 100
    assert set(drawn) <= set(range(1000))
    assert drawn == choose_calibration_images(1000, 100, seed=3)
    assert drawn != choose_calibration_images(1000, 100, seed=4)
    assert sorted(choose_calibration_images(10, 100, seed=3)) == list(range(10))


@pytest.mark.parametrize(
    ("file", "options", "message"),
    [
        ("b.safetensors", ["--precision", "int8"], "precision = 'int8': files of the format safetensors hold float32"),
        ("b.pt2", ["--precision", "int8"], "precision = 'int8': files of the format torch-export hold float32 alone"),
        ("b.onnx", ["--tolerance", "1"], "tolerance = 1.0: it is for 8-bit integers; leave it out, or set precision"),
        ("b.onnx", ["--calibration_images", "9"], "calibration_images = 9: it is for 8-bit integers"),
        ("b.onnx", ["--precision", "int8", "--tolerance", "-1"], "tolerance = -1.0: it must be from 0 to 100"),
        ("b.onnx", ["--precision", "int8", "--tolerance", "nan"], "tolerance = nan: it must be from 0 to 100"),
        ("b.onnx", ["--precision", "int8", "--calibration_images", "0"], "calibration_images = 0: it must be a whole"),
        ("b.onnx", ["--precision", "int4"], "argument --precision: invalid choice: 'int4'"),
    ],
)
def test_mistakes_are_named_before_the_run_is_read(file, options, message, tmp_path, capsys):
    output = ["--output", str(tmp_path / file)]
    assert main(["export", str(tmp_path / "absent"), "--mode", "base", *output, *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_images_that_are_gone_are_named(run_dir, tmp_path, monkeypatch, capsys):
    """A file in float32 is then checked on random images, but an accuracy cannot be."""

    def load_nothing(*arguments, **options):
        raise ValueError("data.root = 'gone': there is no such folder")

    monkeypatch.setattr("nestnet.runs.reading.load_data", load_nothing)
    command = ["export", str(run_dir), "--mode", str(Mode.BASE), "--output", str(tmp_path / "b.onnx")]
    assert main([*command, "--precision", "int8"]) == 2
    assert "data.root = 'gone': there is no such folder" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("settings", [{"calibration_images": True}, {"tolerance": "1"}, {"tolerance": 101}])
def test_settings_have_ranges(settings):
    with pytest.raises(ValueError, match=f"^{next(iter(settings))} = "):
        Int8Settings(**settings)


def test_a_benchmark_finds_the_test_images_of_the_run(exported, run_dir, tmp_path, capsys):
    path, _ = exported
    in_run = run_dir / "base-int8.onnx"
    in_run.write_bytes(path.read_bytes())
    files = [str(run_dir / "base.safetensors"), str(in_run)]
    assert main(["benchmark", *files, "--seconds", "0.001", "--format", "json"]) == 0
    in_float, in_int8, *_ = json.loads(capsys.readouterr().out)
    measured = load_export(path, torch.device("cpu")).metadata.quantization
    assert (in_float["precision"], in_float["format"]) == ("float32", "safetensors")
    assert (in_int8["precision"], in_int8["format"]) == ("int8", "onnx")
    assert in_float["top1"] == pytest.approx(measured["float32_top1"], abs=1e-3)
    assert in_int8["top1"] == pytest.approx(measured["int8_top1"], abs=1e-3)
    # A copy elsewhere is measured on them if the run is named.
    assert main(["benchmark", str(path), "--run", str(run_dir), "--seconds", "0.001", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["top1"] == in_int8["top1"]
    in_run.unlink()


def test_files_for_other_classes_are_refused(run_dir, tmp_path, capsys):
    other = tmp_path / "other.safetensors"
    nestnet.export(
        nestnet.create_model("resnet8", "resnet14", num_classes=2, in_chans=1), "base", other, class_names=["a", "b"]
    )
    coloured = tmp_path / "coloured.safetensors"
    nestnet.export(nestnet.create_model("resnet8", "resnet14", num_classes=10), "base", coloured)
    for file, message in (
        (other, "its classes ('a', 'b') are not those of the test images of "),
        (coloured, "channels"),
    ):
        assert main(["benchmark", str(file), "--run", str(run_dir)]) == 2
        assert message in capsys.readouterr().err
