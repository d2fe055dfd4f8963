"""Data sets that are given in Python: their items, labels and names, and random numbers of their own."""

import numpy as np
import pytest
import torch
from PIL import Image
from sources import CLASSES, Drawn

from nestnet.config.schema import Config, DataConfig, ModelConfig
from nestnet.data.image_data import ImageData

CONFIG = Config(data=DataConfig(name="python", img_size=8, augment="none"))
PIXELS = torch.arange(3 * 4 * 5, dtype=torch.uint8).view(3, 4, 5)
ITEMS = [(PIXELS, 0), (Image.new("RGB", (5, 4)), 1)]
GREY = [(PIXELS[:1], 0), (Image.new("RGB", (5, 4), "white"), 1)]


def given(train=ITEMS, test=ITEMS, config=CONFIG, **options):
    return ImageData.from_datasets(config, train=train, test=test, **options)


def test_tensors_and_images_are_stored_alike():
    images = given()
    image, label = images.train.dataset[0]
    np.testing.assert_array_equal(np.asarray(image), PIXELS.permute(1, 2, 0))
    assert [label, images.class_names, images.val] == [0, ["0", "1"], None]
    grey = Config(model=ModelConfig(in_chans=1), data=CONFIG.data)
    image, _ = given(GREY, GREY, config=grey).train.dataset[0]
    np.testing.assert_array_equal(np.asarray(image), PIXELS[0])


LABELS = [1, torch.tensor(1), np.int64(1), np.array([1])]


@pytest.mark.parametrize("label", LABELS, ids=repr)
def test_labels_of_any_integer_type(label):
    assert given([(PIXELS, 0), (PIXELS, label)]).train_labels == [0, 1]


class Counting(Drawn):
    """It counts how often an item is read."""

    reads = 0

    def __getitem__(self, index):
        self.reads += 1
        return super().__getitem__(index)


def test_targets_spare_reading_and_subsets_have_them_too(capfd):
    data = Counting("train")
    images = given(torch.utils.data.Subset(data, [5, 4, 7]), data)
    assert images.train_labels == [1, 0, 1]
    assert images.class_names == CLASSES
    assert data.reads == 2, "the first item of each data set is checked"
    assert capfd.readouterr().err == ""
    del data.targets
    assert given(data, data).train_labels == [0, 1] * 12
    assert "train: each image is read once for its label; an attribute `targets`" in capfd.readouterr().err


def test_labels_that_count_from_1_are_noticed(capfd):
    images = given([(PIXELS, 1), (PIXELS, 2)], [(PIXELS, 1)])
    assert images.class_names == ["0", "1", "2"]
    told = "train: 1 of 3 classes have no training images, such as 0; labels count from 0"
    assert told in capfd.readouterr().err
    given()
    assert "have no training images" not in capfd.readouterr().err


def test_random_numbers_of_a_data_set_follow_from_the_seed():
    images = given(Drawn("train", flips=True), Drawn("test", flips=True))
    torch.manual_seed(0)
    first = [images.train[0, seed][0] for seed in range(8)]
    torch.manual_seed(1)
    for seed, image in enumerate(first):
        assert torch.equal(images.train[0, seed][0], image)
    assert len({image.numpy().tobytes() for image in first}) == 2, "some are flipped"
    # A test image, or a batch that is held out, is the same whenever it is read.
    for dataset in (images.test, images.resplit([0], list(range(1, 24))).test):
        assert all(torch.equal(dataset[index][0], dataset[index][0]) for index in range(len(dataset)))


def test_the_record_of_a_fold_has_its_test_images(capfd):
    fold = given(Drawn("train"), Drawn("test"), val=Drawn("test")).fold(0, 2)
    names = {name.partition("/")[0] for name in fold.record().contents}
    assert names == {"train", "test"}
    assert given(Drawn("train"), Drawn("test"), val=Drawn("test")).record().has_val
    assert not fold.record().has_val


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(ITEMS)


def floats():
    return [(PIXELS / 255, 0), (PIXELS, 1)]


WRONG = {
    "stream": (Stream(), "train: it is a Stream; it must have a length and items by index"),
    "empty": ([], "train: it has no images"),
    "alone": ([PIXELS, PIXELS], r"train\[0\] is a Tensor: it must be an image and its label"),
    "floats": (floats(), r"train\[0\]: its image is a tensor of torch.float32; give bytes \(torch.uint8\)"),
    "shape": (
        [(PIXELS.permute(1, 2, 0), 0), (PIXELS, 1)],
        r"its image has the shape \[4, 5, 3\]; it must be \[3, height, width\]",
    ),
    "array": (
        [(PIXELS.numpy(), 0), (PIXELS, 1)],
        r"its image is a ndarray; it must be an image of Pillow, or a tensor",
    ),
    "name": ([(PIXELS, "cat"), (PIXELS, 1)], r"train\[0\]: its label is a str; it must be a whole number from 0"),
    "negative": ([(PIXELS, -1), (PIXELS, 1)], r"train\[0\]: its label is -1; it must be a whole number from 0"),
    "one class": ([(PIXELS, 0), (PIXELS, 0)], "train: it has only the class 0; training needs images of at least 2"),
    "boolean": ([(PIXELS, True), (PIXELS, 1)], r"train\[0\]: its label is True; it must be a whole number from 0"),
}


@pytest.mark.parametrize(("dataset", "message"), WRONG.values(), ids=WRONG)
def test_mistakes_are_named(dataset, message):
    with pytest.raises(ValueError, match=message):
        given(dataset)


def test_mistakes_beside_the_items():
    with pytest.raises(
        ValueError, match=r"data.name = 'digits': it must be python for data sets that are given in Python"
    ):
        given(config=Config())
    with pytest.raises(ValueError, match=r"train_labels: there is a label 1, but only 1 class names"):
        given(class_names=["cat"])
    data = Drawn("train")
    data.targets = [0]
    with pytest.raises(ValueError, match=r"train: its `targets` are 1 labels for 24 images"):
        given(data)
