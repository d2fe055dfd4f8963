"""Hugging Face data sets and tar files: what is read of them, and that damage and odd contents are named."""

import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image
from sources import CLASSES, SPLITS, WRITERS, add_member, draw, encode, write_hf_datasets, write_webdataset

from nestnet.config.schema_sections import DataConfig, ModelConfig
from nestnet.data.image_data import load_data
from nestnet.data.image_decoding import UnreadableImageError
from nestnet.data.sources.own_images import find_own_images
from nestnet.data.sources.tar_store import Place

datasets = pytest.importorskip("datasets")
CAT, DOG = encode(Image.new("RGB", (8, 8), "red")), encode(Image.new("RGB", (8, 8), "blue"))


@pytest.mark.parametrize("source", ["hf_datasets", "webdataset"])
def test_the_images_are_those_that_were_stored(source, tmp_path):
    folder = WRITERS[source](tmp_path)[3]
    images = load_data(DataConfig(name=source, root=folder, img_size=8), ModelConfig())
    assert images.class_names == CLASSES
    for split, count in SPLITS.items():
        stored = getattr(images, split).dataset
        # Two tar files have every second image each.
        order = [*range(0, count, 2), *range(1, count, 2)] if source == "webdataset" else range(count)
        for (image, label), index in zip((stored[place] for place in range(count)), order, strict=True):
            expected, number = draw(split, index)
            assert label == number
            np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))
    # Worker processes get copies.
    copied = pickle.loads(pickle.dumps(images.train.dataset))
    np.testing.assert_array_equal(np.asarray(copied[3][0]), np.asarray(images.train.dataset[3][0]))
    # What a run records of them tells them apart.
    digests = images.record().contents
    assert len(set(digests.values())) == len(digests) == sum(SPLITS.values())


def hf_data(folder, rows, features, **options):
    datasets.disable_progress_bars()
    table = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    table.save_to_disk(str(folder))
    return DataConfig(name="hf_datasets", root=str(folder), **options)


IMAGE = datasets.Image()
LABEL = datasets.ClassLabel(names=CLASSES)


def image_rows(*contents):
    return [{"bytes": content, "path": None} for content in contents]


def test_a_data_set_without_splits(tmp_path):
    rows = {"image": image_rows(*[CAT, DOG] * 10), "label": [0, 1] * 10}
    own = find_own_images(hf_data(tmp_path / "saved", rows, {"image": IMAGE, "label": LABEL}))
    assert not own.has_splits
    assert len(own.train) + len(own.test) == 20
    assert {label for _, label in own.test} == {0, 1}


def test_columns_of_a_data_set(tmp_path):
    four = image_rows(CAT, DOG, CAT, DOG)
    rows = {"left": four, "right": image_rows(*[b"no image"] * 4), "species": [0, 1, 0, 1], "breed": [1, 0, 1, 0]}
    features = {"left": IMAGE, "right": IMAGE, "species": LABEL, "breed": datasets.ClassLabel(names=["x", "y"])}
    data = hf_data(tmp_path / "saved", rows, features)
    with pytest.raises(ValueError, match=r"the columns left, right have images; set data.image_column to one of them"):
        find_own_images(data)
    data.image_column = "species"
    with pytest.raises(
        ValueError, match=r"data.image_column = 'species': it is no column with images; the columns are left"
    ):
        find_own_images(data)
    data.image_column, data.label_column = "left", "breed"
    assert find_own_images(data).class_names == ["x", "y"]
    data.multi_label = True
    with pytest.raises(ValueError, match=r"data.label_column = 'breed': it is no column with lists of ClassLabel"):
        find_own_images(data)


def test_images_that_a_data_set_does_not_hold(tmp_path):
    """The path in a table may name any file of the machine, and none is opened."""
    Image.new("RGB", (8, 8)).save(tmp_path / "beside.png")
    rows = {"image": image_rows(CAT, DOG, CAT, DOG), "label": [0, 1, 0, 1]}
    data = hf_data(tmp_path / "saved", rows, {"image": IMAGE, "label": LABEL})
    own = find_own_images(data)
    table = datasets.Dataset.from_dict({"image": [{"bytes": None, "path": str(tmp_path / "beside.png")}]})
    own.store.tables = {"all": table}
    with pytest.raises(OSError, match=r"the data set does not hold its bytes"):
        own.store.open(f"{tmp_path}/saved/all/0")
    assert not own.store.has(f"{tmp_path}/saved/all/1")


def test_folders_that_are_no_data_sets(tmp_path):
    with pytest.raises(
        ValueError, match=r"absent': there is no such folder; name one that save_to_disk of Hugging Face's"
    ):
        find_own_images(DataConfig(name="hf_datasets", root=str(tmp_path / "absent")))
    with pytest.raises(ValueError, match=r"it cannot be read as a data set .+; name a folder that save_to_disk"):
        find_own_images(DataConfig(name="hf_datasets", root=str(tmp_path)))
    data = hf_data(
        tmp_path / "hidden", {"image": image_rows(CAT, DOG), "label": [0, -1]}, {"image": IMAGE, "label": LABEL}
    )
    with pytest.raises(ValueError, match=r"row 1 of all has no label; remove such rows, or this split"):
        find_own_images(data)
    data = hf_data(
        tmp_path / "plain", {"text": ["a", "b"], "label": [0, 1]}, {"text": datasets.Value("string"), "label": LABEL}
    )
    with pytest.raises(ValueError, match=r"none of its columns \(text, label\) has images; cast one with cast_column"):
        find_own_images(data)
    named = write_hf_datasets(tmp_path / "odd")[3]
    (tmp_path / "odd" / "saved" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    with pytest.raises(ValueError, match=r"has images for train only; add the others"):
        find_own_images(DataConfig(name="hf_datasets", root=named))


# Tar files


def tar_data(folder, members, **options):
    folder.mkdir()
    with tarfile.open(folder / "images.tar", "w") as archive:
        for name, content in members:
            add_member(archive, name, content)
    return DataConfig(name="webdataset", root=str(folder), **options)


FOUR = [("a.png", CAT), ("a.cls", b"cat"), ("b.png", CAT), ("b.cls", b"cat\n"), ("c.png", DOG), ("c.json", b'{"label": "dog"}'),
        ("d.png", DOG), ("d.cls", b"dog")]  # fmt: skip


def test_members_are_matched_by_their_names(tmp_path):
    others = [("._a.png", b"mac"), ("e.txt", b"a text"), ("sub.dir/x.y.PNG", DOG), ("sub.dir/x.cls", b"dog")]
    own = find_own_images(tar_data(tmp_path / "tars", [*FOUR, *others]))
    assert own.class_names == ["cat", "dog"]
    found = sorted((path.partition("images.tar/")[2], label) for path, label in own.train + own.test)
    assert found == [("a.png", 0), ("b.png", 0), ("c.png", 1), ("d.png", 1), ("sub.dir/x.y.PNG", 1)]


WRONG = {
    "no label": (
        [*FOUR, ("e.png", CAT)],
        {},
        "e in .*images.tar has no label \\(.cls or .json\\); add one, or remove it",
    ),
    "two images": (
        [*FOUR, ("e.png", CAT), ("e.jpg", CAT)],
        {},
        "e in .*images.tar has 2 images, e.png and e.jpg; keep one",
    ),
    "twice": ([*FOUR, ("a.png", CAT)], {}, "it holds a.png twice"),
    "empty label": (
        [*FOUR, ("e.png", CAT), ("e.cls", b" ")],
        {},
        "e in .*images.tar.cls: the label '' must be a name or a number",
    ),
    "no json": ([*FOUR, ("e.png", CAT), ("e.json", b"{")], {}, "e in .*images.tar.json is not JSON"),
    "no field": (
        [*FOUR, ("e.png", CAT), ("e.json", b"[1]")],
        {},
        "has no 'label'; set data.label_column to the name of its label",
    ),
    "several": ([("a.png", CAT), ("a.json", b'{"label": 1}')], {"multi_label": True}, "must be a list of labels"),
    "images": ([("a.txt", b"a")], {}, "its tar files hold no images"),
}


@pytest.mark.parametrize(("members", "options", "message"), WRONG.values(), ids=WRONG)
def test_mistakes_in_tar_files_are_named(members, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        find_own_images(tar_data(tmp_path / "tars", members, **options))


@pytest.mark.parametrize("cut", [1, 600, 1024, 3000])
def test_a_tar_file_that_was_cut_short_is_noticed(cut, tmp_path):
    """Python's `tarfile` would take what is left for the whole."""
    data = tar_data(tmp_path / "tars", FOUR)
    path = tmp_path / "tars" / "images.tar"
    # After the members come the end mark and zeros up to a whole record.
    content = path.read_bytes().rstrip(b"\0")
    path.write_bytes(content[:-cut])
    with pytest.raises(ValueError, match=r"images.tar cannot be read as a tar file .*; replace it"):
        find_own_images(data)


def test_folders_without_tar_files_that_can_be_read(tmp_path):
    data = DataConfig(name="webdataset", root=str(tmp_path))
    with pytest.raises(ValueError, match=r"it holds no tar files \(.tar\)"):
        find_own_images(data)
    (tmp_path / "a.tar").touch()
    with pytest.raises(ValueError, match=r"a.tar cannot be read as a tar file \(empty file\); replace it"):
        find_own_images(data)
    (tmp_path / "train-0.tar").touch()
    with pytest.raises(
        ValueError, match=r"the name of .*a.tar says no split, and others do; call them train, val or test"
    ):
        find_own_images(data)
    (tmp_path / "b.tar.gz").touch()
    with pytest.raises(
        ValueError, match=r"b.tar.gz is compressed, and images cannot be read from it in any order; decompress it"
    ):
        find_own_images(data)


def test_numbers_are_lines_of_the_list_of_class_names(tmp_path):
    folder = write_webdataset(tmp_path)[3]
    assert find_own_images(DataConfig(name="webdataset", root=folder)).class_names == CLASSES
    (tmp_path / "shards" / "classnames.txt").write_text("cat\n")
    with pytest.raises(
        ValueError, match=r"the label '1' is none of the 1 classes in classnames.txt; correct one of them"
    ):
        find_own_images(DataConfig(name="webdataset", root=folder))
    (tmp_path / "shards" / "classnames.txt").unlink()
    assert find_own_images(DataConfig(name="webdataset", root=folder)).class_names == ["0", "1"]


def test_a_file_that_shrinks_later_is_a_damaged_image(tmp_path):
    images = load_data(tar_data(tmp_path / "tars", FOUR, img_size=8), ModelConfig())
    (tmp_path / "tars" / "images.tar").write_bytes(b"")
    with pytest.raises(UnreadableImageError, match=r"its tar file ends before its end"):
        images.test[0]
    assert Place(str(tmp_path / "tars" / "images.tar"), 0, 0).read() == b""
