"""The recipes in `configs/`: each against the paper's facts and figures, and trained for two steps on made-up images."""

import re
import shlex
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

import nestnet
from nestnet import Mode
from nestnet.config import parsing, schema
from nestnet.data.readers import READERS
from nestnet.data.stored_data_set import StoredDataSet
from nestnet.paper import published
from nestnet.recipes.command_line import parse_with_recipe
from nestnet.training.condition_plan import build_condition
from nestnet.training.trainer import Trainer

CONFIGS = Path(__file__).parents[2] / "configs"
RECIPES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
SHARED = sorted(path.name for path in (CONFIGS / "shared").glob("*.yaml"))
OUR_OWN = {"digits_resnet20_32", "cifar10_folder_resnet20_32", "both_cifar10_resnet20_32"}
"""Those that are for no row of the paper."""


@dataclass(frozen=True)
class Facts:
    """What the paper prints of a training. The learning rate of the CIFAR ResNets is an exception: it is the usual one."""

    epochs: int
    batch_size: int
    optimizer: str
    lr: float
    weight_decay: float
    schedule: str
    warmup_epochs: int
    img_size: int | None


CIFAR = Facts(200, 128, "momentum", 0.1, 5e-4, "cosine", 0, None)
VIT = Facts(300, 64, "adamw", 2.5e-4, 0.05, "cosine", 20, 224)
EFFICIENTNET = Facts(350, 64, "rmsprop", 0.01, 1e-4, "step", 5, 224)
A3 = Facts(100, 2048, "lamb", 8e-3, 0.02, "cosine", 5, 160)
FINE_TUNED = {epochs: Facts(epochs, 384, "sgd", 0.01, 1e-4, "cosine", 0, 224) for epochs in (300, 1000, 2000)}

# file: base, motivated network, data, condition, k (where falling losses motivate), training
PAPER = {
    "cifar10_resnet20_32": ("resnet20", "resnet32", "cifar10", "loss_decrease", 2, CIFAR),
    "cifar10_resnet32_44": ("resnet32", "resnet44", "cifar10", "loss_decrease", 2, CIFAR),
    "cifar10_resnet44_56": ("resnet44", "resnet56", "cifar10", "loss_decrease", 4, CIFAR),
    "cifar100_resnet20_32": ("resnet20", "resnet32", "cifar100", "loss_decrease", 3, CIFAR),
    "cifar100_resnet32_44": ("resnet32", "resnet44", "cifar100", "loss_decrease", 3, CIFAR),
    "cifar100_resnet44_56": ("resnet44", "resnet56", "cifar100", "loss_decrease", 4, CIFAR),
    "cifar10_vit_tiny_small": ("vit_tiny_patch16_224", "vit_small_patch16_224", "cifar10", "loss_decrease", 4, VIT),
    "cifar100_vit_tiny_small": ("vit_tiny_patch16_224", "vit_small_patch16_224", "cifar100", "loss_decrease", 5, VIT),
    **{
        f"cifar100_efficientnet_b{b}_b{b + 1}": (
            f"efficientnet_b{b}", f"efficientnet_b{b + 1}", "cifar100", "loss_decrease", k, EFFICIENTNET
        )
        for b, k in enumerate((2, 3, 4, 4, 3))
    },
    **{
        f"cifar100_efficientnet_b{b}_b{b + 1}_deploy_twice": (
            f"efficientnet_b{b}", f"efficientnet_b{b + 1}", "cifar100", "loss_decrease", 2, EFFICIENTNET
        )
        for b in (1, 2, 3, 4)  # of B0 in B1 it is the run above
    },
    "imagenet_resnet50_101": ("resnet50", "resnet101", "imagenet", "loss_decrease", 4, A3),
    "transfer_cifar10_resnet50": ("resnet50", "resnet50", "cifar10", "never", None, FINE_TUNED[300]),
    "transfer_cifar100_resnet50": ("resnet50", "resnet50", "cifar100", "never", None, FINE_TUNED[300]),
    "transfer_flowers102_resnet50": ("resnet50", "resnet50", "flowers102", "never", None, FINE_TUNED[2000]),
    "transfer_oxford_pets_resnet50": ("resnet50", "resnet50", "oxford_pets", "never", None, FINE_TUNED[1000]),
    **{
        f"ablation_{letter}_{of}": (*pair, condition, None, training)
        for letter, condition in (("a", "random"), ("b", "random_like"))
        for of, pair, training in (
            ("cifar10_resnet20_32", ("resnet20", "resnet32", "cifar10"), CIFAR),
            ("cifar100_efficientnet_b0_b1", ("efficientnet_b0", "efficientnet_b1", "cifar100"), EFFICIENTNET),
        )
    },
    **{
        f"condition_{name}_cifar10_resnet20_32": ("resnet20", "resnet32", "cifar10", condition, None, CIFAR)
        for name, condition in (
            ("ema", "ema_decrease"),
            ("held_out_loss", "held_out_loss_decrease"),
            ("gradient_norm", "gradient_norm_increase"),
        )
    },
}  # fmt: skip

# What an experiment's file must say besides: the settings of the works that the paper follows
DETAILS = {
    "cifar10_resnet20_32": {"model.batch_norm": "shared", "data.augment": "crop", "optimizer.momentum": 0.9},
    "condition_ema_cifar10_resnet20_32": {"motivation.min_drop": 0.002},
    "cifar100_vit_tiny_small": {
        "data.auto_augment": "rand-m9-mstd0.5-inc1",
        "data.random_erasing": 0.25,
        "data.mixup": 0.8,
        "data.cutmix": 1.0,
        "loss.label_smoothing": 0.1,
        "model.qkv_map": "prefix",
        "optimizer.step_count": "literal",
    },
    "cifar100_efficientnet_b1_b2_deploy_twice": {
        "model.batch_norm": "shared",
        "model.drop_rate": [0.2, 0.3],
        "model.drop_path_rate": [0.2, 0.2],
        "data.auto_augment": "cifar10",
        "optimizer.momentum": 0.9,
        "optimizer.options": {"alpha": 0.9},
        "schedule.decay_rate": 0.97,
        "schedule.decay_epochs": 2,
    },
    "cifar100_efficientnet_b4_b5": {"model.drop_rate": [0.4, 0.4]},
    "imagenet_resnet50_101": {
        "model.batch_norm": "shared",
        "data.eval_img_size": 224,
        "data.crop_pct": 0.95,
        "data.auto_augment": "rand-m6-mstd0.5-inc1",
        "data.mixup": 0.1,
        "data.cutmix": 1.0,
        "data.repeats": 1,
        "loss.name": "bce",
        "loss.label_smoothing": 0.0,
    },
    "transfer_flowers102_resnet50": {"data.repeats": 3, "data.mixup": 0.8, "data.cutmix": 1.0, "motivation.runs": None},
}


def head(name: str) -> str:
    """The comment above a recipe."""
    lines = (CONFIGS / f"{name}.yaml").read_text().splitlines()
    return "\n".join(lines[: next(index for index, line in enumerate(lines) if not line.startswith("#"))])


@cache
def load(name: str, *overrides: str) -> schema.Config:
    """A recipe with what its command must give besides, and any overrides."""
    needed = ["--motivation.runs", "[DIR]"] if name.startswith("ablation_b") else []
    needed += ["--data.root", "FOLDER"] if "folder" in name else []
    return parse_with_recipe(["--config", str(CONFIGS / f"{name}.yaml"), *needed, *overrides])


def test_the_table_has_all_recipes():
    assert set(RECIPES) == set(PAPER) | OUR_OWN


@pytest.mark.parametrize("name", sorted(PAPER))
def test_the_papers_facts(name):
    base, motivated, data, condition, k, training = PAPER[name]
    run = load(name)
    found = run.model.base, run.model.motivated, run.data.name, run.motivation.name
    assert found == (base, motivated, data, condition)
    assert k in (None, run.motivation.k)
    schedule = run.schedule
    assert training == Facts(
        run.epochs,
        run.data.batch_size,
        run.optimizer.name,
        run.optimizer.lr,
        run.optimizer.weight_decay,
        schedule.name,
        schedule.warmup_epochs,
        run.data.img_size,
    )


@pytest.mark.parametrize("name", sorted(DETAILS))
def test_details(name):
    run = load(name)
    found = {key: getattr(getattr(run, key.split(".")[0]), key.split(".")[1]) for key in DETAILS[name]}
    assert found == DETAILS[name]


def published_rows(name: str) -> list[published.PublishedResult]:
    """The rows that a recipe of the paper is for: those of its own networks, and of the classical training beside it."""
    base, motivated, data, condition, k, _ = PAPER[name]
    if name.startswith("transfer"):
        nested = published.find_nested_result("resnet50", "resnet101", data, "B", fine_tuned=True)
        return [published.find_classical_result("resnet50", data, fine_tuned=True), nested]
    rows = [published.find_nested_result(base, motivated, data, "B", condition=condition, k=k)]
    if not name.startswith("condition"):
        rows += [published.find_classical_result(network, data) for network in (base, motivated)]
    if base.startswith("efficientnet") and condition == "loss_decrease" and k == 2:
        rows.append(published.find_nested_result(base, motivated, data, "M", k=k))
    return rows


@pytest.mark.parametrize("name", sorted(PAPER))
def test_the_published_figures(name):
    rows = published_rows(name)
    assert all(row is not None for row in rows)
    assert all(row.k in (None, PAPER[name][4]) for row in rows if not row.fine_tuned)
    printed = set(re.findall(r"\b\d\d\.\d\d\b", head(name)))
    own = {f"{row.accuracy:.2f}" for row in rows}
    assert own <= printed
    base, motivated, data, *_ = PAPER[name]
    original = published.find_nested_result(base, motivated, data, "B")
    assert printed <= own | {f"{original.accuracy:.2f}" if original else ""}
    for row in rows:
        if row.std is not None:
            assert f"{row.accuracy:.2f} ± {row.std:.2f}" in head(name)


@pytest.mark.parametrize("name", RECIPES)
def test_the_head_gives_a_command_that_parses_and_overrides_that_fit(name, monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    assert 2 <= len(head(name).splitlines()) <= 6
    assert all(len(line) <= 128 for line in (CONFIGS / f"{name}.yaml").read_text().splitlines())
    (command,) = re.findall(r"^#   nestnet train (.+)", head(name), re.MULTILINE)
    assert command.startswith(f"--config configs/{name}.yaml")
    overrides = re.findall(r"`(--.+?)`", head(name))
    run = parse_with_recipe([*shlex.split(command), *shlex.split(" ".join(overrides))])
    if name not in PAPER:
        return
    assert "arXiv 2602.21064" in head(name)
    if not name.startswith("transfer"):
        assert run.model.batch_norm == ("private" if "--model.batch_norm private" in overrides else None)
    if "`--motivation.name never` and `always`" in head(name):
        for alone, mode in (("never", Mode.BASE), ("always", Mode.MOTIVATED)):
            classical = replace(run, motivation=replace(load(name).motivation, name=alone, runs=None))
            assert build_condition(classical, 10).mode is mode


def test_each_shared_part_is_used():
    assert all(len(line) <= 128 for name in SHARED for line in (CONFIGS / "shared" / name).read_text().splitlines())
    used = [yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()).get("include") for name in RECIPES]
    assert {f"shared/{name}" for name in SHARED} <= set(used)


# Two steps of each


CLASSES = {"cifar10": 10, "cifar100": 100, "flowers102": 102, "oxford_pets": 37, "imagenet": 1000, "folder": 3}
BATCH, IMAGES = 4, 28  # 7 batches: enough to motivate one with k = 4, and with one held out


@pytest.fixture
def made_up(monkeypatch):
    """Random images in place of every data set but the digits, in its size and with its number of classes."""

    def source(data, model):
        generator = torch.Generator().manual_seed(0)
        size, classes = 32 if data.name in ("cifar10", "cifar100", "folder") else 48, CLASSES[data.name]
        pixels = torch.randint(256, (IMAGES, size, size, 3), dtype=torch.uint8, generator=generator)
        labels = [index % classes for index in range(IMAGES)]
        samples = [(Image.fromarray(image.numpy()), label) for image, label in zip(pixels, labels, strict=True)]
        return StoredDataSet(samples, samples[:2], labels, [f"class {label}" for label in range(classes)], 3, size)

    for name in CLASSES:
        monkeypatch.setitem(READERS, name, source)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """An export of ResNet-50, for the recipes that start from one."""
    path = tmp_path_factory.mktemp("weights") / "base.safetensors"
    nestnet.export(nestnet.create_model("resnet50", "resnet50", num_classes=5, batch_norm="shared"), "base", path)
    return path


@pytest.fixture
def earlier_run(tmp_path):
    """The steps of a run of two epochs, with one and with two motivated batches."""
    modes = ["base", "motivated", "base", "base"], ["base", "motivated", "motivated", "base"]
    rows = [(epoch, mode) for epoch, row in enumerate(modes, start=1) for mode in row]
    lines = [f"{step},{epoch},{mode},1.0" for step, (epoch, mode) in enumerate(rows, start=1)]
    (tmp_path / "steps.csv").write_text("\n".join(["step,epoch,mode,loss", *lines, ""]))
    (tmp_path / "metrics.csv").write_text("epoch,base_top1,motivated_top1\n1,50,50\n2,50,50\n")
    return tmp_path


def small(name: str, request: pytest.FixtureRequest, *more: str) -> schema.Config:
    """A recipe with small images and batches, and a schedule for two epochs; all else is as it stands."""
    run = load(name)
    overrides = {"data.batch_size": BATCH, "epochs": 2, "device": "cpu", "data.workers": 0}
    overrides["accumulate"] = min(run.accumulate, 2)  # parts of at least two images
    overrides["schedule.warmup_epochs"] = min(run.schedule.warmup_epochs, 1)
    if run.schedule.name == "step":
        overrides["schedule.decay_epochs"] = 0.5
    if run.data.img_size is not None:
        overrides["data.img_size"] = 32
    if run.data.eval_img_size is not None:
        overrides["data.eval_img_size"] = 48
    if run.motivation.name == "random_like":
        overrides["motivation.runs"] = [str(request.getfixturevalue("earlier_run"))]
    if run.model.base_weights is not None:
        overrides["model.base_weights"] = request.getfixturevalue("weights")
    return load(name, *(f"--{key}={value}" for key, value in overrides.items()), *more)


def values(parameters: list[torch.nn.Parameter]) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in parameters]


def changed(before: list[torch.Tensor], parameters: list[torch.nn.Parameter]) -> list[bool]:
    return [not torch.equal(old, new) for old, new in zip(before, parameters, strict=True)]


def test_what_must_be_given_is_asked_for(made_up):
    with pytest.raises(ValueError, match=r"motivation\.runs = null: it must be a list of run directories"):
        parsing.load(CONFIGS / "ablation_b_cifar10_resnet20_32.yaml")
    with pytest.raises(ValueError, match="FILE cannot be read as weights: there is no such file"):
        Trainer(load("transfer_cifar10_resnet50", "--data.batch_size", "4", "--data.workers", "0"))


@pytest.mark.parametrize("name", [*RECIPES, "both_cifar10_resnet20_32 --motivation.distillation=1.0"])
def test_two_steps(name, request, made_up):
    name, *overrides = name.split()
    run = small(name, request, *overrides)
    trainer = Trainer(run)
    if name.startswith("transfer"):
        stem = load_file(request.getfixturevalue("weights"))["conv1.weight"]
        assert torch.equal(trainer.net.subnet("base").state_dict()["conv1.weight"], stem)
    size = trainer.images.eval_size[0]
    assert trainer.images.test[0][0].shape == (trainer.net.in_chans, size, size)

    base = list(trainer.net.subnet("base").parameters())
    ours = set(map(id, base))
    differential = [parameter for parameter in trainer.net.parameters() if id(parameter) not in ours]
    motivated = Mode.BASE if run.motivation.name == "never" else Mode.MOTIVATED
    steps = [Mode.BASE, motivated]

    trainer.net.train()
    trainer.condition.reset()
    for batch, mode in zip(trainer.epoch_batches(), steps, strict=False):
        before, before_differential = values(base), values(differential)
        outcome = trainer.step(*trainer.mix_batch(*batch), mode)
        watched = trainer.watched_quantity(outcome)
        trainer.condition.update(watched)
        assert trainer.condition.mode in Mode
        trainer.steps_done += 1
        trainer.schedule.step_update(trainer.steps_done)
        assert torch.isfinite(torch.tensor([outcome.loss(), watched])).all()
        assert sum(changed(before, base)) > len(base) / 2
        if mode is Mode.MOTIVATED:
            assert sum(changed(before_differential, differential)) > len(differential) / 2
        else:
            assert not any(changed(before_differential, differential))
    assert trainer.steps_done == 2
