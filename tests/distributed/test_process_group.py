"""Two processes against one: the same modes, losses, statistics and counts."""

import os
import re
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from helpers import full_precision, make
from together import FINE_TUNING, everything, reduced_bytes, unlike_precisions
from torch import nn
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.utils._pytree import tree_map_only
from two_processes import run_in_two_processes, run_torchrun

from nestnet.cli.main import main
from nestnet.data.image_data import load_data
from nestnet.data.loaders import create_eval_loader
from nestnet.device import DeviceContext, choose_device
from nestnet.distributed import rendezvous
from nestnet.distributed.process_group import ProcessGroup
from nestnet.distributed.rendezvous import init_process_group
from nestnet.nn.mode import Mode
from nestnet.recipes.command_line import parse_with_recipe
from nestnet.runs.reading import read_table
from nestnet.runtime.interrupts import Interrupted
from nestnet.runtime.log import log_notice
from nestnet.runtime.torchrun import Launch, read_launch
from nestnet.training.resolve import check_batch_divides
from nestnet.training.resume import resume
from nestnet.training.trainer import Trainer

DIGITS = Path(__file__).parents[2] / "configs" / "digits_resnet20_32.yaml"
SMALL_PAIR = ["--model.base", "resnet8", "--model.motivated", "resnet14"]


def signalled(rank, folder, device):
    """A run; and one whose second process gets a signal, which goes on afterwards."""
    settings = [*SMALL_PAIR, "--data.batch_size", "8", "--epochs", "1"]
    settings += ["--ema_decay", "0.5", "--model.drop_rate", "0.2"]
    run = parse_with_recipe([*settings, "--device", device, "--deterministic", "true", "--run_dir", f"{folder}/whole"])
    images = load_data(run.data, run.model).resplit(range(160), range(160, 200))
    Trainer(run, images=images).fit()

    class Signalled(Trainer):
        def mix_batch(self, images, labels):
            if rank == 1 and self.steps_done == 6:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().mix_batch(images, labels)

    try:
        Signalled(replace(run, run_dir=f"{folder}/again"), images=images).fit()
    except Interrupted as interrupted:
        said = str(interrupted)
    resume(f"{folder}/again", images=images)
    return said


def in_a_process(rank, folder, kind):
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
    device = choose_device(kind)
    backend = "nccl" if kind == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    process_group = init_process_group(device)
    found = everything(process_group, device) | {"reduced": reduced_bytes(device)}
    statistics = nn.BatchNorm2d(2).to(device)
    statistics.running_mean += rank
    process_group.average_buffers(statistics)
    found["statistics"] = statistics.running_mean
    found["said"] = signalled(rank, folder, kind)
    found["from first"] = process_group.broadcast_object(f"from {rank}")
    found["from all"] = process_group.all_gather_object({"tensors": [torch.tensor(rank, device=device)]})
    found["precisions"] = unlike_precisions(process_group)
    found["parts"] = (list(process_group.sample_indices(5)), list(range(6))[process_group.batch_slice(6)])
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


TWO_GPUS = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA GPUs")


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=[pytest.mark.cuda, TWO_GPUS])])
def kind_of_device(request):
    return request.param


@pytest.fixture(scope="module")
def two(tmp_path_factory, kind_of_device):
    folder = tmp_path_factory.mktemp("two")
    run_in_two_processes(in_a_process, str(folder), kind_of_device)
    found = [torch.load(folder / f"{rank}.pt", weights_only=False, map_location="cpu") for rank in range(2)]
    return [each | {"folder": folder} for each in found]


@pytest.fixture(scope="module")
def one(kind_of_device):
    with full_precision():
        return tree_map_only(torch.Tensor, torch.Tensor.cpu, everything(ProcessGroup(), torch.device(kind_of_device)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vit", "weighted and clipped", "resnet", "separate", "both trained"])
def test_two_processes_train_as_one(kind, one, two):
    ours, theirs, others = one[kind], two[0][kind], two[1][kind]
    assert len(set(ours["modes"])) == 2
    assert ours["modes"] == theirs["modes"] == others["modes"]
    assert theirs["losses"] == others["losses"], "the same bits in both"
    assert theirs["losses"] == pytest.approx(ours["losses"], abs=1e-5)
    for name, tensor in theirs["weights"].items():
        if "running" not in name:
            assert torch.equal(tensor, others["weights"][name]), name
        torch.testing.assert_close(tensor, ours["weights"][name], rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.slow
def test_two_processes_extend_a_base_as_one(one, two):
    ours, theirs, others = one["finished"], two[0]["finished"], two[1]["finished"]
    assert theirs["losses"] == others["losses"]
    assert theirs["losses"] == pytest.approx(ours["losses"], abs=1e-5)
    for name, tensor in theirs["weights"].items():
        assert torch.equal(tensor, others["weights"][name]), name
        torch.testing.assert_close(tensor, ours["weights"][name], rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["both", "kept apart"])
def test_both_modes_at_once_in_two_parts(kind, one, two):
    for found in two:
        assert found[kind]["loss"] == pytest.approx(one[kind]["loss"], abs=1e-6)
        for ours, theirs in zip(one["both"]["gradients"], found[kind]["gradients"], strict=True):
            torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_the_agreement_is_that_of_the_averaged_gradients(one, two):
    theirs, others = (found["kept apart"]["agreement"] for found in two)
    assert theirs == others, "the same bits in both, so that both decide alike"
    assert theirs == pytest.approx(one["kept apart"]["agreement"], abs=1e-5)
    assert abs(theirs) < 0.99


@pytest.mark.slow
@pytest.mark.parametrize("family", ["resnet", "nest"])
@pytest.mark.parametrize("kind", FINE_TUNING)
def test_two_processes_fine_tune_as_one(family, kind, one, two):
    """The head alone, or with a learning rate for each layer, also with activations that are computed again."""
    ours, theirs, others = one[family, kind], two[0][family, kind], two[1][family, kind]
    assert theirs["losses"] == others["losses"]
    assert theirs["losses"] == pytest.approx(ours["losses"], rel=1e-9)
    for name, tensor in theirs["weights"].items():
        torch.testing.assert_close(tensor, ours["weights"][name], rtol=1e-6, atol=1e-9, msg=name)
        if kind == "checkpointed":
            assert torch.equal(tensor, two[0][family, "decayed"]["weights"][name]), name


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "tolerance"), [("normalised", 1e-5), ("normalised in float64", 1e-12)])
def test_batch_norm_of_all_is_that_from_any_process(kind, tolerance, one, two):
    for rank, found in enumerate(two):
        own = slice(4 * rank, 4 * rank + 4)
        for name, expected in one[kind].items():
            expected = expected[own] if name in ("y", "dx") else expected
            torch.testing.assert_close(found[kind][name], expected, rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.slow
def test_a_mode_reduces_its_own_gradients_and_no_others(two):
    net = make("vit")
    for found in two:
        for mode, count in found["reduced"].items():
            assert count == sum(p.nbytes for p in net.subnet(mode).parameters()), mode


@pytest.mark.slow
def test_what_processes_tell_one_another(two):
    for rank, found in enumerate(two):
        assert found["statistics"].tolist() == [0.5, 0.5]
        assert found["from first"] == "from 0"
        assert found["precisions"] == ["float32", "bfloat16"], "what all devices have"
        assert found["from all"] == [{"tensors": [torch.tensor(rank)]} for rank in range(2)]
        assert found["parts"] == (([0, 2, 4], [0, 1, 2]) if rank == 0 else ([1, 3], [3, 4, 5]))


@pytest.mark.slow
def test_a_signal_to_one_process_ends_all_after_the_same_batch_and_the_run_goes_on_exactly(two):
    folder = two[0]["folder"]
    for found in two:
        assert found["said"] == (
            f"interrupted by SIGTERM at step 10 (epoch 1); `nestnet resume {folder}/again` continues from the last checkpoint"
        )
    for name in ("steps.csv", "base.safetensors", "motivated.safetensors"):
        assert (folder / "again" / name).read_bytes() == (folder / "whole" / name).read_bytes(), name


def test_alone_nothing_is_sent():
    alone = ProcessGroup()
    tensor = torch.ones(2)
    assert alone.all_reduce_mean(tensor) is tensor
    assert alone.all_reduce_sum(tensor) is tensor
    assert alone.broadcast_object("x") == "x"
    assert alone.is_first
    assert init_process_group(torch.device("cpu")) == alone


# The command line


def torchrun(*arguments, timeout=600):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=timeout, env=environment, check=False
    )


@pytest.mark.slow
def test_the_same_command_under_torchrun(tmp_path, capsys):
    arguments = [
        "train",
        "--config",
        str(DIGITS),
        *SMALL_PAIR,
        "--epochs",
        "1",
        "--sync_batch_norm",
        "true",
        "--optimizer.lr",
        "0.02",
    ]
    arguments += ["--ema_decay", "0.5", "--recalibration_batches", "2", "--device", "cpu"]
    done = torchrun("-m", "nestnet", *arguments, "--run_dir", str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr
    first_words = re.findall(r"^(\S+) ", done.stdout, re.MULTILINE)
    ours = [word for word in first_words if word != "[Gloo]"]  # torch 2.10 says there that its processes have met
    assert ours == ["resnet8", "epoch", "motivated", "exported"], "one process prints"
    assert main([*arguments, "--run_dir", str(tmp_path / "one")]) == 0
    assert {p.name for p in (tmp_path / "two").iterdir()} == {p.name for p in (tmp_path / "one").iterdir()}
    ours, theirs = (read_table(tmp_path / n / "steps.csv") for n in ("one", "two"))
    assert [row["mode"] for row in ours] == [row["mode"] for row in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert float(a["loss"]) == pytest.approx(float(b["loss"]), abs=1e-5)
    (ours,), (theirs,) = (read_table(tmp_path / n / "metrics.csv") for n in ("one", "two"))
    for name in ("base_top1", "motivated_top1"):
        count = float(theirs[name]) * 3.6
        assert count == pytest.approx(round(count)), "a share of 360 test images, each counted once"
        assert float(theirs[name]) == pytest.approx(float(ours[name]), abs=1.0)
    capsys.readouterr()
    for mode in Mode:  # one process evaluates what two have shipped
        assert main(["evaluate", str(tmp_path / "two"), "--mode", mode]) == 0
        assert f"top-1 {float(theirs[f'{mode}_top1']):.2f} %" in capsys.readouterr().out


@pytest.mark.slow
def test_a_failed_process_ends_the_job(tmp_path):
    script = tmp_path / "fails.py"
    script.write_text(
        textwrap.dedent("""
            import sys
            from nestnet.cli import main as cli
            from nestnet.training import trainer

            class Failing(trainer.Trainer):
                def mix_batch(self, images, labels):
                    if self.process_group.rank == 1 and self.steps_done == 2:
                        raise ValueError("image.jpg cannot be read")
                    return super().mix_batch(images, labels)

            trainer.Trainer = Failing
            try:
                code = cli.main(sys.argv[1:])
            except BaseException:
                sys.excepthook(*sys.exc_info())  # as Python itself does at the end of a program
                raise
            sys.exit(code)
        """)
    )
    options = ["--standalone", "--nproc-per-node", "2", "--redirects", "2", "--log-dir", str(tmp_path / "logs")]
    arguments = ["train", "--config", str(DIGITS), *SMALL_PAIR, "--device", "cpu", "--run_dir", str(tmp_path / "run")]
    with pytest.raises(ChildFailedError):
        run_torchrun(*options, str(script), *arguments)
    logs = sorted((tmp_path / "logs").rglob("stderr.log"))
    assert len(logs) == 2
    errors = "".join(log.read_text() for log in logs)
    ours = [line for line in errors.splitlines() if line.startswith("nestnet train: ")]
    said = (
        "nestnet train: process 1: stopped: image.jpg cannot be read (at step 2 (epoch 1)); "
        f"`nestnet resume {tmp_path / 'run'}` continues from the last checkpoint"
    )
    assert said in ours
    (other,) = set(ours) - {said}
    assert re.fullmatch(
        r"nestnet train: stopped: another process is gone \(at step \d+ \(epoch 1\)\); `nestnet resume .*", other
    )
    assert "[rank0]: Traceback" not in errors


@pytest.mark.parametrize(
    ("settings", "size", "message"),
    [
        (["--data.batch_size", "9"], 2, "data.batch_size = 9: it must be a multiple of 2, for equal parts in 2 processes"),
        (["--data.batch_size", "12", "--accumulate", "4"], 2,
         "data.batch_size = 12: it must be a multiple of 8, for equal parts in 2 processes with accumulate = 4"),
        (["--data.batch_size", "8", "--accumulate", "2"], 4,
         "data.batch_size = 8: BatchNorm needs more than one image in each of 8 parts"),
        (["--data.batch_size", "6", "--data.mixup", "0.2"], 2,
         "data.batch_size = 6: each of 2 processes must have an even part, to mix pairs"),
    ],
)  # fmt: skip
def test_batches_that_cannot_be_shared(settings, size, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check_batch_divides(parse_with_recipe(settings), ProcessGroup(0, size))


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match=re.escape("device = 'cuda': 2 processes on 1 GPUs")):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "empty", lambda size, device: SimpleNamespace(device=device))
    assert choose_device("cuda") == torch.device("cuda:1")


# What torchrun tells each process

PLACE = {"MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
WRONG = [
    (
        {"LOCAL_RANK": "x"},
        "LOCAL_RANK = 'x': it must be a whole number of at least 0; start the processes with torchrun",
    ),
    ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK = '-1': it must be a whole number of at least 0"),
    ({"RANK": "1.0", "WORLD_SIZE": "2"}, "RANK = '1.0': it must be a whole number"),
    ({"RANK": "", "WORLD_SIZE": "2"}, "RANK = '': it must be a whole number"),
    ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE = '0': it must be a whole number of at least 1"),
    ({"WORLD_SIZE": "2"}, "WORLD_SIZE = 2 without RANK: "),
    ({"RANK": "0"}, "RANK = 0 without WORLD_SIZE: "),
    ({"LOCAL_RANK": "1"}, "LOCAL_RANK = 1 without RANK and WORLD_SIZE: "),
    ({"LOCAL_WORLD_SIZE": "2"}, "LOCAL_WORLD_SIZE = 2 without RANK and WORLD_SIZE: "),
    ({"RANK": "2", "WORLD_SIZE": "2", **PLACE}, "RANK = 2: it must be below WORLD_SIZE = 2"),
    ({"LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "2"}, "LOCAL_RANK = 2: it must be below LOCAL_WORLD_SIZE = 2"),
    (
        {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "4"},
        "LOCAL_WORLD_SIZE = 4: these are more processes than WORLD",
    ),
    ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR is not set, and WORLD_SIZE = 2: "),
    ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a"}, "MASTER_PORT is not set, and WORLD_SIZE = 2: "),
    (
        {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "p"},
        "MASTER_PORT = 'p': it must be a whole number",
    ),
    (
        {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "70000"},
        "MASTER_PORT = 70000: it must be at most",
    ),
]


@pytest.mark.parametrize(
    ("environment", "message"), WRONG, ids=[" ".join(f"{n}={v}" for n, v in e.items()) for e, _ in WRONG]
)
def test_an_environment_that_torchrun_would_not_make(environment, message, monkeypatch, capsys):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("nestnet.cli.failures.GRACE", 0.0)
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        read_launch()
    assert main(["train", "--data.root", "absent"]) == 2
    said = capsys.readouterr().err
    assert f"error: {message}" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, Launch()),
        ({"WORLD_SIZE": "1"}, Launch()),
        ({"RANK": "0", "WORLD_SIZE": "1"}, Launch()),
        ({"MASTER_ADDR": "elsewhere"}, Launch()),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", **PLACE}, Launch(3, 4, 1, 2)),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", **PLACE}, Launch(3, 4, 1, 2)),  # as scripts for SLURM do
        ({"RANK": "1", "WORLD_SIZE": "2", **PLACE}, Launch(1, 2, 0, 1)),  # as Kubernetes does
    ],
)
def test_the_place_of_a_process(environment, place, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert read_launch() == place


def test_only_the_first_process_gives_notice(monkeypatch, capsys):
    for rank, said in (("1", ""), ("0", "nestnet: so\n"), ("x", "")):
        monkeypatch.setenv("RANK", rank)
        log_notice("so")
        assert capsys.readouterr().err == said


@pytest.mark.parametrize("loader", ["resident", "files"])
def test_fewer_test_images_than_processes(loader):
    run = parse_with_recipe(["--data.loader", loader, "--model.motivated", "resnet20"])
    images = load_data(run.data, run.model).resplit(range(128), range(2))
    counts = []
    for rank in range(3):
        batches = create_eval_loader(images, run.data, DeviceContext(process_group=ProcessGroup(rank, 3)))
        counts.append([len(labels) for _, labels in batches])
    assert counts == [[1], [1], []]


def test_a_process_that_waits_for_another_says_so(monkeypatch, capsys):
    environment = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(rendezvous, "NOTICE_DELAY", timedelta(0))
    monkeypatch.setattr(rendezvous, "RENDEZVOUS_TIMEOUT", timedelta(seconds=0.6))
    with pytest.raises(TimeoutError, match="the first process has not answered there within"):
        init_process_group(torch.device("cpu"))
    assert capsys.readouterr().err == (
        "nestnet: process 1: the first process has not answered yet at MASTER_ADDR = '127.0.0.1', MASTER_PORT = 1; "
        "waiting for at most 0.01 minutes\n"
    )
