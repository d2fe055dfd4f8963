"""What follows a run on a GPU: its cascade, its exports, predictions and their times, against the same networks on the CPU."""

import csv
import json

import numpy as np
import pytest
import torch
from cascades import DIGITS, study_at_the_middle, write_images
from helpers import full_precision, randomised

from nestnet import Mode, create_model, export
from nestnet.cascade.deployment import deploy_cascade
from nestnet.cascade.networks import CascadeNetworks
from nestnet.cascade.predictor import CascadePredictor
from nestnet.cli.main import main
from nestnet.data.image_data import load_data
from nestnet.deploy.benchmark import benchmark
from nestnet.deploy.predictor import Predictor
from nestnet.recipes.command_line import parse_with_recipe
from nestnet.runs.reading import read_run, read_table
from nestnet.training.calibration import confidence
from nestnet.training.trainer import Trainer


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def trained(request, tmp_path_factory):
    """A run of which a fifth of the training images is held out, and the type of the device that `auto` chooses."""
    path = tmp_path_factory.mktemp("runs") / "run"
    run = parse_with_recipe([*DIGITS, "--epochs", "2", "--data.val_fraction", "0.2", "--run_dir", str(path)])
    with full_precision():
        trainer = Trainer(run)
        assert trainer.device.type == request.param
        return trainer.fit(), request.param


@torch.no_grad()
def ask_on_the_cpu(networks, dataset):
    """The logits of both networks for all images, and the labels."""
    images, labels = zip(*(dataset[index] for index in range(len(dataset))), strict=True)
    logits = {mode: networks.networks[mode].cpu()(torch.stack(images)) for mode in Mode}
    return logits, torch.tensor(labels)


def test_the_curve_of_a_cascade(trained):
    run_dir, kind = trained
    assert main(["cascade", str(run_dir), "--seconds", "0.01", "--batch_size", "32"]) == 0
    report = json.loads((run_dir / "cascade.json").read_text())
    assert report["timing"]["device"].startswith(kind)
    networks = CascadeNetworks(read_run(run_dir))
    logits, labels = ask_on_the_cpu(networks, networks.held_out)
    sure = confidence(logits[Mode.BASE] / report["calibration"]["base"]["temperature"])
    rows = list(csv.DictReader((run_dir / "cascade.csv").read_text().splitlines()))
    assert len(rows) > 100
    for row in rows:
        passed_on = sure < float(row["threshold"])
        answers = torch.where(passed_on[:, None], logits[Mode.MOTIVATED], logits[Mode.BASE]).argmax(1)
        # The last bits differ between the devices, which may move an image or two to the other side of the threshold.
        assert float(row["passed_on"]) == pytest.approx(passed_on.float().mean().item(), abs=2.5 / len(labels))
        right = 100 * (answers == labels).float().mean().item()
        assert float(row["top1"]) == pytest.approx(right, abs=250 / len(labels))


def test_a_deployed_cascade_predicts_the_same_on_both(trained, tmp_path):
    run_dir, kind = trained
    networks = CascadeNetworks(read_run(run_dir))
    output = tmp_path / "cascade.safetensors"
    deploy_cascade(networks, study_at_the_middle(networks), output, "safetensors")
    paths = write_images(networks.images.test, 40, tmp_path)
    on_device = list(CascadePredictor(output, kind).predict(paths))
    on_cpu = list(CascadePredictor(output, "cpu").predict(paths))
    assert {prediction.passed_on for prediction in on_cpu} == {True, False}
    for ours, theirs in zip(on_device, on_cpu, strict=True):
        assert (ours.top[0].name, ours.passed_on) == (theirs.top[0].name, theirs.passed_on)
        assert ours.top[0].probability == pytest.approx(theirs.top[0].probability, abs=1e-4)


@pytest.mark.parametrize("file", ["base.safetensors", "base.onnx"])
def test_an_export_of_a_run(file, trained, tmp_path):
    """Weights run on either device, and a program on the CPU alone."""
    run_dir, kind = trained
    output = tmp_path / file
    assert main(["export", str(run_dir), "--mode", "base", "--output", str(output)]) == 0
    run = read_run(run_dir)
    test = run.images().test
    paths = write_images(test, 20, tmp_path)
    predictor = Predictor(output, kind)
    assert predictor.device.type == (kind if file.endswith("safetensors") else "cpu")
    with torch.no_grad():
        logits = run.net.eval()(torch.stack([test[index][0] for index in range(20)]), "base")
    for prediction, expected in zip(predictor.predict(paths), logits.softmax(1), strict=True):
        assert prediction.top[0].probability == pytest.approx(expected.max().item(), abs=1e-4)


def test_times_of_files(device, tmp_path):
    net = randomised(create_model("resnet8", "resnet14", num_classes=3))
    files = [tmp_path / f"{mode}.safetensors" for mode in Mode]
    for mode, file in zip(Mode, files, strict=True):
        export(net, mode, file)
    rows = benchmark(files, batch_sizes=[1, 3], seconds=0.01)
    assert {torch.device(row.device).type for row in rows} == {device.type}
    assert [row.batch_size for row in rows] == [1, 1, 3, 3]
    assert all(row.timing.median > 0 for row in rows)


SETTINGS = {
    "class weights": ["--data.class_weights", "balanced"],
    "balanced batches": ["--data.sampler", "balanced"],
    "one loss per class": ["--loss.name", "bce", "--loss.label_smoothing", "0.1"],
    "frozen": [
        *("--model.freeze", "backbone", "--model.base_weights", "{run}/base.safetensors"),
        *("--model.motivated_weights", "{run}/motivated.safetensors"),
    ],
    "layer decay": ["--optimizer.layer_decay", "0.7"],
    "less memory": ["--grad_checkpointing", "true"],
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_trains_as_on_the_cpu(name, trained, tmp_path):
    trained_run, here = trained
    setting = [argument.format(run=trained_run) for argument in SETTINGS[name]]
    arguments = [*DIGITS, *setting, "--data.batch_size", "32"]
    losses = {}
    for way, kind in {"here": here, "on the CPU": "cpu"}.items():
        config = parse_with_recipe([*arguments, "--device", kind, "--run_dir", str(tmp_path / way)])
        images = load_data(config.data, config.model).resplit(range(128), range(128, 192))
        run_dir = Trainer(config, images=images).fit()
        losses[way] = [float(row["loss"]) for row in read_table(run_dir / "steps.csv")]
    assert len(losses["here"]) == 4
    np.testing.assert_allclose(losses["here"], losses["on the CPU"], rtol=2e-3)
