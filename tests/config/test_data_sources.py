"""Fields that say where a user's own images and their labels are: what does not go together is refused by name."""

import pytest

from nestnet.config import parsing

CSV = ["--data.name", "csv", "--data.root", "images", "--data.labels", "labels.csv"]
SEVERAL = [*CSV, "--loss.name", "bce", "--data.multi_label", "true"]
REFUSED = [
    (["--data.name", "csv", "--data.root", "images"],
     "data.labels = null: it must be the CSV file with the labels: set data.labels"),
    (["--data.name", "webdataset"], "data.root = null: it must be a folder of images: set data.root"),
    (["--data.name", "python", "--data.root", "images"],
     "data.root = 'images': the images are data sets that are given in Python"),
    (["--data.labels", "a.csv"], "data.labels = 'a.csv': it is for data.name = csv; leave it out, or set data.name"),
    (["--data.name", "hf_datasets", "--data.root", "x", "--data.split_column", "part"],
     "data.split_column = 'part': it is for data.name = csv; leave it out, or set data.name"),
    (["--data.multi_label", "true"],
     "data.multi_label = True: it is for data.name = csv or hf_datasets or webdataset; leave it out, or set data.name"),
    ([*CSV, "--data.multi_label", "true"],
     "loss.name = 'cross_entropy': a softmax chooses one label, and data.multi_label = True; set it to bce"),
    ([*CSV, "--data.label_separator", ";"],
     "data.label_separator = ';': it is for images with several labels; leave it out, or set data.multi_label to true"),
    ([*SEVERAL, "--data.class_weights", "balanced"], "data.class_weights = 'balanced': it is for images with one label each"),
    ([*SEVERAL, "--data.sampler", "balanced"], "data.sampler = 'balanced': it is for images with one label each"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=[message.split(":")[0] for _, message in REFUSED])
def test_what_does_not_go_together_is_refused(arguments, message):
    with pytest.raises(ValueError, match=r"^data|^loss") as caught:
        parsing.parse(arguments)
    assert str(caught.value).startswith(message)


def test_images_with_several_labels_are_a_configuration():
    config = parsing.parse([*SEVERAL, "--data.label_separator", "|", "--data.corrupt", "skip"])
    assert [config.data.multi_label, config.data.label_separator] == [True, "|"]
