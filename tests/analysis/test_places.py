"""A run in a place whose name is hostile in every way at once, from training to the answers of its exports."""

import json
import os
import pathlib
import re
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from PIL import Image

from nestnet.cli.main import main
from nestnet.text.escape import for_data, for_terminal

PLACE = "caf\udce9 [bold]\x1b[31m\n$(x) <b>"
SIZES = ["--model.base", "resnet8", "--model.motivated", "resnet14", "--data.img_size", "8", "--data.batch_size", "2"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of that name with images, and a run on them beside."""
    place = tmp_path_factory.mktemp("place") / PLACE
    for label in ("cat", "dog"):
        (place / "images" / label).mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", (8, 8), (50 * number, 80, 20)).save(place / "images" / label / f"{number}.png")
    settings = [
        "--epochs",
        "1",
        "--motivation.k",
        "1",
        "--snapshot_steps",
        "1",
        "--device",
        "cpu",
        "--trackers",
        "[tensorboard]",
    ]
    run_dir = ["--run_dir", str(place / "run")]
    assert main(["train", "--data.root", str(place / "images"), *run_dir, *SIZES, *settings]) == 0
    return place


def quiet(captured):
    """Whether a terminal shows all of it as text, and each line on standard error is one of ours."""
    visible = not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", captured.out + captured.err)
    return visible and all(line.startswith(("nestnet", "wrote ")) for line in captured.err.splitlines())


def test_the_run_is_read_back(place, capsys):
    run = str(place / "run")
    commands = [["resume", run], ["evaluate", run, "--mode", "base"], ["table", run]]
    for arguments in commands:
        assert main(arguments) == 0
        assert quiet(capsys.readouterr())
    assert main(["resume", run]) == 0
    assert f"exported {for_terminal(place)}/run/base.safetensors and " in capsys.readouterr().out
    assert any((place / "run" / "tensorboard").iterdir())
    assert main(["dynamics", run, "--output", str(place / "figures")]) == 0
    assert {path.name for path in (place / "figures").iterdir()} >= {"losses.png", "variance.png"}


@pytest.mark.parametrize("file", ["net.safetensors", "caf\udce9"])
def test_the_code_that_is_printed_for_an_export_loads_it(file, place, capsys):
    path = place / file
    assert main(["export", str(place / "run"), "--mode", "base", "--output", str(path)]) == 0
    captured = capsys.readouterr()
    assert quiet(captured)
    assert f"wrote {for_terminal(path)} and " in captured.err
    names = {"timm": timm, "safetensors": safetensors, "pathlib": pathlib}
    exec(captured.out, names)
    assert names["model"](torch.zeros(2, 3, 8, 8)).shape == (2, 2)


def test_its_images_are_answered(place, capsys):
    images = place / "images"
    arguments = ["predict", str(images), "--model", str(place / "run" / "base.safetensors")]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert quiet(captured)
    assert captured.out.count("\n") == 10
    assert main([*arguments, "--format", "json"]) == 0
    files = [entry["file"] for entry in json.loads(capsys.readouterr().out)]
    assert files == [for_data(images / label / f"{number}.png") for label in ("cat", "dog") for number in range(5)]
    # as the guide says
    name = re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), files[0].encode())
    assert Path(os.fsdecode(name)).is_file()
