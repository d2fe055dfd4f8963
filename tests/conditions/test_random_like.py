"""As many motivated batches as earlier runs had: `motivation.name: random_like`, and the runs that it goes by."""

import shutil

import pytest
import yaml

from nestnet.cli.main import main
from nestnet.recipes.command_line import parse_with_recipe
from nestnet.runs.reading import read_table
from nestnet.training.earlier_runs import mean_motivated_counts

METRICS = "epoch,train_loss,base_top1,motivated_top1,motivated_fraction,seconds"


def write_run(path, *epochs, finished=None):
    """The tables of a run whose epochs had these modes, each given by its first letter."""
    path.mkdir()
    words = {"b": "base", "m": "motivated", "x": "both"}
    rows = [(number, words[letter]) for number, epoch in enumerate(epochs, start=1) for letter in epoch]
    steps = [f"{step},{epoch},{mode},1.0,0.1" for step, (epoch, mode) in enumerate(rows, start=1)]
    (path / "steps.csv").write_text("\n".join(["step,epoch,mode,loss,lr", *steps, ""]))
    done = len(epochs) if finished is None else finished
    metrics = [f"{epoch},1.0,50.0,50.0,0.5,1.0" for epoch in range(1, done + 1)]
    (path / "metrics.csv").write_text("\n".join([METRICS, *metrics, ""]))
    return str(path)


def test_the_average_of_earlier_runs(tmp_path):
    first = write_run(tmp_path / "first", "bmmm", "bbbb", "bmbm")
    second = write_run(tmp_path / "second", "bxbb", "bxxb")
    third = write_run(tmp_path / "third", "bmbb", "bbmb", "bm", finished=2)
    assert mean_motivated_counts([first], 3) == [3, 0, 2]
    assert mean_motivated_counts([first, second], 2) == [2, 1]
    assert mean_motivated_counts([first, second, third], 2) == [2, 1], (
        "5 and 3 motivated batches of 3 runs; unfinished epochs are not counted"
    )


@pytest.mark.parametrize(
    ("epochs", "finished", "message"),
    [
        (
            ["bmb", "bmb"],
            1,
            r"has finished 1 epochs, but this run has 2; name a run with as many, or lower epochs",
        ),
    ],
)
def test_runs_that_cannot_be_gone_by(epochs, finished, message, tmp_path):
    run = write_run(tmp_path / "run", *epochs, finished=finished)
    with pytest.raises(ValueError, match=r"^motivation\.runs: .*run " + message):
        mean_motivated_counts([run], 2)


def test_runs_that_are_damaged(tmp_path):
    run = write_run(tmp_path / "run", "bmb", finished=2)
    with pytest.raises(ValueError, match=r"steps\.csv is damaged: it has no batches of epoch 2, which is finished"):
        mean_motivated_counts([run], 2)
    table = tmp_path / "run" / "steps.csv"
    table.write_text(table.read_text() + "4,3,base,1.0,0.1\n")
    with pytest.raises(ValueError, match=r"steps\.csv is damaged: epoch is 3 in row 4, which cannot be there"):
        mean_motivated_counts([run], 2)


def test_folders_that_are_no_runs(tmp_path):
    with pytest.raises(ValueError, match=r"absent is not a run directory"):
        mean_motivated_counts([str(tmp_path / "absent")], 1)
    write_run(tmp_path / "run", "bmb")
    (tmp_path / "run" / "steps.csv").unlink()
    with pytest.raises(ValueError, match=r"run is not a run directory: it has no steps\.csv"):
        mean_motivated_counts([str(tmp_path / "run")], 1)


def test_counts_can_be_given():
    given = ["--motivation.name", "random_like", "--epochs", "2"]
    assert parse_with_recipe([*given, "--motivation.counts", "[3, 0]"]).motivation.counts == [3, 0]
    with pytest.raises(ValueError, match=r"motivation\.counts = \[3\]: it must be a number for each of the 2 epochs"):
        parse_with_recipe([*given, "--motivation.counts", "[3]"])
    with pytest.raises(ValueError, match=r"motivation\.counts = \[3, -1\]: it must be numbers of at least 0"):
        parse_with_recipe([*given, "--motivation.counts", "[3, -1]"])


def test_a_run_does_not_need_the_earlier_ones_any_more(tmp_path, capsys):
    """It is resumed and reported after they were moved."""
    earlier = write_run(tmp_path / "earlier", "bmbmb", "bbbmm")
    options = ["--model.base", "resnet8", "--model.motivated", "resnet8", "--data.batch_size", "256", "--epochs", "2"]
    run = str(tmp_path / "run")
    random_like = ["--motivation.name", "random_like", "--motivation.runs", f"[{earlier}]"]
    assert main(["train", *options, *random_like, "--run_dir", run]) == 0
    stored = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert stored["motivation"]["counts"] == [2, 2]
    shutil.rmtree(earlier)
    before = (tmp_path / "run" / "steps.csv").read_text()
    # back to the end of the first epoch
    newest = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    newest.unlink()
    for name in ("base.safetensors", "motivated.safetensors"):
        (tmp_path / "run" / name).unlink()
    assert main(["resume", run]) == 0
    steps = read_table(tmp_path / "run" / "steps.csv")
    assert (tmp_path / "run" / "steps.csv").read_text() == before
    for epoch in ("1", "2"):
        assert [step["mode"] for step in steps if step["epoch"] == epoch].count("motivated") == 2
    assert main(["report", run, "--output", str(tmp_path / "report")]) == 0
