"""Validation images that are taken from the training images."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from nestnet.config.schema_sections import DataConfig, ModelConfig
from nestnet.data.image_data import load_data
from nestnet.data.stored_data_set import StoredDataSet
from nestnet.data.validation_split import hold_out_validation_images


def stored(counts, val=None):
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    numbers = torch.arange(len(labels))
    names = [f"class {label}" for label in range(len(counts))]
    return StoredDataSet(TensorDataset(numbers), TensorDataset(numbers), labels, names, 1, 8, val=val)


def numbers_of(dataset):
    return [int(dataset[index][0]) for index in range(len(dataset))]


@settings(deadline=None, max_examples=40)
@given(counts=st.lists(st.integers(4, 30), min_size=1, max_size=5), fraction=st.sampled_from([0.2, 0.5, 0.7]))
def test_every_class_gives_its_part_and_no_image_is_in_both(counts, fraction):
    before = stored(counts)
    after = hold_out_validation_images(before, fraction)
    train, val = numbers_of(after.train), numbers_of(after.val)
    assert sorted(train + val) == list(range(sum(counts)))
    assert after.train_labels == [before.train_labels[number] for number in train]
    val_labels = [before.train_labels[number] for number in val]
    assert [val_labels.count(label) for label in range(len(counts))] == [round(fraction * count) for count in counts]
    again = hold_out_validation_images(stored(counts), fraction)
    assert numbers_of(again.val) == val


def test_a_class_that_is_too_rare():
    with pytest.raises(ValueError, match=r"data.val_fraction = 0.1: class 'class 1' has 3 training images, of which 0"):
        hold_out_validation_images(stored([20, 3]), 0.1)


def test_data_with_validation_images_of_their_own():
    with pytest.raises(ValueError, match="these images have validation images of their own; leave it out"):
        hold_out_validation_images(stored([20], val=TensorDataset(torch.arange(3))), 0.1)


def test_the_digits():
    images = load_data(DataConfig(val_fraction=0.25), ModelConfig())
    whole = load_data(DataConfig(), ModelConfig())
    assert len(images.val) + len(images.train) == len(whole.train)
    assert len(images.test) == len(whole.test)
    assert whole.val is None
