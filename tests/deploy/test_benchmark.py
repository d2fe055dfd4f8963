"""`nestnet benchmark`: accuracies against those of `nestnet predict`, timing against a clock that only timed calls move."""

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import randomised
from PIL import Image

import nestnet
from nestnet.cli.main import main
from nestnet.deploy.benchmark import benchmark
from nestnet.deploy.benchmark_images import LabelledImages
from nestnet.deploy.predict import list_image_files
from nestnet.deploy.predictor import Predictor
from nestnet.deploy.turns import ROUNDS, Timing, time_in_turns
from nestnet.weights.export_file import read_export

NAMES = ["ant", "bee", "cat"]
QUICK = ["--seconds", "0.001", "--batch_sizes", "1"]


class Clock:
    """A clock on which only the calls to be timed spend time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.turns: list[str] = []

    def __call__(self) -> float:
        return self.now

    def call(self, name, seconds):
        durations = iter(seconds)

        def run() -> None:
            self.now += next(durations)
            self.turns.append(name)

        return run


def test_calls_take_turns_and_the_first_of_each_turn_is_not_timed():
    clock = Clock()
    # A call before all rounds and one at the start of each round cost much, and must not count.
    slow = [100.0] + [50.0, 1.0, 2.0] * ROUNDS
    fast = [100.0] + [70.0, 3.0] * ROUNDS
    timings = time_in_turns([clock.call("slow", slow), clock.call("fast", fast)], 3.0 * ROUNDS, clock=clock)
    assert timings == [Timing.of([1.0, 2.0] * ROUNDS), Timing.of([3.0] * ROUNDS)]
    assert clock.turns == ["slow", "fast", *(["slow"] * 3 + ["fast"] * 2) * ROUNDS]


def test_a_call_that_takes_longer_than_its_time_is_timed_once_in_each_round():
    clock = Clock()
    (timing,) = time_in_turns([clock.call("slow", [9.0] * 100)], 0.001, clock=clock)
    assert timing == Timing(ROUNDS, 9.0, 9.0, 9.0)


def test_quartiles_are_numpy_s():
    durations = torch.rand(57).tolist()
    timing = Timing.of(durations)
    assert [timing.lower, timing.median, timing.upper] == pytest.approx(np.percentile(durations, [25, 50, 75]))
    assert timing.count == 57


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of three classes of unequal size."""
    root = tmp_path_factory.mktemp("images")
    torch.manual_seed(0)
    for count, name in zip((30, 20, 10), NAMES, strict=True):
        (root / name).mkdir()
        for index in range(count):
            pixels = torch.randint(256, (9, 12, 3), dtype=torch.uint8).numpy()
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def files(folder, tmp_path_factory):
    """The base with its classes in another order than the folders, and the motivated network, which prefers no class."""
    path = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    net = randomised(nestnet.create_model("resnet8", "resnet14", num_classes=3)).eval()
    images = torch.randn(64, 3, 32, 32)
    with torch.no_grad():
        for mode in ("base", "motivated"):
            net.fc.bias -= net(images, mode).mean(0)
            names = NAMES[::-1] if mode == "base" else NAMES
            nestnet.export(net, mode, path / f"{mode}.safetensors", class_names=names)
    return path


def test_the_accuracy_is_that_of_predict(files, folder, capsys):
    paths = [str(files / "base.safetensors"), str(files / "motivated.safetensors")]
    command = ["benchmark", *paths, "--data.root", str(folder), "--seconds", "0.001", "--batch_sizes", "2", "1", "2"]
    assert main([*command, "--threads", "1", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["file"], row["batch_size"]) for row in rows] == [(path, size) for size in (2, 1) for path in paths]
    for row in rows:
        predictions = list(Predictor(row["file"]).predict(list_image_files([folder])))
        right = sum(prediction.top[0].name == prediction.file.parent.name for prediction in predictions)
        assert row["top1"] == pytest.approx(100 * right / 60, abs=1e-3)
        assert 0 < right < 60
        assert (row["test_images"], row["precision"], row["format"], row["threads"]) == (
            60,
            "float32",
            "safetensors",
            1,
        )
        assert 0 < row["lower_quartile_ms"] <= row["median_ms"] <= row["upper_quartile_ms"]
        assert row["median_ms_per_image"] == pytest.approx(row["median_ms"] / row["batch_size"], abs=1e-5)
        assert row["batches"] >= ROUNDS
    assert rows[0]["bytes"] == (files / "base.safetensors").stat().st_size
    assert [row["network"] for row in rows] == ["resnet8", "resnet14"] * 2


def test_several_labels_are_put_in_the_order_of_the_outputs(files, folder):
    images = LabelledImages("these", [], list(NAMES), 3, multi_label=True)
    metadata = replace(read_export(files / "base.safetensors"), multi_label=True)
    outputs = images.map_labels(files, metadata)
    assert outputs == [2, 1, 0], "the base has its classes the other way round"
    assert images.read_label(torch.tensor([1.0, 1.0, 0.0]), outputs).tolist() == [0, 1, 1]
    for choice, of_one in (
        (replace(metadata, multi_label=False), images),
        (metadata, replace(images, multi_label=False)),
    ):
        with pytest.raises(ValueError, match=r"it is for images of (one label|several labels) each, and these have "):
            of_one.map_labels(files, choice)


def test_layouts_say_the_same(files, capsys, monkeypatch):
    rows = benchmark([files / "base.safetensors"], batch_sizes=[1, 3], seconds=0.001)
    monkeypatch.setattr("nestnet.deploy.benchmark.benchmark", lambda *arguments, **options: rows)
    found = {}
    for layout in ("text", "csv", "json"):
        assert main(["benchmark", "any", "--no_images", "--format", layout]) == 0
        found[layout] = capsys.readouterr().out
    objects = json.loads(found["json"])
    records = list(csv.DictReader(found["csv"].splitlines()))
    for entry, record in zip(objects, records, strict=True):
        assert record == {name: "" if value is None else str(value) for name, value in entry.items()}
        assert (entry["top1"], entry["map"], entry["test_images"]) == (None, None, 0)
    head, *table, note = found["text"].splitlines()
    assert re.split("  +", head)[:6] == ["file", "network", "format", "precision", "device", "top-1 %"]
    for line, entry in zip(table, objects, strict=True):
        cells = line.split()
        assert cells[:7] == [entry["file"], "resnet8", "(base)", "safetensors", "float32", "cpu", "-"]
        assert cells[7:9] == [f"{entry['bytes'] / 1e6:.2f}", str(entry["batch_size"])]
        assert float(cells[9]) == pytest.approx(entry["median_ms"], rel=0.01)
    assert "5 rounds" in note


def test_an_accuracy_that_is_not_known_is_not_made_up(files, capsys):
    assert main(["benchmark", str(files / "base.safetensors"), *QUICK, "--format", "json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)[0]["top1"] is None
    assert f"the accuracy of {files / 'base.safetensors'} is not measured: it does not lie in a run directory; " in err
    assert "name its run with run, or a folder of test images with data.root" in err


def test_files_that_could_execute_code_are_left_out(files, tmp_path, capsys):
    (tmp_path / "program.pt2").write_bytes(b"PK")
    command = ["benchmark", str(tmp_path / "program.pt2")]
    assert main([*command, str(files / "base.safetensors"), *QUICK, "--no_images"]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 3
    assert err.count("\n") == 1
    assert f"left out: {tmp_path / 'program.pt2'}: loading a file of torch.export can execute code" in err
    assert main(command) == 2
    assert "none of the files can be timed" in capsys.readouterr().err


def test_threads_are_set_for_the_measurement_alone(files, monkeypatch):
    before = torch.get_num_threads()
    seen = []

    def note_threads(calls, seconds):
        seen.append(torch.get_num_threads())
        return [Timing(5, 1.0, 1.0, 1.0)] * len(calls)

    monkeypatch.setattr("nestnet.deploy.benchmark.time_in_turns", note_threads)
    (row,) = benchmark([files / "base.safetensors"], batch_sizes=[1], threads=before + 1)
    assert seen == [row.threads] == [before + 1]
    assert torch.get_num_threads() == before


def test_mistakes_give_one_line(files, folder, tmp_path, capsys):
    (tmp_path / "fly").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "fly" / "0.png")
    nameless = tmp_path / "nameless.safetensors"
    nestnet.export(nestnet.create_model("resnet8", "resnet14", num_classes=3), "base", nameless)
    base = str(files / "base.safetensors")
    cases = [
        ([], "the following arguments are required: FILE"),
        ([str(tmp_path / "absent.onnx")], "absent.onnx cannot be read: No such file or directory"),
        ([base, "--batch_sizes", "0"], "batch_sizes = 0"),
        ([base, "--threads", "0"], "threads = 0"),
        ([base, "--seconds", "0"], "seconds = 0.0: it must be a number of seconds above 0"),
        ([base, "--seconds", "nan"], "seconds = nan: it must be"),
        ([base, "--device", "gpu"], "device = 'gpu'"),
        ([base, "--run", str(folder), "--data.root", str(folder)], "run and data.root both name test images"),
        ([base, "--run", str(folder), "--no_images"], "--no_images: leave it out, or leave out --run and --data.root"),
        ([base, "--run", str(folder)], f"{folder} is not a run directory: it has no config.yaml"),
        ([base, "--data.root", str(tmp_path)], "'fly' is no class of the network"),
        ([str(nameless), "--data.root", str(folder)], "its folders are matched to classes by name, and "),
    ]
    for arguments, message in cases:
        assert main(["benchmark", *arguments]) == 2, arguments
        out, err = capsys.readouterr()
        assert message in err
        assert err.count("\n") == 1
        assert out == ""
