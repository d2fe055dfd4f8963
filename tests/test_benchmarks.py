"""The benchmark programs run, and count bytes right; what they time is not tested."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from in_process import run_nestnet
from PIL import Image

import nestnet
from nestnet.cost.network import forward_cost
from nestnet.runs.reading import read_config

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SMALL_PAIR = ["--case", "resnet8:resnet14:32:4"]


@pytest.fixture
def run(monkeypatch):
    """Runs a program in this process, which has imported torch already, and gives what it writes."""
    monkeypatch.syspath_prepend(BENCHMARKS)

    def run(program, output, *arguments):
        monkeypatch.setattr(sys, "argv", [program, "--output", str(output), *arguments])
        importlib.import_module(program.removesuffix(".py")).main()
        return json.loads(output.read_text())

    return run


@pytest.mark.slow
def test_step_time(run, tmp_path):
    found = run("step_time.py", tmp_path / "x.json", *SMALL_PAIR, "--rounds", "2", "--compile", "false")
    assert found["command"].startswith("python benchmarks/step_time.py --output x.json --case")
    assert found["versions"]["timm"] == timm.__version__
    steps = [f"{way} {mode}" for way in ("timm", "nested", "copy-based", "slicing") for mode in ("base", "motivated")]
    for result, precision in zip(found["results"], ("float32", "bfloat16"), strict=True):
        assert (result["precision"], result["compiled"]) == (precision, False)
        assert {name: len(samples) for name, samples in result["seconds"].items()} == dict.fromkeys(
            (*steps, "switch to base", "switch to motivated"), 2
        )
    assert (tmp_path / "x.png").stat().st_size > 10_000
    narrow = ["vit_one_head:vit_two_heads:16:4", "efficientnet_b0:efficientnet_b1:32:4"]
    sliced = run("slicing.py", tmp_path / "y.json", "--case", *narrow)
    assert all(result["weights"] < 1e-5 and result["buffers"] < 1e-5 for result in sliced["results"])


@pytest.mark.slow
def test_cascade(run, tmp_path):
    found = run("cascade.py", tmp_path / "x.json", "--case", "resnet8:resnet14:32:4", "--seconds", "0.05")
    (result,) = found["results"]
    assert result["macs"] == {
        "base": forward_cost("resnet8", img_size=32, num_classes=10),
        "motivated": forward_cost("resnet14", img_size=32, num_classes=10),
    }
    points = result["timing"]["points"]
    assert result["timing"]["images"] == 16
    assert (points[0]["passed_on"], points[-1]["passed_on"]) == (0, 1)
    assert [point["passed_on"] for point in points] == sorted(point["passed_on"] for point in points)
    assert all(point["seconds"] > 0 and point["over_predicted"] > 0 for point in points)


@pytest.mark.slow
def test_startup(run, tmp_path, monkeypatch):
    """The two programs that import everything run in this process, which has imported it already."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    startup = importlib.import_module("startup")
    monkeypatch.setattr(startup, "WARM_UP", 0)
    run_once = startup.run
    heavy = [startup.PYTHON[name] for name in ("import timm", "import nestnet, every public name")]

    def run_here(arguments):
        if arguments[1] not in heavy:
            return run_once(arguments)
        exec(arguments[1], {})
        return 0.0, 0.0

    monkeypatch.setattr(startup, "run", run_here)
    found = run("startup.py", tmp_path / "x.json", "--rounds", "1")
    assert found["command"] == "python benchmarks/startup.py --output x.json --rounds 1"
    by_command = {result["command"]: result for result in found["results"]}
    assert {"import nestnet", "nestnet --help", "nestnet train --epoch 3"} <= set(by_command)
    for result in by_command.values():
        assert len(result["cpu_seconds"]) == len(result["seconds"]) == 1
    alone, _ = run_once(["-c", "import torch"])  # timm takes longer, which imports torch
    assert by_command["nestnet train --epoch 3"]["cpu_seconds"][0] < alone / 3


def test_startup_leaves_out_the_round_that_fills_the_caches(run, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    startup = importlib.import_module("startup")
    monkeypatch.setattr(startup, "PYTHON", {"nothing": "pass"})
    monkeypatch.setattr(startup, "COMMANDS", ())
    calls = []
    run_once = startup.run
    monkeypatch.setattr(startup, "run", lambda arguments: calls.append(arguments) or run_once(arguments))
    found = run("startup.py", tmp_path / "x.json", "--rounds", "2")
    assert calls == [["-c", "pass"]] * 3
    assert len(found["results"][0]["seconds"]) == 2


@pytest.mark.slow
def test_switching(run, tmp_path):
    found = run("switching.py", tmp_path / "x.json", *SMALL_PAIR, "--batches", "12", "--k", "1", "--switches", "1")
    (result,), (held,), (switch,) = found["results"], found["held"], found["switches"]
    for way in ("timm", "nested", "copy-based", "slicing"):
        samples = result["seconds"][way]
        assert [len(samples[f"step {mode}"]) for mode in ("base", "motivated")] == [
            result["modes"].count(mode) for mode in ("base", "motivated")
        ]
        assert len(samples["switch to base"] + samples["switch to motivated"]) == result["switches"]
    assert len(result["modes"]) == 12
    assert result["motivated_fraction"] == result["modes"].count("motivated") / 12 > 0
    net = nestnet.create_model("resnet8", "resnet14", num_classes=10)
    base, motivated = (4 * sum(p.numel() for p in net.skeleton(mode).parameters()) for mode in nestnet.Mode)
    assert held["bytes"]["nested"] == {
        "weights": motivated,
        "optimizer state": motivated,
        "gradients, base": base,
        "gradients, motivated": motivated,
    }
    assert held["bytes"]["copy-based"]["weights"] == base + motivated
    assert switch["ways"]["nested"]["to base"]["bytes"] == 0
    assert switch["ways"]["copy-based"]["to base"]["bytes"] == 2 * base, "weights and momentum; statistics are private"
    assert (tmp_path / "x.png").stat().st_size > 10_000


@pytest.mark.slow
def test_imbalanced(run, tmp_path, capsys):
    """On generated images, whose classes are told apart at once; the runs are kept, and not repeated."""
    arguments = ["--quick", "--runs", str(tmp_path / "runs")]
    found = run("imbalanced.py", tmp_path / "x.json", *arguments)
    assert found["train_images"] == {"cat": 64, "dog": 32, "deer": 16}
    assert len(list((tmp_path / "runs" / "images" / "train" / "deer").iterdir())) == 16
    assert [(row["way"], row["mode"]) for row in found["results"]] == [
        (way, mode) for way in ("plain", "class weights", "sampler") for mode in ("base", "motivated")
    ]
    for row in found["results"]:
        recall = [100 * row["confusion"][label][label] / 8 for label in range(3)]
        assert list(row["recall"].values()) == pytest.approx(recall)
        assert row["balanced_accuracy"] == row["top1"] == pytest.approx(sum(recall) / 3), "as many of each class"
    settings = {}
    for way in ("plain", "class-weights", "sampler"):
        data = read_config(tmp_path / "runs" / f"{way}-seed0").data
        settings[way] = (data.class_weights, data.sampler)
    assert settings == {
        "plain": (None, "shuffle"),
        "class-weights": ("balanced", "shuffle"),
        "sampler": (None, "balanced"),
    }
    assert "recall of deer (16 images), %" in capsys.readouterr().out
    exports = tmp_path / "runs" / "plain-seed0" / "base.safetensors"
    written = exports.stat().st_mtime_ns
    assert run("imbalanced.py", tmp_path / "y.json", *arguments)["results"] == found["results"]
    assert exports.stat().st_mtime_ns == written


@pytest.mark.slow
def test_cifar10(run, tmp_path, capsys, monkeypatch):
    for part, count in (("train", 20), ("test", 2)):
        for label in range(10):
            (tmp_path / "images" / part / f"class {label}").mkdir(parents=True)
            for index in range(count):
                pixels = torch.randint(256, (32, 32, 3), dtype=torch.uint8).numpy()
                Image.fromarray(pixels).save(tmp_path / "images" / part / f"class {label}" / f"{index}.png")
    arguments = ["--root", str(tmp_path / "images"), "--images", "160", "--epochs", "1", "--ways", "shared", "resnet20"]
    arguments += ["--runs", str(tmp_path / "runs"), "--jobs", "1", "--recalibration-batches", "1"]
    arguments += ["--data.batch_size", "40", "--model.base", "resnet8", "--model.motivated", "resnet14"]
    processes = []
    run_process = subprocess.run

    def run_command(command, **options):
        """The first run has a process of its own, and the others run in this one, which has imported torch already."""
        processes.append(command)
        if len(processes) == 1:
            return run_process(command, **options)
        assert run_nestnet(command) == 0

    monkeypatch.setattr(subprocess, "run", run_command)
    found = run("cifar10.py", tmp_path / "x.json", *arguments)
    assert len(processes) == 2
    assert str(tmp_path) not in found["command"]
    rows = {(row["way"], row["mode"]): row for row in found["results"]}
    assert set(rows) == {("shared", "base"), ("shared", "motivated"), ("resnet20", "base")}
    base, motivated = (
        forward_cost(name, img_size=32, num_classes=10, convention="paper") for name in ("resnet8", "resnet14")
    )
    assert forward_cost("resnet20", img_size=32, num_classes=10, convention="paper") == 82_822_400
    assert rows["resnet20", "base"]["average_cost"] == base
    costs = {base, (3 * base + motivated) / 4}
    assert rows["shared", "base"]["average_cost"] in costs, "of four batches the last alone can be motivated"
    steps = (tmp_path / "runs" / "resnet20-160images-1epochs-seed0" / "steps.csv").read_text()
    assert len(steps.splitlines()) == 1 + 4, "160 of 200 images are four batches"
    assert all(row["finished"] and row["top1_by_epoch"] == [row["top1"]] for row in rows.values())
    capsys.readouterr()
    run("cifar10.py", tmp_path / "x.json", *arguments)
    assert "training" not in capsys.readouterr().out.splitlines()[0], "finished runs are kept"
    assert len(processes) == 2
    other = run("cifar10.py", tmp_path / "z.json", *arguments, "--seeds", "0", "1", "--seconds", "0")
    assert other["results"] == found["results"], "no run is begun when the time is over, and finished ones are told"
