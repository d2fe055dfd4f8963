"""Every command against a small corpus of hostile names, files and folders.

Nothing may end in a traceback, wait, execute or obey what a name says, or change what it was not asked to change.
"""

import csv
import io
import json
import os
import re
import shutil
import signal
import stat
from contextlib import contextmanager

import matplotlib.pyplot as plt
import pytest
from hostile import NAMES
from PIL import Image

from nestnet.analysis.report import write_report
from nestnet.analysis.report.rendering import RenderedFigure
from nestnet.cli.main import main

SECONDS = 60
"""After which a command is taken to wait for something."""

CLASSES = ["<img src=x onerror=alert(1)>", "a|b, 'c' \"d\"", "\x1b[31m[bold]\n", "-rf $(x) 👩\u200d🔬 \u202e"]
"""Of the corpus: each name is hostile to another medium, or several."""

LEFT_OUT = ("__MACOSX", "@eaDir", ".ipynb_checkpoints")
UNREADABLE = ("empty.jpg", "text.jpg", "nowhere.jpg", "pipe.jpg", "hidden pipe", "notes.txt", "loop")

NETWORKS = ["--model.base", "resnet8", "--model.motivated", "resnet8"]
RECIPE = [*NETWORKS, "--data.img_size", "8", "--data.batch_size", "8", "--epochs", "2", "--data.workers", "0"]


@contextmanager
def no_waiting():
    """Raise within whatever takes too long: a FIFO would be waited for without end."""

    def late(number, frame):
        raise TimeoutError(f"it took more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run(arguments, capsys):
    """The exit code, and what went to standard output and standard error; the latter is always harmless."""
    with no_waiting():
        code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    assert not re.search(r"[^\n\x20-\x7e\xa0-\U0010ffff]|[\u202a-\u202e\ud800-\udfff]", err), repr(err)
    return code, out, err


def images(folder, names):
    """An image of each name."""
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        Image.new("RGB", (8, 8), (number * 9 % 256,) * 3).save(folder / "image.png")
        os.rename(folder / "image.png", os.fsencode(folder / name))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder of images with everything that folders hold in practice, below a hostile path."""
    root = tmp_path_factory.mktemp("corpus") / "[close]" / os.fsdecode(b"run \x1b[31m <b> \xff")
    folder = root / "images"
    short = [f"{number} {name}.png" for number, name in enumerate(NAMES) if len(os.fsencode(name)) < 200]
    for number, name in enumerate(CLASSES):
        images(folder / name, short[number :: len(CLASSES)] + [f"{index}.png" for index in range(8)])
    first = folder / CLASSES[0]
    for suffix in ("gif", "jfif", "jpe", "webp", "tif"):
        Image.new("RGB", (8, 8)).save(first / f"format.{suffix}")
    Image.new("RGBA", (8, 8)).save(first / "transparent.png")
    Image.new("I;16", (8, 8), 40_000).save(first / "deep.png")
    Image.new("RGB", (300, 1)).save(first / "long.png")
    for name in LEFT_OUT:
        images(folder / name, ["0.png"])
    (first / "loop").symlink_to(folder)
    (first / "empty.jpg").touch()
    (first / "text.jpg").write_text("not an image")
    (first / "nowhere.jpg").symlink_to("nowhere")
    (first / "notes.txt").touch()
    os.mkfifo(first / "pipe.jpg")
    os.mkfifo(first / "hidden pipe")
    return root


@pytest.fixture(scope="module")
def trained(corpus):
    """A run on it."""
    arguments = [
        "train",
        "--data.root",
        corpus / "images",
        *RECIPE,
        "--data.corrupt",
        "skip",
        "--run_dir",
        corpus / "run",
    ]
    with no_waiting():
        assert main([str(argument) for argument in arguments]) == 0
    return corpus / "run"


def bytes_of(entry):
    """The path that an entry of `predict` stands for: in it, `\\xff` is that byte."""
    return re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), entry.encode())


def readable_images(folder):
    """The paths of the images that can be read, in bytes."""
    paths = []
    for path, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        paths += [os.path.join(path, name) for name in files if name not in UNREADABLE]
    return sorted(map(os.fsencode, paths))


@pytest.mark.slow
def test_every_command_takes_hostile_names(corpus, trained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = trained / "base.safetensors"
    commands = {
        "resume": ["resume", trained],
        "evaluate": ["evaluate", trained, "--mode", "base"],
        "evaluate csv": ["evaluate", trained, "--mode", "base", "--format", "csv", "--data.root", corpus / "images"],
        "evaluate json": ["evaluate", trained, "--mode", "base", "--format", "json"],
        "safetensors": ["export", trained, "--mode", "motivated", "--output", corpus / "m.safetensors"],
        "report": ["report", trained],
        "reports": ["report", trained, trained / "..", "--output", corpus / "pages"],
        "plot": ["plot", trained, "--output", corpus / "p.svg"],
        "dynamics": ["dynamics", trained, "--output", corpus / "figures"],
        "table": ["table", trained],
        "csv": ["table", trained, "--format", "csv", "--output", corpus / "t.csv"],
        "latex": ["table", trained, "--format", "latex"],
        "text": ["predict", corpus / "images", "--model", model],
        "predict csv": ["predict", corpus / "images", "--model", model, "--format", "csv", "--top", "1"],
        "predict json": ["predict", corpus / "images", "--model", model, "--format", "json", "--top", "1"],
        "cost": ["cost", "--config", trained / "config.yaml", "--run_dir", "x"],
        "check": [
            "check",
            "--config",
            trained / "config.yaml",
            "--run_dir",
            "x",
            "--steps",
            "2",
            "--sequence",
            "random",
        ],
        "dry run": ["train", "--config", trained / "config.yaml", "--run_dir", "x", "--dry_run"],
    }
    printed = {}
    for name, arguments in commands.items():
        code, out, err = run(arguments, capsys)
        expected = 2 if name == "reports" or "predict" in arguments else 0
        assert code == expected, (name, err)
        printed[name] = out
    assert not (tmp_path / "hacked").exists()
    classes = list(csv.DictReader(io.StringIO(printed["evaluate csv"], newline="")))
    assert [row["class"] for row in classes] == [
        entry["name"] for entry in json.loads(printed["evaluate json"])["classes"]
    ]
    assert {row["class"] for row in classes} == set(CLASSES)
    rows = list(csv.DictReader(io.StringIO(printed["predict csv"], newline="")))
    assert {row["name"] for row in rows} <= set(CLASSES)
    answered = [entry["file"] for entry in json.loads(printed["predict json"])]
    assert answered == [row["file"] for row in rows]
    assert sorted(map(bytes_of, answered)) == readable_images(corpus / "images")
    assert all(stat.S_ISFIFO(os.stat(path).st_mode) for path in (corpus / "images").rglob("*pipe*"))


# Files and folders that are not what they should be


def things(folder):
    """Paths that stand for something other than what a command wants, by what they are."""
    folder.mkdir()
    os.mkfifo(folder / "fifo")
    (folder / "device").symlink_to("/dev/zero")
    (folder / "loop").symlink_to("loop")
    (folder / "nowhere").symlink_to("absent/too")
    (folder / "empty").touch()
    (folder / "bytes").write_bytes(bytes(range(256)) * 9)
    (folder / "folder").mkdir()
    (folder / "folder" / "file").touch()
    (folder / "\x1b[31m").write_text("{[")
    (folder / os.fsdecode(b"\xff")).write_text("a: b")
    return [*sorted(folder.iterdir()), folder / "absent", folder / "empty" / "below"]


def state(folder):
    """What lies in a folder: kinds, targets and contents."""
    found = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        found[path] = stat.S_IFMT(mode), os.readlink(path) if path.is_symlink() else None
        if stat.S_ISREG(mode):
            found[path] += (path.read_bytes(),)
    return found


READING = {
    "train config": lambda path, here: ["train", "--config", path, "--run_dir", here / "new"],
    "train root": lambda path, here: ["train", "--data.root", path, "--run_dir", here / "new"],
    "weights": lambda path, here: [
        "train", "--config", here / "run.yaml", "--model.base_weights", path, "--run_dir", here / "new"
    ],
    "earlier run": lambda path, here: [
        "train", "--config", here / "run.yaml", "--motivation.name", "random_like", "--motivation.runs", f"[{path}]",
        "--run_dir", here / "new",
    ],
    "resume": lambda path, here: ["resume", path],
    "evaluate": lambda path, here: ["evaluate", path, "--mode", "base"],
    "export": lambda path, here: ["export", path, "--mode", "base", "--output", here / "out.safetensors"],
    "predict": lambda path, here: ["predict", path, "--model", here / "base.safetensors"],
    "model": lambda path, here: ["predict", here / "image.png", "--model", path],
    "onnx": lambda path, here: ["predict", here / "image.png", "--model", named(path, here, "onnx")],
    "plot": lambda path, here: ["plot", path],
    "report": lambda path, here: ["report", path],
    "table": lambda path, here: ["table", path],
    "dynamics": lambda path, here: ["dynamics", path, "--output", here / "out"],
    "cost": lambda path, here: ["cost", "--config", path],
    "tune-k": lambda path, here: ["tune-k", "--config", path, "--k", "2", "--output", here / "out"],
    "check": lambda path, here: ["check", "--config", path],
}  # fmt: skip


def named(path, here, suffix):
    """A link to a path, with an ending."""
    link = here / f"link.{suffix}"
    link.unlink(missing_ok=True)
    link.symlink_to(path)
    return link


@pytest.fixture(scope="module")
def here(trained, tmp_path_factory):
    """A folder with what commands need besides."""
    folder = tmp_path_factory.mktemp("here")
    shutil.copy(trained / "base.safetensors", folder)
    Image.new("RGB", (8, 8)).save(folder / "image.png")
    (folder / "run.yaml").write_text("model: {base: resnet8, motivated: resnet8}\nepochs: 1\n")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("make", READING.values(), ids=READING.keys())
def test_what_cannot_be_read_gives_one_line(make, here, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = things(tmp_path / "things")
    before = state(tmp_path / "things")
    for path in paths:
        code, out, err = run(make(path, here), capsys)
        assert (code, out, err.count("\n")) == (2, "", 1), (path, out, err)
        assert re.match(r"nestnet [a-z-]+: error: ", err), err
        assert state(tmp_path / "things") == before, path
    assert not [path.name for path in here.iterdir() if path.name in ("new", "out", "out.safetensors")]


WRITING = {
    "export": lambda path, run: ["export", run, "--mode", "base", "--output", path],
    "plot": lambda path, run: ["plot", run, "--output", path],
    "table": lambda path, run: ["table", run, "--output", path],
    "report": lambda path, run: ["report", run, "--no_images", "--output", path],
    "dynamics": lambda path, run: ["dynamics", run, "--output", path],
    "train": lambda path, run: ["train", "--config", run / "config.yaml", "--run_dir", path, "--epochs", "0"],
    "tune-k": lambda path, run: [
        "tune-k", "--config", run / "config.yaml", "--run_dir", "x", "--k", "2", "--folds", "2", "--epochs", "0",
        "--output", path,
    ],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("name", "make"), WRITING.items(), ids=WRITING.keys())
def test_only_files_and_new_folders_are_written(name, make, trained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in things(tmp_path / "things"):
        before = state(tmp_path / "things")
        code, _, err = run(make(path, trained), capsys)
        after = state(tmp_path / "things")
        if code == 2:
            assert err.count("\n") == 1, err
            assert after == before, (path, err)
        else:
            for other, kind in before.items():
                regular = stat.S_ISREG(kind[0])
                assert after[other][:2] == kind[:2], (path, other)
                assert regular or after[other] == kind
        if path.name in ("fifo", "device", "loop", "below"):
            assert code == 2, (path, err)
    assert stat.S_ISCHR(os.stat("/dev/zero").st_mode)


# Files of a run that are not as they were written

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(9 * ['*' + old])}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
"""YAML of some lines that stands for 9 ** 9 texts."""


def replaced_by(content):
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else content.encode())


def changed(change):
    return lambda path: path.write_bytes(change(path.read_bytes()))


def in_its_place(put):
    def damage(path):
        path.unlink()
        put(path)

    return damage


DAMAGE = {
    "gone": os.unlink,
    "empty": replaced_by(""),
    "without its end": changed(lambda content: content[:-3]),
    "half zeros": changed(lambda content: content[: len(content) // 2] + bytes(len(content) // 2)),
    "not UTF-8": changed(lambda content: content[:9] + b"\xff\xfe" + content[9:]),
    "other numbers": changed(lambda content: re.sub(rb"\d+", b"-7", content)),
    "texts for numbers": changed(lambda content: re.sub(rb"\b\d+\b", b"x", content)),
    "rows swapped": changed(lambda content: b"\n".join([*content.split(b"\n")[::-1]])),
    "a list": replaced_by("[1, 2]"),
    "brackets": replaced_by(5_000 * "["),
    "aliases": replaced_by(BOMB),
    "huge": lambda path: os.truncate(path, 1 << 40),
    "folder": in_its_place(os.mkdir),
    "FIFO": in_its_place(os.mkfifo),
    "device": in_its_place(lambda path: path.symlink_to("/dev/zero")),
    "loop": in_its_place(lambda path: path.symlink_to(path.name)),
}
FILES = ["config.yaml", "cost.json", "images.json", "metrics.csv", "steps.csv", "checkpoints"]
COMMANDS = {
    "evaluate": ["evaluate", "run", "--mode", "base"],
    "report": ["report", "run", "--no_images", "--output", "page"],
    "table": ["table", "run", "--output", "table"],
}
RESUMED = ["half zeros", "folder", "device"]
"""Damage after which the run is also resumed, which takes longer where the file is made anew."""

READABLE = ["other numbers", "texts for numbers", "rows swapped"]
"""Damage after which figures may have unusual numbers."""


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """A run without many images, so that commands have little to do."""
    path = tmp_path_factory.mktemp("small") / "run"
    images(path.parent / "images" / "a", [f"{number}.png" for number in range(20)])
    images(path.parent / "images" / "b", [f"{number}.png" for number in range(20)])
    arguments = ["train", "--data.root", path.parent / "images", *RECIPE, "--run_dir", path]
    assert main([str(argument) for argument in arguments]) == 0
    return path


def plot_only(plot, name):
    """A figure that is plotted, but neither laid out nor written, which takes longer than everything else."""
    plt.close(plot())
    return RenderedFigure("", b"")


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_told_in_one_line(name, damage, small_run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_run, "run")
    for path in (tmp_path / "run" / name).iterdir() if name == "checkpoints" else [tmp_path / "run" / name]:
        DAMAGE[damage](path)
    if damage not in READABLE:
        monkeypatch.setattr(write_report, "render_figure", plot_only)
    commands = list(COMMANDS.values())
    if damage in RESUMED:
        commands.append(["resume", "run"])
    for arguments in commands:
        code, _, err = run(arguments, capsys)
        assert code in (0, 2), err
        if code == 0:  # the file is not needed, is made anew, or has been changed in what does not matter
            assert "error" not in err
        else:
            assert re.fullmatch(r"nestnet [a-z-]+: error: .*\brun\b.*", err.splitlines()[-1]), (arguments, err)
            assert err.count("error: ") == 1
