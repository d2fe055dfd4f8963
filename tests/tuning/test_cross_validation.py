"""Cross-validation of a configuration: against training a fold by hand, across interruptions, and its report."""

import csv
import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image

from nestnet.cli.main import main
from nestnet.config.schema_sections import DataConfig, EarlyStoppingConfig
from nestnet.data.image_data import load_data
from nestnet.recipes.command_line import parse_with_recipe
from nestnet.runs.reading import read_table
from nestnet.step.train_step import TrainStep
from nestnet.training.trainer import Trainer
from nestnet.tuning import cross_validation
from nestnet.tuning.cross_validation import cross_validate, render_markdown
from nestnet.tuning.fold_result import FoldResult
from nestnet.tuning.tune_k import tune_k

FOLDS = 2


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """ResNet-8 in ResNet-14 on a few images made up, with a condition that has no k, and an extension."""
    root = tmp_path_factory.mktemp("images")
    draw = np.random.default_rng(0)
    for part, name in product(("train", "test"), ("cat", "dog")):
        (root / part / name).mkdir(parents=True)
        for index in range(24):
            Image.fromarray(draw.integers(256, size=(8, 8), dtype=np.uint8)).save(root / part / name / f"{index}.png")
    return ["--data.name", "folder", "--data.root", str(root), "--data.img_size", "8", "--model.in_chans", "1",
            "--data.batch_size", "8", "--epochs", "1", "--finish_epochs", "1", "--motivation.name", "periodic",
            "--motivation.period", "2", "--model.base", "resnet8", "--model.motivated", "resnet14"]  # fmt: skip


@pytest.fixture(scope="module")
def run(arguments):
    return parse_with_recipe(arguments)


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """The folder of a cross-validation that was interrupted in its second run, and continued by the same command."""
    folder = tmp_path_factory.mktemp("whole") / "study"
    step, calls = TrainStep.__call__, []

    def interrupted(*args, **options):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return step(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainStep, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cross_validate(run, folder, folds=FOLDS)
    assert (folder / "fold-2" / "steps.csv").exists(), "it was interrupted in this run"
    assert not (folder / "cross-validate.md").exists()
    kept = (folder / "fold-1" / "fold.json").stat().st_mtime_ns
    results = cross_validate(run, folder, folds=FOLDS)
    assert (folder / "fold-1" / "fold.json").stat().st_mtime_ns == kept
    assert [(result.fold, result.k) for result in results] == [(1, None), (2, None)]
    return folder


def test_each_fold_is_a_training_by_hand_without_the_test_images(run, whole, tmp_path):
    images = load_data(run.data, run.model).fold(1, FOLDS)
    assert sorted([*images.train.dataset.samples, *images.test.dataset.samples]) == sorted(
        load_data(run.data, run.model).train.dataset.samples
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    trainer = Trainer(replace(run, run_dir=str(tmp_path / "run")), images=images)
    path = trainer.fit()
    torch.set_num_threads(threads)
    result = json.loads((whole / "fold-2" / "fold.json").read_text())
    assert {name: result[name] for name in ("base_top1", "motivated_top1")} == trainer.evaluate()
    for name in ("steps.csv", "base.safetensors", "motivated.safetensors"):
        assert (path / name).read_bytes() == (whole / "fold-2" / name).read_bytes()


def test_the_files_have_means_and_standard_deviations(whole):
    rows = [read_table(whole / f"fold-{fold}" / "metrics.csv")[-1] for fold in (1, 2)]
    summary = json.loads((whole / "cross-validate.json").read_text())
    assert summary["folds"] == FOLDS
    for mode in ("base", "motivated"):
        values = [float(row[f"{mode}_top1"]) for row in rows]
        assert summary[f"{mode}_top1"] == pytest.approx(np.mean(values))
        assert summary[f"{mode}_std"] == pytest.approx(np.std(values, ddof=1))
    with (whole / "cross-validate.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [float(row["base_top1"]) for row in table] == pytest.approx([float(row["base_top1"]) for row in rows])
    assert "k" not in table[0]


def test_a_finished_one_is_only_reported_again(arguments, whole, monkeypatch, capsys):
    text = (whole / "cross-validate.md").read_text()
    monkeypatch.delattr(Trainer, "fit")
    assert main(["cross-validate", *arguments, "--folds", str(FOLDS), "--output", str(whole)]) == 0
    assert capsys.readouterr().out.endswith(text)
    assert (whole / "cross-validate.md").read_text() == text


def test_the_table():
    results = [
        FoldResult(None, 1, 90.0, 95.0, 0.25, None, 1100, 1000, 1600, 1.5),
        FoldResult(None, 2, 92.0, 93.0, 0.15, None, 1300, 1000, 1600, 1.5),
    ]
    assert str(results[0]).startswith("fold 1: top-1 base 90.00 %")
    assert render_markdown(results) == (
        "| fold | base top-1, % | motivated top-1, % |  difference | motivated batches, % | cost / base alone |\n"
        "| ---: | ------------: | -----------------: | ----------: | -------------------: | ----------------: |\n"
        "|    1 |         90.00 |              95.00 |       +5.00 |                25.00 |             1.100 |\n"
        "|    2 |         92.00 |              93.00 |       +1.00 |                15.00 |             1.300 |\n"
        "| mean |  91.00 ± 1.41 |       94.00 ± 1.41 | 3.00 ± 2.83 |                20.00 |             1.200 |\n"
        "\n"
        "Accuracies after the last epoch, on the fold that was left out. "
        "Mean and standard deviation over 2 folds of the training images.\n"
    )


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, {"folds": 1}, "folds = 1: it must be a whole number of at least 2; the paper has 5"),
        ({}, {"folds": 25}, "folds = 25: class 'cat' has only 24 training images; take fewer folds"),
        ({}, {"jobs": 0}, "jobs = 0: it must be a whole number of at least 1"),
        (
            {"data": DataConfig(val_fraction=0.2)},
            {},
            "data.val_fraction = 0.2: it must be 0, because each run is evaluated",
        ),
        (
            {"early_stopping": EarlyStoppingConfig(patience=2)},
            {},
            "early_stopping.patience = 2: it must be null, because the fold that judges a run must not choose",
        ),
        ({"device": "cuda:99"}, {}, "device = 'cuda:99'"),
    ],
)
def test_what_is_wrong_is_found_before_anything_is_trained(changes, options, message, run, tmp_path):
    with pytest.raises(ValueError, match=message) as error:
        cross_validate(replace(run, **changes), tmp_path / "study", **options)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "study").exists()


def test_a_folder_is_of_one_study(run, whole):
    before = sorted(whole.rglob("*"))
    with pytest.raises(ValueError, match=r"it was started with motivation.k = 2 \(now 3\); use that again, or name"):
        cross_validate(replace(run, motivation=replace(run.motivation, k=3)), whole, folds=FOLDS)
    by_k = replace(run, finish_epochs=0, motivation=replace(run.motivation, name="loss_decrease", period=None))
    with pytest.raises(ValueError, match=r"it holds something else; name another folder, or remove this one"):
        tune_k(by_k, [1], whole, folds=FOLDS)
    assert sorted(whole.rglob("*")) == before


def test_a_damaged_result_is_one_line(run, whole, monkeypatch):
    path = whole / "fold-1" / "fold.json"
    text = path.read_text()
    monkeypatch.delattr(Trainer, "fit")
    try:
        path.write_text(text.replace('"fold": 1', '"fold": 2'))
        with pytest.raises(
            ValueError, match=r"fold.json is damaged: it is of fold 2 of 2; remove it, and the same command"
        ):
            cross_validate(run, whole, folds=FOLDS)
    finally:
        path.write_text(text)
    assert cross_validation.REPORT_FILES[0] in {path.name for path in whole.iterdir()}
