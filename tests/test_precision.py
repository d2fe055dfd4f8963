"""What `precision: auto` stands for on each kind of device, and that a run keeps it wherever it is resumed."""

import re

import pytest
import torch
import yaml
from helpers import batch, make, set_cpu_features
from interrupted import content, few, train_and_copy
from torch.nn.functional import cross_entropy

from nestnet import TrainStep
from nestnet.cli.main import main
from nestnet.config.schema import Config
from nestnet.device import autocast
from nestnet.distributed.process_group import ProcessGroup
from nestnet.precision import Bfloat16Support, choose_precision, detect_bfloat16
from nestnet.recipes.command_line import parse_with_recipe
from nestnet.training.resume import resume
from nestnet.tuning.study_run import StudyRun
from nestnet.tuning.tune_k import tune_k

CPU = torch.device("cpu")

TINY = ["--model.base", "resnet8", "--model.motivated", "resnet14", "--data.batch_size", "16", "--motivation.name", "random",
        "--epochs", "1", "--checkpoint_steps", "1", "--device", "cpu", "--precision", "auto"]  # fmt: skip

NEITHER = "this CPU has neither AMX nor AVX512-BF16"


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        (["avx2", "avx512_f"], Bfloat16Support(False, NEITHER)),
        (["avx512_f", "avx512_bf16"], Bfloat16Support(True, "this CPU has AVX512-BF16")),
        (["avx512_bf16", "amx_tile", "amx_bf16"], Bfloat16Support(True, "this CPU has AMX")),
        (["neon", "bf16"], Bfloat16Support(False, NEITHER)),
    ],
    ids=["AVX2", "AVX512-BF16", "AMX", "Apple"],
)
def test_cpus(features, expected, monkeypatch):
    set_cpu_features(monkeypatch, *features)
    assert detect_bfloat16(CPU) == expected


@pytest.mark.parametrize(("tile", "avx512"), [(True, True), (False, True), (False, False)])
def test_cpus_under_the_oldest_torch(tile, avx512, monkeypatch):
    """torch 2.10 has one function for each feature."""
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tile)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    assert detect_bfloat16(CPU).is_native == (tile or avx512)


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((7, 5), Bfloat16Support(False, "this GPU has compute capability 7.5, and bfloat16 needs 8.0")),
        ((8, 0), Bfloat16Support(True, "this GPU has compute capability 8.0")),
        ((9, 0), Bfloat16Support(True, "this GPU has compute capability 9.0")),
    ],
    ids=["Turing", "Ampere", "Hopper"],
)
def test_gpus(capability, expected, monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (asked.append(device), capability)[1])
    device = torch.device("cuda:1")
    assert detect_bfloat16(device) == expected
    assert choose_precision("auto", device) == ("bfloat16" if expected.is_native else "float32")
    assert set(asked) == {device}, "the device itself, not the current one"


@pytest.mark.parametrize("name", ["mps", "xpu"])
def test_other_devices(name):
    assert choose_precision("auto", torch.device(name)) == "float32"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_precision_that_is_named_is_kept(precision, monkeypatch):
    set_cpu_features(monkeypatch)
    assert choose_precision(precision, CPU) == precision


@pytest.mark.parametrize("use", [choose_precision, lambda name, device: autocast(device, name)])
def test_an_unknown_precision_is_refused(use):
    with pytest.raises(ValueError, match=r"precision = 'half': it must be one of auto, float32, bfloat16"):
        use("half", CPU)


@pytest.mark.parametrize(
    ("others", "expected", "said"),
    [([True], "bfloat16", ""), ([False], "float32", "all 2 processes compute in float32, because only 1 of them have")],
)
def test_processes_agree(others, expected, said, monkeypatch, capsys):
    """Two processes do so in earnest in tests/distributed."""

    class Unlike(ProcessGroup):
        def all_gather_object(self, value):
            return [value, *others]

    set_cpu_features(monkeypatch, "avx512_bf16")
    assert choose_precision("auto", CPU, Unlike(0, 2)) == expected
    error = capsys.readouterr().err
    assert said in error
    assert bool(said) == bool(error)


@pytest.mark.parametrize(("features", "expected"), [(["avx512_bf16"], "bfloat16"), ([], "float32")])
def test_a_loop_of_one_s_own(features, expected, monkeypatch):
    set_cpu_features(monkeypatch, *features)
    seen = []

    def loss(logits, labels):
        seen.append(logits.dtype)
        return cross_entropy(logits.float(), labels)

    net = make("resnet")
    step = TrainStep(net, torch.optim.SGD(net.parameters(), lr=0.1), loss, precision="auto")
    step(*batch(2), "base")
    assert step.precision == expected
    assert seen == [getattr(torch, expected)]


def test_a_run_records_what_auto_stands_for_and_keeps_it_elsewhere(tmp_path, monkeypatch, capsys):
    set_cpu_features(monkeypatch, "avx512_bf16")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run = parse_with_recipe(TINY)
    train_and_copy(run, whole, killed, monkeypatch, 3)
    printed = capsys.readouterr()
    assert "trained in bfloat16; run directory" in printed.out
    assert "precision" not in printed.err
    assert yaml.safe_load((killed / "config.yaml").read_text())["precision"] == "bfloat16"

    # A machine without bfloat16 keeps it, and the user is told.
    set_cpu_features(monkeypatch)
    resume(killed, images=few(run))
    printed = capsys.readouterr()
    assert "trained in bfloat16; run directory" in printed.out
    assert f"precision = 'bfloat16': {NEITHER}, so that a step may take many times as long" in printed.err
    assert content(killed) == content(whole)
    with pytest.raises(ValueError, match=r"precision = 'bfloat16' \(now 'auto'\); set these fields back"):
        resume(killed, ["--precision", "auto"], images=few(run))


@pytest.mark.parametrize(("features", "expected"), [(["amx_bf16"], "bfloat16"), ([], "float32")])
def test_the_dry_run_says_which_one(features, expected, monkeypatch, capsys):
    set_cpu_features(monkeypatch, *features)
    assert main(["train", *TINY, "--data.batch_size", "64", "--dry_run"]) == 0
    assert re.match(rf"dry run on cpu in {expected}: digits", capsys.readouterr().out)


def test_the_default_is_the_same_on_every_machine():
    assert Config().precision == "float32"


def test_all_runs_of_tune_k_have_one_precision(tmp_path, monkeypatch):
    studies = []
    monkeypatch.setattr("nestnet.tuning.train_study._train_all", lambda study, *others: studies.append(study))
    arguments = [argument.replace("random", "loss_decrease") for argument in TINY]
    run = parse_with_recipe(arguments)
    set_cpu_features(monkeypatch, "avx512_bf16")
    tune_k(run, [2], tmp_path / "study")
    assert studies[0].run_config(StudyRun(fold=1, k=2)).precision == "bfloat16"
    # Runs that are added on another machine would not compare with these.
    set_cpu_features(monkeypatch)
    with pytest.raises(
        ValueError, match=r"it was started with precision = 'bfloat16' \(now 'float32'\); use that again"
    ):
        tune_k(run, [2], tmp_path / "study")
