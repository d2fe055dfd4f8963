import pickle
import random
from collections import Counter
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from nestnet.config.data_sets import DATA_SETS
from nestnet.config.schema_sections import DataConfig, DataName, ModelConfig
from nestnet.data.augmentation import _create_policy
from nestnet.data.image_data import load_data
from nestnet.data.loaders import create_eval_loader, create_train_loader
from nestnet.data.readers import READERS
from nestnet.data.seeding import mix_seed
from nestnet.device import DeviceContext


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


def read(folder, **options):
    """Its images read one by one: each sample has an augmentation of its own, however small it is."""
    return DataConfig(name="folder", root=str(folder), loader="files", **options)


def training(config, seed=1):
    return create_train_loader(load_data(config, ModelConfig()), config, seed)


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


def test_the_facts_of_every_data_set_are_known():
    assert set(DATA_SETS) == set(READERS) == set(get_args(DataName))
    images, facts = load_data(DataConfig(), ModelConfig()), DATA_SETS["digits"]
    assert (len(images.class_names), len(images.train)) == (facts.num_classes, facts.train_images)
    assert (*images.input_size, images.augment) == (facts.channels, facts.img_size, facts.img_size, facts.augment)


def test_augmentation_and_order_follow_from_seed_epoch_and_sample(folder):
    config = read(folder, img_size=16, batch_size=4)
    first, second = training(config), training(config)
    a, b = (list(first.epoch(number)) for number in (0, 1))
    random.seed(5)
    torch.manual_seed(5)
    c, d = (list(second.epoch(number)) for number in (1, 0))
    assert same(a, d)
    assert same(b, c)
    assert not same(a, b)
    assert not same(a, training(config, seed=2).epoch(0))


@pytest.mark.slow
def test_workers_give_the_same_batches(folder):
    for img_size in (16, 80):
        alone, many = (training(read(folder, img_size=img_size, batch_size=4, workers=count)) for count in (0, 2))
        for number in (0, 1):
            assert same(alone.epoch(number), many.epoch(number))


def test_loading_leaves_the_global_generators_alone(folder):
    batches = training(read(folder, img_size=16, batch_size=4))
    states = torch.get_rng_state(), random.getstate()
    assert len(list(batches.epoch(0))) == 4
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]


def test_an_epoch_has_every_sample_at_most_once(folder):
    sampler = training(read(folder, img_size=16, batch_size=5)).sampler
    indices = [index for batch in sampler for index, _ in batch]
    assert len(indices) == len(set(indices)) == 15
    assert len(sampler) == 3


def test_repeats_show_fewer_images_more_often(folder):
    batches = list(training(read(folder, img_size=16, batch_size=6, repeats=3)).sampler)
    assert [len(batch) for batch in batches] == [6, 6], "an epoch is as long as without"
    for batch in batches:
        counts = Counter(index for index, _ in batch)
        assert list(counts.values()) == [3, 3]
        assert len({seed for _, seed in batch}) == 6, "each copy has an augmentation of its own"
    first = next(iter(training(read(folder, img_size=16, batch_size=6)).sampler))
    assert [index for index, _ in first][:2] == list(dict.fromkeys(index for index, _ in batches[0])), (
        "in the same order"
    )


def test_splits_and_folds_are_of_the_training_images_alone(folder):
    images = load_data(DataConfig(name="folder", root=str(folder), img_size=16, augment="none"), ModelConfig())
    part = images.resplit([0, 9], [8, 3, 1])
    assert part.train_labels == [0, 1]
    assert [label for _, label in (part.test[i] for i in range(3))] == [1, 0, 0]
    assert torch.equal(part.train[1, 5][0], images.train[9, 5][0])
    seen = []
    for number in range(4):
        fold = images.fold(number, 4)
        assert sorted(label for _, label in (fold.test[i] for i in range(len(fold.test)))) == [0, 0, 1, 1]
        assert (len(fold.train), sorted(fold.train_labels)) == (12, [0] * 6 + [1] * 6)
        seen += [fold.test[i][0].sum().item() for i in range(4)]
    assert len(set(seen)) == 16, "each training image is in one fold"
    with pytest.raises(ValueError, match="folds = 9: class 'cat' has only 8 training images; take fewer folds"):
        images.fold(0, 9)


@pytest.mark.parametrize("policy", ["cifar10", "imagenet", "rand-m9-mstd0.5-inc1", "rand-m5-n3"])
def test_augmentation_follows_from_the_seed(folder, policy):
    config = DataConfig(name="folder", root=str(folder), img_size=32, auto_augment=policy, random_erasing=1.0)
    images = load_data(config, ModelConfig())
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    first = [images.train[9, seed][0] for seed in range(6)]
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    assert all(torch.equal(a, images.train[9, seed][0]) for seed, a in enumerate(first))
    assert len({a.sum().item() for a in first}) == 6
    assert all(a.shape == (3, 32, 32) for a in first)
    assert all(len(a.unique()) > 60 for a in first), "the erased part is noise"


@pytest.mark.parametrize(
    ("policy", "black"), [("rand-m10-inc1-p1.0", True), ("rand-m0-p1.0", True), ("rand-m0-inc1-p1.0", False)]
)
def test_the_greatest_posterization_is_black(policy, black):
    """Pillow refuses to keep none of the bits."""
    image = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    operations = [operation for operation in _create_policy(policy, 8, [0.5] * 3).ops if "Posterize" in operation.name]
    assert len(operations) == 1
    result = np.asarray(operations[0](image))
    assert np.array_equal(result, np.zeros_like(result) if black else np.asarray(image) & 0xF0)


@pytest.mark.parametrize("options", [{}, {"auto_augment": "rand-m5-n3"}, {"cutout": 8}], ids=str)
@pytest.mark.parametrize("pair", [[0.3, 0.8], [0.9, 0.0]])
def test_each_network_sees_the_image_that_its_own_random_erasing_makes(folder, pair, options):
    own = {"name": "folder", "root": str(folder), "img_size": 32} | options
    images, base, motivated = (
        load_data(DataConfig(**own, random_erasing=erasing), ModelConfig()).train for erasing in (pair, *pair)
    )
    states = torch.get_rng_state(), random.getstate()
    nested = set()
    for seed in range(24):
        (first, second), label = images[9, seed]
        assert label == 1
        assert torch.equal(first, base[9, seed][0])
        assert torch.equal(second, motivated[9, seed][0])
        if not options:
            # Before it is erased an image of one colour has few values: it is enlarged and cropped.
            erased = [len(view.unique()) > 60 for view in (first, second)]
            nested.add(tuple(erased))
            assert erased != [True, True] or torch.equal(first, second), "the same noise in the same place"
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    if not options:
        assert nested == {(False, False), (True, True), (pair[0] > pair[1], pair[1] > pair[0])} - (
            {(True, True)} if 0 in pair else set()
        )


@pytest.mark.parametrize("probability", [0.0, 0.4])
def test_a_pair_of_equal_numbers_is_one_number(folder, probability):
    found = []
    for erasing in (probability, [probability, probability]):
        images = load_data(
            DataConfig(name="folder", root=str(folder), img_size=32, random_erasing=erasing), ModelConfig()
        )
        found.append((images.train.torch_only, images.reason_not_resident))
        found.append(torch.stack([images.train[9, seed][0] for seed in range(8)]))
    assert found[0] == found[2]
    assert torch.equal(found[1], found[3])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_views_come_to_the_device_as_images_do(folder, memory_format):
    config = read(folder, img_size=16, batch_size=8, random_erasing=[0.1, 0.9])
    images = load_data(config, ModelConfig())
    batches = [
        list(create_train_loader(images, settings, 1, DeviceContext(memory_format=memory_format)).epoch(1))
        for settings in (config, replace(config, workers=1))
    ]
    for ((base, motivated), labels), ((again, motivated_again), labels_again) in zip(*batches, strict=True):
        assert base.shape == motivated.shape == (8, 3, 16, 16)
        assert base.is_contiguous(memory_format=memory_format)
        assert motivated.is_contiguous(memory_format=memory_format)
        assert torch.equal(base, again)
        assert torch.equal(motivated, motivated_again)
        assert torch.equal(labels, labels_again)


def test_auto_augment_is_for_colour(folder):
    config = DataConfig(name="folder", root=str(folder), auto_augment="cifar10")
    with pytest.raises(ValueError, match=r"data.auto_augment = 'cifar10': it is for colour images, and these are grey"):
        load_data(config, ModelConfig(in_chans=1))


def test_test_images_may_have_another_size(folder):
    config = DataConfig(name="folder", root=str(folder), img_size=80, eval_img_size=96, crop_pct=0.5)
    images = load_data(config, ModelConfig(base="resnet18", motivated="resnet34"))
    assert images.train[0, 7][0].shape == (3, 80, 80)
    assert images.test[0][0].shape == (3, 96, 96)
    assert (images.input_size, images.eval_size) == ((3, 80, 80), (96, 96))


@pytest.fixture
def torchvision_root(tmp_path, monkeypatch):
    """Torchvision's data sets as they lie on disk, two images a class; its checksums are of the real ones."""
    for folder, names, file, key, classes in (
        (
            "cifar-10-batches-py",
            [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"],
            "batches.meta",
            "label_names",
            10,
        ),
        ("cifar-100-python", ["train", "test"], "meta", "fine_label_names", 100),
    ):
        (tmp_path / folder).mkdir()
        for number, name in enumerate(names):
            labels = list(range(classes)) * 2
            pixels = np.full((len(labels), 3072), number, np.uint8)
            batch = {"data": pixels, "labels" if classes == 10 else "fine_labels": labels}
            (tmp_path / folder / name).write_bytes(pickle.dumps(batch))
        (tmp_path / folder / file).write_bytes(pickle.dumps({key: [f"class {i}" for i in range(classes)]}))
    for kind in (datasets.CIFAR10, datasets.CIFAR100):
        monkeypatch.setattr(kind, "_check_integrity", lambda self: True)
        monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)

    flowers = tmp_path / "flowers-102"
    (flowers / "jpg").mkdir(parents=True)
    for number in range(1, 307):
        Image.new("RGB", (40, 30), (number % 256, 0, 0)).save(flowers / "jpg" / f"image_{number:05}.jpg")
    savemat(flowers / "imagelabels.mat", {"labels": [[1 + i % 102 for i in range(306)]]})
    ids = np.arange(1, 307)
    savemat(flowers / "setid.mat", {"trnid": [ids[:102]], "valid": [ids[102:204]], "tstid": [ids[204:]]})
    monkeypatch.setattr(datasets.Flowers102, "_check_integrity", lambda self: True)

    pets = tmp_path / "oxford-iiit-pet"
    for part in ("images", "annotations"):
        (pets / part).mkdir(parents=True)
    rows = []
    for number in range(37):
        name = f"breed_{number}_1"
        Image.new("L" if number == 0 else "RGB", (30, 40)).save(pets / "images" / f"{name}.jpg")
        rows.append(f"{name} {number + 1} 1 1")
    for part in ("trainval", "test"):
        (pets / "annotations" / f"{part}.txt").write_text("\n".join(rows))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "train", "test", "size", "names"),
    [
        ("cifar10", 100, 20, 32, ["class 0", "class 9"]),
        ("cifar100", 200, 200, 32, ["class 0", "class 99"]),
        ("flowers102", 204, 102, 224, ["pink primrose", "blackberry lily"]),
        ("oxford_pets", 37, 37, 224, ["Breed 0", "Breed 36"]),
    ],
)
def test_torchvision_s_data_sets(torchvision_root, name, train, test, size, names):
    config = DataConfig(name=name, root=str(torchvision_root))
    images = load_data(config, ModelConfig(base="resnet18", motivated="resnet34"))
    assert (len(images.train), len(images.test), images.input_size) == (train, test, (3, size, size))
    assert [images.class_names[0], images.class_names[-1]] == names or not hasattr(datasets.Flowers102, "classes")
    facts = DATA_SETS[name]
    assert (len(images.class_names), size, facts.channels) == (facts.num_classes, facts.img_size, 3)
    assert facts.can_download
    assert facts.has_image_files == hasattr(images.train.dataset, "samples")
    assert images.train_labels == [images.train[i, 0][1] for i in range(train)]
    assert images.train[0, 1][0].shape == images.test[0][0].shape == (3, size, size)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "flowers102", "oxford_pets"])
def test_absent_data_sets_say_how_to_get_them(name, tmp_path):
    with pytest.raises(
        ValueError, match=rf"data.root = .*: {name} cannot be read from there .*set data.download to true"
    ) as raised:
        load_data(DataConfig(name=name, root=str(tmp_path)), ModelConfig())
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == [], "nothing is downloaded unasked"
    with pytest.raises(ValueError, match=rf"model.in_chans = 1: the images of {name} have 3 channels"):
        load_data(DataConfig(name=name, root=str(tmp_path)), ModelConfig(in_chans=1))


def test_imagenet_s_classes_are_described(folder):
    for part in ("train", "val"):
        (folder / part / "cat").rename(folder / part / "n02123045")
        (folder / part / "dog").rename(folder / part / "n02099601")
    config = DataConfig(name="imagenet", root=str(folder), img_size=32)
    names = load_data(config, ModelConfig(motivated="resnet34")).class_names
    assert names == ["golden retriever", "tabby, tabby cat"]
    (folder / "train" / "n02123045").rename(folder / "train" / "cat")
    (folder / "val" / "n02123045").rename(folder / "val" / "cat")
    with pytest.raises(ValueError, match=r"'cat' is not a class of ImageNet-1k; its folders are named by WordNet id"):
        load_data(config, ModelConfig(motivated="resnet34"))


def test_seeds_are_spread():
    seeds = {mix_seed(seed, epoch, index) for seed in range(5) for epoch in range(5) for index in range(200)}
    assert len(seeds) == 5000
    assert mix_seed(1, 2) != mix_seed(2, 1)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_folder_gives_classes_and_every_test_image(folder):
    config = DataConfig(name="folder", root=str(folder), img_size=16, eval_batch_size=3)
    images = load_data(config, ModelConfig(motivated="efficientnet_b0"))
    assert images.class_names == ["cat", "dog"]
    assert images.mean == pytest.approx([0.485, 0.456, 0.406])
    for way in (config, replace(config, loader="files")):
        labels = torch.cat([labels for _, labels in create_eval_loader(images, way)])
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
        (lambda root: (root / "val" / "dog").rename(root / "val" / "doog") and None, "different classes: dog is in"),
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
    with pytest.raises(
        ValueError, match=r"0.png cannot be read as an image .*; replace it, or set data.corrupt to skip"
    ):
        load_data(config, ModelConfig()).train[0, 1]


@pytest.mark.parametrize("loader", ["files", "resident"])
def test_too_few_images_for_a_batch(folder, loader):
    config = replace(read(folder, img_size=16, batch_size=17), loader=loader)
    with pytest.raises(ValueError, match=r"data\.batch_size = 17: there are only 16 training images"):
        training(config)
