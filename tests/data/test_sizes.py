"""Images that are not square, from the configuration to the exports."""

import pytest
import torch
from folders import plant
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2

import nestnet.cost
from nestnet.cli.main import main
from nestnet.config.schema_sections import DataConfig, ModelConfig
from nestnet.data.augmentation import create_train_transform
from nestnet.data.image_data import load_data
from nestnet.data.loaders import create_train_loader
from nestnet.data.preprocessing import create_eval_transform
from nestnet.data.resident_loaders import ResidentTrainLoader
from nestnet.models.build import build_model
from nestnet.recipes.command_line import parse_with_recipe
from nestnet.recipes.extension import parse_extension
from nestnet.runs.reading import read_config
from nestnet.training.resolve import resolve_config
from nestnet.training.trainer import Trainer
from nestnet.weights.weights_file import read_file_metadata

SIZE = (8, 16)


@pytest.fixture(scope="module")
def wide():
    """The digits at 8 x 16 pixels, which are padded by one pixel above and below, and by two at the sides."""
    return load_data(DataConfig(img_size=[*SIZE]), ModelConfig())


@settings(max_examples=15)
@given(st.integers(0, 2), st.integers(0, 4), st.booleans(), st.integers(0, 7), st.integers(0, 15), st.integers(0, 5))
def test_resident_images_are_those_of_torchvision(wide, top, left, flipped, row, column, side):
    batches = create_train_loader(wide, DataConfig(batch_size=64, cutout=side), 1)
    assert isinstance(batches, ResidentTrainLoader)
    image = wide.to_train_pixels(wide.train.dataset[17][0])
    found = batches.augment(torch.tensor([17]), torch.tensor([[top], [left], [flipped], [row], [column]]))[0]
    expected = v2.functional.crop(v2.functional.pad(image, [2, 1]), top, left, *SIZE)
    expected = v2.functional.hflip(expected) if flipped else expected
    expected = v2.functional.to_dtype(expected, torch.float32, scale=True)
    expected = v2.functional.normalize(expected, wide.mean, wide.std)
    for y in range(SIZE[0]):
        for x in range(SIZE[1]):
            if 0 <= y - row + side // 2 < side and 0 <= x - column + side // 2 < side:
                expected[:, y, x] = 0
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_resident_draws_cover_both_sides(wide):
    draws = create_train_loader(wide, DataConfig(batch_size=64), 1)._draw(0)
    assert [int(row.max()) for row in draws] == [2, 4, 0, 7, 15]


@pytest.mark.parametrize("augment", ["none", "shift", "crop", "resized_crop"])
def test_each_augmentation_gives_the_size(augment):
    transform = create_train_transform(
        DataConfig(auto_augment="rand-m5", random_erasing=0.5, cutout=4), augment, (24, 40), [0.5] * 3, [0.5] * 3
    )
    image = v2.functional.to_pil_image(torch.randint(256, (3, 50, 30), dtype=torch.uint8))
    assert transform(image).shape == (3, 24, 40)
    for crop_pct in (None, 0.9):
        assert create_eval_transform((24, 40), [0.5] * 3, [0.5] * 3, crop_pct)(image).shape == (3, 24, 40)


def test_costs_are_those_of_both_sides():
    small, wide = (nestnet.cost.network_cost("resnet8", img_size=size, num_classes=10) for size in (32, (32, 64)))
    head = 64 * 10
    assert wide.macs - head == 2 * (small.macs - head)
    assert wide.parameters == small.parameters
    with pytest.raises(ValueError, match=r"img_size = \[32\]: it must be a whole number of at least 1, or two of them"):
        nestnet.cost.forward_cost("resnet8", img_size=[32])


def test_a_vit_has_a_position_for_each_patch():
    run = parse_with_recipe(
        [
            "--model.base",
            "vit_tiny_patch16_224",
            "--model.motivated",
            "vit_small_patch16_224",
            "--data.img_size",
            "[32,48]",
        ]
    )
    net = build_model(resolve_config(run, load_data(run.data, run.model)))
    assert net.pos_embed.placement.shape == (1, 1 + 2 * 3, 384)
    assert net(torch.zeros(2, 1, 32, 48), "base").shape == (2, 10)
    assert net.standalone("base").patch_embed.img_size == (32, 48)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on wide images of a folder."""
    folder = tmp_path_factory.mktemp("wide")
    plant(folder / "images", {"cat": 20, "dog": 20})
    run = parse_with_recipe(
        ["--data.root", str(folder / "images"), "--data.img_size", "[16,24]", "--model.base", "resnet8", "--model.motivated",
         "resnet14", "--epochs", "1", "--data.batch_size", "4", "--run_dir", str(folder / "run"),
         "--motivation.name", "periodic", "--motivation.period", "2", "--motivation.start", "0"]
    )  # fmt: skip
    assert (run.data.img_size, run.data.augment) == ([16, 24], "crop")
    trainer = Trainer(run)
    trainer.fit()
    return folder


def test_a_run_records_and_exports_its_size(trained, capsys):
    run_dir = trained / "run"
    assert read_config(run_dir).data.img_size == [16, 24]
    metadata = read_file_metadata(run_dir / "base.safetensors")
    assert metadata.input_size == (3, 16, 24)
    assert main(["evaluate", str(run_dir), "--mode", "base"]) == 0
    image = next((trained / "images").rglob("*.png"))
    assert main(["predict", str(image), "--model", str(run_dir / "base.safetensors"), "--format", "json"]) == 0
    assert main(["report", str(run_dir), "--output", str(trained / "report")]) == 0
    assert "16 x 24 pixels" in (trained / "report" / "report.html").read_text()
    assert main(["export", str(run_dir), "--mode", "motivated", "--output", str(trained / "m.safetensors")]) == 0
    # What starts from the export, or extends it, has its size.
    config = parse_with_recipe(
        ["--model.base_weights", str(run_dir / "base.safetensors"), "--data.root", str(trained / "images")]
    )
    assert config.data.img_size == [16, 24]
    extension = parse_extension(run_dir / "base.safetensors", "resnet20", ["--data.root", str(trained / "images")])
    assert extension.data.img_size == [16, 24]


def test_the_forecasts_of_a_run(trained, capsys):
    command = ["cost", "--config", str(trained / "run" / "config.yaml")]
    assert main(command) == 0
    assert "16 x 24 pixels" in capsys.readouterr().out
