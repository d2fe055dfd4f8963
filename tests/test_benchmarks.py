"""The benchmark programs run, and count bytes right; what they time is not tested."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import timm

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def run(program, output, *arguments):
    command = [sys.executable, str(BENCHMARKS / program), "--case", "resnet20:resnet32:32:4", "--output", str(output)]
    subprocess.run([*command, *arguments], check=True, capture_output=True)
    return json.loads(output.read_text())


@pytest.mark.slow
def test_step_time(tmp_path):
    found = run("step_time.py", tmp_path / "x.json", "--rounds", "2")
    assert found["command"].startswith("python benchmarks/step_time.py --case")
    assert found["versions"]["timm"] == timm.__version__
    (result,) = found["results"]
    assert {name: len(samples) for name, samples in result["seconds"].items()} == dict.fromkeys(
        ("timm base", "nested base", "timm motivated", "nested motivated"), 2
    )


@pytest.mark.slow
def test_switching(tmp_path):
    found = run("switching.py", tmp_path / "x.json", "--batches", "12", "--k", "1")
    (result,) = found["results"]
    assert len(result["modes"]) == len(result["seconds"]["nested"]) == 12
    assert result["motivated_fraction"] == result["modes"].count("motivated") / 12
    base, motivated = (
        4 * sum(p.numel() for p in timm.create_model(name, num_classes=10).parameters())
        for name in ("resnet20", "resnet32")
    )
    assert result["bytes"]["nested"] == {
        "weights": motivated,
        "optimizer state": motivated,
        "gradients, base": base,
        "gradients, motivated": motivated,
    }
    assert result["bytes"]["copy-based"]["weights"] == base + motivated
