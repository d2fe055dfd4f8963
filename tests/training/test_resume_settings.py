"""A run with each optimizer of timm's, and with each setting of what is trained and how, goes on with the same bits."""

import importlib
import itertools
import typing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from interrupted import content, few, train_and_copy
from PIL import Image
from registries import forgotten
from timm.optim import list_optimizers

from nestnet.conditions.registry import CONDITIONS
from nestnet.config.optimizer_checks import explain_refusal
from nestnet.config.schema_sections import Augmentation, DataConfig, LossConfig, ScheduleConfig
from nestnet.config.validation import validate
from nestnet.recipes.command_line import parse_with_recipe
from nestnet.training.resume import resume

PLAIN = ["--model.base", "plain8", "--model.motivated", "plain16"]
"""The small networks of docs/guide/own-network.md, whose weights are divided."""

RESNET = ["--model.base", "resnet8", "--model.motivated", "resnet14"]

SHORT = ["--data.batch_size", "16", "--checkpoint_steps", "2", "--optimizer.lr", "0.01"]
"""4 batches an epoch of digits, and checkpoints after every second."""

ALTERNATING = ["--motivation.name", "periodic", "--motivation.period", "2"]

COLOURS = [
    "--model.base",
    "resnet8",
    "--model.motivated",
    "resnet8",
    "--data.name",
    "folder",
    "--data.root",
    "IMAGES",
    "--data.img_size",
    "8",
]

pytestmark = pytest.mark.filterwarnings("ignore:It is highly recommended to have 'opt_einsum'")


@pytest.fixture(scope="module", autouse=True)
def _plain_net():
    with pytest.MonkeyPatch.context() as patch, forgotten():
        patch.syspath_prepend(Path(__file__).parents[2] / "examples")
        importlib.import_module("plain_net")
        yield


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """What stands for paths in the arguments: a folder of colour images, and an earlier run."""
    folder = tmp_path_factory.mktemp("places")
    pixels = np.random.default_rng(0)
    for part, label, number in itertools.product(("train", "test"), ("cat", "dog"), range(24)):
        path = folder / "images" / part / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    run = parse_with_recipe([*PLAIN, *SHORT, *ALTERNATING, "--epochs", "2", "--run_dir", str(folder / "run")])
    with pytest.MonkeyPatch.context() as patch:
        train_and_copy(run, folder / "run", folder / "copy", patch, 1)
    return {"IMAGES": str(folder / "images"), "RUN": str(folder / "run")}


def killed_and_whole(run, number, path, monkeypatch):
    """What is left of a run that is killed before the number-th batch has its row and then resumed, and of a whole one."""
    train_and_copy(run, path / "whole", path / "killed", monkeypatch, number)
    resume(path / "killed", images=few(run) if run.data.name == "digits" else None)
    return content(path / "killed"), content(path / "whole")


@pytest.fixture(scope="module")
def plain_run():
    return parse_with_recipe([*PLAIN, *SHORT, *ALTERNATING, "--epochs", "1"])


@pytest.mark.parametrize("name", [str(name) for name in list_optimizers() if explain_refusal(str(name)) is None])
def test_each_optimizer(name, plain_run, tmp_path, monkeypatch):
    monkeypatch.setattr("timm.optim.kron.has_dynamo", False)  # it would compile each shape for seconds
    run = validate(replace(plain_run, optimizer=replace(plain_run.optimizer, name=name)))
    try:
        resumed, whole = killed_and_whole(run, 3, tmp_path, monkeypatch)
    except ValueError as error:
        if "uses for one tensor what it computed for another" in str(error):
            pytest.skip(str(error))  # as RAdamLegacy does up to timm 1.0.26
        raise
    assert resumed == whole


@pytest.mark.parametrize(
    "arguments",
    [
        ["--optimizer.name", "lamb", "--optimizer.weight_decay", "0.02"],
        ["--optimizer.name", "adafactor"],  # these widths are factored
        ["--optimizer.name", "adafactorbv"],
        ["--model.drop_rate", "0.2", "--model.batch_norm", "shared", "--model.depth_map", "first", "--channels_last", "true"],
        ["--model.batch_norm", "separate", "--model.zero_init_last", "false", "--model.differential_init", "zero",
         "--ema_decay", "0.5", "--recalibration_batches", "1"],
        ["--optimizer.differential_lr_scale", "3", "--optimizer.layer_decay", "0.7"],
        ["--optimizer.differential_lr_scale", "0.5", "--schedule.name", "none", "--optimizer.name", "adamw",
         "--optimizer.step_count", "literal"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_wider_networks(arguments, tmp_path, monkeypatch):
    arguments = [*RESNET, *SHORT, *ALTERNATING, "--epochs", "1", *arguments]
    resumed, whole = killed_and_whole(parse_with_recipe(arguments), 3, tmp_path, monkeypatch)
    assert resumed == whole


def choices(section, field):
    """The values that a field of the configuration may have."""
    return typing.get_args(typing.get_type_hints(section)[field])


def settings():
    """Arguments for each setting, generated from what the configuration knows."""
    yield from schedule_settings()
    yield from condition_settings()
    yield from image_settings()
    yield from step_settings()


def schedule_settings():
    for name, interval in itertools.product(choices(ScheduleConfig, "name"), choices(ScheduleConfig, "interval")):
        arguments = ["--schedule.name", name]
        if name != "none":
            arguments += ["--schedule.interval", interval]
        if name == "step":
            arguments += ["--schedule.decay_epochs", "0.5"]
        if name == "multistep":
            arguments += ["--schedule.decay_milestones", "[1]"]
        if name != "none" or interval == "step":
            yield [*ALTERNATING, *arguments]
        if name != "none" and interval == "epoch":
            yield [*ALTERNATING, *arguments, "--schedule.warmup_epochs", "1"]
    yield [*ALTERNATING, "--schedule.warmup_epochs", "1", "--schedule.warmup_prefix", "true"]


def condition_settings():
    for name in CONDITIONS:
        runs = ["--motivation.runs", '["RUN"]'] if name == "random_like" else []
        # Gradients of two networks agree only where both are trained.
        policy = ["--motivation.trains", "both"] if name == "gradient_agreement" else []
        yield ["--motivation.name", name, "--motivation.k", "1", *runs, *policy]
    # The limits and the policy: what has been spent, and where in the run a batch is, must survive.
    both = ["--motivation.trains", "both"]
    yield ["--motivation.name", "always", *both, "--motivation.distillation", "0.5", "--motivation.temperature", "2"]
    yield [
        "--motivation.k",
        "1",
        *both,
        "--motivation.watched_loss",
        "mean",
        "--motivation.motivated_loss_weight",
        "0.5",
    ]
    yield ["--motivation.name", "always", "--motivation.start", "0.3", "--motivation.until", "0.8"]
    yield ["--motivation.name", "always", *both, "--motivation.start", "0.2", "--motivation.budget", "1.9"]
    # Conditions that learn, with batches that are overruled.
    often = ["--motivation.min_rate", "0.7", "--motivation.max_rate", "1", "--motivation.budget", "1.8"]
    yield ["--motivation.name", "bandit", *often]
    yield ["--motivation.name", "gradient_agreement", *both, *often, "--accumulate", "2"]
    yield [
        "--motivation.name",
        "held_out_loss_decrease",
        "--motivation.k",
        "1",
        *both,
        "--motivation.watched_loss",
        "mean",
    ]


def image_settings():
    for augment, loader in itertools.product(typing.get_args(Augmentation), ("resident", "files")):
        if (augment, loader) != ("resized_crop", "resident"):
            yield [*ALTERNATING, "--data.augment", augment, "--data.loader", loader]
    for policy in ("cifar10", "imagenet", "rand-m9-mstd0.5-inc1"):
        yield [*ALTERNATING, *COLOURS, "--data.auto_augment", policy]
    for loader in ("resident", "files"):
        yield [*ALTERNATING, "--data.cutout", "3", "--data.repeats", "2", "--data.loader", loader]
    yield [*ALTERNATING, "--data.random_erasing", "0.5", "--data.loader", "files"]
    yield [*ALTERNATING, "--data.mixup", "0.2"]
    yield [*ALTERNATING, "--data.cutmix", "1.0", "--data.mixup_prob", "0.5"]
    yield [*ALTERNATING, "--data.mixup", "0.2", "--data.cutmix", "1.0"]
    both = [*ALTERNATING, "--motivation.trains", "both", "--loss.label_smoothing", "[0, 0.1]"]
    yield [*both, "--data.mixup", "0.2", "--data.mixup_prob", "[0.3, 0.9]", "--data.random_erasing", "[0.1, 0.8]"]


def step_settings():
    for name in choices(LossConfig, "name"):
        yield [*ALTERNATING, "--loss.name", name, "--loss.label_smoothing", "0.1"]
    yield [*ALTERNATING, "--loss.name", "bce", "--loss.target_threshold", "0.2", "--data.mixup", "0.2"]

    for step_count in ("own", "literal"):
        yield [*ALTERNATING, "--optimizer.name", "adamw", "--optimizer.step_count", step_count]
    yield [*ALTERNATING, "--optimizer.options", "{fused: true}"]
    yield [*ALTERNATING, "--optimizer.clip_grad", "0.1"]
    yield [*ALTERNATING, "--accumulate", "2", "--non_finite", "skip"]
    yield [*ALTERNATING, "--ema_decay", "0.9", "--recalibration_batches", "2"]
    yield [*ALTERNATING, "--recalibration_batches", "2", "--precision", "bfloat16"]


@pytest.mark.parametrize("arguments", list(settings()), ids=" ".join)
def test_each_setting(arguments, places, tmp_path, monkeypatch):
    for name, path in places.items():
        arguments = [argument.replace(name, path) for argument in arguments]
    arguments = [*PLAIN, *SHORT, "--epochs", "2", *arguments]
    resumed, whole = killed_and_whole(parse_with_recipe(arguments), 4, tmp_path, monkeypatch)
    assert resumed == whole


def test_the_table_has_every_setting_of_the_images():
    """A new augmentation comes into the table above."""
    given = {argument.removeprefix("--") for arguments in settings() for argument in arguments}
    trained = {
        "augment",
        "auto_augment",
        "random_erasing",
        "cutout",
        "mixup",
        "cutmix",
        "mixup_prob",
        "repeats",
        "loader",
    }
    others = {
        "name",
        "root",
        "corrupt",
        "download",
        "img_size",
        "eval_img_size",
        "crop_pct",
        "batch_size",
        "eval_batch_size",
    }
    others |= {"mean", "std", "workers", "val_fraction", "class_weights", "sampler"}
    others |= {"labels", "image_column", "label_column", "split_column", "multi_label", "label_separator"}
    assert trained <= {name.removeprefix("data.") for name in given}
    assert set(DataConfig.__dataclass_fields__) == trained | others
