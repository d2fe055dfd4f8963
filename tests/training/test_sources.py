"""Images from every source are trained on, resumed exactly after a kill, evaluated, exported and recognised again."""

from dataclasses import replace

import pytest
from interrupted import Killed, content
from sources import CLASSES, WRITERS, Drawn, draw

from nestnet.analysis.report.evaluation import evaluate_test_images
from nestnet.analysis.report.summary import read_summary
from nestnet.cli.main import main
from nestnet.config import parsing
from nestnet.data.image_data import ImageData
from nestnet.deploy.export_run import export_run
from nestnet.deploy.predictor import Predictor
from nestnet.nn.mode import Mode
from nestnet.runs.directory import RunDirectory
from nestnet.runs.reading import read_run, read_table
from nestnet.training.resume import resume
from nestnet.training.trainer import Trainer

TINY = ["--model.base", "resnet8", "--model.motivated", "resnet14", "--motivation.name", "periodic", "--motivation.period",
        "2", "--data.img_size", "8", "--data.batch_size", "8", "--data.loader", "files", "--checkpoint_steps", "2",
        "--optimizer.lr", "0.02", "--data.augment", "crop", "--epochs", "2"]  # fmt: skip
PYTHON = ["--data.name", "python", *TINY]


def train_and_kill(arguments, root, monkeypatch, images=None):
    """A whole run, and one that was killed before the row of its fifth batch: their folders."""
    config = parsing.parse([*arguments, "--run_dir", str(root / "whole")])
    whole = Trainer(config, images=images).fit()
    calls, original = [], RunDirectory.add_step

    def killing(*given, **named):
        calls.append(given)
        if len(calls) == 5:
            raise Killed
        return original(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "add_step", killing)
        with pytest.raises(Killed):
            Trainer(replace(config, run_dir=str(root / "killed")), images=images).fit()
    return whole, root / "killed"


@pytest.mark.parametrize("source", WRITERS)
def test_from_training_to_predictions(source, tmp_path, monkeypatch, capsys):
    whole, killed = train_and_kill([*WRITERS[source](tmp_path), *TINY], tmp_path, monkeypatch)
    assert main(["resume", str(killed)]) == 0
    assert content(whole) == content(killed)

    # The accuracy on the test images is that of the run.
    capsys.readouterr()
    assert main(["evaluate", str(killed), "--mode", "base"]) == 0
    top1 = float(read_table(whole / "metrics.csv")[-1]["base_top1"])
    assert f"top-1 {top1:.2f} %" in capsys.readouterr().out

    done = export_run(read_run(killed), Mode.BASE, tmp_path / "base.safetensors")
    assert "25 test images" in str(done.check)
    draw("test", 0)[0].save(tmp_path / "photo.png")
    [prediction] = Predictor(done.path).predict([tmp_path / "photo.png"])
    assert {each.name for each in prediction.top} == set(CLASSES)


def given_images(config, **options):
    return ImageData.from_datasets(config, train=Drawn("train", **options), test=Drawn("test"))


def test_data_sets_in_python(tmp_path, monkeypatch, capsys):
    images = given_images(parsing.parse(PYTHON), flips=True)
    whole, killed = train_and_kill(PYTHON, tmp_path, monkeypatch, images)
    resume(killed, images=given_images(parsing.parse(PYTHON), flips=True))
    assert content(whole) == content(killed)

    # The run is evaluated, exported and shown in Python.
    run = read_run(killed, images=images)
    assert "25 test images" in str(export_run(run, Mode.BASE, tmp_path / "base.safetensors").check)
    summary = read_summary(killed)
    assert len(evaluate_test_images(summary, images).predictions) == 6
    assert "data sets that are given in Python" in evaluate_test_images(summary).reason

    # No command knows the images, and each says what to do.
    assert main(["evaluate", str(killed), "--mode", "base"]) == 2
    assert "these images are data sets that are given in Python" in capsys.readouterr().err
    assert main(["resume", str(killed)]) == 2
    assert "pass images=ImageData.from_datasets(...)" in capsys.readouterr().err
    # The same images in another order are noticed.
    other = ImageData.from_datasets(parsing.parse(PYTHON), train=Drawn("train"), test=Drawn("test"))
    with pytest.raises(ValueError, match="the checkpoint is of other images"):
        resume(killed, images=other)
    with pytest.raises(ValueError, match="the images that are given are not those of the run"):
        read_run(killed, images=other)
