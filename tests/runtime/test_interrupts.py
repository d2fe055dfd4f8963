"""What ends a command from outside, anywhere in it: one line, the right exit code, and whole files.

Signals, one or many; another process that is gone; file handles that are not to be had.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from nestnet.runs.checkpoints import Checkpoints

INT = signal.SIGINT
TERM = signal.SIGTERM
KILL = signal.SIGKILL

PAIR = ["--model.base", "resnet8", "--model.motivated", "resnet8", "--data.batch_size", "256"]
TRAIN = ["train", *PAIR, "--motivation.name", "random", "--epochs", "2", "--run_dir", "{run}"]
WORKER = ["--data.loader", "files", "--data.workers", "1"]
TUNE_PAIR = [*PAIR, "--data.batch_size", "64"]
TUNE = ["tune-k", *TUNE_PAIR, "--epochs", "1", "--k", "2", "3", "--folds", "2", "--output", "{run}"]
PREDICT = ["predict", "{images}", "--model", "{whole}/base.safetensors"]

MIX = "nestnet.training.trainer:Trainer.mix_batch"
RESUME = "; `nestnet resume {run}` continues from the last checkpoint\n"
SAME = "; finished runs are kept, and the same command continues with the others\n"

SIGNALS = {
    # a command; where the signals come, and at which call of it; the signals; what the line goes on with, if that is sure
    "folder": (TRAIN, "nestnet.training.setup:load_data", 1, [INT] * 2, "\n"),
    "first batch": (
        [*TRAIN, *WORKER],
        MIX,
        1,
        [INT] * 4,
        " at step 0 (epoch 1)" + RESUME,
    ),
    "batch": (
        [*TRAIN, *WORKER],
        MIX,
        7,
        [TERM],
        " at step 7 (epoch 2)" + RESUME,
    ),
    "checkpoint": (TRAIN, "nestnet.runs.directory:RunDirectory.save_checkpoint", 2, [TERM, INT, INT], None),
    "evaluation": (TRAIN, "nestnet.training.subnet_evaluation:top1", 1, [INT] * 4, " at step 5 (epoch 1)" + RESUME),
    "first export": (TRAIN, "nestnet.training.exports:export_network", 1, [INT], " at step 10 (epoch 2)" + RESUME),
    "last export": (TRAIN, "nestnet.training.exports:export_network", 2, [INT] * 4, " at step 10 (epoch 2)" + RESUME),
    "dry run": ([*TRAIN, "--dry_run"], "nestnet.planning.measurement:measure_activations", 1, [INT, TERM], None),
    "tuning": ([*TUNE, "--jobs", "1"], MIX, 2, [INT], SAME),
    "tuning side by side": ([*TUNE, "--jobs", "2"], "nestnet.tuning.run_processes:as_completed", 1, [INT] * 4, SAME),
    "report": (["report", "{whole}", "--output", "{run}"], "nestnet.runs.reading:load_data", 1, [INT] * 4, "\n"),
    "predict": (PREDICT, "nestnet.deploy.predictor:read_image", 2, [INT] * 4, "\n"),
    "evaluate": (
        ["evaluate", "{whole}", "--mode", "base"],
        "nestnet.training.run_evaluation:predict_classes",
        1,
        [TERM],
        "\n",
    ),
}

GONE = "another process is gone (at step 2 (epoch 1))" + RESUME
TWO_PROCESSES = {
    # the ranks that come; at which call of what the first of them gets which signal; the code and the line of each
    "the first is killed": (
        [0, 1], MIX, 3, KILL,
        [(-KILL, ""), (1, "nestnet train: process 1: stopped: " + GONE)],
    ),
    "the other is killed": (
        [1, 0], MIX, 3, KILL,
        [(-KILL, ""), (1, "nestnet train: stopped: " + GONE)],
    ),
    "the other is killed before they meet": (
        [1, 0], "nestnet.training.setup:init_process_group", 1, KILL,
        [(-KILL, ""), (2, "nestnet train: error: only 1 of 2 processes have joined within 0.02 minutes at "
         "MASTER_ADDR = '127.0.0.1', MASTER_PORT = {port}; start all of them, or see why the others have ended\n")],
    ),
    "the first never comes": (
        [1], None, 1, None,
        [(2, "nestnet train: process 1: error: MASTER_ADDR = '127.0.0.1', MASTER_PORT = {port}: the first process has not "
          "answered there within 0.02 minutes (Connection refused); start it, or correct the address\n")],
    ),
    "one is asked to end while it waits": (
        [0], "nestnet.distributed.rendezvous:time.sleep", 1, TERM,
        [(128 + TERM, "nestnet train: interrupted by SIGTERM while 1 of 2 processes had not joined\n")],
    ),
}  # fmt: skip

HANDLES = {
    # a command, how many files it may have open, its code, and how its line begins
    "train": ([*TRAIN, *WORKER], 24, 2, "nestnet train: error: data.workers = 1: they take about "),
    "train resident": (
        [*TRAIN, "--data.workers", "1"],
        24,
        2,
        "nestnet train: error: data.workers = 1: they take about ",
    ),
    "tune-k": (
        [*TUNE, "--jobs", "2"],
        12,
        1,
        "nestnet tune-k: stopped: out of file handles (too many open files): run `ulimit ",
    ),
    "predict": (PREDICT, 12, 0, ""),
}

WARNING_OF_TORCH = re.compile(r"\S+: UserWarning: .*CUDA.*\n  .*\n")
"""Where there is a GPU, torch has too few handles to ask for it, and says so in two lines."""


def free_port():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        return other.getsockname()[1]


def as_torchrun(rank, port):
    places = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": 2}
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {name: str(value) for name, value in (places | meeting).items()}


def all_cases():
    """The cases of all tables, by table and name, as `forked` takes them; `{run}` is still to be filled in."""
    cases = {("whole", ""): {"arguments": [*TRAIN, "--epochs", "1", "--run_dir", "{whole}"]}}
    for name, (arguments, place, number, signals, _) in SIGNALS.items():
        cases["signals", name] = {"arguments": arguments, "place": place, "number": number, "signals": signals}
    for name, (ranks, place, number, sent, _) in TWO_PROCESSES.items():
        port = free_port()
        case = {"arguments": [*TRAIN, "--device", "cpu"], "environments": [as_torchrun(rank, port) for rank in ranks]}
        # Those that are to meet get a minute, and those that are not to, 0.02 minutes.
        seconds = 60 if name in ("the first is killed", "the other is killed") else 1.2
        case["values"] = {"nestnet.distributed.rendezvous:RENDEZVOUS_TIMEOUT": seconds}
        if place is not None:
            case |= {"place": place, "number": number, "signals": [sent]}
        cases["two", name] = case
    for name, (arguments, handles, *_) in HANDLES.items():
        cases["handles", name] = {"arguments": arguments, "handles": handles}
    return cases


class Ended(NamedTuple):
    """What came of a case: its folder, what it was, and the results of its processes."""

    run: Path
    case: dict
    results: list


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """All cases, which one program runs after one import."""
    root = tmp_path_factory.mktemp("runs")
    (root / "images").mkdir()
    for index in range(3):
        Image.new("L", (8, 8), 60 * index).save(root / "images" / f"{index}.png")
    cases, runs = all_cases(), {}
    for number, (key, case) in enumerate(cases.items()):
        runs[key] = root / str(number)
        folders = {"run": runs[key], "whole": root / "whole", "images": root / "images"}
        case["arguments"] = [argument.format(**folders) for argument in case["arguments"]]
    done = subprocess.run(
        [sys.executable, Path(__file__).parent.parent / "forked.py"],
        input=json.dumps(list(cases.values())),
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    results = dict(zip(cases, json.loads(done.stdout), strict=True))
    assert results["whole", ""][0]["code"] == 0, results["whole", ""]
    return {key: Ended(runs[key], cases[key], results[key]) for key in cases}


@pytest.mark.slow
@pytest.mark.parametrize("name", SIGNALS)
def test_signals_give_one_line_and_their_exit_code(ended, name):
    run, case, (result,) = ended["signals", name]
    _, _, _, signals, more = SIGNALS[name]
    names = {128 + number: signal.Signals(number).name for number in signals}
    assert result["code"] in names, result
    line = f"nestnet {case['arguments'][0]}: interrupted by {names[result['code']]}"
    if more is None:  # it depends on the moment of the second signal
        assert result["err"].startswith(line)
    else:
        assert result["err"] == line + more.format(run=run)
    assert result["err"].count("\n") == 1
    assert "exported" not in result["out"]
    if more != "\n" and (run / "config.yaml").exists():
        assert Checkpoints(run / "checkpoints").newest()["steps_done"] >= 0


@pytest.mark.slow
@pytest.mark.parametrize("name", TWO_PROCESSES)
def test_the_process_that_is_left_says_what_happened(ended, name):
    run, case, results = ended["two", name]
    port = case["environments"][0]["MASTER_PORT"]
    for result, (code, said) in zip(results, TWO_PROCESSES[name][-1], strict=True):
        assert (result["code"], result["err"]) == (code, said.format(run=run, port=port))
        assert result["seconds"] < 120


@pytest.mark.slow
@pytest.mark.parametrize("name", HANDLES)
def test_too_few_file_handles_are_told_in_one_line(ended, name):
    _, _, (result,) = ended["handles", name]
    _, _, code, said = HANDLES[name]
    assert result["code"] == code, result
    error = WARNING_OF_TORCH.sub("", result["err"])
    assert error.startswith(said)
    assert error.count("\n") == (code != 0)
    assert code == 0 or "`ulimit -n 4096`" in error


def catches_sigterm(process):
    """Whether a process answers SIGTERM itself, which Python by itself does not."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> (TERM - 1) & 1)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux when a process begins to answer")
def test_signals_while_torch_is_imported():
    command = [sys.executable, "-m", "nestnet", "train"]
    default = lambda: signal.signal(INT, signal.default_int_handler)  # noqa: E731
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=default)
    while not catches_sigterm(process):
        time.sleep(0.005)
    for _ in range(3):
        process.send_signal(INT)
    assert process.communicate(timeout=60)[1] == "nestnet train: interrupted by SIGINT\n"
    assert process.returncode == 128 + INT
