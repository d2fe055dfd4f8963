"""Cross-validation of k: against training each fold by hand, across interruptions and processes, and its report."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from folders import plant
from PIL import Image
from two_processes import fork_server

from nestnet.analysis.run_figure import draw_run
from nestnet.cli.main import main
from nestnet.config.schema_sections import DataConfig
from nestnet.data.image_data import load_data
from nestnet.nn.mode import Mode
from nestnet.recipes.command_line import parse_with_recipe
from nestnet.runs.reading import read_run, read_table
from nestnet.step.train_step import TrainStep
from nestnet.storage import atomic
from nestnet.training import exports
from nestnet.training.trainer import Trainer
from nestnet.tuning import run_processes
from nestnet.tuning.figure import plot_summaries
from nestnet.tuning.fold_result import FoldResult
from nestnet.tuning.report import render_markdown, write_study_report
from nestnet.tuning.summary import find_best, summarize_by_k
from nestnet.tuning.tune_k import KStudy, tune_k

QUICK = ["--model.base", "resnet8", "--model.motivated", "resnet14", "--data.batch_size", "128", "--epochs", "1"]
KS, FOLDS = [1, 2], 2
RUNS = [(1, 1), (2, 1), (1, 2), (2, 2)]
REPORT = ("tune-k.md", "tune-k.csv", "tune-k.png")


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """ResNet-8 in ResNet-14 for one epoch of a few images made up."""
    root = tmp_path_factory.mktemp("images")
    draw = np.random.default_rng(0)
    for part, name in product(("train", "test"), ("cat", "dog")):
        (root / part / name).mkdir(parents=True)
        for index in range(48):
            Image.fromarray(draw.integers(256, size=(8, 8), dtype=np.uint8)).save(root / part / name / f"{index}.png")
    return [*QUICK, "--data.name", "folder", "--data.root", str(root), "--data.img_size", "8", "--model.in_chans", "1",
            "--data.batch_size", "8", "--optimizer.lr", "0.1"]  # fmt: skip


@pytest.fixture(scope="module")
def run(arguments):
    return parse_with_recipe(arguments, needs_k=True)


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """The folder of a study that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "study"
    tune_k(run, KS, folder, folds=FOLDS)
    return folder


@pytest.fixture
def part(whole, tmp_path):
    """The same with its second fold still to train."""
    folder = tmp_path / "study"
    shutil.copytree(whole, folder)
    for k in KS:
        shutil.rmtree(folder / f"k-{k}" / "fold-2")
    for name in (*REPORT, "tune-k-folds.csv"):
        (folder / name).unlink()
    return folder


def contents(folder: Path) -> dict[Path, tuple[bytes, int]]:
    """Every file below a folder, with the time when it was written."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path.relative_to(folder): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def assert_same_study(folder: Path, whole: Path) -> None:
    """The same trained networks and, byte for byte, the same report."""
    for k, fold in RUNS:
        for name in ("steps.csv", "base.safetensors", "motivated.safetensors"):
            path = Path(f"k-{k}", f"fold-{fold}", name)
            assert (folder / path).read_bytes() == (whole / path).read_bytes(), path
    for name in REPORT:
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.parametrize(("k", "fold"), RUNS)
def test_results_are_those_of_training_each_fold_by_hand(k, fold, run, whole, tmp_path):
    images = load_data(run.data, run.model).fold(fold - 1, FOLDS)
    by_hand = replace(run, motivation=replace(run.motivation, k=k), run_dir=str(tmp_path / "run"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    trainer = Trainer(by_hand, images=images)
    path = trainer.fit()
    torch.set_num_threads(threads)

    result = json.loads((whole / f"k-{k}" / f"fold-{fold}" / "fold.json").read_text())
    modes = [step["mode"] for step in read_table(path / "steps.csv")]
    costs = {mode: trainer.cost.macs.of(mode) for mode in Mode}
    assert (result["k"], result["fold"]) == (k, fold)
    assert {name: result[name] for name in ("base_top1", "motivated_top1")} == trainer.evaluate()
    assert result["motivated_fraction"] == modes.count("motivated") / len(modes)
    assert result["average_cost"] == pytest.approx(sum(costs[mode] for mode in modes) / len(modes))
    assert (result["base_cost"], result["motivated_cost"]) == (costs[Mode.BASE], costs[Mode.MOTIVATED])
    assert result["expected_fraction"] == {1: 4 / 6 / 2, 2: 3 / 6 / 6}[k], "of the 6 batches of an epoch"
    for name in ("steps.csv", "base.safetensors", "motivated.safetensors"):
        assert (path / name).read_bytes() == (whole / f"k-{k}" / f"fold-{fold}" / name).read_bytes()


def test_a_study_keeps_to_its_images(tmp_path, run):
    """With one image more all folds would be others."""
    plant(tmp_path / "images", {"cat": 20, "dog": 20})
    config = replace(run, data=DataConfig(name="folder", root=str(tmp_path / "images"), img_size=8))
    study = KStudy(config, tmp_path / "study", folds=2)
    (tmp_path / "study").mkdir()
    study.begin(load_data(config.data, config.model))
    study.begin(load_data(config.data, config.model))
    plant(tmp_path / "more", {"cat": 1})
    (tmp_path / "more" / "cat" / "00.png").rename(tmp_path / "images" / "cat" / "new.png")
    with pytest.raises(ValueError, match=r"it was started with images = '3\d training image files, .*; use that again"):
        study.begin(load_data(config.data, config.model))


def test_each_run_is_a_run_directory(whole, tmp_path):
    path = whole / "k-2" / "fold-1"
    assert read_run(path).config.motivation.k == 2
    assert draw_run(path, tmp_path / "run.png").stat().st_size > 10_000


def test_folds_are_parts_of_the_training_images_alone(run):
    images = load_data(run.data, run.model)
    stored = images.train.dataset.samples
    folds = [images.fold(number, 5) for number in range(5)]
    for fold in folds:
        kept, held_out = fold.train.dataset.samples, fold.test.dataset.samples
        assert sorted([*kept, *held_out]) == sorted(stored), "the test images are not used"
        shares = Counter(label for _, label in held_out)
        for label, count in Counter(images.train_labels).items():
            assert abs(shares[label] - count / 5) < 1
    assert sorted(sample for fold in folds for sample in fold.test.dataset.samples) == sorted(stored)


@pytest.mark.parametrize(
    ("of", "method"), [(TrainStep, "__call__"), (Trainer, "evaluate"), (exports, "export_network")]
)
def test_an_interrupted_study_goes_on_and_repeats_nothing(of, method, run, whole, part, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    finished = contents(part)
    monkeypatch.setattr(of, method, interrupted)
    with pytest.raises(KeyboardInterrupt):
        tune_k(run, KS, part, folds=FOLDS)
    monkeypatch.undo()
    assert (part / "k-1" / "fold-2" / "steps.csv").exists(), "it was interrupted in this run"
    assert not (part / "tune-k.md").exists()

    fitted, fit = [], Trainer.fit
    monkeypatch.setattr(Trainer, "fit", lambda trainer: fitted.append(trainer.config.run_dir) or fit(trainer))
    threads = torch.get_num_threads()
    results = tune_k(run, KS, part, folds=FOLDS)
    assert torch.get_num_threads() == threads
    assert fitted == [str(part / "k-1" / "fold-2"), str(part / "k-2" / "fold-2")]
    assert [(result.k, result.fold) for result in results] == sorted(RUNS)
    assert contents(part).items() >= finished.items()
    assert_same_study(part, whole)


def test_a_finished_study_is_only_reported_again(run, whole, tmp_path, monkeypatch):
    folder = tmp_path / "study"
    shutil.copytree(whole, folder)
    before = contents(folder)
    monkeypatch.delattr(Trainer, "fit")
    assert len(tune_k(replace(run, run_dir="elsewhere"), [2], folder, folds=FOLDS)) == len(RUNS)
    assert {path: data for path, (data, _) in contents(folder).items()} == {p: data for p, (data, _) in before.items()}


def test_values_of_k_can_be_added_later(run, whole, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "k-1")
    assert {result.k for result in tune_k(run, [2], folder, folds=FOLDS)} == {2}
    tune_k(run, [1], folder, folds=FOLDS)
    assert_same_study(folder, whole)


def tune_side_by_side(arguments, folder, start_method, errors):
    """Tune k as a command that a shell starts would: in a process group of its own, with `errors` as standard error."""
    os.setsid()
    os.dup2(errors.fileno(), sys.stderr.fileno())
    errors.close()
    if start_method == "forkserver":
        fork_server()
    run_processes.START_METHOD = start_method
    tune_k(parse_with_recipe(arguments, needs_k=True), KS, folder, folds=FOLDS, jobs=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("whom", "after", "start_method", "jobs"),
    [("all", "steps.csv", "forkserver", 2), ("the first", "fold.json", "spawn", 1)],
)
def test_processes_side_by_side(whom, after, start_method, jobs, run, arguments, whole, tmp_path, monkeypatch):
    """They leave what one process leaves, and none of them outlives a Ctrl-C, or the first if that is killed."""
    folder = tmp_path / "study"
    context = fork_server()
    reader, errors = context.Pipe(duplex=False)
    first = context.Process(target=tune_side_by_side, args=(arguments, folder, start_method, errors))
    first.start()
    errors.close()
    while not any(folder.glob(f"k-*/fold-*/{after}")) and first.is_alive():
        time.sleep(0.05)
    with suppress(ProcessLookupError):
        os.killpg(first.pid, signal.SIGINT) if whom == "all" else first.kill()
    # this waits for all of them: they have the pipe in common
    read = subprocess.run(["cat"], stdin=reader, capture_output=True, text=True, timeout=300, check=True)
    assert read.stdout.count("Traceback") <= (whom == "all"), read.stdout  # none where it ended before the signal came
    monkeypatch.setattr(run_processes, "START_METHOD", "forkserver")
    tune_k(run, KS, folder, folds=FOLDS, jobs=jobs)
    assert_same_study(folder, whole)


@pytest.mark.parametrize(
    ("overrides", "arguments", "message"),
    [
        ([], {"ks": []}, r"k = \[\]: it must be at least one value to try"),
        ([], {"ks": [2, 0]}, "k = 0: it must be a whole number of at least 1"),
        ([], {"ks": [1.5]}, "k = 1.5: it must be a whole number of at least 1"),
        ([], {"ks": [1, 2, 1]}, r"k = \[1, 2, 1\]: it must be values that differ; leave out the repeated ones"),
        ([], {"folds": 1}, "folds = 1: it must be a whole number of at least 2; the paper has 5"),
        ([], {"folds": 200}, "folds = 200: class '8' has only 139 training images; take fewer folds"),
        ([], {"jobs": 0}, "jobs = 0: it must be a whole number of at least 1"),
        (
            ["--motivation.name", "periodic"],
            {},
            "motivation.name = 'periodic': it must be a condition that has a k: loss_decrease, ema_decrease, "
            "held_out_loss_decrease, gradient_norm_increase",
        ),
        (["--motivation.name", "always"], {}, "motivation.name = 'always': it must be a condition that has a k"),
        (["--finish_epochs", "1"], {}, "finish_epochs = 1: it must be 0, because no condition chooses in them"),
        (["--model.motivated", "resnet50"], {}, "does not fit inside motivated = 'resnet50'"),
        (["--data.batch_size", "1000"], {}, "data.batch_size = 1000: there are only 718 training images"),
    ],
)
def test_what_is_wrong_is_found_before_anything_is_trained(overrides, arguments, message, tmp_path):
    options = {"ks": [1, 2], "folder": tmp_path / "study", "folds": 2} | arguments
    with pytest.raises(ValueError, match=message) as error:
        tune_k(parse_with_recipe([*QUICK, *overrides], needs_k=True), **options)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("overrides", "folds", "differences"),
    [
        (["--epochs", "3", "--optimizer.lr", "0.2"], 2, "optimizer.lr = 0.1 (now 0.2), epochs = 1 (now 3)"),
        (["--seed", "1"], 2, "seed = 0 (now 1)"),
        ([], 3, "folds = 2 (now 3)"),
    ],
)
def test_a_folder_is_of_one_configuration(overrides, folds, differences, arguments, whole):
    before = contents(whole)
    with pytest.raises(ValueError, match="it was started with") as error:
        tune_k(parse_with_recipe([*arguments, *overrides], needs_k=True), KS, whole, folds=folds)
    name = f"folder = {str(whole)!r}"
    assert str(error.value) == f"{name}: it was started with {differences}; use that again, or name another folder"
    assert contents(whole) == before


def test_folders_that_cannot_be_used(run, tmp_path):
    (tmp_path / "letter.txt").write_text("not a study")
    with pytest.raises(ValueError, match="it holds something else; name another folder, or remove this one"):
        tune_k(run, KS, tmp_path, folds=FOLDS)
    with pytest.raises(ValueError, match="is a file; name a folder"):
        tune_k(run, KS, tmp_path / "letter.txt" / "study", folds=FOLDS)


RESULT = "k-1/fold-1/fold.json"
REMEDY = "remove it, and the same command trains this run again"
DAMAGE = {
    "an empty result": (RESULT, "", f"it is not JSON \\(.*\\); {REMEDY}"),
    "a result cut short": (RESULT, '{"k": 1, "fold"', f"it is not JSON \\(.*\\); {REMEDY}"),
    "a list": (RESULT, "[1]", rf"it holds \[1\] in place of fields; {REMEDY}"),
    "no fields": (RESULT, "{}", f"it has no k; {REMEDY}"),
    "an accuracy of 500 %": (RESULT, ("base_top1", 500), f"base_top1 is 500, and must be a number from 0 to 100; {REMEDY}"),
    "a text": (RESULT, ("seconds", "long"), f"seconds is 'long', and must be a finite number of at least 0; {REMEDY}"),
    "a field of another version": (RESULT, ("top5", 1), f"it has a field 'top5', which nestnet does not write; {REMEDY}"),
    "of another run": (RESULT, ("k", 2), f"it is of fold 1 of 2 with k = 2; {REMEDY}"),
    "a FIFO": (RESULT, None, f"it is a FIFO, not a file; {REMEDY}"),
    "an empty record": ("tune-k.yaml", "", "it holds None in place of fields; put back a copy of it, or name another folder"),
    "a record cut short": ("tune-k.yaml", "folds: 2\nmodel.ba", "it is not YAML|it holds|; put back a copy of it, or name"),
    "another record": ("tune-k.yaml", "a: 1\n", "it has a field 'a', which nestnet does not write; put back a copy of it"),
    "code": ("tune-k.yaml", "folds: !!python/object/apply:os.getpid []\n", "it is not YAML .*; put back a copy of it"),
    "a record that is a FIFO": ("tune-k.yaml", None, "it is a FIFO, not a file; put back a copy of it"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_study_is_one_line_and_nothing_is_trained(kind, run, part, monkeypatch):
    name, content, message = DAMAGE[kind]
    path = part / name
    if content is None:
        path.unlink()
        os.mkfifo(path)
    elif isinstance(content, str):
        path.write_text(content)
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | dict([content])))
    before = contents(part)
    monkeypatch.delattr(Trainer, "fit")
    with pytest.raises(ValueError, match=f"^{path} (is damaged|cannot be read): .*({message})") as caught:
        tune_k(run, KS, part, folds=FOLDS)
    assert "\n" not in str(caught.value)
    assert contents(part) == before


def test_copies_within_a_study_are_no_runs_and_stay(run, whole, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(whole, folder)
    for name in ("k-1/fold-1 (copy)", "k-01/fold-1", "k-x/fold-1"):
        shutil.copytree(folder / "k-1" / "fold-1", folder / name)
    assert [(result.k, result.fold) for result in tune_k(run, KS, folder, folds=FOLDS)] == sorted(RUNS)
    (folder / "k-2" / "fold-2" / "fold.json").unlink()
    (folder / "k-2" / "fold-2" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"k-2/fold-2/mine.txt is in the folder of a run that is to start again"):
        tune_k(run, KS, folder, folds=FOLDS)
    assert (folder / "k-2" / "fold-2" / "mine.txt").read_text() == "mine"


def test_on_a_full_disk_the_older_report_stays(arguments, whole, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "study"
    shutil.copytree(whole, folder)
    before = {path: data for path, (data, _) in contents(folder).items()}

    def full(*arguments):
        raise OSError(28, "No space left on device")

    command = ["tune-k", *arguments, "--k", "1", "2", "--folds", str(FOLDS), "--output", str(folder)]
    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "write", full)
        patch.setattr("nestnet.tuning.study.Lock", lambda *_: SimpleNamespace(close=lambda: None))  # which writes, too
        assert main(command) == 2
    error = capsys.readouterr().err
    assert error == f"nestnet tune-k: error: {folder / 'tune-k.csv'} cannot be written: No space left on device\n"
    assert {path: data for path, (data, _) in contents(folder).items()} == before


def test_a_loss_that_is_not_finite_names_its_run(arguments, tmp_path):
    with pytest.raises(FloatingPointError, match=r"^k = 1, fold 1: the loss is "):
        tune_k(
            parse_with_recipe([*arguments, "--optimizer.lr", "1e30"], needs_k=True), KS, tmp_path / "study", folds=FOLDS
        )


# The report, of made-up results


def result(k: int, fold: int, base: float, motivated: float, *, expected: float | None = 0.5) -> FoldResult:
    return FoldResult(k, fold, base, motivated, 0.25, expected, 1000 + 100 / k, 1000, 1600, 1.5)


RESULTS = [
    *(
        result(1, fold, base, motivated)
        for fold, base, motivated in ((1, 90.0, 95.0), (2, 92.0, 97.0), (3, 94.0, 96.0))
    ),
    *(
        result(2, fold, base, motivated)
        for fold, base, motivated in ((1, 94.0, 93.0), (2, 92.0, 93.0), (3, 90.0, 93.0))
    ),
    *(
        result(5, fold, base, motivated, expected=None)
        for fold, base, motivated in ((1, 80, 70), (2, 80, 70), (3, 80, 70))
    ),
]


def test_the_table():
    assert render_markdown(summarize_by_k(RESULTS)) == (
        "|  k |    base top-1, % | motivated top-1, % | motivated batches, % | expected, % | cost / base alone |\n"
        "| -: | ---------------: | -----------------: | -------------------: | ----------: | ----------------: |\n"
        "|  1 |     92.00 ± 2.00 |   **96.00 ± 1.00** |                25.00 |       50.00 |             1.100 |\n"
        "|  2 | **92.00 ± 2.00** |       93.00 ± 0.00 |                25.00 |       50.00 |             1.050 |\n"
        "|  5 |     80.00 ± 0.00 |       70.00 ± 0.00 |                25.00 |             |             1.020 |\n"
        "\n"
        "Best: k = 2 for the base, k = 1 for the motivated. "
        "Mean and standard deviation over 3 folds of the training images.\n"
    )


def test_the_best_k_is_the_cheapest_of_equal_ones():
    summaries = summarize_by_k(RESULTS)
    assert [find_best(summaries, mode).k for mode in Mode] == [2, 1]


def test_the_files(tmp_path):
    text = write_study_report(RESULTS, tmp_path)
    assert (tmp_path / "tune-k.md").read_text() == text
    with (tmp_path / "tune-k.csv").open(newline="") as file:
        first, second, last = csv.DictReader(file)
    assert first | {"base_top1": "92", "base_std": "2", "motivated_top1": "96", "motivated_std": "1"} == first
    assert (first["relative_cost"], first["expected_cost"], last["expected_cost"]) == ("1.1", "1.3", "")
    assert [(row["best_base"], row["best_motivated"]) for row in (first, second, last)] == [
        ("0", "1"),
        ("1", "0"),
        ("0", "0"),
    ]
    with (tmp_path / "tune-k-folds.csv").open(newline="") as file:
        assert [row["seconds"] for row in csv.DictReader(file)] == ["1.5"] * 9
    assert (tmp_path / "tune-k.png").stat().st_size > 10_000


def test_the_figure():
    *subnets, cost = plot_summaries(summarize_by_k(RESULTS)).axes
    assert [axes.get_title() for axes in subnets] == ["base: best at k = 2", "motivated: best at k = 1"]
    assert [list(axes.containers[0].lines[0].get_ydata()) for axes in subnets] == [[92, 92, 80], [96, 93, 70]]
    measured, expected = cost.get_lines()
    assert list(measured.get_ydata()) == pytest.approx([1.1, 1.05, 1.02])
    assert list(expected.get_xdata()) == [1, 2]
