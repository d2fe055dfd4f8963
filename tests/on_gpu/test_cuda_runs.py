"""Whole runs on a GPU: exact resuming, loaders, conditions, exports, and memory that is too little."""

import re
from contextlib import contextmanager
from dataclasses import replace

import pytest
import timm
import torch
from helpers import FAMILIES, batch, make
from interrupted import content, few, kill, whole_run
from steps import SEQUENCE, sgd

from nestnet.data.image_data import load_data
from nestnet.data.loaders import create_eval_loader, create_train_loader
from nestnet.device import DeviceContext
from nestnet.nn.recalibration import recalibrate
from nestnet.planning.dry_run import dry_run
from nestnet.recipes.command_line import parse_with_recipe
from nestnet.runs.reading import read_table
from nestnet.runs.run_stopped import RunStopped
from nestnet.training.resume import resume
from nestnet.training.trainer import Trainer
from nestnet.verification.comparison import check_against_reference

PAIR = ["--model.base", "resnet8", "--model.motivated", "resnet14", "--data.batch_size", "16", "--data.workers", "0"]
RANDOM = ["--motivation.name", "random"]
"""Many batches of both modes in short epochs."""

WAYS = [
    pytest.param(["--device", "cpu"], id="cpu"),
    pytest.param(["--device", "cuda"], id="cuda", marks=pytest.mark.cuda),
    pytest.param(["--device", "cuda", "--cuda_graphs", "true"], id="captured", marks=pytest.mark.cuda),
]


# Resuming


@pytest.mark.parametrize("loader", ["resident", "files"])
@pytest.mark.parametrize("way", WAYS)
def test_a_killed_run_ends_with_the_same_bits(way, loader, tmp_path, monkeypatch):
    """With dropout, Mixup and a moving average; captured steps are ordinary ones again after the start."""
    arguments = [*PAIR, *RANDOM, *way, "--deterministic", "true", "--data.loader", loader, "--epochs", "6"]
    arguments += ["--model.drop_rate", "0.2", "--data.mixup", "0.2", "--ema_decay", "0.9", "--checkpoint_steps", "3"]
    run, whole = whole_run(arguments, tmp_path / "whole")
    modes = [row["mode"] for row in read_table(whole / "steps.csv")]
    assert min(modes.count("base"), modes.count("motivated")) > 4, "both modes are captured, and replayed"
    kill(run, tmp_path / "run", monkeypatch, "add_step", 17)
    assert content(resume(tmp_path / "run", images=few(run))) == content(whole)


# The copy-based reference


@pytest.mark.parametrize("family", FAMILIES)
def test_nesting_is_copying_on_a_gpu_too(family, device):
    """Bit for bit: both run the same kernels on the same numbers."""
    torch.use_deterministic_algorithms(device.type == "cuda")
    net = make(family).to(device)
    batches = [tuple(tensor.to(device) for tensor in batch(8)) for _ in SEQUENCE]
    found = check_against_reference(net, lambda module: sgd(module.parameters()), batches, SEQUENCE)
    assert found.switches > 3
    assert found.differences == dict.fromkeys(found.differences, 0.0)


# Loaders


@pytest.mark.parametrize("loader", ["resident", "files"])
def test_batches_are_those_of_the_cpu(loader, device):
    run = parse_with_recipe([*PAIR, "--data.loader", loader, "--data.augment", "crop", "--data.cutout", "2"])
    images = few(run)
    ours = create_train_loader(images, run.data, run.seed, DeviceContext(device))
    theirs = create_train_loader(images, run.data, run.seed)
    for epoch, start in ((0, 0), (1, 2)):
        pairs = zip(ours.epoch(epoch, start), theirs.epoch(epoch, start), strict=True)
        for (pixels, labels), (expected, expected_labels) in pairs:
            assert pixels.device.type == device.type
            torch.testing.assert_close(pixels.cpu(), expected, rtol=1e-6, atol=1e-6)
            assert torch.equal(labels.cpu(), expected_labels)
    tested = zip(
        create_eval_loader(images, run.data, DeviceContext(device)), create_eval_loader(images, run.data), strict=True
    )
    for (pixels, _), (expected, _) in tested:
        torch.testing.assert_close(pixels.cpu(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.cuda
@pytest.mark.parametrize("memory_format", [torch.preserve_format, torch.channels_last])
def test_batches_from_workers_arrive_whole(memory_format):
    """They lie in pinned memory, which must not be used again before it is copied."""
    run = parse_with_recipe([*PAIR, "--data.loader", "files", "--data.workers", "2"])
    images = load_data(run.data, run.model)
    ours = create_train_loader(images, run.data, run.seed, DeviceContext(torch.device("cuda"), memory_format))
    run.data.workers = 0
    theirs = create_train_loader(images, run.data, run.seed)
    torch.cuda.init()
    torch.cuda._sleep(2_000_000_000)  # for a second the copies wait in the queue while the loader goes on
    sums = [(pixels.sum(), labels.sum()) for pixels, labels in ours.epoch(0)]
    for (pixels, labels), (expected, expected_labels) in zip(sums, theirs.epoch(0), strict=True):
        assert pixels.item() == pytest.approx(expected.sum().item(), rel=1e-4, abs=1e-2)
        assert labels.item() == expected_labels.sum()


@pytest.mark.cuda
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("captured", ["false", "true"])
def test_resident_batches_mixing_and_steps_do_not_stop_the_host(captured):
    """But for its losses, and one transfer at its start, an epoch is queued without a wait for the device."""
    arguments = [*PAIR, "--device", "cuda", "--data.loader", "resident", "--data.mixup", "0.2", "--ema_decay", "0.9"]
    run = parse_with_recipe([*arguments, "--cuda_graphs", captured])
    trainer = Trainer(run, images=load_data(run.data, run.model))
    trainer.net.train()
    trainer.train_batches.batches_at_once = 2
    batches = trainer.epoch_batches()
    for mode in SEQUENCE:  # captures, where there are any
        trainer.step(*trainer.mix_batch(*next(batches)), mode).loss()
    try:
        torch.cuda.set_sync_debug_mode("error")
        for mode in SEQUENCE:
            trainer.step(*trainer.mix_batch(*next(batches)), mode).loss()
    finally:
        torch.cuda.set_sync_debug_mode("default")


# Conditions, evaluation and exports

CONDITIONS = {
    "loss_decrease": ["--motivation.k", "1"],
    "gradient_norm_increase": ["--motivation.name", "gradient_norm_increase", "--motivation.k", "1"],
    "held_out_loss_decrease": ["--motivation.name", "held_out_loss_decrease", "--motivation.k", "1"],
    "bandit": ["--motivation.name", "bandit", "--motivation.max_rate", "0.9"],
    "gradient_agreement": ["--motivation.name", "gradient_agreement", "--motivation.trains", "both"],
    "both": ["--motivation.k", "1", "--motivation.trains", "both", "--motivation.distillation", "0.5"],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_run_of_each_condition_leaves_what_timm_loads(condition, way, tmp_path):
    arguments = [*PAIR, *way, *CONDITIONS[condition], "--epochs", "4", "--recalibration_batches", "2"]
    run = parse_with_recipe([*arguments, "--optimizer.clip_grad", "1.0", "--run_dir", str(tmp_path / "run")])
    trainer = Trainer(run, images=few(run))
    path = trainer.fit()
    rows = read_table(path / "steps.csv")
    assert all(0 < float(row["loss"]) < 10 for row in rows)
    assert len({row["loss"] for row in rows}) == len(rows)
    last = trainer.train_batches.epoch(trainer.epochs_done - 1)
    ready = recalibrate(trainer.net, "base", [images for images, _ in last][:2]).eval()
    model = timm.create_model("resnet8", num_classes=10, in_chans=1, checkpoint_path=path / "base.safetensors").eval()
    images = torch.randn(4, 1, 8, 8)
    with torch.inference_mode():
        logits = ready(images.to(trainer.device), "base").cpu()
        torch.testing.assert_close(model(images), logits, rtol=1e-3, atol=1e-3)


@pytest.mark.cuda
def test_a_dry_run_measures_the_peak(tmp_path):
    arguments = [*PAIR, "--device", "cuda", "--cuda_graphs", "true", "--run_dir", str(tmp_path / "run")]
    run = parse_with_recipe(arguments)
    text = dry_run(Trainer(run, images=few(run)))
    (line,) = [line for line in text.splitlines() if "measured peak" in line]
    assert all(float(figure) > 1 for figure in re.findall(r"[\d.]+", line.replace(",", "")))


@pytest.mark.cuda
def test_resident_images_lie_on_the_device():
    run = parse_with_recipe([*PAIR, "--device", "cuda", "--data.loader", "resident"])
    batches = create_train_loader(few(run), run.data, run.seed, DeviceContext(torch.device("cuda")))
    assert batches.pixels.is_cuda
    assert batches.batches_at_once > 1


# Memory


@contextmanager
def limited_memory(number):
    """Within, torch may allocate so many bytes more than it has now."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + number) / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.cuda
def test_too_little_memory_is_explained_and_the_run_goes_on_after_it(tmp_path):
    arguments = ["--model.motivated", "resnet56", "--data.batch_size", "1024", "--device", "cuda", "--epochs", "1"]
    arguments += ["--motivation.name", "random"]
    run = parse_with_recipe([*arguments, "--run_dir", str(tmp_path / "run")])
    images = load_data(run.data, run.model)
    trainer = Trainer(run, images=images)
    with limited_memory(32 * 2**20), pytest.raises(RunStopped) as caught:
        trainer.fit()
    message = str(caught.value)
    assert message.startswith("out of memory (CUDA out of memory")
    assert "lower data.batch_size = 1024" in message
    assert "\n" not in message
    del trainer
    assert (resume(run.run_dir, images=images) / "base.safetensors").is_file()


@pytest.mark.cuda
def test_a_batch_size_is_found_that_fits_and_not_twice_of_it(tmp_path):
    arguments = [
        "--model.base",
        "resnet20",
        "--model.motivated",
        "resnet56",
        "--device",
        "cuda",
        *RANDOM,
        "--epochs",
        "1",
    ]
    arguments += ["--data.batch_size", "auto", "--data.img_size", "32", "--data.eval_batch_size", "8"]
    config = parse_with_recipe([*arguments, "--run_dir", str(tmp_path / "run")])
    images = load_data(config.data, config.model)
    with limited_memory(192 * 2**20):
        trainer = Trainer(config, images=images)
        size = trainer.config.data.images_per_batch
        assert 8 <= size < 64, "1437 // 20 = 71 images would be allowed"
        assert (trainer.fit() / "base.safetensors").is_file()
        del trainer
        data = replace(config.data, batch_size=2 * size)
        larger = Trainer(replace(config, data=data, run_dir=str(tmp_path / "larger")), images=images)
        with pytest.raises(RunStopped, match="out of memory"):
            larger.fit()
