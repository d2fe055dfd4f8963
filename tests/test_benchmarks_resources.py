"""The benchmark programs of memory, processes, growth and loaders run, and count right; what they time is not tested."""

import doctest
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from in_process import run_program
from PIL import Image
from two_processes import run_torchrun

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
CPU = torch.device("cpu")
pytestmark = pytest.mark.slow


@pytest.fixture
def program(monkeypatch):
    """Imports a benchmark program by its name."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.fixture
def run(program, monkeypatch, tmp_path):
    """Runs a program, and gives what it writes."""

    def run(name, *arguments):
        output = tmp_path / "result" / f"{name}.json"
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments, "--output", str(output)])
        program(name).main()
        with Image.open(output.with_suffix(".png")) as figure:
            assert figure.width > figure.height
        return json.loads(output.read_text())

    return run


def bytes_of(name, **options):
    return 4 * sum(p.numel() for p in timm.create_model(name, num_classes=10, **options).parameters())


# Memory


def test_examples(program):
    assert [doctest.testmod(program(name)).failed for name in ("memory", "loaders")] == [0, 0]


def test_peak_of_a_hand_count(program):
    weight = torch.ones(1000, requires_grad=True)

    def product_and_gradient():
        squares = weight * weight  # 4000 bytes
        total = squares.sum()  # 4
        del squares  # autograd needs the weight alone: it is released
        torch.zeros(600)  # 2400, and released
        total.backward()  # 4 for its own gradient, then 4000 and 4000 for both factors, added up in the first

    peak = program("memory").peak_bytes
    assert peak(lambda: None, CPU) == 0
    assert peak(lambda: torch.zeros(10), CPU) == 40
    assert 8000 <= peak(product_and_gradient, CPU) <= 8000 + 4 * 4
    weight.grad = None
    assert peak(product_and_gradient, CPU) == peak(product_and_gradient, CPU), "the same at every call"


def test_a_base_step_takes_the_memory_of_the_standalone_base(run):
    cases = [
        "resnet8:resnet14:32:16",
        "vit_one_head:vit_two_heads:32:4",
    ]
    results = run("memory", "--case", *cases)["results"]
    assert len(results) == 2
    for result in results:
        base, motivated = (
            bytes_of(result["case"][mode], **({"img_size": 32} if result["case"][mode].startswith("vit") else {}))
            for mode in ("base", "motivated")
        )
        held = {way: memory["held"] for way, memory in result["bytes"]["base"].items()}
        statistics = held["timm"] - 2 * base
        assert 0 <= statistics < 0.02 * held["timm"], "weights and momentum, and little for the BatchNorm statistics"
        assert held["nested"] >= 2 * motivated
        assert held["copy-based"] >= 2 * (base + motivated)
        assert result["differential_bytes"] == 2 * (motivated - base)
        nested, alone = (result["bytes"]["base"][way]["total"] for way in ("nested", "timm"))
        assert nested - result["differential_bytes"] <= 1.05 * alone
        assert result["base_step_beyond_differential_over_timm"] <= 1.05
        assert result["bytes"]["base"]["timm"]["step"] > base, "the gradients, at least"


# ProcessGroup


def test_processes_send_the_gradients_of_the_mode(run, monkeypatch):
    def run_command(command, **options):
        """The two processes are forked ones; the single one is this one, which has imported torch already."""
        if command[:3] == [sys.executable, "-m", "torch.distributed.run"]:
            run_torchrun(*command[3:])
        else:
            assert run_program(command) == 0

    monkeypatch.setattr(subprocess, "run", run_command)
    found = run(
        "processes",
        "--case",
        "resnet8:resnet14:32:4",
        "--nproc",
        "2",
        "--steps",
        "2",
        "--repeats",
        "1",
        "--threads",
        "1",
    )
    results = {(result["processes"], result["batch_norm"]): result for result in found["results"]}
    assert set(results) == {(1, "own"), (2, "own"), (2, "synchronised")}
    sent = {mode: bytes_of(name) for mode, name in (("base", "resnet8"), ("motivated", "resnet14"))}
    for (processes, _), result in results.items():
        for mode in ("base", "motivated"):
            counts = result["bytes"][mode]
            assert counts["gradients"] == sent[mode]
            assert counts["reduced"] == (sent[mode] if processes == 2 else 0)
            assert len(result["seconds"][mode]) == 2
    assert results[1, "own"]["efficiency"] == {"base": 1.0, "motivated": 1.0}


def test_a_batch_that_cannot_be_shared_is_refused(run, capsys):
    with pytest.raises(SystemExit):
        run("processes", "--case", "resnet20:resnet32:32:6", "--nproc", "4")
    assert "4 processes cannot have equal shares" in capsys.readouterr().err


# Growth and loaders


def test_growth(run):
    found = run("growth", "--axis", "batch", "--scale", "0.05", "--rounds", "2")
    assert [result["place"] for result in found["results"]] == ["2", "3", "13"]
    for result in found["results"]:
        assert result["case"]["batch_size"] == int(result["place"])
        assert {name: len(samples) for name, samples in result["seconds"].items()} == dict.fromkeys(
            ("timm base", "nested base", "timm motivated", "nested motivated"), 2
        )


def test_loaders(run):
    found = run(
        "loaders",
        *("--case", "resnet8:resnet14:16:8", "efficientnet_b0:efficientnet_b1:72:4"),
        *("--images", "20", "--workers", "0", "--rounds", "1", "--steps", "1"),
    )
    small, large = found["results"]
    assert (small["images"], large["images"]) == (16, 20), "whole batches"
    assert set(small["summary"]) == {"resident", "files, no workers", "base step"}
    assert set(large["summary"]) == {"files, no workers", "base step"}
    for result in found["results"]:
        rates = {name: numbers["images_per_second"] for name, numbers in result["summary"].items()}
        for name, numbers in result["summary"].items():
            if name != "base step":
                share = rates["base step"] / (rates["base step"] + rates[name])
                assert numbers["waited"] == pytest.approx(share)


def test_loaders_read_a_folder_with_workers(run, program, tmp_path):
    program("common").make_images(tmp_path / "images", 20, 16)
    arguments = ["--root", str(tmp_path / "images"), "--case", "resnet8:resnet14:16:4", "--workers", "1"]
    found = run("loaders", *arguments, "--images", "10", "--rounds", "1", "--steps", "1")
    (result,) = found["results"]
    assert result["images"] == 8, "whole batches of the ten images drawn from twenty"
    assert set(result["summary"]) == {"resident", "files, 1 worker", "base step"}
    assert str(tmp_path) not in found["command"]
