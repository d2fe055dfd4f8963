"""`nestnet cascade` from a run to predictions, against a brute-force evaluation of its two networks."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from cascades import DIGITS, study_at_the_middle, write_images

from nestnet import Mode, load_cascade
from nestnet.cascade.deployment import deploy_cascade
from nestnet.cascade.networks import CascadeNetworks
from nestnet.cascade.recommendation import Recommendation
from nestnet.cascade.report import describe_study, study_as_json
from nestnet.cascade.study import judge
from nestnet.cascade.targets import AccuracyTarget
from nestnet.cli.main import main
from nestnet.recipes.command_line import parse_with_recipe
from nestnet.runs.reading import read_run
from nestnet.training.calibration import confidence
from nestnet.training.trainer import Trainer


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run on the digits, of which a fifth of the training images is held out."""
    path = tmp_path_factory.mktemp("runs") / "run"
    run = parse_with_recipe([*DIGITS, "--data.val_fraction", "0.2", "--run_dir", str(path)])
    return Trainer(run).fit()


@pytest.fixture(scope="module")
def study(run_dir):
    """The study of the run's cascade, as if its middle point had been recommended."""
    networks = CascadeNetworks(read_run(run_dir))
    return networks, study_at_the_middle(networks)


@torch.no_grad()
def ask(networks, dataset):
    """What both networks say of each image, one at a time."""
    answers = []
    for index in range(len(dataset)):
        image, label = dataset[index]
        logits = {mode: networks.networks[mode](image.unsqueeze(0)) for mode in Mode}
        answers.append((logits, label))
    return answers


def test_the_curve_is_a_brute_force_evaluation(run_dir, capsys):
    assert main(["cascade", str(run_dir), "--seconds", "0.01", "--batch_size", "32"]) == 0
    printed = capsys.readouterr()
    assert "a cascade can pay only if fewer than" in printed.err
    assert "Calibration on the test images:" in printed.out
    networks = CascadeNetworks(read_run(run_dir))
    report = json.loads((run_dir / "cascade.json").read_text())
    temperature = report["calibration"]["base"]["temperature"]
    answers = ask(networks, networks.held_out)
    rows = list(csv.DictReader((run_dir / "cascade.csv").read_text().splitlines()))
    assert len(rows) > 100
    for row in rows[:: len(rows) // 20]:
        correct = 0
        passed_on = 0
        for logits, label in answers:
            mode = Mode.BASE
            if confidence(logits[Mode.BASE] / temperature).item() < float(row["threshold"]):
                mode = Mode.MOTIVATED
                passed_on += 1
            correct += int(logits[mode].argmax()) == label
        # The logits of single images and of batches may differ in their last bits.
        assert float(row["passed_on"]) == pytest.approx(passed_on / len(answers), abs=1.5 / len(answers))
        assert float(row["top1"]) == pytest.approx(100 * correct / len(answers), abs=150 / len(answers))
        expected = networks.macs.base + float(row["passed_on"]) * networks.macs.motivated
        assert float(row["macs"]) == pytest.approx(expected, rel=1e-4)
    assert (run_dir / "cascade.png").stat().st_size > 10_000


def test_the_test_images_judge_the_chosen_point(study):
    networks, found = study
    answers = ask(networks, networks.images.test)
    correct = 0
    passed_on = 0
    for logits, label in answers:
        mode = Mode.BASE
        if confidence(logits[Mode.BASE] / found.cascade.base_temperature).item() < found.cascade.threshold:
            mode = Mode.MOTIVATED
            passed_on += 1
        correct += int(logits[mode].argmax()) == label
    one = 100 / len(answers)
    # The study judged the point that its own target chose, and this one is another.
    verdict = judge(networks, found.cascade, 16)
    assert verdict.images == len(answers)
    assert verdict.cascade_top1 == pytest.approx(100 * correct / len(answers), abs=1.5 * one)
    assert 100 * verdict.passed_on == pytest.approx(100 * passed_on / len(answers), abs=1.5 * one)
    for mode in Mode:
        expected = sum(int(logits[mode].argmax()) == label for logits, label in answers)
        assert verdict.top1[mode] == pytest.approx(100 * expected / len(answers), abs=1.5 * one)
    different = 0
    for logits, label in answers:
        is_sure = confidence(logits[Mode.BASE] / found.cascade.base_temperature).item() >= found.cascade.threshold
        right = [int(logits[mode].argmax()) == label for mode in Mode]
        different += is_sure and right[0] != right[1]
    mean = (verdict.cascade_top1 - verdict.top1[Mode.MOTIVATED]) / 100
    error = 100 * ((different / len(answers) - mean**2) / len(answers)) ** 0.5
    assert verdict.standard_error == pytest.approx(error, rel=0.05)
    assert verdict.seconds.base > 0
    assert verdict.cascade_seconds > 0


@pytest.mark.parametrize("format_name", ["safetensors", "onnx"])
def test_an_exported_cascade_predicts_as_it_was_judged(format_name, study, tmp_path, capsys):
    networks, found = study
    output = tmp_path / ("c.safetensors" if format_name == "safetensors" else "folder")
    written = deploy_cascade(networks, found, output, format_name)
    card = written.card.read_text()
    assert "# A cascade of resnet8 and resnet14" in card
    assert ("without nestnet" in card) == (format_name == "safetensors")
    # The code on the card runs.
    code = card.split("```python\n")[1].split("```")[0]
    variables = {}
    exec(compile(code.replace(f'"{output.name}"', repr(str(output))), "card", "exec"), variables)
    assert variables["probabilities"].shape == (1, 10)

    cascade = load_cascade(output)
    paths = write_images(networks.images.test, 12, tmp_path)
    expected = []
    for index in range(len(paths)):
        with torch.no_grad():
            expected.append(cascade.decide(networks.images.test[index][0].unsqueeze(0)))
    assert main(["predict", *map(str, paths), "--cascade", str(output), "--format", "json", "--top", "1"]) == 0
    for answer, output_of_one in zip(json.loads(capsys.readouterr().out), expected, strict=True):
        assert answer["top"][0]["class"] == int(output_of_one.logits.argmax())
        assert answer["passed_on"] == bool(output_of_one.passed_on)
        probability = output_of_one.logits.softmax(1).max().item()
        assert answer["top"][0]["probability"] == pytest.approx(probability, abs=1e-4)


def test_the_report_says_where_the_time_goes(study):
    _, found = study
    cheaper = found.curve.nearest(0.25)
    point = found.recommendation.point
    report = describe_study(replace(found, recommendation=Recommendation(point, None, cheaper)))
    seconds = found.verdict.seconds
    share = found.curve.passed_on[cheaper]
    assert f"of its time: {seconds.base / seconds.motivated:.2f} for the base on every image, and the rest" in report
    time = (seconds.base + share * seconds.motivated) / seconds.motivated
    assert f"{share:.1%} passed on would do on the held-out images, for about {time:.2f} of the time" in report
    document = json.loads(study_as_json(replace(found, recommendation=Recommendation(point, None, cheaper))))
    assert document["held_out"]["passed_on_without_margin"] == share
    assert document["held_out"]["passed_on"] == found.curve.passed_on[point]
    assert "would do on the held-out images" not in describe_study(found)


def test_a_missed_target_is_told_with_what_the_held_out_images_can_tell(study):
    """Where both networks agree about every image that is kept, the standard error is 0; one image is still one."""
    _, found = study
    missed = replace(found, target=AccuracyTarget(within=-100.0))
    errors = found.curve.standard_error
    for error in (0.0, 5.0):
        curve = replace(found.curve, standard_error=np.full_like(errors, error))
        expected = max(error, 100 / curve.images)
        assert f"images tell the difference only to ± {expected:.2f} points" in describe_study(
            replace(missed, curve=curve)
        )


def test_a_cascade_that_is_not_recommended_is_not_written(study, tmp_path):
    networks, found = study
    refused = replace(found, recommendation=Recommendation(None, "deploy the base alone"))
    with pytest.raises(ValueError, match=r"c\.safetensors'?: it was not written: deploy the base alone"):
        deploy_cascade(networks, refused, tmp_path / "c.safetensors", "safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--accuracy", "within"], "--accuracy within: write `within 0.1` for a loss in points"),
        (["--accuracy", "within", "-1"], "--accuracy within -1: write"),
        (["--accuracy", "nan"], "--accuracy nan: write"),
        (["--cost", "0.5"], "--cost 0.5: it must be at least 1, the cost of the base alone"),
        (["--milliseconds", "0"], "--milliseconds 0: it must be above 0"),
        (["--cost", "1.5", "--accuracy", "90"], "not allowed with argument"),
        (["--batch_size", "0"], "batch_size = 0: it must be at least 1"),
        (["--seconds", "0"], "seconds = 0: it must be above 0"),
        (["--output", "absent/c.safetensors"], "there is no folder"),
        (["--output", "FULL", "--format", "onnx"], "FULL"),
    ],
)
def test_wrong_use_is_one_line(options, message, run_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FULL").mkdir()
    (tmp_path / "FULL" / "mine.txt").write_text("mine")
    assert main(["cascade", str(run_dir), *options]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("nestnet cascade: error: ")
    assert message in error


def test_a_run_without_held_out_images(tmp_path, capsys):
    run = parse_with_recipe([*DIGITS, "--run_dir", str(tmp_path / "run")])
    Trainer(run).fit()
    assert main(["cascade", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "has no held-out images" in error
    assert "train again with data.val_fraction = 0.1" in error
