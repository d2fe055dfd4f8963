"""`data.batch_size: auto`, with a stand-in for the memory of a GPU; tests/on_gpu has real memory."""

import contextlib
import math
import re

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from interrupted import content

from nestnet.cli.main import main
from nestnet.config import parsing
from nestnet.data.image_data import load_data
from nestnet.step.train_step import TrainStep
from nestnet.training import batch_size
from nestnet.training.batch_size import search_largest
from nestnet.training.trainer import Trainer

AUTO = ["--data.batch_size", "auto"]
TINY = ["--model.base", "resnet8", "--model.motivated", "resnet14", "--motivation.k", "1", "--epochs", "1",
        "--data.eval_batch_size", "32"]  # fmt: skip

# The search


@given(
    room=st.integers(1, 3000),
    multiple=st.sampled_from([8, 16, 24]),
    smallest=st.integers(1, 3),
    most=st.integers(1, 3000),
)
def test_the_search_finds_what_trying_every_size_finds(room, multiple, smallest, most):
    tried = []

    def fits(size):
        tried.append(size)
        return size <= room

    found = search_largest(fits, multiple, smallest=smallest * multiple, most=most)
    assert all(size % multiple == 0 for size in tried)
    assert len(tried) == len(set(tried)) <= 2 + math.log2(3000 / multiple) + 3
    allowed = range(smallest * multiple, max(most, smallest * multiple) + 1, multiple)
    fitting = [size for size in allowed if size <= room]
    if not fitting:
        assert found is None
    elif fitting[-1] == allowed[-1]:
        assert found == allowed[-1]
    else:
        assert fitting[-1] - max(found // 8, multiple) < found <= fitting[-1]


# Runs


@pytest.fixture
def memory(monkeypatch):
    """Makes a memory that holds so many images at once, and returns the kinds and sizes of batches that were tried."""
    tried = []

    def make_memory(room, *, evaluated=32):
        def train_batch(step, images, targets, kind):
            count = len(images if isinstance(images, torch.Tensor) else images.base)
            tried.append((str(kind), count))
            if count > room:
                raise torch.OutOfMemoryError(f"CUDA out of memory, with {count} images")
            return original(step, images, targets, kind)

        def evaluate(setup):
            if setup.config.data.eval_batch_size > evaluated:
                raise torch.OutOfMemoryError("CUDA out of memory")
            original_evaluate(setup)

        original, original_evaluate = batch_size.train_batch, batch_size._evaluate
        monkeypatch.setattr(batch_size, "_check_device", lambda device: None)
        monkeypatch.setattr(batch_size, "_limited_memory", lambda device: contextlib.nullcontext(3 * 2**30))
        monkeypatch.setattr(batch_size, "train_batch", train_batch)
        monkeypatch.setattr(batch_size, "_evaluate", evaluate)
        return tried

    return make_memory


def test_the_run_is_the_one_that_has_the_number(memory, tmp_path, capsys):
    """To the bit, with dropout, a moving average, and numbers that were drawn before."""
    tried = memory(20)
    arguments = [*TINY, "--model.drop_rate", "0.2", "--data.mixup", "0.2", "--ema_decay", "0.9"]
    config = parsing.parse([*arguments, *AUTO, "--run_dir", str(tmp_path / "auto")])
    images = load_data(config.data, config.model).resplit(range(660), range(660, 670))
    run = Trainer(config, images=images).fit()
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["batch_size"] == 16
    assert "data.batch_size = 16, found for 'auto': the steps of more do not fit into 90% of the free memory" in (
        capsys.readouterr().err
    )
    sizes = [size for _, size in tried]
    assert list(dict.fromkeys(sizes)) == [8, 16, 32, 24]
    assert tried[:4] == [("base", 8), ("base", 8), ("motivated", 8), ("motivated", 8)]
    config = parsing.parse([*arguments, "--data.batch_size", "16", "--run_dir", str(tmp_path / "given")])
    assert content(Trainer(config, images=images).fit()) == content(run)


def test_an_epoch_keeps_twenty_batches_whatever_fits(memory, capsys):
    memory(10**6)
    trainer = Trainer(parsing.parse([*TINY, *AUTO]))
    assert trainer.config.data.batch_size == 64
    assert len(trainer.train_batches) == 1437 // 64 == 22
    assert "more would leave fewer than 20 batches per epoch" in capsys.readouterr().err


def test_enough_batches_remain_for_the_condition(memory):
    memory(10**6)
    trainer = Trainer(parsing.parse([*TINY, *AUTO, "--motivation.name", "periodic", "--motivation.period", "40"]))
    assert trainer.config.data.batch_size == 32, "of 40, there would be too few"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--accumulate", "5"], 40),
        (["--data.repeats", "9"], 16),
        (["--data.random_erasing", "[0, 0.5]", "--data.mixup", "0.5", "--data.loader", "files"], 16),
        (["--motivation.name", "held_out_loss_decrease"], 16),
        (["--finish_epochs", "1", "--model.batch_norm", "private"], 16),
        (["--grad_checkpointing", "true"], 16),
    ],
)
def test_what_else_decides_on_the_size(arguments, expected, memory):
    tried = memory(50 if "--accumulate" in arguments else 20)
    config = parsing.parse([*TINY, *AUTO, *arguments])
    trainer = Trainer(config, images=load_data(config.data, config.model).resplit(range(820), range(820, 830)))
    assert trainer.config.data.batch_size == expected
    assert ("finish" in dict(tried)) is (trainer.config.finish_epochs > 0)


def test_what_is_read_and_compiled_for_the_trials(memory, monkeypatch):
    """A single batch of the smallest size, by this process, and nothing is compiled; the run has what it asks for."""
    memory(20)
    steps = []
    original = TrainStep.__init__

    def create(self, *arguments, **options):
        steps.append(options["compile"])
        original(self, *arguments, **options)

    monkeypatch.setattr(TrainStep, "__init__", create)
    config = parsing.parse([*TINY, *AUTO, "--compile", "true", "--data.workers", "1", "--data.loader", "files"])
    images = load_data(config.data, config.model)
    trained = type(images.train)
    read = []
    get = trained.__getitem__
    monkeypatch.setattr(trained, "__getitem__", lambda self, key: (read.append(key), get(self, key))[1])
    trainer = Trainer(config, images=images)
    assert len(read) == 8
    assert steps == [None] * 4 + ["inductor"]
    assert trainer.config.data.workers == 1


def test_other_errors_are_not_taken_for_too_little_memory(memory, monkeypatch):
    memory(41)

    def fail(*arguments):
        raise RuntimeError("something else")

    monkeypatch.setattr(batch_size, "train_batch", fail)
    with pytest.raises(RuntimeError, match="something else"):
        Trainer(parsing.parse([*TINY, *AUTO]))


# What is refused


@pytest.mark.parametrize(("room", "evaluated"), [(7, 32), (20, 31)])
def test_not_even_the_smallest_batch_fits(room, evaluated, memory):
    memory(room, evaluated=evaluated)
    message = (
        "data.batch_size = 'auto': not even 8 images, or data.eval_batch_size = 32 in evaluation, fit into 90% of the free "
        "memory of cpu (3.0 GiB); give smaller numbers, or set grad_checkpointing to true or precision to bfloat16"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        Trainer(parsing.parse([*TINY, *AUTO]))


FOUND_FROM = "data.batch_size = 'auto': it is found"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["train", *AUTO, "--device", "cpu"], f"{FOUND_FROM} from the memory of a CUDA GPU, and device = 'cpu'; give a number"),
        (["cost", *AUTO], f"{FOUND_FROM} when a run starts to train; give a number"),
        (["tune-k", *AUTO, "--k", "1"], "data.batch_size = 'auto': it must be a number, the same for all runs of a study"),
        (["cross-validate", *AUTO], "data.batch_size = 'auto': it must be a number, the same for all runs of a study"),
        (
            ["train", *AUTO, "--cuda_graphs", "true"],
            "data.batch_size = 'auto': it is found by running out of memory, after which nothing can be captured as a CUDA "
            "graph; leave cuda_graphs out, or give a number",
        ),
        (["train", "--data.batch_size", "1"], "data.batch_size = 1: it must be auto, or at least 2"),
        (["train", "--data.batch_size", "all"], "data.batch_size = all: it must be a whole number or auto"),
    ],
)  # fmt: skip
def test_commands_that_refuse_it(command, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(command) == 2
    assert f"nestnet {command[0]}: error: {message}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "29500")
    with pytest.raises(ValueError, match="it is found by one process, and these are 2; find it with one GPU"):
        batch_size._check_device(torch.device("cuda", 1))
