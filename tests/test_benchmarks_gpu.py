"""The program for a GPU: a piece of it here, what it does when a part fails or time runs out, its plan, and its table."""

import doctest
import importlib
import io
import json
import signal
import sys
import tarfile
import time

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from in_process import run_program, start_nestnet, written_to
from test_benchmarks import BENCHMARKS


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    answers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield importlib.import_module("gpu")
    for number, answer in answers.items():
        signal.signal(number, answer)


@pytest.fixture
def run(gpu, monkeypatch, tmp_path, capsys):
    """Runs the program on a CPU; gives what gpu.json says of each part, and what was printed."""

    def run(*arguments):
        monkeypatch.setattr(
            sys, "argv", ["gpu.py", "--device", "cpu", "--quick", "--output", str(tmp_path / "out"), *arguments]
        )
        gpu.main()
        return json.loads((tmp_path / "out" / "gpu.json").read_text()), capsys.readouterr().out

    return run


@pytest.fixture
def parts(gpu, monkeypatch, tmp_path):
    """Lets the program run small scripts in place of its parts."""

    def parts(seconds=60, **scripts):
        found = []
        for name, script in scripts.items():
            path = tmp_path / f"{name}.py"
            path.write_text(
                f"import json, pathlib, subprocess, sys, time\noutput = pathlib.Path(sys.argv[4])\n{script}\n"
            )
            found.append(gpu.Part(name, [str(path)], seconds))
        monkeypatch.setattr(gpu, "quick_parts", lambda device: found)

    return parts


@pytest.mark.slow
def test_a_piece_of_it(run, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # other tests have the other core
    document, printed = run("--parts", "decision")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"gpu.json", "decision.json"}
    assert document["parts"]["decision"]["status"] == "done"
    assert document["command"] == "python benchmarks/gpu.py --device cpu --quick --output out --parts decision"
    decision = json.loads((tmp_path / "out" / "decision.json").read_text())
    assert [result["sequence"] for result in decision["results"]] == [
        "fixed",
        "falling losses",
        "rising gradient norms",
    ]
    lines = printed.splitlines()
    assert "| a quick run | its figures mean nothing |" in printed
    assert "| decision, eager, fixed | over unread losses" in printed
    assert lines[-1].startswith("| ")
    assert len(printed) < 10_000


@pytest.mark.slow
def test_the_study(run, tmp_path, monkeypatch):
    """The study and its runs are in this process; `test_a_piece_of_it` has a process of its own."""

    def run_command(command, log, seconds, environment):
        with written_to(log):
            return run_program(command)

    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)  # it would also hold for the tests that follow
    monkeypatch.setattr(importlib.import_module("study_runner"), "start_process", start_nestnet)
    monkeypatch.setattr(importlib.import_module("gpu_session"), "run_command", run_command)
    document, printed = run("--parts", "study")
    assert document["parts"]["study"]["status"] == "done"
    rows = json.loads((tmp_path / "out" / "study.json").read_text())["runs"]
    assert [row["way"] for row in rows] == ["base_alone", "both_second_half"]
    assert f"| study, base_alone, 1 epochs | base {rows[0]['top1']['base']:.2f} %, cost 1.00, n = 1 |" in printed
    assert "| study, both_second_half, 1 epochs | base " in printed


def test_eight_files_at_most(gpu):
    """As many as the machine that it is made for sends back."""
    assert len({"gpu", *gpu.NAMES} - {"tests"}) <= 8
    assert [part.name for part in gpu.quick_parts("cpu")] == [
        name for name in gpu.NAMES if name not in ("epochs-compiled", "cifar10")
    ]


# Parts that fail, hang, or have no time


def test_a_part_that_fails_ends_no_other_and_each_is_noted_at_once(run, parts):
    parts(
        epochs="print('so far so good'); sys.exit('the card is on fire')",
        limits="noted = json.loads((output.parent / 'gpu.json').read_text())['parts']\n"
        "assert noted['epochs']['status'] == 'failed'\n"
        "assert noted['limits']['reason'] == 'the program was ended during it'",
    )
    document, printed = run("--parts", "epochs", "limits")
    assert document["parts"]["epochs"]["status"] == "failed"
    assert document["parts"]["epochs"]["reason"] == "the card is on fire"
    assert document["parts"]["epochs"]["log"] == "so far so good\nthe card is on fire\n"
    assert document["parts"]["limits"]["status"] == "done"
    assert "| epochs | failed: the card is on fire |" in printed


def test_a_part_that_hangs_is_stopped_with_all_that_it_started(run, parts, tmp_path):
    child = f"import time; time.sleep(3); open({str(tmp_path / 'alive')!r}, 'w')"
    starting = f"subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(0.5)"
    hanging = "output.write_text(json.dumps({'results': []})); time.sleep(60)"
    parts(seconds=6, epochs=starting, limits=hanging)
    document, printed = run("--parts", "epochs", "limits")
    assert document["parts"]["epochs"]["status"] == "done"
    assert document["parts"]["limits"]["status"] == "stopped"
    assert "| limits | stopped: after 6 s |" in printed
    assert not (tmp_path / "alive").exists(), "what a part leaves running is ended with it"


def test_a_part_that_is_stopped_can_say_its_last_words(run, parts):
    parts(seconds=5, epochs="try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    print('so far: 7')")
    document, _ = run("--parts", "epochs")
    assert document["parts"]["epochs"]["status"] == "stopped"
    assert document["parts"]["epochs"]["log"] == "so far: 7\n"


def test_no_part_begins_when_the_time_is_over(run, parts):
    parts(epochs="", limits="")
    begun = time.monotonic()
    document, printed = run("--minutes", "0", "--parts", "epochs", "limits", "cifar10")
    assert time.monotonic() - begun < 30
    assert {name: part["status"] for name, part in document["parts"].items()} == dict.fromkeys(
        ("epochs", "limits", "cifar10"), "skipped"
    )
    assert "| epochs | skipped: it takes 5 s, and 0 s were left |" in printed


# The images


def archive(path, *names):
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))
    return path


def test_images_from_an_archive_or_a_folder(gpu, tmp_path):
    path = archive(tmp_path / "images.tar.gz", "cifar/train/cat/1.jpg", "cifar/test/cat/1.jpg")
    assert gpu.unpack(path, tmp_path / "x") == tmp_path / "x" / "cifar"
    assert (tmp_path / "x/cifar/train/cat/1.jpg").read_bytes() == b"x"
    assert gpu.find_image_root(tmp_path / "x" / "cifar", path) == tmp_path / "x" / "cifar"
    some = gpu.link_some_images(tmp_path / "x" / "cifar", tmp_path / "some")
    assert [path.relative_to(some).as_posix() for path in sorted(some.rglob("*.jpg"))] == [
        "test/cat/1.jpg",
        "train/cat/1.jpg",
    ]
    assert (some / "test/cat/1.jpg").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (("train/cat/1.jpg",), "--data images.tar.gz: it has no folders train/ and test/"),
        (("../outside", "train/cat/1.jpg"), "outside"),
        (None, "not a gzip file"),
    ],
)
def test_an_archive_that_cannot_be_used_is_told(run, parts, tmp_path, content, reason):
    path = tmp_path / "images.tar.gz"
    path.write_bytes(b"no archive") if content is None else archive(path, *content)
    parts()
    document, printed = run("--data", str(path), "--parts", "cifar10")
    assert document["parts"]["cifar10"]["status"] == "skipped"
    assert reason in document["parts"]["cifar10"]["reason"]
    assert "| cifar10 | skipped: " in printed
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "cpu"], "--device cpu: a CPU would take days; add --quick"),
        (["--device", "cuda"], "--device cuda: torch sees no GPU here"),
        (["--device", "cpu", "--quick", "--data", "absent"], "--data absent: there is no such file or folder"),
        (
            ["--device", "cpu", "--quick", "--output", "."],
            "--output .: epochs.json exists already; name another folder",
        ),
        (["--device", "cpu", "--quick", "--parts", "speed"], "invalid choice: 'speed'"),
    ],
)
def test_wrong_arguments(gpu, arguments, message, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (tmp_path / "epochs.json").write_text("{}")
    monkeypatch.setattr(sys, "argv", ["gpu.py", *arguments])
    with pytest.raises(SystemExit) as caught:
        gpu.main()
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / "epochs.json").read_text() == "{}"


# The plan


def test_examples(gpu):
    assert doctest.testmod(gpu) == (0, 3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seconds=st.floats(30, 3600), epoch_seconds=st.lists(st.floats(0.05, 60), min_size=3, max_size=3))
def test_a_plan_fits_into_its_time(gpu, seconds, epoch_seconds):
    epochs, seeds = gpu.plan(seconds, epoch_seconds)
    assert 1 <= epochs <= 200
    assert 1 <= seeds <= 3
    assert epochs == 1 or epochs * seeds * sum(epoch_seconds) < 0.7 * seconds
    assert seeds == 1 or epochs >= 30


def test_what_the_plan_goes_by(gpu, tmp_path):
    path = tmp_path / "epochs.json"
    assert gpu.read_epoch_seconds(path) == [1.0] * 3
    rates = {"nested": [100_000, 0, 0], "timm base": [200_000, 0, 0], "timm motivated": [50_000, 0, 0]}
    path.write_text(json.dumps({"results": [{"summary": {"cuda_graphs": {"images_per_second": rates}}}]}))
    assert gpu.read_epoch_seconds(path) == [0.5, 0.25, 1.0]


# The table


def noted(folder, **parts):
    """Writes gpu.json, with the status and the output of parts."""
    found = {name: {"status": status, "reason": "after 6 s", "log": log} for name, (status, log) in parts.items()}
    document = {"command": "python benchmarks/gpu.py", "hardware": {"accelerator": "NVIDIA H100"}, "parts": found}
    (folder / "gpu.json").write_text(json.dumps(document))


CASE = {"base": "resnet20", "motivated": "resnet32", "img_size": 32, "batch_size": 100}


def document(**summaries):
    rates = {"nested": [10_000, 0, 0], "timm base": [20_000, 0, 0], "timm motivated": [5_000, 0, 0]}
    summary = {
        name: {
            "images_per_second": rates,
            "epoch_seconds": seconds,
            "over_ideal": [1, 1, 1],
            "faster_than_first": [faster, 1, 1],
        }
        for name, (seconds, faster) in summaries.items()
    }
    return {"results": [{"case": CASE, "motivated_fraction": 0.25, "summary": summary}]}


def step(mode, way, bound):
    facts = {
        "case": CASE,
        "mode": mode,
        "way": way,
        "step_seconds": 0.004,
        "limit": "launches",
        "seconds_per_launch": 2e-6,
    }
    return facts | {"launches": 200.0, "bound_seconds": bound}


def test_the_goal_is_taken_from_epochs_and_limits(gpu, tmp_path):
    """An epoch has 500 batches: 0.75 * 2 ms + 0.25 * 4 ms each are 1.25 s."""
    (tmp_path / "epochs.json").write_text(
        json.dumps(document(resident=(9.0, 1.0), bfloat16=(6.0, 1.5), cuda_graphs=(2.0, 4.5)))
    )
    steps = [step("base", "captured", 0.002), step("motivated", "captured", 0.004), step("base", "eager", 9.0)]
    (tmp_path / "limits.json").write_text(json.dumps({"results": steps}))
    noted(tmp_path)
    text = gpu.table(tmp_path)
    assert "| goal: with CUDA graphs at least 4 times as fast as eager float32 | 4.50 times |" in text
    assert "| goal: with CUDA graphs at least 4 times as fast as eager bfloat16 | 3.00 times |" in text
    assert "| goal: an epoch within 2 times of arithmetic and launches | 1.60 times (2.00 s over 1.25 s) |" in text
    assert "nested 2.00 s, timm base 2.50 s, motivated 10.00 s" in text
    assert "4.50 times as fast as resident" in text
    assert "| on | NVIDIA H100 |" in text
    assert "quick" not in text
    assert "200 launches of 2.00 us; arithmetic and launches 2.000 ms, the step over them 2.00" in text


def test_accuracies_of_finished_runs_and_of_others(gpu, tmp_path):
    rows = [
        {
            "way": "private",
            "mode": "base",
            "finished": finished,
            "top1": top1,
            "epochs": epochs,
            "motivated_fraction": 0.2,
        }
        for finished, top1, epochs in ((True, 90.0, 40), (True, 92.0, 40), (False, 50.0, 3))
    ]
    (tmp_path / "cifar10.json").write_text(json.dumps({"results": rows}))
    noted(tmp_path, cifar10=("done", ""))
    text = gpu.table(tmp_path)
    assert "| CIFAR-10, private, base | 91.00 ± 1.41 % after 40 epoch(s), 2 seed(s); 20.0% motivated |" in text
    assert "| CIFAR-10, private, base | 50.00 % after 3 epoch(s), 1 seed(s), NOT FINISHED; 20.0% motivated |" in text


LOG = """[gw0] [ 10%] PASSED tests/on_gpu/a.py::one
[gw1] [ 20%] FAILED tests/on_gpu/a.py::two[x|y]
[gw1] [ 30%] SKIPPED tests/on_gpu/a.py::three
"""
CLOSING = """FAILED tests/on_gpu/a.py::two[x|y] - RuntimeError: a | b
=================== 1 failed, 1 passed, 1 skipped in 9.99s ====================
"""


def test_tests_that_ended_and_tests_that_were_stopped(gpu, tmp_path):
    noted(tmp_path, tests=("failed", LOG + CLOSING), limits=("stopped", ""))
    text = gpu.table(tmp_path)
    assert "| tests | 1 failed, 1 passed, 1 skipped in 9.99s |" in text
    assert "| failed: on_gpu/a.py::two[x/y] | RuntimeError: a / b |" in text
    assert "| limits | stopped: after 6 s |" in text
    noted(tmp_path, tests=("stopped", LOG))
    text = gpu.table(tmp_path)
    assert "| tests, until they were stopped | 1 passed, 1 failed, 1 skipped |" in text
    assert "| failed: on_gpu/a.py::two[x/y] |  |" in text


def test_a_table_of_very_many_failures_is_cut(gpu, tmp_path):
    log = "".join(f"FAILED tests/on_gpu/a.py::test[{number}] - RuntimeError: {'x' * 100}\n" for number in range(200))
    noted(tmp_path, tests=("failed", log))
    text = gpu.table(tmp_path)
    assert len(text) <= 10_000
    assert text.endswith("... (cut)")
