import random

import pytest
import torch
from PIL import Image

from nestnet.config import DataConfig, ModelConfig
from nestnet.data import eval_loader, load_data, mixed, train_loader


@pytest.fixture
def folder(tmp_path):
    """Two classes of eight training and two test images each, every one of its own grey value."""
    for part, count in (("train", 8), ("val", 2)):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / part / name).mkdir(parents=True)
            for index in range(count):
                value = 100 * label + index
                Image.new("RGB", (10, 8), (value, value, value)).save(tmp_path / part / name / f"{index}.png")
    return tmp_path


def epochs(loader, numbers):
    batches = []
    for epoch in numbers:
        loader.batch_sampler.set_epoch(epoch)
        batches.append([(images.clone(), labels.clone()) for images, labels in loader])
    return batches


def same(first, second):
    pairs = list(zip(first, second, strict=True))
    return all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in pairs)


def test_digits_are_split_alike_for_every_seed():
    images = load_data(DataConfig(), ModelConfig())
    assert (len(images.train), len(images.test)) == (1437, 360)
    assert images.class_names == [str(digit) for digit in range(10)]
    assert images.input_size == (1, 8, 8)
    stacked = torch.stack([image for image, _ in images.test])
    assert abs(stacked.mean()) < 0.05
    assert abs(stacked.std() - 1) < 0.05
    labels = torch.tensor([label for _, label in images.test]).bincount()
    assert labels.min() >= 34, "stratified"


def test_augmentation_and_order_follow_from_seed_epoch_and_sample(folder):
    config = DataConfig(name="folder", root=str(folder), img_size=16, batch_size=4)
    first, second = (train_loader(load_data(config, ModelConfig()), config, seed=1) for _ in range(2))
    a, b = epochs(first, [0, 1])
    random.seed(5)
    torch.manual_seed(5)
    c, d = epochs(second, [1, 0])
    assert same(a, d)
    assert same(b, c)
    assert not same(a, b)
    other = train_loader(load_data(config, ModelConfig()), config, seed=2)
    assert not same(a, epochs(other, [0])[0])


@pytest.mark.slow
def test_workers_give_the_same_batches(folder):
    for img_size in (16, 80):
        alone = DataConfig(name="folder", root=str(folder), img_size=img_size, batch_size=4)
        many = DataConfig(name="folder", root=str(folder), img_size=img_size, batch_size=4, workers=2)
        loaders = [train_loader(load_data(config, ModelConfig()), config, seed=1) for config in (alone, many)]
        for ours, theirs in zip(*(epochs(loader, [0, 1]) for loader in loaders), strict=True):
            assert same(ours, theirs)


def test_loading_leaves_the_global_generators_alone(folder):
    config = DataConfig(name="folder", root=str(folder), img_size=16, batch_size=4)
    loader = train_loader(load_data(config, ModelConfig()), config, seed=1)
    states = torch.get_rng_state(), random.getstate()
    for key in next(iter(loader.batch_sampler)):
        loader.dataset[key]
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]


def test_an_epoch_has_every_sample_at_most_once(folder):
    config = DataConfig(name="folder", root=str(folder), img_size=16, batch_size=5)
    sampler = train_loader(load_data(config, ModelConfig()), config, seed=1).batch_sampler
    indices = [index for batch in sampler for index, _ in batch]
    assert len(indices) == len(set(indices)) == 15
    assert len(sampler) == 3


def test_seeds_are_spread():
    seeds = {mixed(seed, epoch, index) for seed in range(5) for epoch in range(5) for index in range(200)}
    assert len(seeds) == 5000
    assert mixed(1, 2) != mixed(2, 1)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_folder_gives_classes_and_every_test_image(folder):
    config = DataConfig(name="folder", root=str(folder), img_size=16, eval_batch_size=3)
    images = load_data(config, ModelConfig(motivated="efficientnet_b0"))
    assert images.class_names == ["cat", "dog"]
    assert images.mean == pytest.approx([0.485, 0.456, 0.406])
    labels = torch.cat([labels for _, labels in eval_loader(images, config)])
    assert labels.tolist() == [0, 0, 1, 1]
    image, _ = images.test[0]
    assert image.shape == (3, 16, 16)
    torch.testing.assert_close(image[:, 0, 0], (torch.zeros(3) - torch.tensor(images.mean)) / torch.tensor(images.std))


def test_large_images_are_cropped_as_timm_evaluates(folder):
    config = DataConfig(name="folder", root=str(folder), img_size=80)
    images = load_data(config, ModelConfig(base="resnet18", motivated="resnet34"))
    assert images.test[0][0].shape == images.train[0, 7][0].shape == (3, 80, 80)
    assert images.augment == "resized_crop"


def test_grey_images(folder):
    config = DataConfig(name="folder", root=str(folder), img_size=16)
    images = load_data(config, ModelConfig(in_chans=1))
    assert images.test[0][0].shape == (1, 16, 16)
    assert images.mean == [0.5]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: DataConfig(name="folder", root=str(root / "absent")), "there is no such folder"),
        (lambda root: (root / "val").rename(root / "vale") and None, "it must hold train/ and test/ or val/"),
        (lambda root: (root / "val" / "dog").rename(root / "val" / "doog") and None, "different classes: dog, doog"),
        (lambda root: DataConfig(name="folder", root=str(root), mean=[0.5]), "data.mean = .* each of the 3 channels"),
    ],
)
def test_wrong_folders(folder, spoil, message):
    config = spoil(folder) or DataConfig(name="folder", root=str(folder))
    with pytest.raises(ValueError, match=message):
        load_data(config, ModelConfig())


def test_a_damaged_image_is_named(folder):
    (folder / "train" / "cat" / "0.png").write_bytes(b"no image")
    config = DataConfig(name="folder", root=str(folder), img_size=16)
    with pytest.raises(ValueError, match=r"0.png cannot be read as an image .*; replace or remove it"):
        load_data(config, ModelConfig()).train[0, 1]


def test_too_few_images_for_a_batch(folder):
    config = DataConfig(name="folder", root=str(folder), img_size=16, batch_size=17)
    with pytest.raises(ValueError, match=r"data\.batch_size = 17: there are only 16 training images"):
        train_loader(load_data(config, ModelConfig()), config, seed=0)
