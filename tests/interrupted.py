"""Short runs, runs that are killed, and all that must be the same of two of them."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from nestnet.config import parsing
from nestnet.data.image_data import load_data
from nestnet.runs.checkpoints import Checkpoints
from nestnet.runs.directory import RunDirectory
from nestnet.runs.reading import read_table
from nestnet.storage.state_codec import encode
from nestnet.training.trainer import Trainer

TIMINGS = {"images_per_second", "data_wait", "seconds"}


class Killed(BaseException):
    """In place of SIGKILL: nothing of the program's answers it."""


def few(run):
    return load_data(run.data, run.model).resplit(range(64), range(64, 128))


def whole_run(arguments, path):
    run = parsing.parse([*arguments, "--run_dir", str(path)])
    return run, Trainer(run, images=few(run)).fit()


def kill(run, path, monkeypatch, method, number):
    """Train until the method of RunDirectory is called for the number-th time."""
    calls, original = [], getattr(RunDirectory, method)

    def killing(*arguments, **named):
        calls.append(method)
        if len(calls) == number:
            raise Killed
        return original(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, method, killing)
        with pytest.raises(Killed):
            Trainer(replace(run, run_dir=str(path)), images=few(run)).fit()


def train_and_copy(run, path, copy, monkeypatch, number):
    """Train a whole run; `copy` becomes its folder as it is just before the number-th batch has its row.

    A process that is killed there by SIGKILL leaves the same.
    """
    calls, original = [], RunDirectory.add_step

    def copying(directory, row):
        calls.append(row)
        if len(calls) == number:
            shutil.copytree(path, copy)
        original(directory, row)

    images = few(run) if run.data.name == "digits" else None
    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "add_step", copying)
        Trainer(replace(run, run_dir=str(path)), images=images).fit()
    assert copy.exists()


def encoded(state):
    tensors = {}
    return json.dumps(encode(state, "", tensors)), {
        name: tensor.reshape(-1).view(torch.uint8).numpy().tobytes() for name, tensor in tensors.items()
    }


def content(path):
    """All that must be the same, but for the name of the folder and the seconds."""
    epochs = [
        {name: value for name, value in row.items() if name not in TIMINGS} for row in read_table(path / "metrics.csv")
    ]
    last = Checkpoints(path / "checkpoints").newest()
    last["epoch"] = {name: value for name, value in last["epoch"].items() if name not in ("waited", "seconds")}
    for name in ("seconds", "epoch_end", "longest_epoch"):
        del last["stopping"][name]
    del last["config"]["run_dir"]
    return {
        "steps": (path / "steps.csv").read_bytes(),
        "epochs": epochs,
        "cost": (path / "cost.json").read_bytes(),
        "exports": [(path / f"{mode}.safetensors").read_bytes() for mode in ("base", "motivated")],
        "checkpoints": sorted(file.name for file in (path / "checkpoints").iterdir()),
        "state": encoded(last),
    }
