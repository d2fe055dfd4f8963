"""What the commands write: on a full disk the older files stay, and nothing but a file is ever replaced."""

import os
import re
import stat
from pathlib import Path

import pytest
import torch
from interrupted import few
from made_up_runs import MIXED, write_run, write_snapshots
from safetensors.torch import save_file

from nestnet.analysis.dynamics import read_trajectories
from nestnet.cli.main import main
from nestnet.recipes.command_line import parse_with_recipe
from nestnet.runs.history import read_histories
from nestnet.storage import atomic
from nestnet.training.trainer import Trainer

DYNAMICS = [f"out/{name}.png" for name in ("losses", "variance", "motivated_fraction", "trajectory")]
COMMANDS = {
    "table": (["table", "run", "--output", "out/table.md"], ["out/table.md"]),
    "plot": (["plot", "run", "--output", "out/run.svg"], ["out/run.svg"]),
    "report": (["report", "run", "--no_images", "--output", "out"], ["out/report.html"]),
    "dynamics": (["dynamics", "run", "--output", "out"], DYNAMICS[:3]),
    "export": (["export", "run", "--mode", "base", "--output", "out/b.safetensors"], ["out/b.safetensors", "out/b.md"]),
}
CASES = [(command, output) for command, (_, outputs) in COMMANDS.items() for output in outputs]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    settings = ["--model.base", "resnet8", "--model.motivated", "resnet8", "--data.batch_size", "16", "--epochs", "1"]
    run = parse_with_recipe([*settings, "--run_dir", str(path)])
    return Trainer(run, images=few(run)).fit()


@pytest.fixture
def world(run_dir, tmp_path, monkeypatch):
    """A folder with the run in it, and an empty one."""
    (tmp_path / "run").symlink_to(run_dir)
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def one_error(capsys, pattern):
    captured = capsys.readouterr()
    assert re.match(pattern, captured.err), captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_on_a_full_disk_the_older_file_stays(command, world, monkeypatch, capsys):
    arguments, outputs = COMMANDS[command]
    assert main(arguments) == 0
    capsys.readouterr()
    before = {path: path.read_bytes() for path in Path("out").iterdir()}
    assert {str(path) for path in before} >= set(outputs)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "write", full)
    assert main(arguments) == 2
    one_error(capsys, rf"nestnet {arguments[0]}: error: \S+ cannot be written: No space left on device\n$")
    assert {path: path.read_bytes() for path in Path("out").iterdir()} == before


def fifo(path):
    os.mkfifo(path)


def folder(path):
    path.mkdir()


def device(path):
    path.symlink_to("/dev/null")


@pytest.mark.parametrize(("put", "kind"), [(fifo, "a FIFO"), (folder, "a folder"), (device, "a device")])
@pytest.mark.parametrize(("command", "output"), CASES)
def test_only_files_are_replaced(command, output, put, kind, world, capsys):
    arguments, _ = COMMANDS[command]
    put(Path(output))
    assert main(arguments) == 2
    refused = rf"it is {kind}; name a file\n|out/b.md exists and is not a model card of nestnet; move it"
    one_error(capsys, rf"nestnet {arguments[0]}: error: output = \S+: ({refused})")
    assert [str(path) for path in Path("out").iterdir()] == [output]
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize("command", ["table", "plot", "export"])
def test_links_stay(command, world):
    arguments, outputs = COMMANDS[command]
    for output in outputs:
        Path(output).symlink_to(f"../{Path(output).name}")
        if output != "out/b.md":  # a card is only written over a card
            Path(Path(output).name).write_bytes(b"before")
    assert main(arguments) == 0
    for output in outputs:
        target = Path(Path(output).name)
        assert Path(output).is_symlink()
        assert not target.is_symlink()
        assert len(target.read_bytes()) > 10


def test_figures_of_snapshots_name_the_damaged_one_and_pass_over_copies(tmp_path):
    path = write_run(tmp_path / "run", MIXED)
    write_snapshots(path, [0, 4, 8])
    folder = path / "snapshots"
    for name in ("step-000008 (copy).safetensors", "step-8.safetensors", "notes.txt"):
        (folder / name).write_bytes(b"mine")
    (folder / "step-000012.safetensors").mkdir()
    (trajectory,) = read_trajectories(read_histories([path]))
    assert len(trajectory.points) == 3
    save_file({"conv.weight": torch.zeros(2, 2)}, folder / "step-000008.safetensors")
    with pytest.raises(ValueError, match=r"step-000008\.safetensors is of another network than .*; remove it to draw"):
        read_trajectories(read_histories([path]))


@pytest.mark.parametrize("name", ["", ".", "..", "loop", 300 * "x", 253 * "x"])
def test_an_export_without_a_place_is_refused_before_it_is_made(name, world, capsys, monkeypatch):
    Path("loop").symlink_to("loop")
    monkeypatch.setattr("nestnet.deploy.export_run.prepare_for_eval", None)
    assert main(["export", "run", "--mode", "base", "--output", name]) == 2
    one_error(capsys, r"nestnet export: error: output = '.*': ")


@pytest.mark.parametrize("name", ["fifo", "loop", "nowhere", "device", "file", "file/below"])
@pytest.mark.parametrize("command", ["report", "dynamics"])
def test_a_folder_that_cannot_be_is_refused_before_anything_is_read(command, name, world, capsys):
    os.mkfifo("fifo")
    Path("loop").symlink_to("loop")
    Path("nowhere").symlink_to("absent")
    Path("device").symlink_to("/dev/null")
    Path("file").touch()
    assert main([command, "run", "--output", name]) == 2
    one_error(capsys, rf"nestnet {command}: error: output = '{name}': .*; name a folder\n$")
