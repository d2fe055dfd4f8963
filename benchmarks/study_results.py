"""The results of a study: what is measured of a finished run, and the file that holds it, with a line for each run."""

import fcntl
import json
import math
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, describe_origin
from study_headlines import CONTROLS
from study_runs import StudyRun, Training, Way, read_sessions

from nestnet import Mode
from nestnet.config.schema import Config
from nestnet.data.image_data import load_data
from nestnet.data.loaders import create_eval_loader
from nestnet.deploy.predictor import Predictor
from nestnet.device import DeviceContext, autocast, choose_device, choose_memory_format
from nestnet.nn.mode import BOTH, FINISH
from nestnet.runs.reading import read_config, read_cost, read_record, read_table
from nestnet.storage.atomic import write_atomically

PREDICTIONS = "predictions.json"
"""Name of the file in a run directory with the predicted class of each test image, by network."""

CLOSE = 0.5
"""Points of top-1 by which the predictions of the exports may differ from the run's own evaluation: in bfloat16, sums in
another order change the class of a few images."""

ROWS = ("runs", "separate_agreement")
"""Entries of the results that have a line for each of their rows."""


class Results:
    """The results of the runs of a pair of networks on a device, as they are in their file.

    Args:
        training: what the runs have in common.
        output: the file; by default the one in `results/` for the pair and the device.
        ways: all ways, in the order of the rows.

    Attributes:
        rows: row of each run, by its way, epochs and seed.
    """

    def __init__(self, training: Training, output: Path | None, ways: tuple[Way, ...]) -> None:
        self.training = training
        self.device = choose_device(training.device)
        self.ways = ways
        name = f"study-{training.base}-{training.motivated}-{self.device.type}.json"
        self.path = output or RESULTS / name
        self.rows: dict[tuple[str, int, int], dict[str, Any]] = {}
        self.separate_agreement: dict[tuple[int, int], float] = {}
        if self.path.is_file():
            self._read()

    def _read(self) -> None:
        document = json.loads(self.path.read_text())
        pair = [self.training.base, self.training.motivated]
        if document["pair"] != pair:
            raise SystemExit(f"--output {self.path}: it holds the pair {':'.join(document['pair'])}; name another file")
        expected = {way.name: " ".join(self.training.overrides_of(way)) for way in self.ways}
        for row in document["runs"]:
            if row["overrides"] != expected.get(row["way"], row["overrides"]):
                raise SystemExit(
                    f"--output {self.path}: its runs of {row['way']} were trained with `{row['overrides']}`, and yours would "
                    f"be with `{expected[row['way']]}`; name another file"
                )
            self.rows[row["way"], row["epochs"], row["seed"]] = row
        for row in document["separate_agreement"]:
            self.separate_agreement[row["epochs"], row["seed"]] = row["agreement"]

    def add(self, run: StudyRun) -> dict[str, Any]:
        """Measure a finished run, and add it to the file."""
        row = measure(run, self.training, self.device)
        controls = [StudyRun(way, run.epochs, run.seed, run.folder) for way in self.ways if is_control(way.name)]
        has_both = all((control.path / PREDICTIONS).is_file() for control in controls)
        with locked(self.path.parent):
            # Another program may have added runs since.
            if self.path.is_file():
                self._read()
            self.rows[run.key] = row
            if is_control(run.way.name) and has_both:
                predicted = [read_predictions(control, control.way.networks[0]) for control in controls]
                self.separate_agreement[run.epochs, run.seed] = measure_agreement(*predicted)
            self._write()
        return row

    def _write(self) -> None:
        order = [way.name for way in self.ways]
        keys = sorted(self.rows, key=lambda key: (order.index(key[0]) if key[0] in order else len(order), *key))
        separate = []
        for (epochs, seed), agreement in sorted(self.separate_agreement.items()):
            separate.append({"epochs": epochs, "seed": seed, "agreement": agreement})
        document = {
            **describe_origin(self.device),
            "pair": [self.training.base, self.training.motivated],
            "runs": [self.rows[key] for key in keys],
            "separate_agreement": separate,
        }
        write_atomically(self.path, format_results(document))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one program at a time change the files of a folder, which is made if it is absent."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_control(way: str) -> bool:
    """Return whether a way trains one network alone."""
    return way in CONTROLS.values()


def format_results(document: dict[str, Any]) -> str:
    """Return the text of a results file: each run is a line, so that git shows which were added."""
    entries = []
    for name, value in document.items():
        text = json.dumps(value)
        if name in ROWS and value:
            lines = ["  " + json.dumps(row) for row in value]
            text = "[\n" + ",\n".join(lines) + "\n ]"
        entries.append(f' "{name}": {text}')
    return "{\n" + ",\n".join(entries) + "\n}\n"


def measure(run: StudyRun, training: Training, device: torch.device) -> dict[str, Any]:
    """Return the row of a finished run, and keep the predictions of its exports in its folder."""
    config = read_config(run.path)
    training.check_config(run, config)
    epochs = read_table(run.path / "metrics.csv")
    steps = read_table(run.path / "steps.csv")
    macs = read_cost(run.path)
    batches = Counter(row["mode"] for row in steps)
    in_first_epoch = sum(row["epoch"] == "1" for row in steps)
    by_epoch = {str(mode): [float(row[f"{mode}_top1"]) for row in epochs] for mode in Mode}
    classes, labels = predict_test_images(run, config, device)
    for mode in run.way.networks:
        check_top1(run, mode, 100 * measure_agreement(classes[mode], labels), by_epoch[mode][-1], len(labels))
    agreement = None
    if len(run.way.networks) > 1:
        agreement = measure_agreement(*classes.values())
    write_atomically(run.path / PREDICTIONS, json.dumps({str(mode): found for mode, found in classes.items()}) + "\n")
    return {
        "way": run.way.name,
        "title": run.way.title,
        "networks": [str(mode) for mode in run.way.networks],
        "overrides": " ".join(training.overrides_of(run.way)),
        "epochs": run.epochs,
        "seed": run.seed,
        "top1": {mode: values[-1] for mode, values in by_epoch.items()},
        "top1_by_epoch": by_epoch,
        "batches": dict(batches),
        "batches_per_epoch": in_first_epoch,
        "motivated_fraction": 1 - batches[Mode.BASE] / len(steps),
        "macs": {str(mode): macs[mode] for mode in Mode},
        "cost": total_macs(batches, macs) / (macs[Mode.BASE] * in_first_epoch * run.epochs),
        "agreement": agreement,
        "seconds": round(sum(float(row["seconds"]) for row in epochs), 1),
        "train_images": len(read_record(run.path).files["train"]),
        "precision": config.precision,
        "versions": versions(run),
    }


def total_macs(batches: Counter[str], macs: dict[str, Any]) -> int:
    """Return the multiply-accumulates of all forward passes of a run, for one image of each batch.

    Args:
        batches: number of batches by what they trained: `"base"`, `"motivated"`, `"both"`, or `"finish"` for the
            differential weights, which takes a forward pass of the motivated network.
        macs: multiply-accumulates of each network's forward pass.

    >>> total_macs(Counter(base=3, motivated=2, both=1, finish=1), {"base": 10, "motivated": 30})
    160
    """
    cost = {**macs, BOTH: macs[Mode.BASE] + macs[Mode.MOTIVATED], FINISH: macs[Mode.MOTIVATED]}
    return sum(number * cost[mode] for mode, number in batches.items())


def versions(run: StudyRun) -> dict[str, Any] | None:
    """Return the versions with which a run was trained; `None` if it was started by hand."""
    sessions = read_sessions(run)
    if not sessions:
        return None
    last = sessions[-1]
    # A run that was stopped and resumed can have been trained by several commits.
    commits = list(dict.fromkeys(session["commit"] for session in sessions))
    return {"torch": last["torch"], "timm": last["timm"], "nestnet": last["nestnet"], "commits": commits}


def predict_test_images(run: StudyRun, config: Config, device: torch.device) -> tuple[dict[Mode, list[int]], list[int]]:
    """Return the class that each exported network gives each test image, and the true classes."""
    images = load_data(config.data, config.model, read_record(run.path))
    memory_format = choose_memory_format(config)
    batches = list(create_eval_loader(images, config.data, DeviceContext(device, memory_format)))
    classes: dict[Mode, list[int]] = {}
    for mode in Mode:
        network = Predictor(run.path / f"{mode}.safetensors", device).network
        found: list[int] = []
        with torch.inference_mode(), autocast(device, config.precision):
            for pixels, _ in batches:
                found += network(pixels).argmax(dim=1).tolist()
        classes[mode] = found
    labels: list[int] = []
    for _, batch_labels in batches:
        labels += batch_labels.tolist()
    return classes, labels


def check_top1(run: StudyRun, mode: Mode, predicted: float, recorded: float, images: int) -> None:
    """Check that an export is the network that the run evaluated last."""
    allowed = max(CLOSE, 100 / images)
    if not math.isclose(predicted, recorded, abs_tol=allowed + 1e-9):
        raise ValueError(
            f"{run.path}: {mode}.safetensors has a top-1 of {predicted:.2f} %, and metrics.csv ends with {recorded:.2f} %"
        )


def read_predictions(run: StudyRun, mode: Mode) -> list[int]:
    """Return the class that a network of a run gave each test image."""
    return json.loads((run.path / PREDICTIONS).read_text())[mode]


def measure_agreement(ours: list[int], theirs: list[int]) -> float:
    """Return the share of images with the same class in both lists.

    >>> measure_agreement([1, 2, 3, 4], [1, 2, 0, 4])
    0.75
    """
    same = sum(our == their for our, their in zip(ours, theirs, strict=True))
    return same / len(ours)
