"""Folders of images: what is read from them, what is done about damage, and the recipe that is chosen for them."""

from dataclasses import replace

import pytest
import torch
import yaml
from folders import plant
from helpers import set_cpu_features
from PIL import Image

from nestnet.cli.main import main
from nestnet.conditions.base import expected_fraction
from nestnet.conditions.by_loss import LossDecrease
from nestnet.config import schema
from nestnet.config.schema_sections import DataConfig, ModelConfig
from nestnet.data.folder.held_out_images import is_held_out
from nestnet.data.image_data import ImageData, load_data
from nestnet.data.image_files import ImageFiles
from nestnet.data.loaders import create_eval_loader, create_train_loader
from nestnet.models.registry import ARCHITECTURES
from nestnet.recipes.command_line import parse_with_recipe
from nestnet.recipes.folder_recipe import choose_fields
from nestnet.recipes.folder_summary import summarise_images


@pytest.fixture
def damaged(tmp_path):
    """Three training images of the first class and one test image of the second cannot be read."""
    for part in ("train", "test"):
        plant(tmp_path / part, {"cat": 6, "dog": 6})
    for index in (1, 2, 5):
        (tmp_path / "train" / "cat" / f"{index:02}.png").write_bytes(b"no image")
    whole = tmp_path / "test" / "dog" / "03.png"
    whole.write_bytes(whole.read_bytes()[:45])
    return tmp_path


def skipping(folder, **options):
    return DataConfig(name="folder", root=str(folder), img_size=8, corrupt="skip", augment="none", **options)


# Damage


def test_a_damaged_image_stops_and_is_named(damaged):
    stopping = replace(skipping(damaged), corrupt="stop")
    with pytest.raises(
        ValueError,
        match=r"train/cat/01.png cannot be read as an image \(.+\); replace it, or set data.corrupt to skip",
    ):
        load_data(stopping, ModelConfig()).train[1, 0]
    with pytest.raises(ValueError, match=r"test/dog/03.png cannot be read as an image"):
        load_data(stopping, ModelConfig()).test[9]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("loader", ["files", "resident"])
def test_damaged_images_are_replaced_in_training_and_left_out_of_testing(damaged, loader, workers, capfd):
    data = skipping(damaged, loader=loader, batch_size=4, workers=workers)
    images = load_data(data, ModelConfig())
    assert [len(images.train), len(images.test)] == [12, 11]
    labels = torch.cat([labels for _, labels in create_eval_loader(images, data)])
    assert labels.tolist() == [0] * 6 + [1] * 5
    batches = create_train_loader(images, data, seed=0)
    first, second = ([torch.cat(parts) for parts in zip(*batches.epoch(number), strict=True)] for number in (0, 1))
    # 0, 3, 3, 3, 4, the first dog, and the six dogs
    mean, std = images.mean[0], images.std[0]
    values = sorted(((first[0][:, 0, 0, 0] * std + mean) * 255).round().int().tolist())
    assert values == [0, 3, 3, 3, 4, 40, 40, 41, 42, 43, 44, 45]
    assert sorted(first[1].tolist()) == [0] * 5 + [1] * 7, "with the label of the image that is taken"
    assert sorted(second[1].tolist()) == sorted(first[1].tolist())
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 4, "each file once, whatever the epochs and workers"
    assert {line.split()[1].removeprefix(f"{damaged}/") for line in said} == {
        "test/dog/03.png", "train/cat/01.png", "train/cat/02.png", "train/cat/05.png"
    }  # fmt: skip


def test_folds_leave_damaged_images_out_of_testing(damaged):
    images = load_data(skipping(damaged), ModelConfig())
    folds = [images.fold(number, 3) for number in range(3)]
    assert [len(fold.train) for fold in folds] == [8, 8, 8]
    assert sum(len(fold.test) for fold in folds) == 9
    for fold in folds:
        assert all(fold.train[index, 0][0].shape == (3, 8, 8) for index in range(8))


def test_where_nothing_can_be_read_it_is_said(tmp_path):
    for part in ("train", "test"):
        plant(tmp_path / part, {"cat": 1, "dog": 1})
    for path in (tmp_path / "test").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of the 2 test images can be read; the first is .*cat/00.png"):
        load_data(skipping(tmp_path), ModelConfig())
    samples = [(str(path), 0) for path in sorted(tmp_path.glob("test/*/*"))]
    with pytest.raises(ValueError, match="none of the 2 images can be read"):
        ImageFiles(samples, "RGB", skip=True)[1]


def test_labels_are_of_the_classes(damaged):
    images = load_data(skipping(damaged), ModelConfig())
    with pytest.raises(
        ValueError, match="train_labels: there is a label 2, but only 2 class names; labels count from 0"
    ):
        replace(images, train_labels=[0, 2])
    assert isinstance(replace(images, train_labels=[0, 1]), ImageData)


# The recipe

CHOSEN = [
    # images, their shorter side, what is given: networks, size, batch size, epochs, learning rate
    (50_000, 32, {}, ("resnet20", "resnet32", 32, 128, 164, 0.1)),
    (3_000, 60, {}, ("resnet20", "resnet32", 64, 64, 200, 0.05)),
    (3_000, 150, {}, ("resnet18", "resnet34", 160, 64, 200, 0.025)),
    (1_281_167, 400, {}, ("resnet18", "resnet34", 224, 128, 90, 0.05)),
    (100, 400, {}, ("resnet18", "resnet34", 224, 8, 200, 0.0031)),
    (8, 32, {}, ("resnet20", "resnet32", 32, 2, 200, 0.0016)),
    (16, 32, {}, ("resnet20", "resnet32", 32, 4, 200, 0.0031)),
    (31, 32, {"motivation": {"k": 6}}, ("resnet20", "resnet32", 32, 2, 200, 0.0016)),
    (3_000, 32, {"data": {"batch_size": 128}, "epochs": 7}, ("resnet20", "resnet32", 32, 128, 7, 0.1)),
    (3_000, 400, {"data": {"img_size": 48}}, ("resnet20", "resnet32", 48, 64, 200, 0.05)),
    (3_000, 32, {"model": {"base_weights": "timm"}}, ("resnet18", "resnet34", 224, 64, 20, 0.0025)),
    (3_000, 32, {"model": {"base": "resnet20", "base_weights": "x"}}, ("resnet20", "resnet32", 32, 64, 20, 0.005)),
    (3_000, 400, {"model": {"motivated": "efficientnet_b1"}}, ("efficientnet_b0", "efficientnet_b1", 224, 64, 200, 0.004)),
    (3_000, 400, {"model": {"base": "vit_tiny_patch16_224"}},
     ("vit_tiny_patch16_224", "vit_small_patch16_224", 224, 64, 200, 1.8e-4)),
    # any other networks of timm, by their kind
    (3_000, 400, {"model": {"base": "convnextv2_atto"}}, ("convnextv2_atto", "convnextv2_femto", 224, 64, 200, 1.8e-4)),
    (3_000, 32, {"model": {"motivated": "vit_base_patch14_dinov2"}},
     ("vit_small_patch14_dinov2", "vit_base_patch14_dinov2", 28, 64, 200, 1.8e-4)),
]  # fmt: skip


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    root = tmp_path_factory.mktemp("seen")
    plant(root, {"cat": 5, "dog": 5}, size=(10, 8))
    return summarise_images(DataConfig(name="folder", root=str(root)))


@pytest.mark.parametrize(("images", "side", "given", "wanted"), CHOSEN)
def test_the_recipe_follows_from_the_images(images, side, given, wanted, seen):
    chosen = choose_fields(replace(seen, train_images=images, shorter_side=side), given)
    model, data = chosen["model"], chosen["data"]
    sizes = data["img_size"], data["batch_size"], chosen["epochs"]
    assert (model["base"], model["motivated"], *sizes, chosen["optimizer"]["lr"]) == wanted
    assert chosen["schedule"].get("warmup_epochs", 0) < max(chosen["epochs"] / 4, 1)


@pytest.mark.parametrize("images", range(6, 130))
def test_the_recipe_of_a_small_folder_motivates(images, seen):
    chosen = choose_fields(replace(seen, train_images=images, shorter_side=32), {}, needs_k=True)
    condition = LossDecrease(chosen["motivation"].get("k", 2))
    assert expected_fraction(condition, images // chosen["data"]["batch_size"]) >= 1 / 12


SECOND_HALF = {"name": "always", "trains": "both", "start": 0.5, "distillation": 0.5}


@pytest.mark.parametrize(
    ("given", "needs_k", "wanted"),
    [
        ({}, False, SECOND_HALF),
        ({"model": {"base": "resnet18"}}, False, SECOND_HALF),
        ({}, True, {}),
        ({"motivation": {"k": 3}}, False, {}),
        ({"motivation": {"name": "never"}}, False, {}),
        ({"motivation": {"trains": "both", "start": 0.3}}, False, {}),
        # These change the chosen way, and do not replace it.
        ({"motivation": {"start": 0.3, "budget": 1.5}}, False, SECOND_HALF),
        ({"motivation": {"distillation": 0.2, "temperature": 2.0}}, False, SECOND_HALF),
        ({"motivation": {"until": 0.4}}, False, {"name": "always", "trains": "both", "distillation": 0.5}),
        # The base cannot learn the answers to images that it does not see.
        ({"data": {"random_erasing": [0, 0.2]}}, False, {"name": "always", "trains": "both", "start": 0.5}),
        ({"data": {"mixup_prob": [0.2, 0.4]}}, False, {"name": "always", "trains": "both", "start": 0.5}),
        ({"data": {"random_erasing": [0.2, 0.2]}}, False, SECOND_HALF),
        ({"epochs": 0}, False, {}),
        ({"model": {"base": "resnet20", "motivated": "resnet20"}}, False, {}),
    ],
)
def test_both_networks_train_in_the_second_half_unless_motivation_is_given(given, needs_k, wanted, seen):
    chosen = choose_fields(replace(seen, train_images=3000, shorter_side=32), given, needs_k=needs_k)
    assert chosen["motivation"] == wanted


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        ({}, False),
        ({"base_weights": "x", "base": "resnet20"}, False),
        ({"motivated_weights": "x", "motivated": "resnet32"}, None),
        ({"base": "resnet18"}, None),
        ({"base": "vit_tiny_patch16_224"}, None),
    ],
)
def test_the_blocks_of_small_resnets_do_not_start_at_zero(model, wanted, seen):
    chosen = choose_fields(replace(seen, train_images=3000, shorter_side=32), {"model": model})
    assert chosen["model"].get("zero_init_last") == wanted


@pytest.mark.parametrize(
    ("motivated", "channels_last"), [("convnextv2_femto", True), ("deit_small_patch16_224", False)]
)
def test_the_recipe_of_any_network_follows_from_its_kind(motivated, channels_last, seen):
    chosen = choose_fields(replace(seen, train_images=3_000), {"model": {"motivated": motivated}})
    assert chosen["channels_last"] is channels_last
    assert chosen["optimizer"]["name"] == "adamw"


@pytest.mark.parametrize(
    "motivated", ["resnet32", "resnet101", "efficientnet_b1", "vit_base_patch16_224", "convnextv2_femto"]
)
def test_every_family_s_recipe_is_a_configuration(motivated, seen):
    found = parse_with_recipe(["--data.root", seen.source, "--model.motivated", motivated, "--data.workers", "0"])
    assert found.model.motivated == motivated != found.model.base


@pytest.mark.parametrize(
    ("settings", "features", "said"),
    [
        ([], ["avx512_bf16"], ", in bfloat16 (this CPU has AVX512-BF16)"),
        ([], [], ", in float32 (this CPU has neither AMX nor AVX512-BF16)"),
        (["--precision", "float32"], ["avx512_bf16"], ""),
    ],
    ids=["bfloat16", "float32", "given"],
)
def test_what_is_given_goes_over_the_recipe(settings, features, said, seen, monkeypatch):
    set_cpu_features(monkeypatch, *features)
    told = []
    arguments = [
        *settings,
        "--device",
        "cpu",
        "--data.root",
        seen.source,
        "--optimizer.lr",
        "0.7",
        "--loss.label_smoothing",
        "0",
        "--data.augment",
        "shift",
    ]
    found = parse_with_recipe(arguments, tell=told.append)
    assert (found.optimizer.lr, found.loss.label_smoothing, found.model.base) == (0.7, 0, "resnet20")
    assert (found.data.name, found.data.img_size, found.data.batch_size) == ("folder", 32, 2)
    assert found.precision == (settings[-1] if settings else "auto")
    (text,) = told
    assert text.splitlines() == [
        f"{seen.source}: 7 training and 3 test images (about a fifth of each class held out), 2 classes, "
        "typically of 10 x 8 pixels",
        f"trained as resnet20 in resnet32 at 32 x 32, 200 epochs of 3 batches of 2, momentum at lr 0.7{said}, "
        "motivation always, trains = both, distillation = 0.5, start = 0.5; any field that you set takes precedence",
    ]


@pytest.mark.parametrize(
    "settings",
    [
        ["--schedule.name", "none", "--epochs", "20"],
        ["--schedule.warmup_epochs", "0", "--epochs", "20"],
        ["--schedule.warmup_epochs", "3", "--epochs", "20"],
        ["--optimizer.name", "momentum"],
        ["--data.random_erasing", "[0,0.2]"],
        ["--data.mixup", "0.2", "--data.mixup_prob", "[0.2,0.4]"],
        ["--epochs", "0", "--finish_epochs", "2", "--model.base_weights", "base.pth"],
    ],
)
def test_what_is_chosen_goes_with_what_is_given(settings, seen):
    given = parse_with_recipe(["--data.root", seen.source, "--data.workers", "0", *settings])
    assert given.data.name == "folder"


def test_a_batch_size_below_0_is_refused_as_such(seen):
    with pytest.raises(ValueError, match=r"^data\.batch_size = -5: it must be auto, or at least 2"):
        parse_with_recipe(
            ["--data.root", seen.source, "--model.base", "vit_tiny_patch16_224", "--data.batch_size", "-5"]
        )


def test_a_folder_without_a_name_is_refused_as_such():
    with pytest.raises(ValueError, match=r"^data\.root = '': it must"):
        parse_with_recipe(["--data.root", ""])


def test_a_small_network_without_the_option_has_no_start_chosen(seen, monkeypatch):
    architecture = ARCHITECTURES["resnet8"]
    monkeypatch.setattr(type(architecture), "option_names", property(lambda self: ["batch_norm"]))
    assert "zero_init_last" not in choose_fields(seen, {"model": {"base": "resnet8"}})["model"]


def test_a_file_or_another_data_set_has_no_recipe(seen, tmp_path):
    (tmp_path / "own.yaml").write_text(f"data:\n  name: folder\n  root: {seen.source}\n")
    found = parse_with_recipe(["--config", str(tmp_path / "own.yaml")])
    assert (found.data.img_size, found.optimizer) == (None, schema.OptimizerConfig())
    assert (
        parse_with_recipe(["--data.name", "imagenet", "--data.root", seen.source]).optimizer == schema.OptimizerConfig()
    )
    assert parse_with_recipe(["--data.name", "folder", "--data.root", seen.source]).data.img_size == 32


def test_grey_images_are_read_as_such_and_damaged_ones_do_not_stop_a_look(tmp_path):
    plant(tmp_path, {"cat": 3, "dog": 3}, mode="L", size=(90, 70))
    (tmp_path / "cat" / "00.png").write_bytes(b"no image")
    found = summarise_images(DataConfig(name="folder", root=str(tmp_path)))
    assert (found.width, found.height, found.shorter_side, found.is_grey) == (90, 70, 70, True)
    assert parse_with_recipe(["--data.root", str(tmp_path)]).model.in_chans == 1


@pytest.mark.slow
def test_a_folder_alone_trains(tmp_path, monkeypatch, capsys):
    """Two classes that differ in brightness are told apart at once."""
    torch.manual_seed(0)
    for name, low in (("dark", 0), ("bright", 128)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(60):
            pixels = (low + torch.randint(128, (12, 12, 3))).byte().numpy()
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--data.root", "images", "--epochs", "4", "--data.img_size", "16", "--run_dir", "run"]) == 0
    printed = capsys.readouterr().out
    names = [f"{name}/{index}.png" for name in ("dark", "bright") for index in range(60)]
    test = sum(is_held_out(name) for name in names)
    said = f"images: {120 - test} training and {test} test images (about a fifth of each class held out), 2 classes"
    assert printed.startswith(said)
    stored = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (stored["model"]["base"], stored["data"]["batch_size"], stored["loss"]["label_smoothing"]) == (
        "resnet20",
        8,
        0.1,
    )
    assert "top-1 base 100.00 %" in printed
    assert main(["evaluate", "run", "--mode", "base"]) == 0
