"""Class weights against scikit-learn's, and epochs in which every class is equally likely."""

import re

import numpy as np
import pytest
import torch
from folders import plant
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from nestnet.config.schema_sections import DataConfig, ModelConfig
from nestnet.data.class_balance import compute_class_weights
from nestnet.data.image_data import load_data
from nestnet.data.loaders import create_train_loader
from nestnet.device import DeviceContext
from nestnet.distributed.process_group import ProcessGroup

NAMES = ["cat", "dog", "fox"]
LABELS = [0] * 6 + [1] * 3 + [2]
COUNTS = {"cat": 40, "dog": 8, "fox": 2}


# Weights


@given(st.lists(st.integers(1, 200), min_size=2, max_size=12))
def test_balanced_weights_are_scikit_learn_s(counts):
    labels = np.repeat(np.arange(len(counts)), counts).tolist()
    found = compute_class_weights("balanced", labels, [f"class {label}" for label in range(len(counts))])
    expected = compute_class_weight("balanced", classes=np.arange(len(counts)), y=labels)
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize(
    ("given", "ratios"), [([1.0, 2.0, 3.0], [1, 2, 3]), ([5, 10, 15], [1, 2, 3]), ({"fox": 4.0}, [1, 1, 4])]
)
def test_weights_of_your_own_keep_their_ratios_and_have_a_mean_of_1(given, ratios):
    found = np.array(compute_class_weights(given, LABELS, NAMES))
    np.testing.assert_allclose(found / found[0], ratios)
    assert found[LABELS].mean() == pytest.approx(1)


@pytest.mark.parametrize(
    ("given", "labels", "message"),
    [
        (
            "balanced",
            [0, 1],
            "data.class_weights = balanced: the class 'fox' has no training images; add some, or leave the field out",
        ),
        (
            [1.0, 2.0],
            LABELS,
            "data.class_weights = [1.0, 2.0]: these are 2 weights, and there are 3 classes; give one for each, in the order "
            "of the class names, or a mapping from names to weights",
        ),
        (
            {"dgo": 2.0},
            LABELS,
            "data.class_weights = {'dgo': 2.0}: 'dgo' is no class; the classes are 'cat', 'dog', 'fox'",
        ),
    ],
)
def test_weights_that_are_not_those_of_the_classes_are_refused(given, labels, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        compute_class_weights(given, labels, NAMES)


# The balanced sampler


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Each training image has a value of its own."""
    folder = tmp_path_factory.mktemp("imbalanced")
    plant(folder / "train", COUNTS)
    plant(folder / "test", dict.fromkeys(COUNTS, 1))
    return load_data(DataConfig(name="folder", root=str(folder), img_size=8), ModelConfig())


def loader(images, sampler="balanced", rank=0, size=1, **settings):
    config = DataConfig(name="folder", root="x", img_size=8, batch_size=10, sampler=sampler, **settings)
    return create_train_loader(images, config, 3, DeviceContext(process_group=ProcessGroup(rank, size)))


def test_every_class_is_equally_likely(images):
    batches = loader(images, repeats=2)
    counts = torch.zeros(3)
    for epoch in range(40):
        labels = torch.cat([labels for _, labels in batches.epoch(epoch)])
        assert len(labels) == 50, "an epoch is as long as without"
        assert torch.equal(labels[0::2], labels[1::2]), "copies of an image are neighbours"
        counts += labels.bincount(minlength=3)
    # 1,000 images are drawn: a share's standard deviation is 1.5 %.
    assert (counts / counts.sum() - 1 / 3).abs().max() < 0.06


def test_an_image_that_comes_twice_is_augmented_in_two_ways(images):
    """The 2 foxes come 17 times in an epoch; without augmentation there would be 2 different images."""
    for kind in ("resident", "files"):
        foxes = [image for batch, labels in loader(images, loader=kind).epoch(0) for image in batch[labels == 2]]
        different = {tuple(image.flatten().tolist()) for image in foxes}
        assert len(foxes) > 8
        assert 2 < len(different) <= len(foxes)


def test_both_loaders_draw_the_same_images(images):
    for sampler in ("shuffle", "balanced"):
        ours, theirs = (
            torch.cat([labels for _, labels in loader(images, sampler, loader=kind).epoch(5)])
            for kind in ("resident", "files")
        )
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", ["resident", "files"])
def test_epochs_differ_and_processes_share_the_batches_of_one(images, kind):
    first, other = (torch.cat([pixels for pixels, _ in loader(images, loader=kind).epoch(epoch)]) for epoch in (0, 1))
    assert not torch.equal(first, other)
    shares = [loader(images, rank=rank, size=2, loader=kind).epoch(0) for rank in range(2)]
    parts = [torch.cat([halves[0][0], halves[1][0]]) for halves in zip(*shares, strict=True)]
    assert torch.equal(torch.cat(parts), first)


def test_a_class_without_images_cannot_be_drawn(images):
    without_foxes = images.resplit(range(48), [0])
    message = "data.sampler = balanced: the class 'fox' has no training images; add some, or leave the field out"
    with pytest.raises(ValueError, match=message):
        loader(without_foxes)
