"""The folder of a run: what is somebody else's stays, and nothing of the run is lost in silence. Nothing is trained here."""

import os
import re
import shutil
from pathlib import Path

import pytest
import torch

from nestnet.config.schema import Config
from nestnet.data.image_record import ImageRecord
from nestnet.nn.mode import Mode
from nestnet.runs.checkpoint_file import checkpoint_name
from nestnet.runs.checkpoints import Checkpoints
from nestnet.runs.contents import FILES
from nestnet.runs.directory import RunDirectory
from nestnet.runs.reading import read_table
from nestnet.runs.run_files import delete_run
from nestnet.runs.run_stopped import RunStopped

NO_FILES = ImageRecord(["cat", "dog"], "")
DEAD = 2**22 + 1
"""A number that no process has."""


def state(steps, epochs=None):
    best = {"file": checkpoint_name(4, 1), "epoch": 1, "top1": 50.0} if steps >= 4 else None
    return {
        "steps_done": steps,
        "epochs_done": epochs or 0,
        "end_of_epoch": epochs is not None,
        "best": {str(mode): best for mode in Mode},
        "weights": torch.full((4,), float(steps)),
    }


def add_steps(run, numbers):
    for number in numbers:
        run.add_step({"step": number, "epoch": 1 + (number - 1) // 4, "mode": Mode.BASE, "loss": 1.0, "lr": 0.1})


def add_epoch(run, number):
    values = {
        "train_loss": 1.0,
        "base_top1": 50.0,
        "motivated_top1": 50.0,
        "motivated_fraction": 0.0,
        "average_cost": 9,
    }
    values |= {"skipped_steps": 0, "images_per_second": 1.0, "data_wait": 0.0, "seconds": 1.0}
    run.add_epoch({"epoch": number} | values)


def begun(path):
    """A run of which an epoch of four batches is done."""
    run = RunDirectory.new(Config(run_dir=str(path), epochs=3))
    run.begin(Config(run_dir=str(path), epochs=3), NO_FILES, 0, 0)
    run.save_checkpoint(state(0))
    add_steps(run, range(1, 5))
    add_epoch(run, 1)
    run.save_checkpoint(state(4, 1))
    return run


def resumed(path):
    run = RunDirectory(path)
    run.begin(Config(run_dir=str(path), epochs=3), NO_FILES, 4, 1)
    return run


# What is somebody else's


KEPT = [
    "step-00000010 (copy).safetensors",
    "step-00000010.safetensors.bak",
    "step-0000001.safetensors",
    "step-00000010-epoch-1.safetensors",
    "my-step-00000010.safetensors",
    "step-00000010.safetensors\n",
    "best.safetensors",
    "notes.txt",
    ".notes.tmp",
    "kept/step-00000001.safetensors",
    "step-00000002.safetensors/inside",
]


def test_only_what_the_run_wrote_is_removed(tmp_path):
    with begun(tmp_path / "run") as run:
        folder = tmp_path / "run" / "checkpoints"
        for name in KEPT:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(b"mine")
        (tmp_path / "far").write_bytes(b"mine")
        (folder / checkpoint_name(3)).symlink_to(tmp_path / "far")
        (folder / f".{checkpoint_name(5)}.{DEAD}.tmp").write_bytes(b"")
        for steps in range(5, 9):
            add_steps(run, [steps])
            run.save_checkpoint(state(steps))
    for name in KEPT:
        assert (folder / name).read_bytes() == b"mine"
    assert (folder / checkpoint_name(3)).is_symlink()
    own = {path.name for path in folder.iterdir()} - {name.split("/")[0] for name in KEPT} - {checkpoint_name(3)}
    assert own == {checkpoint_name(4, 1), checkpoint_name(7), checkpoint_name(8)}
    checkpoints = Checkpoints(folder)
    assert [path.name for path in checkpoints.paths()] == [
        checkpoint_name(8),
        checkpoint_name(7),
        checkpoint_name(4, 1),
    ]
    assert checkpoints.newest()["steps_done"] == 8


def test_checkpoints_are_ordered_by_their_steps(tmp_path):
    names = [
        checkpoint_name(5),
        checkpoint_name(5, 1),
        checkpoint_name(99_999_999),
        checkpoint_name(100_000_000),
        checkpoint_name(100_000_000, 10_000),
    ]
    for name in reversed(names):
        (tmp_path / name).touch()
    assert [path.name for path in Checkpoints(tmp_path).paths()] == names[::-1]


def test_what_killed_processes_were_writing_is_removed_at_the_start(tmp_path):
    path = tmp_path / "run"
    begun(path).closing.close()
    (path / "snapshots").mkdir()
    left = [
        path / ".config.yaml",
        path / "checkpoints" / f".{checkpoint_name(5)}",
        path / "snapshots" / ".step-000002.safetensors",
    ]
    left = [name.with_name(f"{name.name}.{DEAD}.tmp") for name in left]
    for name in left:
        name.touch()
    resumed(path).closing.close()
    assert not any(name.exists() for name in left)


def folder(path):
    path.mkdir()


def link(path):
    path.with_name("elsewhere").write_text("precious")
    path.symlink_to("elsewhere")


IN_THE_WAY = [(name, put, kind) for name in FILES for put, kind in ((folder, "a folder"), (os.mkfifo, "a FIFO"))]
IN_THE_WAY += [(name, link, "a symbolic link") for name in FILES]
IN_THE_WAY += [(name, put, kind) for name in ("checkpoints", "snapshots", "tensorboard")
               for put, kind in ((Path.touch, "a file"), (os.mkfifo, "a FIFO"), (link, "a symbolic link"))]  # fmt: skip


@pytest.mark.parametrize(("name", "put", "kind"), IN_THE_WAY)
def test_what_is_in_the_way_of_a_run_is_one_line(name, put, kind, tmp_path):
    path = tmp_path / "run"
    begun(path).closing.close()
    shutil.rmtree(path / name) if (path / name).is_dir() else (path / name).unlink(missing_ok=True)
    put(path / name)
    steps = (path / "steps.csv").read_text() if name != "steps.csv" else ""
    run = RunDirectory(path)
    with (
        run,
        pytest.raises(ValueError, match=rf"{name} is {kind}, and a run needs this name for a f.*; move it$"),
    ):
        run.begin(Config(run_dir=str(path), epochs=3), NO_FILES, 4, 1)
    if name != "steps.csv":
        assert (path / "steps.csv").read_text() == steps
    if put is link:
        assert (path / "elsewhere").read_text() == "precious"


@pytest.mark.parametrize("put", [folder, os.mkfifo, link])
def test_a_lock_is_a_file(put, tmp_path):
    put(tmp_path / ".lock")
    with pytest.raises(
        ValueError, match=r"\.lock is something other than a file, and a file is needed there to train; "
    ):
        RunDirectory(tmp_path)
    if put is link:
        assert (tmp_path / "elsewhere").read_text() == "precious"


def test_a_run_that_starts_again_loses_only_what_it_wrote(tmp_path):
    path = tmp_path / "run"
    begun(path).closing.close()
    (path / "tensorboard").mkdir()
    (path / "tensorboard" / "events.out.tfevents.1.host").touch()
    (
        path / f".config.yaml.{os.getppid()}.tmp"
    ).touch()  # of a process that was killed, whose number another one has now
    copy = shutil.copytree(path, tmp_path / "copy")
    delete_run(path)
    assert not path.exists()
    (copy / "checkpoints" / "mine").touch()
    with pytest.raises(ValueError, match=r"copy/checkpoints/mine is in the folder of a run that is to start again"):
        delete_run(copy)
    assert (copy / "checkpoints" / "mine").exists()


# What is removed or moved while a run trains


def remove(path):
    path.unlink()


def replace(path):
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["steps.csv", "metrics.csv", "config.yaml"])
@pytest.mark.parametrize("damage", [remove, replace, lambda path: path.rename(path.with_name("old"))])
@pytest.mark.parametrize("at_the_end", [False, True])
def test_a_file_that_was_removed_is_written_again(name, damage, at_the_end, tmp_path, capsys):
    path = tmp_path / "run"
    with begun(path) as whole:
        add_steps(whole, range(5, 9))
        add_epoch(whole, 2)
    with begun(tmp_path / "other") as run:
        add_steps(run, [5, 6])
        damage(tmp_path / "other" / name)
        if not at_the_end:
            run.save_checkpoint(state(6))
            assert (tmp_path / "other" / name).exists()
        add_steps(run, [7, 8])
        add_epoch(run, 2)
    if name != "config.yaml":
        assert (tmp_path / "other" / name).read_bytes() == (path / name).read_bytes()
    noticed = capsys.readouterr().err
    expected = "" if (name, damage) == ("config.yaml", replace) else f"nestnet: {tmp_path / 'other' / name} was removed"
    assert noticed.startswith(expected)
    assert noticed.count("\n") == bool(expected)


def test_rows_that_another_program_cut_off_end_the_run(tmp_path):
    run = begun(tmp_path / "run")
    (tmp_path / "run" / "steps.csv").write_text("step\n")
    add_steps(run, [5])
    with pytest.raises(
        OSError, match=r"steps\.csv was changed by another program: it has \d+ bytes, and the run wrote \d+; "
    ) as e:
        run.save_checkpoint(state(5))
    assert "\n" not in str(e.value)
    run.closing.close()


def test_checkpoints_that_were_removed_are_noticed_once(tmp_path, capsys):
    with begun(tmp_path / "run") as run:
        shutil.rmtree(tmp_path / "run" / "checkpoints")
        for steps in (5, 6, 7):
            add_steps(run, [steps])
            run.save_checkpoint(state(steps))
    lost = f"has lost {checkpoint_name(4, 1)} while the run trained; it continues without them"
    assert capsys.readouterr().err == f"nestnet: {tmp_path / 'run' / 'checkpoints'} {lost}\n"
    assert Checkpoints(tmp_path / "run" / "checkpoints").newest()["steps_done"] == 7


ACTS = {
    "checkpoint": lambda run: run.save_checkpoint(state(5)),
    "snapshot": lambda run: run.save_snapshot(5, {}),
    "cost": lambda run: run.save_cost({}),
    "the end": lambda run: run.__exit__(None),
    "another error": lambda run: run.__exit__(OSError),
}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("moved", [True, False])
def test_a_folder_that_was_moved_or_removed_ends_the_run(moved, act, tmp_path):
    path, place = tmp_path / "run", tmp_path / "new place"
    run = begun(path)
    shutil.move(path, place) if moved else shutil.rmtree(path)
    add_steps(run, [5])
    message = "was moved or removed while the run trained"
    if moved and Path("/proc/self/fd").exists():
        message = (
            f"was moved to {place} while the run trained; `nestnet resume '{place}'` continues from the last checkpoint"
        )
    with pytest.raises(RunStopped, match=rf"^{re.escape(str(path))} {re.escape(message)}") as caught:
        ACTS[act](run)
    run.closing.close()
    assert "\n" not in str(caught.value)
    assert not path.exists()
    if moved:
        resumed(place).closing.close()
        assert len(read_table(place / "steps.csv")) == 4
