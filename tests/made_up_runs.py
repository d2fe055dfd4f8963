"""Run directories with made-up losses and weights, as training leaves them."""

import csv
from pathlib import Path

import torch
from safetensors.torch import save_file

from nestnet.config import parsing, schema

Epochs = list[list[tuple[str, float]]]
MIXED: Epochs = [
    [("base", 2.0), ("base", 1.5), ("base", 1.0), ("motivated", 0.5)],
    [("base", 0.8), ("base", 0.4), ("base", 0.9), ("base", 0.7)],
    [("base", 0.6), ("base", 0.3), ("motivated", 0.2), ("motivated", 0.1)],
]


def write_run(path: Path, epochs: Epochs, *, name="loss_decrease", k=2, finished=None) -> Path:
    """A run directory as training leaves it, with the (mode, loss) of every batch of every epoch."""
    path.mkdir(parents=True)
    parsing.dump(schema.Config(motivation=schema.MotivationConfig(name=name, k=k)), path / "config.yaml")
    rows = [(number, *batch, 0.1) for number, batches in enumerate(epochs, start=1) for batch in batches]
    with (path / "steps.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("step", "epoch", "mode", "loss", "lr"), *([s, *r] for s, r in enumerate(rows, 1))])
    metrics = [(number, 50.0, 60.0) for number in range(1, (len(epochs) if finished is None else finished) + 1)]
    with (path / "metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("epoch", "base_top1", "motivated_top1"), *metrics])
    return path


def write_snapshots(path: Path, steps: list[int]) -> dict[int, dict[str, torch.Tensor]]:
    """Weights at random after some steps of a run."""
    (path / "snapshots").mkdir()
    snapshots = {step: {"conv.weight": torch.randn(4, 3, 2), "fc.bias": torch.randn(5)} for step in steps}
    for step, weights in snapshots.items():
        save_file(weights, path / "snapshots" / f"step-{step:06d}.safetensors")
    return snapshots
