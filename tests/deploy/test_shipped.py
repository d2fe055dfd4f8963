"""What a run reports is what it ships, and what is wrong with that is said wherever it is shipped."""

import re
import shlex
from functools import cache

import pytest
import timm
import torch
from safetensors.torch import load_file

from nestnet import Mode
from nestnet.analysis.report.inference import predict_test_images
from nestnet.cli.main import main
from nestnet.config import parsing, schema
from nestnet.data.image_data import load_data
from nestnet.data.loaders import create_eval_loader
from nestnet.runs.reading import read_run, read_table

SHORT = [
    "train",
    "--model.base",
    "resnet8",
    "--model.motivated",
    "resnet8",
    "--data.batch_size",
    "256",
    "--motivation.k",
    "1",
]
STATE = {
    "recalibrated": ["--recalibration_batches", "3", "--epochs", "3"],
    "both, augmented": ["--ema_decay", "0.5", "--recalibration_batches", "2", "--epochs", "2", "--seed", "2",
                        "--data.mixup", "0.2", "--data.loader", "files", "--data.random_erasing", "0.3"],
    "held out, shared": ["--motivation.name", "held_out_loss_decrease", "--model.batch_norm", "shared",
                         "--recalibration_batches", "6", "--epochs", "2", "--channels_last", "true"],
}  # fmt: skip
"""Ways in which the evaluated network is not the trained one; six batches are more than an epoch has."""


@cache
def digits():
    run = schema.Config()
    images = load_data(run.data, run.model)
    return list(create_eval_loader(images, run.data))


@torch.inference_mode()
def counted(path, name="resnet8"):
    """Top-1 of an exported file in a fresh timm model, in percent, by counting right answers."""
    model = timm.create_model(name, num_classes=10, in_chans=1, checkpoint_path=str(path)).eval()
    right = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in digits())
    return 100 * right / 360


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Each of the runs, trained when it is first asked for."""

    @cache
    def train(*arguments):
        path = tmp_path_factory.mktemp("runs") / "a run"
        assert main([*SHORT, *arguments, "--run_dir", str(path)]) == 0
        return path

    return train


@pytest.mark.parametrize("way", STATE)
def test_reported_accuracies_are_those_of_the_files(way, trained, tmp_path, capsys):
    path = trained(*STATE[way])
    rows = read_table(path / "metrics.csv")
    assert main(["resume", str(path)]) == 0, "a finished run writes its exports once more"
    capsys.readouterr()
    reported = predict_test_images(
        read_run(path), load_data(parsing.load(path / "config.yaml").data, schema.ModelConfig()), torch.device("cpu")
    )
    for mode in Mode:
        top1 = [float(row[f"{mode}_top1"]) for row in rows]
        assert counted(path / f"{mode}.safetensors") == top1[-1]
        assert reported.top1(mode) == pytest.approx(top1[-1])
        for options, expected in (([], top1[-1]), (["--best"], max(top1))):
            file = tmp_path / f"{mode}.safetensors"
            assert main(["export", str(path), "--mode", mode, "--output", str(file), *options]) == 0
            assert counted(file) == expected
            capsys.readouterr()
            assert main(["evaluate", str(path), "--mode", mode, *options]) == 0
            assert f"top-1 {expected:.2f} %" in capsys.readouterr().out


def test_statistics_of_other_batches_are_those_of_the_last_epoch(trained, tmp_path, capsys):
    """A run that recalibrated on as many batches has the same statistics."""
    without, with_some = trained("--epochs", "1"), trained("--epochs", "1", "--recalibration_batches", "7")
    again = tmp_path / "base.safetensors"
    assert main(["export", str(without), "--mode", "base", "--output", str(again), "--recalibrate", "7"]) == 0
    ours, theirs = load_file(again), load_file(with_some / "base.safetensors")
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert ours["bn1.num_batches_tracked"] == 7, "an epoch has five"
    capsys.readouterr()


@pytest.mark.parametrize(
    ("condition", "mode", "said"),
    [
        ("never", Mode.MOTIVATED, "the motivated network was not trained: none of the run's 5 batches was motivated"),
        ("always", Mode.BASE, "the base was not trained by itself: all of the run's 5 batches were motivated"),
    ],
)
def test_a_subnet_that_was_never_trained_is_said_to_be_so(condition, mode, said, trained, tmp_path, capsys):
    path = trained("--motivation.name", condition, "--ema_decay", "0.999", "--epochs", "1")
    assert main(["resume", str(path)]) == 0, "the count is that of the whole run"
    printed, errors = capsys.readouterr()
    share = {"never": "0 of 5, 0.0% (forecast 0.0%)", "always": "5 of 5, 100.0% (forecast 100.0%)"}[condition]
    assert f"motivated batches in all: {share}" in printed
    assert f"{mode}.safetensors: {said}" in errors
    assert "ema_decay = 0.999: the average reaches back over about 1,000 steps, and this run has 5, so" in errors
    assert "take at most 0.8\n" in errors
    for each, top1 in read_table(path / "metrics.csv")[-1].items():
        if each.endswith("_top1"):
            assert counted(path / f"{each.removesuffix('_top1')}.safetensors") == float(top1)
    assert main(["export", str(path), "--mode", mode, "--output", str(tmp_path / "x.safetensors")]) == 0
    assert said in capsys.readouterr().err
    card = (tmp_path / "x.md").read_text()
    assert f"# resnet8, not trained, the {mode} network of" in card
    assert f"**Do not use this file**: {said}" in card
    assert f"0 trained the {mode} network" in card
    assert main(["report", str(path), "--output", str(tmp_path), "--no_images"]) == 0
    assert said.replace("'", "&#x27;")[1:] in (tmp_path / "report.html").read_text()
    assert main(["evaluate", str(path), "--mode", mode]) == 0
    assert said in capsys.readouterr().err


def test_statistics_of_a_handful_of_batches_are_noticed_and_the_advice_helps(trained, capsys):
    """The base was trained on by itself since the motivated network saw its few batches."""
    path = trained("--motivation.name", "periodic", "--motivation.period", "5", "--epochs", "4", "--ema_decay", "0.99")
    assert main(["resume", str(path)]) == 0
    errors = capsys.readouterr().err
    said = [line for line in errors.splitlines() if line.startswith("nestnet: motivated.safetensors: ")][-1]
    assert "the running BatchNorm statistics of the motivated network are of 4 batches only" in said
    program, *command = shlex.split(re.search("`(.*)`", said)[1])
    assert program == "nestnet"
    assert main(command) == 0
    assert counted(command[command.index("--output") + 1]) > counted(path / "motivated.safetensors") + 10
