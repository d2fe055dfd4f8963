"""The study: its arithmetic against hand counts; runs that fail, are stopped, or are trained elsewhere; and a tiny one."""

import doctest
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from in_process import start_nestnet
from PIL import Image
from test_benchmarks import BENCHMARKS

from nestnet.config.parsing import parse
from nestnet.config.validation import validate
from nestnet.cost.network import forward_cost


@pytest.fixture
def program(monkeypatch):
    """Imports a program."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def test_examples(program):
    for name in ("study_numbers", "study_report", "study_results"):
        assert doctest.testmod(program(name)).failed == 0


# The arithmetic


def made_up_row(way, epochs, seed, cost, *, networks=("base", "motivated"), motivated_batches=40, **top1):
    return {
        "way": way,
        "title": way,
        "networks": list(networks),
        "overrides": "",
        "epochs": epochs,
        "seed": seed,
        "top1": {"base": 10.0, "motivated": 10.0, **top1},
        "batches": {"base": 100, "both": motivated_batches},
        "cost": cost,
        "agreement": 0.9,
        "train_images": 50_000,
        "precision": "bfloat16",
    }


def made_up(*nested):
    """A results file with both controls at 10 and 20 epochs, two seeds each; the motivated network costs 3."""
    rows = []
    for epochs, base, motivated in ((10, 60.0, 70.0), (20, 70.0, 80.0)):
        for seed in (0, 1):
            rows.append(made_up_row("base_alone", epochs, seed, 1.0, networks=["base"], base=base + 2 * seed))
            alone = made_up_row(
                "motivated_alone", epochs, seed, 3.0, networks=["motivated"], motivated=motivated + 2 * seed
            )
            rows.append(alone)
    return {
        "date": "2026-11-26",
        "hardware": {"processor": "a processor", "accelerator": None},
        "pair": ["resnet8", "resnet20"],
        "runs": [*rows, *nested],
        "separate_agreement": [{"epochs": 10, "seed": 0, "agreement": 0.8}],
    }


@pytest.fixture
def headline(program):
    """The headline of the one nested way of a results file."""

    def headline(document):
        headlines = program("study_headlines").Study(document).headlines()
        (nested,) = (line for line in headlines if not line.is_alone)
        return nested

    return headline


def test_base_gain_and_gap_closed(headline):
    found = headline(
        made_up(
            made_up_row("both", 10, 0, 2.0, base=61.0, motivated=67.0, motivated_batches=40),
            made_up_row("both", 10, 1, 2.2, base=65.0, motivated=71.0, motivated_batches=60),
            made_up_row("both", 10, 2, 2.4, base=99.0, motivated=99.0, motivated_batches=80),
        )
    )
    assert found.base_gain.values == (1, 3), "seed 2 has no control"
    assert (found.base_gain.mean, found.base_gain.sd, found.base_gain.standard_error) == pytest.approx((2, 2**0.5, 1))
    assert found.gap_closed.values == pytest.approx((0.7, 0.9))
    assert found.gap_closed.standard_error == pytest.approx(0.1)
    assert found.cost.values == (2, 2.2, 2.4)
    assert found.motivated_batches.mean == 60
    assert found.top1["base"].n == 3
    assert (found.agreement.mean, found.separate_agreement.mean) == pytest.approx((0.9, 0.8))


@pytest.mark.parametrize(
    ("base", "motivated", "cost_of_base", "cost_of_motivated", "bound"),
    [
        (66, 76, 10 * 2**0.5, 30 * 2**0.5, ""),  # half-way between the means 61 and 71, or 71 and 81
        (61, 81, 10, 60, ""),
        (63, 69, 10 * 2**0.2, 30, "<"),
        (75, 76, 20, 30 * 2**0.5, ">"),
        (75, 82, 20, 60, ">"),
        (75, 69, 20, 30, "?"),
    ],
)
def test_saving_at_parity(headline, base, motivated, cost_of_base, cost_of_motivated, bound):
    rows = [made_up_row("both", 20, seed, 1.25, base=base, motivated=motivated) for seed in (0, 1)]
    found = headline(made_up(*rows))
    epochs_alone = {network: epochs.value for network, epochs in found.epochs_alone.items()}
    assert epochs_alone == pytest.approx({"base": cost_of_base, "motivated": cost_of_motivated / 3})
    assert found.separate.value == pytest.approx((cost_of_base + cost_of_motivated) / 20)
    assert found.saving.value == pytest.approx((cost_of_base + cost_of_motivated) / 20 / 1.25)
    assert found.separate.bound == found.saving.bound == bound
    # Within their seeds, both runs differ by 1 from the mean; at the ends of the curves one of them lies beyond.
    if (base, motivated) == (66, 76):
        assert found.savings.values == pytest.approx((40 * 2**0.6 / 25, 40 * 2**0.4 / 25))
    else:
        assert found.savings is None


def test_accuracies_are_compared_within_a_seed(headline):
    """The controls are 2 points better with seed 1, and so are the nested runs: that is no spread of the saving."""
    rows = [made_up_row("both", 20, seed, 1.25, base=65.0 + 2 * seed, motivated=75.0 + 2 * seed) for seed in (0, 1)]
    found = headline(made_up(*rows))
    assert found.savings.values == pytest.approx([40 * 2**0.5 / 25] * 2)
    # Its costs spread it, however.
    rows[1]["cost"] = 2.5
    assert headline(made_up(*rows)).savings.values == pytest.approx([40 * 2**0.5 / 25, 40 * 2**0.5 / 50])


@given(seeds=st.sets(st.integers(0, 5), min_size=1), shifts=st.lists(st.floats(-1, 1), min_size=6, max_size=6))
def test_a_base_as_good_as_alone_is_so_after_as_many_epochs(seeds, shifts):
    """Whatever the seeds of other lengths: the 10-epoch controls have two seeds, those of 20 epochs all."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        study_headlines = importlib.import_module("study_headlines")
    finally:
        sys.path.remove(str(BENCHMARKS))
    rows = []
    for seed, shift in enumerate(shifts):
        rows.append(made_up_row("base_alone", 20, seed, 1.0, networks=["base"], base=70 + shift))
        rows.append(made_up_row("motivated_alone", 20, seed, 3.0, networks=["motivated"], motivated=80 + shift))
        if seed < 2:
            rows.append(made_up_row("base_alone", 10, seed, 1.0, networks=["base"], base=60 + shift))
            rows.append(made_up_row("motivated_alone", 10, seed, 3.0, networks=["motivated"], motivated=70 + shift))
    for seed in seeds:
        rows.append(made_up_row("both", 20, seed, 2.0, base=70 + shifts[seed], motivated=75 + shifts[seed]))
    (found,) = (line for line in study_headlines.Study(made_up() | {"runs": rows}).headlines() if not line.is_alone)
    epochs_alone = {network: epochs.value for network, epochs in found.epochs_alone.items()}
    assert epochs_alone == pytest.approx({"base": 20, "motivated": 10 * 2**0.5})
    assert found.gap_closed.values == pytest.approx([0.5] * len(seeds))


def test_a_small_gap_of_one_seed_does_not_decide(program):
    """A ratio of means: seed 1 has hardly a gap, and closed six times as much."""
    estimate_ratio = program("study_numbers").estimate_ratio
    found = estimate_ratio([0.7, 0.3, 0.5], [1.4, 0.05, 1.1])
    assert found.mean == pytest.approx(1.5 / 2.55)
    left_out = [
        estimate_ratio(*two).mean
        for two in (([0.3, 0.5], [0.05, 1.1]), ([0.7, 0.5], [1.4, 1.1]), ([0.7, 0.3], [1.4, 0.05]))
    ]
    jackknife = (2 / 3 * sum((ratio - sum(left_out) / 3) ** 2 for ratio in left_out)) ** 0.5
    assert found.standard_error == pytest.approx(jackknife, rel=0.5), "both estimate the same error"
    assert estimate_ratio([0.5], [-0.1]) is None
    assert estimate_ratio([], []) is None


@pytest.mark.parametrize(
    ("value", "bound", "reaches"),
    [
        (1.5, "", True),
        (1.4, "", False),
        (1.6, ">", True),
        (1.4, ">", None),
        (1.6, "<", None),
        (1.4, "<", False),
        (1.6, "?", None),
    ],
)
def test_a_bound_that_does_not_tell(program, value, bound, reaches):
    assert program("study_numbers").Bounded(value, bound).reaches(1.5) is reaches


@given(
    points=st.lists(st.floats(10, 90), min_size=1, max_size=5),
    targets=st.tuples(st.floats(5, 95), st.floats(5, 95)).map(sorted),
)
def test_more_accurate_costs_no_less(points, targets):
    sys.path.insert(0, str(BENCHMARKS))
    try:
        curve = importlib.import_module("study_numbers").Curve(
            tuple((5.0 * 2**number, top1) for number, top1 in enumerate(points))
        )
    finally:
        sys.path.remove(str(BENCHMARKS))
    less, more = (curve.cost_of(target) for target in targets)
    assert less.value <= more.value * (1 + 1e-9)
    assert (more.bound == ">") == (targets[1] > max(points))
    assert (less.bound == "<") == (targets[0] < points[0])


def test_a_longer_run_that_is_worse_is_not_used(program):
    curve = program("study_numbers").Curve(((10, 60), (20, 55), (40, 70)))
    assert curve.cost_of(65).value == pytest.approx(20 * 2**0.5)
    assert curve.cost_of(60).value == 10


def write(path, document):
    path.write_text(json.dumps(document))
    return path


def test_report_of_one_that_reaches_the_aim(program, tmp_path):
    rows = [made_up_row("both", 20, seed, 1.25, base=73.0 + seed, motivated=79.0) for seed in (0, 1)]
    near = [made_up_row("near", 20, seed, 2.0, base=73.0 + seed, motivated=76.0) for seed in (0, 1)]
    result = write(tmp_path / "study-x.json", made_up(*rows, *near))
    text = program("study_report").write_report(result)
    assert "The aim is reached by both at 20 epochs." in text
    assert "resnet20 costs 3.00 times as much as resnet8, and two separate runs of the same length cost 4.00." in text
    assert "If the base cost nothing, and both were as good as they are alone, the saving would be 1.33." in text
    assert "- near, 20 epochs: base gain 2.50 ± 0.50 (reached), gap closed 50.0 % (20.00 points short)" in text
    assert (
        "- both at 20 epochs (n = 2) closes 80 ± 10 % of the gap, gains 2.50 ± 0.50 points for the base and costs 1.25 times "
        "as much as the base alone. Alone, the base is as good after more than 20.0 epochs, and the motivated network after "
        "17.4: two separate runs that are as good cost more than 3.61, which is more than 2.89 times the cost of this run."
    ) in text
    assert text.index("- both, 20 epochs") < text.index("- near, 20 epochs"), "the nearest first"
    worse = [made_up_row("worse", 20, seed, 2.0, base=60.0 + 2 * seed, motivated=69.0 + 2 * seed) for seed in (0, 1)]
    text = program("study_report").write_report(write(result, made_up(*near, *worse)))
    assert "No way reaches the aim." in text
    assert (
        "- worse, 20 epochs: base gain -10.00 ± 0.00 (a loss), gap closed -10.0 % (80.00 points short), saving <1.00 "
        "(at least 0.50 short)."
    ) in text
    assert (
        "- worse at 20 epochs (n = 2) closes none of the gap (-10 ± 0 %), loses 10.00 ± 0.00 points for the base"
        in text
    )
    text = program("study_report").write_report(write(result, made_up(*rows, *near)))
    assert text == result.with_suffix(".md").read_text()
    for name in ("study-x.png", "study-x-updates.png"):
        with Image.open(tmp_path / name) as figure:
            assert figure.width > 800


def test_report_of_an_incomplete_study(program, tmp_path):
    document = made_up(made_up_row("both", 10, 0, 2.0, base=61.0, motivated=67.0))
    document["runs"] = [row for row in document["runs"] if row["way"] != "motivated_alone"]
    text = program("study_report").write_report(write(tmp_path / "study-x.json", document))
    assert "Not known yet: both at 10 epochs." in text
    assert "No way reaches the aim." not in text
    assert "base gain 1.00 (no spread yet), gap closed: not known, saving: not known" in text
    assert "both, 10 epochs: motivated_alone of the same length has no run with seed 0." in text
    assert "Without controls the cost of two separate runs is not known" in text
    assert "motivated_alone is missing." in text
    assert "- One seed, and so no spread: both at 10 epochs." in text
    document["runs"] = []
    assert "No nested run is finished." in program("study_report").write_report(
        write(tmp_path / "study-y.json", document)
    )


def test_a_base_that_stays_as_it_is(program, tmp_path):
    rows = [
        made_up_row("extended", epochs, 0, 1.5, base=base, motivated=75.0) for epochs, base in ((10, 60.0), (20, 70.0))
    ]
    text = program("study_report").write_report(write(tmp_path / "study-x.json", made_up(*rows)))
    assert "- extended at 20 epochs (n = 1) closes 50 % of the gap, leaves the base as it is alone and costs" in text
    assert "- One seed, and so no spread: extended at 10 and 20 epochs." in text


def test_a_network_alone_with_another_start_is_in_the_table_and_is_not_judged(program, tmp_path):
    row = made_up_row("base_alone_other", 10, 0, 1.0, networks=["base"], base=58.0)
    text = program("study_report").write_report(write(tmp_path / "study-x.json", made_up(row)))
    assert "| base_alone_other " in text
    assert "No nested run is finished." in text
    assert "- base_alone_other" not in text


# Runs that fail, are stopped, or are trained elsewhere

FAKE = """
import pathlib, signal, sys, time
verb, arguments = sys.argv[1], sys.argv[2:]
folder = pathlib.Path(arguments[0] if verb == "resume" else arguments[arguments.index("--run_dir") + 1])
def stop(number, frame):
    print("stopped after a checkpoint")
    sys.exit(128 + number)
signal.signal(signal.SIGTERM, stop)
print(verb)
folder.mkdir(exist_ok=True)
(folder / "config.yaml").write_text("")
if "seed7" in folder.name:
    sys.exit("nestnet train: error: no such luck")
if "seed9" in folder.name and verb == "train":
    time.sleep(60)
(folder / "motivated.safetensors").write_text("")
"""
"""Stands in for nestnet: seed 7 fails, and seed 9 takes a minute unless it is resumed."""


@pytest.fixture
def study_runs(program, monkeypatch, tmp_path):
    (tmp_path / "fake.py").write_text(FAKE)
    module = program("study_runs")
    monkeypatch.setattr(module, "NESTNET", [sys.executable, str(tmp_path / "fake.py")])
    monkeypatch.setattr(program("study_runner"), "POLL", 0.02)
    return module


@pytest.fixture
def train(program, study_runs, tmp_path):
    """Trains runs with some seeds; gives the seeds that were finished, in order, those left, and the runner."""

    def train(*seeds, jobs=1, seconds=60, on_finished=lambda seed: None):
        training = study_runs.Training("resnet8", "resnet20", tmp_path, "cpu", "float32")
        finished = []

        def finish(run):
            finished.append(run.seed)
            on_finished(run.seed)

        runner = program("study_runner").Runner(training, jobs, seconds, finish)
        left = runner.train([make_run(study_runs, tmp_path, seed) for seed in seeds])
        return SimpleNamespace(finished=finished, left=[run.seed for run in left], runner=runner)

    return train


def make_run(study_runs, folder, seed):
    way = study_runs.Way("both", "both", ("--motivation.trains", "both"))
    return study_runs.StudyRun(way, 20, seed, folder / "runs")


def test_runs_train_in_their_order_once(train, study_runs, tmp_path):
    first = train(2, 0, 1)
    assert (first.finished, first.left, first.runner.failed) == ([2, 0, 1], [], {})
    run = make_run(study_runs, tmp_path, 2)
    assert run.path.name == "both-20epochs-seed2"
    assert run.log.read_text() == "train\n"
    (session,) = study_runs.read_sessions(run)
    assert session["command"].endswith("--channels_last true --model.zero_init_last false --motivation.trains both")
    assert train(2, 0, 1).finished == [2, 0, 1]
    assert run.log.read_text() == "train\n", "a finished run is not trained again"


def test_a_run_that_fails_is_named_and_the_others_go_on(train, capsys):
    found = train(7, 0, jobs=2)
    assert (found.finished, found.left) == ([0], [])
    assert [run.seed for run in found.runner.failed] == [7]
    assert "both, 20 epochs, seed 7: failed: nestnet train: error: no such luck" in capsys.readouterr().out


def test_a_run_that_cannot_be_measured_is_named_and_the_others_go_on(train):
    def measure(seed):
        if seed == 0:
            raise ValueError("base.safetensors is damaged")

    found = train(0, 1, on_finished=measure)
    assert found.finished == [0, 1]
    assert list(found.runner.failed.values()) == ["base.safetensors is damaged"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_runs_and_the_next_call_resumes_them(train, study_runs, tmp_path, number):
    before = signal.getsignal(number)
    unfinished = make_run(study_runs, tmp_path, 9)

    def stop(seed):
        while not unfinished.is_started:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    stopped = train(9, 0, 1, jobs=2, on_finished=stop)
    assert (stopped.finished, stopped.left, stopped.runner.signal) == ([0], [9, 1], number)
    assert signal.getsignal(number) is before
    assert unfinished.log.read_text() == "train\nstopped after a checkpoint\n"
    assert train(9, 0, 1).finished == [9, 0, 1]
    assert unfinished.log.read_text().endswith("resume\n")


def test_the_runs_end_when_the_time_is_over(train):
    found = train(9, 0, seconds=0.5)
    assert (found.finished, found.left, found.runner.failed) == ([], [9, 0], {})


def test_a_run_that_another_process_trains_comes_last(train, study_runs, tmp_path, capsys):
    run = make_run(study_runs, tmp_path, 0)
    run.path.mkdir(parents=True)
    (run.path / "config.yaml").write_text("")
    code = (
        "import fcntl, sys\n"
        "file = open(sys.argv[1], 'w')\n"
        "fcntl.lockf(file, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(run.path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()

        def release(seed):
            if seed == 1:
                other.stdin.close()

        assert train(0, 1, on_finished=release).finished == [1, 0]
    assert run.log.read_text() == "resume\n"
    assert "seed 0: another process trains it" in capsys.readouterr().out


# The plan, and a tiny study


def test_plan(program, tmp_path):
    study = program("study")
    runs = study.list_runs(study.PLAN, list(study.ALL), tmp_path)
    assert len(set(runs)) == len(runs)
    controls = [run.way.name for run in runs[:2]]
    assert controls == ["base_alone", "motivated_alone"]
    seeds = {}
    for run in runs:
        if run.epochs == study.MAIN_EPOCHS:
            seeds.setdefault(run.way, set()).add(run.seed)
    assert set(seeds) == set(study.WAYS)
    nested = [way for way in seeds if len(way.networks) == 2]
    assert sum(seeds[way] == {0, 1, 2} for way in nested) >= 8
    assert all(0 in found for found in seeds.values())
    assert {run.way.name for run in study.list_runs(study.PLAN, ["finish"], tmp_path)} == {"finish"}


def test_nestnet_takes_the_arguments_of_each_way(program, tmp_path):
    study, training = (
        program("study"),
        program("study_runs").Training("resnet8", "resnet20", tmp_path, "cpu", "float32"),
    )
    for way in study.WAYS:
        command = training.command(program("study_runs").StudyRun(way, 20, 0, tmp_path))
        config = parse(command[command.index("train") + 1 :])
        validate(config)
        assert (config.model.motivated, config.epochs) == ("resnet20", 20)


@pytest.fixture
def run_study(program, monkeypatch, capsys):
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)  # it would also hold for the tests that follow

    def run_study(*arguments):
        monkeypatch.setattr(sys, "argv", ["study.py", *map(str, arguments)])
        program("study").main()
        return capsys.readouterr().out

    return run_study


NEVER = "--motivation.name never"


def test_show_the_plan(run_study, tmp_path):
    (tmp_path / "images" / "train").mkdir(parents=True)
    finished = tmp_path / "runs" / "resnet8-resnet20" / "base_alone-5epochs-seed0"
    finished.mkdir(parents=True)
    (finished / "motivated.safetensors").touch()
    results = tmp_path / "x.json"
    write(
        results,
        {
            "pair": ["resnet8", "resnet20"],
            "runs": [{**made_up_row("base_alone", 5, 1, 1.0), "overrides": NEVER}],
            "separate_agreement": [],
        },
    )
    arguments = ["--root", tmp_path / "images", "--runs", tmp_path / "runs", "--output", results, "--plan"]
    printed = run_study(*arguments, "--ways", "base_alone", "--epochs", 5, "--seeds", 0, 1, 2)
    states = [line.split("|")[-2].strip() for line in printed.splitlines() if line.startswith("| base_alone")]
    assert states == ["finished, not measured", "in the results", "to do"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--root: name the folder"),
        (["--root", "nowhere"], "--root nowhere: there is no folder train/"),
        (["--root", ".", "--pair", "resnet8"], "--pair resnet8: give two networks"),
        (["--root", ".", "--jobs", "0"], "--jobs 0: it must be at least 1"),
        (
            ["--root", ".", "--optimizer.lr", "0.05", "--runs", "x"],
            "--optimizer.lr 0.05: runs with further arguments need",
        ),
        (["--root", ".", "--optimizer.lr", "0.05", "--output", "x"], "need --runs and --output of their own"),
        (["--quick", "--pair", "resnet8:resnet14"], "--pair: --quick has its own; leave either out"),
        (["--quick", "--runs", "x"], "--runs: --quick has its own"),
        (["--quick", "--output", "exists.json"], "--output exists.json: it exists, and --quick begins a new file"),
        (["--root", ".", "--runs", "x", "--output", "y", "--minute", "5"], "seed 0: --minute is not an option"),
        (["--root", ".", "--pair", "resnet8:resnet9"], "seed 0: model.motivated = 'resnet9'"),
        (
            ["--root", ".", "--output", "exists.json"],
            "its runs of finish were trained with `--finish_epochs 7`, and yours",
        ),
    ],
)
def test_mistakes_are_refused(run_study, capsys, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train").mkdir()
    row = {**made_up_row("finish", 20, 0, 1.5), "overrides": "--finish_epochs 7"}
    write(tmp_path / "exists.json", {"pair": ["resnet8", "resnet20"], "runs": [row], "separate_agreement": []})
    with pytest.raises(SystemExit) as stopped:
        run_study(*arguments)
    assert message in f"{capsys.readouterr().err}{stopped.value}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exists.json", "train"], "nothing was written"


def test_a_folder_with_another_run_is_not_measured(program, tmp_path):
    training = program("study_runs").Training("resnet8", "resnet20", tmp_path, "cpu", "float32")
    (periodic,) = (way for way in program("study").WAYS if way.name == "replace_third")
    run = program("study_runs").StudyRun(periodic, 20, 0, tmp_path)
    config = parse(training.arguments(run))
    training.check_config(run, replace(config, run_dir="moved", model=replace(config.model, num_classes=10)))
    other = replace(config, motivation=replace(config.motivation, period=7))
    with pytest.raises(ValueError, match=r"seed0 has another run: motivation\.period = 7 in place of 3; move it away"):
        training.check_config(run, other)


def test_two_programs_add_to_one_file(program, monkeypatch, tmp_path):
    training = program("study_runs").Training("resnet8", "resnet20", tmp_path, "cpu", "float32")
    study, results = program("study"), program("study_results")
    monkeypatch.setattr(results, "measure", lambda run, training, device: made_up_row(*run.key, 1.0))
    ways = [replace(way, overrides=()) for way in study.WAYS]
    runs = [program("study_runs").StudyRun(way, 20, 0, tmp_path) for way in ways[:2]]
    programs = [results.Results(training, tmp_path / "new" / "x.json", tuple(ways)) for _ in runs]
    for each, run in zip(programs, runs, strict=True):
        each.add(run)
    document = json.loads((tmp_path / "new" / "x.json").read_text())
    assert [row["way"] for row in document["runs"]] == ["base_alone", "motivated_alone"]


@pytest.mark.slow
def test_a_tiny_study(run_study, program, tmp_path, monkeypatch):
    """Its first run has a process of its own, and the others run in this one, which has imported torch already."""
    started = []
    start_process = program("study_runner").start_process

    def start(command, log, environment):
        started.append(command)
        start_this = start_process if len(started) == 1 else start_nestnet
        return start_this(command, log, environment)

    monkeypatch.setattr(program("study_runner"), "start_process", start)
    output = tmp_path / "x.json"
    printed = run_study("--quick", "--precision", "float32", "--output", output)
    assert printed.endswith(f"{output}\n")
    document = json.loads(output.read_text())
    assert len(started) == 3
    assert sum('"way"' in line for line in output.read_text().splitlines()) == 3, "a line for each run"
    base, motivated = (forward_cost(name, img_size=32, num_classes=10) for name in ("resnet8", "resnet14"))
    rows = {row["way"]: row for row in document["runs"]}
    assert rows["base_alone"]["cost"] == 1
    assert rows["motivated_alone"]["cost"] == motivated / base
    nested = rows["both_second_half"]
    counts = nested["batches"]
    assert sum(counts.values()) == nested["batches_per_epoch"] == 6
    assert nested["cost"] == (6 * base + counts.get("both", 0) * motivated) / (6 * base)
    assert nested["train_images"] == 120
    assert nested["versions"]["commits"]
    assert 0 <= nested["agreement"] <= 1
    assert len(document["separate_agreement"]) == 1
    assert "both_second_half at 1 epochs (n = 1)" in program("study_report").write_report(output)
