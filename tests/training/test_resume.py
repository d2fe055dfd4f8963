"""A run that was killed anywhere ends as the run that was not."""

import itertools
import os
import re
import shutil
import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interrupted import Killed, content, few, kill, whole_run
from PIL import Image

from nestnet.cli.main import main
from nestnet.config import parsing
from nestnet.data.loaders import create_train_loader
from nestnet.recipes.command_line import parse_with_recipe
from nestnet.runs.checkpoint_file import read_checkpoint, write_checkpoint
from nestnet.runs.checkpoints import Checkpoints
from nestnet.runs.directory import RunDirectory
from nestnet.runs.reading import read_run, read_table
from nestnet.runs.run_stopped import RunStopped
from nestnet.runtime.interrupts import Interrupted, InterruptibleIterable, Interrupts, leave_signals_to_parent
from nestnet.step.train_step import TrainStep
from nestnet.training.resume import _notice_other_bits, resume
from nestnet.training.trainer import Trainer

RESNET = ["--model.base", "resnet8", "--model.motivated", "resnet14", "--model.drop_rate", "0.1", "--data.loader", "files",
          "--data.workers", "1", "--schedule.interval", "epoch", "--motivation.k", "1",
          "--data.class_weights", "balanced"]  # fmt: skip
VIT = ["--model.base", "vit_one_head", "--model.motivated", "vit_two_heads", "--data.img_size", "16",
       "--optimizer.name", "adamw", "--optimizer.lr", "1e-3", "--schedule.warmup_epochs", "1", "--motivation.k", "1",
       "--model.drop_path_rate", "0.1", "--optimizer.step_count", "literal", "--data.sampler", "balanced"]  # fmt: skip
TINY = [
    "--model.base",
    "resnet8",
    "--model.motivated",
    "resnet8",
    "--motivation.name",
    "random",
    "--model.drop_rate",
    "0.2",
]
EACH = [
    "--data.batch_size",
    "16",
    "--data.mixup",
    "0.2",
    "--ema_decay",
    "0.9",
    "--epochs",
    "3",
    "--checkpoint_steps",
    "3",
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    run, path = whole_run([*TINY, *EACH], tmp_path_factory.mktemp("runs") / "whole")
    return run, path


PLACES = [
    ("add_step", 1),  # before the first batch has a row
    ("add_step", 4),  # the last batch of an epoch
    ("add_step", 5),
    ("add_step", 8),
    ("save_checkpoint", 1),  # before there is any checkpoint
    ("save_checkpoint", 2),
    ("save_cost", 2),  # between an epoch's row and its checkpoint
    ("add_epoch", 3),
]


@pytest.mark.parametrize(("method", "number"), PLACES)
def test_a_killed_run_ends_as_the_whole_one(tiny, tmp_path, monkeypatch, method, number):
    run, whole = tiny
    kill(run, tmp_path / "run", monkeypatch, method, number)
    assert content(resume(tmp_path / "run", images=few(run))) == content(whole)


def test_a_run_that_is_killed_again_and_again(tiny, tmp_path, monkeypatch):
    run, whole = tiny
    kill(run, tmp_path / "run", monkeypatch, "add_step", 2)
    original = RunDirectory.add_step
    for steps in (4, 7, 11):

        def killing(directory, row, steps=steps):
            original(directory, row)
            if row["step"] == steps:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(RunDirectory, "add_step", killing)
            with pytest.raises(Killed):
                resume(tmp_path / "run", images=few(run))
    assert content(resume(tmp_path / "run", images=few(run))) == content(whole)
    before = content(tmp_path / "run")
    assert content(resume(tmp_path / "run", images=few(run))) == before  # it was finished


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [RESNET, VIT], ids=["resnet", "vit"])
def test_families_with_workers_dropout_and_schedules(arguments, tmp_path, monkeypatch):
    run, whole = whole_run([*arguments, *EACH], tmp_path / "whole")
    kill(run, tmp_path / "run", monkeypatch, "add_step", 7)
    assert content(resume(tmp_path / "run", images=few(run))) == content(whole)


@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_any_epoch_goes_on_at_any_batch(data):
    repeats, loader = data.draw(st.integers(1, 3)), data.draw(st.sampled_from(["resident", "files"]))
    sampler = data.draw(st.sampled_from(["shuffle", "balanced"]))
    run = parse_with_recipe(
        [
            *TINY,
            "--data.batch_size",
            "8",
            "--data.repeats",
            str(repeats),
            "--data.loader",
            loader,
            "--data.sampler",
            sampler,
        ]
    )
    batches = create_train_loader(few(run), run.data, run.seed)
    epoch, start = data.draw(st.integers(0, 3)), data.draw(st.integers(0, len(batches) - 1))
    whole, rest = list(batches.epoch(epoch))[start:], list(batches.epoch(epoch, start))
    assert len(rest) == len(batches) - start
    for (images, labels), (others, other_labels) in zip(whole, rest, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, other_labels)


# Interruptions


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", ["step", "evaluation"])
def test_a_signal_writes_a_checkpoint_and_says_how_to_go_on(tiny, tmp_path, monkeypatch, number, where):
    run, whole = tiny
    path, handlers = tmp_path / "run", (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    place, step = {"step": ("mix_batch", 7), "evaluation": ("evaluate", 8)}[where]
    original = getattr(Trainer, place)

    def signalling(self, *arguments):
        if self.steps_done + (where == "step") == step:
            os.kill(os.getpid(), number)
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, place, signalling)
        with pytest.raises(Interrupted) as caught:
            Trainer(replace(run, run_dir=str(path)), images=few(run)).fit()
    assert str(caught.value) == (
        f"interrupted by {number.name} at step {step} (epoch 2); `nestnet resume {path}` continues from the last checkpoint"
    )
    assert caught.value.number == number
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert Checkpoints(path / "checkpoints").newest()["steps_done"] == step
    assert content(resume(path, images=few(run))) == content(whole)


def test_a_damaged_test_image_is_left_out_on_resuming(tmp_path, capsys):
    for part, label in itertools.product(("train", "test"), ("cat", "dog")):
        folder = tmp_path / "images" / part / label
        folder.mkdir(parents=True)
        for index in range(8):
            Image.new("RGB", (8, 8), (30 * index, 0, 99 * (label == "cat"))).save(folder / f"{index}.png")
    (folder / "7.png").write_bytes(b"no image")
    path = str(tmp_path / "run")
    settings = ["--data.batch_size", "4", "--epochs", "1", "--data.loader", "files", "--data.workers", "0"]
    pair = ["--model.base", "resnet8", "--model.motivated", "resnet8", "--data.img_size", "8"]
    assert main(["train", "--data.root", str(tmp_path / "images"), *settings, *pair, "--run_dir", path]) == 1
    said = capsys.readouterr().err
    assert "7.png cannot be read as an image" in said
    assert "set data.corrupt to skip" in said
    assert main(["resume", path, "--data.corrupt", "skip"]) == 0
    assert "7.png cannot be read as an image" in capsys.readouterr().err
    assert read_run(path).config.data.corrupt == "skip"


def test_the_second_ctrl_c_ends_it_at_once():
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_checkpoint_after_some_minutes(tiny, tmp_path, monkeypatch):
    run, whole = tiny
    monkeypatch.setattr("time.monotonic", lambda now=[0.0]: now.__setitem__(0, now[0] + 20.0) or now[0])
    saved, original = [], RunDirectory.save_checkpoint
    monkeypatch.setattr(
        RunDirectory,
        "save_checkpoint",
        lambda self, state: saved.append((state["steps_done"], state["end_of_epoch"])) or original(self, state),
    )
    frequent = replace(run, run_dir=str(tmp_path / "run"), checkpoint_steps=0, checkpoint_minutes=1.0)
    Trainer(frequent, images=few(run)).fit()
    assert [step for step, end in saved if end] == [4, 8, 12]
    between = [step for step, end in saved if not end]
    assert between[0] == 0
    assert len(between) > 2
    assert (tmp_path / "run" / "steps.csv").read_bytes() == (whole / "steps.csv").read_bytes()


# What is refused, before anything has changed


def damage_last(path):
    for file in (path / "checkpoints").iterdir():
        file.write_bytes(file.read_bytes()[:-9])


def edit(name, old, new):
    def change(path):
        text = (path / name).read_text()
        assert old in text
        (path / name).write_text(text.replace(old, new))

    return change


def forge(change):
    """Another content with a right hash, in all checkpoints."""

    def forging(path):
        for file in (path / "checkpoints").iterdir():
            state = read_checkpoint(file)
            change(state)
            write_checkpoint(file, state)

    return forging


REFUSED = [
    (damage_last, [], "checkpoints has no complete checkpoint ("),
    (edit("config.yaml", "lr: 0.1", "lr: 0.3"), [], "the checkpoint is of another configuration: optimizer.lr = 0.1 (now 0.3)"),
    (edit("config.yaml", "lr: 0.1", "rl: 0.1"), [], "optimizer.rl"),
    (lambda path: (path / "config.yaml").unlink(), [], "is not a run directory: it has no config.yaml"),
    (edit("steps.csv", "\n3,", "\n4,"), [], "steps.csv is damaged: step is 4 in row 3: rows are missing or repeated"),
    (lambda path: (path / "metrics.csv").unlink(), [], "metrics.csv cannot be read: No such file or directory"),
    (lambda path: None, ["--optimizer.lr", "0.3"], "optimizer.lr = 0.1 (now 0.3)"),
    (lambda path: None, ["--epochs", "2"], "epochs = 2: the run has 3, and can only be resumed for more"),
    (lambda path: None, ["--optimizer.rl", "0.3"], "--optimizer.rl is not an option"),
    (forge(lambda s: s["net"].pop("fc.weight")), [], "of another network: net.fc.weight is absent, and must be (10, 64)"),
    (forge(lambda s: s["net"].update(more=torch.zeros(1))), [], "net.more is (1,) of float32, and must be absent"),
    (forge(lambda s: s["net"].update({"fc.bias": torch.zeros(9)})), [], "net.fc.bias is (9,) of float32, and must be (10,)"),
    (forge(lambda s: s["net"].update({"fc.bias": torch.zeros(10).long()})), [], "net.fc.bias is (10,) of int64"),
    (forge(lambda s: s.update(average=None)), [], "the checkpoint has no average"),
    (forge(lambda s: s.pop("schedule")), [], "not of this version of nestnet: it has no schedule"),
    (forge(lambda s: s["optimizer"]["param_groups"].pop()), [], "another optimizer: it has other parameter groups"),
    (forge(lambda s: s["optimizer"]["state"][0].update(momentum_buffer=torch.zeros(2))), [],
     "momentum_buffer of parameter 0 is (2,)"),
    (forge(lambda s: s["optimizer"].update(state=3)), [], "the checkpoint is of another optimizer"),
    (forge(lambda s: s.update(images="others")), [], "of other images: others, and there are"),
    (forge(lambda s: s.update(condition_name="Periodic")), [], "condition: Periodic, and there are RandomBatches now"),
]  # fmt: skip


@pytest.fixture(scope="module")
def unfinished(tiny, tmp_path_factory):
    """Killed after its 8th batch, with a checkpoint of the 6th."""
    path = tmp_path_factory.mktemp("runs") / "unfinished"
    with pytest.MonkeyPatch.context() as patch:
        kill(tiny[0], path, patch, "save_cost", 2)
    return path


def everything(path):
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file() and file.name != ".lock"}


@pytest.mark.parametrize(("damage", "changes", "message"), REFUSED)
def test_what_cannot_go_on_is_refused(tiny, unfinished, tmp_path, damage, changes, message):
    path = shutil.copytree(unfinished, tmp_path / "run")
    damage(path)
    before = everything(path)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        resume(path, changes, images=few(tiny[0]))
    assert "\n" not in str(caught.value)
    assert everything(path) == before


def test_settings_that_train_the_same_may_change(tiny, unfinished, tmp_path):
    path = shutil.copytree(unfinished, tmp_path / "run")
    changes = ["--data.workers", "1", "--data.eval_batch_size", "7", "--checkpoint_steps", "0", "--non_finite", "skip"]
    resume(path, changes, images=few(tiny[0]))
    assert (path / "steps.csv").read_bytes() == (tiny[1] / "steps.csv").read_bytes()
    assert (path / "base.safetensors").read_bytes() == (tiny[1] / "base.safetensors").read_bytes()
    found = parsing.load(path / "config.yaml")
    assert (found.non_finite, found.run_dir, found.data.eval_batch_size) == ("skip", str(path), 7)


def test_another_number_of_threads_is_noticed(unfinished, monkeypatch, capsys):
    state = Checkpoints(unfinished / "checkpoints").newest()
    threads = torch.get_num_threads()
    processes = SimpleNamespace(size=1, rank=0)
    for device in ("cpu", "cuda"):
        _notice_other_bits(state, SimpleNamespace(device=torch.device(device), process_group=processes))
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 3)
    _notice_other_bits(state, SimpleNamespace(device=torch.device("cuda"), process_group=processes))
    assert capsys.readouterr().err == ""
    _notice_other_bits(state, SimpleNamespace(device=torch.device("cpu"), process_group=processes))
    assert capsys.readouterr().err == (
        f"nestnet: {threads} threads trained this run before, and {threads + 3} do now: it will not end with the same bits; "
        f"with OMP_NUM_THREADS={threads} it will\n"
    )


def test_a_run_without_its_checkpoints_says_that_it_starts_again(tiny, unfinished, tmp_path, capsys):
    path = shutil.copytree(unfinished, tmp_path / "run")
    shutil.rmtree(path / "checkpoints")
    assert content(resume(path, images=few(tiny[0]))) == content(tiny[1])
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"nestnet: {path} has no checkpoint: it is trained from its first batch again"


def test_the_command_goes_on_with_a_run_of_its_own(tmp_path, monkeypatch, capsys):
    path = str(tmp_path / "run")
    train = ["train", *TINY, "--data.batch_size", "512", "--epochs", "2", "--run_dir", path]
    with monkeypatch.context() as patch:
        patch.setattr(
            Trainer,
            "evaluate",
            lambda self: (
                os.kill(os.getpid(), signal.SIGTERM) or next(iter(InterruptibleIterable([1], self.interrupts)))
            ),
        )
        assert main(train) == 128 + signal.SIGTERM
    error = capsys.readouterr().err
    assert error == (
        f"nestnet train: interrupted by SIGTERM at step 2 (epoch 1); `nestnet resume {path}` continues from the last "
        "checkpoint\n"
    )
    assert main(train) == 2
    assert "`nestnet resume" in capsys.readouterr().err
    assert main(["resume", path]) == 0
    assert "resumes after 0 of 2 epochs and 2 batches" in capsys.readouterr().out
    assert len(read_table(tmp_path / "run" / "steps.csv")) == 4


# Losses that are not finite


def poisoned(steps):
    """The loss function, but for the batches of these steps, in which images are NaN."""
    original = Trainer.mix_batch

    def mix_batch(self, images, labels):
        images, targets = original(self, images, labels)
        return (images * float("nan") if self.steps_done + 1 in steps else images), targets

    return mix_batch


@pytest.mark.parametrize("step", [1, 5, 7])
def test_a_loss_that_is_not_finite_stops_with_a_checkpoint_from_before_it(tiny, tmp_path, monkeypatch, step):
    run, whole = tiny
    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "mix_batch", poisoned({step}))
        with pytest.raises(FloatingPointError) as caught:
            Trainer(replace(run, run_dir=str(path)), images=few(run)).fit()
    assert f"the loss is nan at step {step} (epoch {(step + 3) // 4}, " in str(caught.value)
    assert f"set non_finite to skip and run `nestnet resume {path}`" in str(caught.value)
    assert read_table(path / "steps.csv")[-1]["loss"] == "nan"
    assert Checkpoints(path / "checkpoints").newest()["steps_done"] == step - 1
    # without the fault it ends as if there had been none: nothing of the bad batch is left
    assert content(resume(path, images=few(run))) == content(whole)


def test_batches_that_are_not_finite_are_skipped_and_counted(tiny, tmp_path, monkeypatch, capsys):
    run, _ = tiny
    monkeypatch.setattr(Trainer, "mix_batch", poisoned({2, 6, 7}))
    skipping = replace(run, run_dir=str(tmp_path / "run"), non_finite="skip")
    path = Trainer(skipping, images=few(run)).fit()
    assert [row["skipped_steps"] for row in read_table(path / "metrics.csv")] == ["1", "2", "0"]
    rows = read_table(path / "steps.csv")
    assert [row["step"] for row in rows if row["loss"] == "nan"] == ["2", "6", "7"]
    losses = [float(row["loss"]) for row in rows[:4] if row["loss"] != "nan"]
    assert float(read_table(path / "metrics.csv")[0]["train_loss"]) == pytest.approx(sum(losses) / 3)
    assert all(tensor.isfinite().all() for tensor in read_run(path).net.state_dict().values())
    assert "1 batches skipped" in capsys.readouterr().out
    kill(skipping, tmp_path / "other", monkeypatch, "add_step", 8)
    assert content(resume(tmp_path / "other", images=few(run))) == content(path)


def test_a_run_whose_batches_are_all_bad_ends(tiny, tmp_path, monkeypatch):
    run, _ = tiny
    monkeypatch.setattr(Trainer, "mix_batch", poisoned({5, 6, 7, 8}))
    with pytest.raises(FloatingPointError, match=r"at step 8 .*as for all batches of this epoch"):
        Trainer(replace(run, run_dir=str(tmp_path / "run"), non_finite="skip"), images=few(run)).fit()


def test_weights_that_are_not_finite_are_never_kept(tiny, tmp_path, monkeypatch):
    run, _ = tiny
    original = TrainStep.__call__

    def exploding(self, *arguments):
        outcome = original(self, *arguments)
        with torch.no_grad():
            next(iter(self.net.parameters())).view(-1)[0] = float("inf")
        return outcome

    monkeypatch.setattr(TrainStep, "__call__", exploding)
    with pytest.raises(FloatingPointError, match="weights are NaN or infinite since an earlier one"):
        Trainer(replace(run, run_dir=str(tmp_path / "run"), non_finite="skip"), images=few(run)).fit()
    assert Checkpoints(tmp_path / "run" / "checkpoints").newest()["steps_done"] == 0


# Faults


class Broken:
    """Training images one of which cannot be had."""

    def __init__(self, dataset, error):
        self.dataset, self.error, self.broken = dataset, error, True

    def __getitem__(self, key):
        if self.broken and key[0] == 5:
            raise self.error
        return self.dataset[key]

    def __len__(self):
        return len(self.dataset)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("x.jpg cannot be read as an image; replace it"), "x.jpg cannot be read as an image; replace it (at step"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "lower data.workers = 0"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), "lower data.batch_size = 16"),
        (torch.OutOfMemoryError("CUDA out of memory."), "lower data.batch_size = 16"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)  # fmt: skip
def test_a_fault_is_explained_and_the_run_goes_on_after_it(tiny, tmp_path, error, message, monkeypatch, capsys):
    run, _ = tiny
    run = replace(run, run_dir=str(tmp_path / "run"), data=replace(run.data, loader="files"))
    images = few(run)
    images = replace(images, train=Broken(images.train, error))
    with pytest.raises(RunStopped) as caught:
        Trainer(run, images=images).fit()
    assert message in str(caught.value)
    assert str(caught.value).endswith(f"`nestnet resume {run.run_dir}` continues from the last checkpoint")
    assert "\n" not in str(caught.value)
    images.train.broken = False
    path = resume(run.run_dir, images=images)
    uninterrupted = Trainer(replace(run, run_dir=str(tmp_path / "whole")), images=images).fit()
    assert content(path) == content(uninterrupted)
    monkeypatch.setattr("nestnet.cli.main.COMMANDS", {"train": lambda _: (_ for _ in ()).throw(caught.value)})
    capsys.readouterr()
    assert main(["train"]) == 1
    assert capsys.readouterr().err == f"nestnet train: stopped: {caught.value}\n"


def test_a_helper_leaves_signals_to_its_parent(monkeypatch):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        leave_signals_to_parent()
        os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C on a terminal
        assert not ended
        os.kill(os.getpid(), signal.SIGTERM)
        assert ended == [0]
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
