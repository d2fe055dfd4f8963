"""Which images a folder has, and what each is for: folders as they are found in practice."""

import hashlib
import os
import random
import shutil

import pytest
from folders import plant
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nestnet.data.folder import folder_listing
from nestnet.data.folder.folder_walk import list_images
from nestnet.data.folder.held_out_images import is_held_out
from nestnet.data.folder.image_folder import read_folder

FEW = {"cat": 3, "dog": 2}


def inside(samples, root):
    """The paths of samples below a folder."""
    return {os.path.relpath(path, root) for path, _ in samples}


# Images that are held out


def test_about_a_fifth_of_each_class_is_held_out(tmp_path):
    plant(tmp_path, {"cat": 100, "dog": 2, "eel": 30})
    found = read_folder(str(tmp_path))
    assert (found.class_names, found.has_splits, found.val, found.left_out) == (["cat", "dog", "eel"], False, [], "")
    held_out = [[label for _, label in found.test].count(label) for label in range(3)]
    assert 10 <= held_out[0] <= 30, "ten standard deviations would be 40"
    assert held_out[1] == 1
    assert 1 <= held_out[2] <= 14
    assert len(found.train) + len(found.test) == 132
    assert not {path for path, _ in found.train} & {path for path, _ in found.test}
    assert found.train == sorted(found.train, key=lambda sample: (sample[1], sample[0]))
    random.seed(7)
    assert read_folder(str(tmp_path)) == found


def test_the_name_of_an_image_decides_for_it():
    """The first 8 bytes of the SHA-256 of its name, modulo 5."""
    names = [f"cat/{number:04}.jpg" for number in range(2000)]
    expected = [int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) % 5 == 0 for name in names]
    assert [is_held_out(name) for name in names] == expected
    assert 0.17 < sum(expected) / len(names) < 0.23
    assert is_held_out("cafe\u0301/1.jpg") == is_held_out("caf\u00e9/1.jpg"), "macOS decomposes accents"
    assert is_held_out(os.fsdecode(b"cat/\xff.jpg")) in (True, False)


@settings(deadline=None, max_examples=25)
@given(numbers=st.sets(st.integers(0, 60), min_size=25, max_size=60), gone=st.sets(st.integers(0, 60), max_size=8))
def test_no_image_changes_its_part_when_others_come_and_go(numbers, gone, tmp_path_factory):
    # a class that loses all its images for testing must be given another one
    for name, left in (("cat", numbers - gone), ("dog", numbers)):
        assume(any(is_held_out(f"{name}/{number}.jpg") for number in left))
    root = tmp_path_factory.mktemp("folder")
    for name in ("cat", "dog"):
        (root / name).mkdir()
        for number in numbers:
            (root / name / f"{number}.jpg").touch()
    before = read_folder(str(root))
    for number in gone & numbers:
        (root / "cat" / f"{number}.jpg").unlink(missing_ok=True)
    (root / "cat" / "0-new.jpg").touch()
    after = read_folder(str(root))
    assert not inside(before.test, root) & inside(after.train, root)
    assert not inside(before.train, root) & inside(after.test, root)
    shutil.rmtree(root)


# Parts

DIVIDED = [
    # names of the folders, and which of them is for what
    (["train", "test"], "train", None, "test"),
    (["train", "val"], "train", None, "val"),
    (["train", "val", "test"], "train", "val", "test"),
    (["Training", "Testing"], "Training", None, "Testing"),
    (["Train", "Test"], "Train", None, "Test"),
    (["TRAIN", "VAL"], "TRAIN", None, "VAL"),
    (["train", "validation"], "train", None, "validation"),
    (["train", "valid", "test"], "train", "valid", "test"),
    (["train", "dev", "eval"], "train", "dev", "eval"),
    (["seg_train", "seg_test"], "seg_train", None, "seg_test"),
    (["training_set", "test_set"], "training_set", None, "test_set"),
    (["TrainSet", "TestSet"], "TrainSet", None, "TestSet"),
    (["flowers-train", "flowers-val"], "flowers-train", None, "flowers-val"),
    (["train_2024", "validation 2024"], "train_2024", None, "validation 2024"),
    (["trainval", "test"], "trainval", None, "test"),
    (["TrainImages", "TestImages"], "TrainImages", None, "TestImages"),
    (["traindata", "test_data"], "traindata", None, "test_data"),
]


@pytest.mark.parametrize(("names", "train", "val", "test"), DIVIDED, ids=lambda value: str(value))
def test_parts_are_known_by_their_usual_names(tmp_path, names, train, val, test):
    for name in names:
        plant(tmp_path / name, FEW)
    found = read_folder(str(tmp_path))
    assert (found.has_splits, found.class_names, found.left_out) == (True, ["cat", "dog"], "")
    for samples, part in ((found.train, train), (found.val, val), (found.test, test)):
        assert {path.split(os.sep)[0] for path in inside(samples, tmp_path)} == ({part} if part else set())
        assert len(samples) == (5 if part else 0)


def test_archives_wrap_folders_into_others(tmp_path):
    plant(tmp_path / "archive" / "seg_train" / "seg_train", FEW)
    plant(tmp_path / "archive" / "seg_test" / "seg_test", FEW)
    plant(tmp_path / "archive" / "seg_pred", {"seg_pred": 4})
    found = read_folder(str(tmp_path))
    assert (found.class_names, len(found.train), len(found.test)) == (["cat", "dog"], 5, 5)
    assert "1 folders beside the splits" in found.left_out
    assert "seg_pred" in found.left_out


def test_classes_may_be_called_like_parts(tmp_path):
    """Trains and test tubes are folders of images, not of folders."""
    plant(tmp_path, {"bus": 3, "test tube": 3, "train": 3})
    assert read_folder(str(tmp_path)).class_names == ["bus", "test tube", "train"]


def test_parts_without_classes_are_not_taken_for_classes(tmp_path):
    """As competitions give them: train/cat.0.jpg and test1/1.jpg."""
    plant(tmp_path, {"train": 4, "test1": 4})
    with pytest.raises(
        ValueError, match=r"train/ and test1/ hold no class folders, and are named like splits .* rename"
    ):
        read_folder(str(tmp_path))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["dataset_info.json", "state.json", "data-00000-of-00001.arrow"], "set data.name to hf_datasets"),
        (["dataset_dict.json", "train/state.json", "test/state.json"], "set data.name to hf_datasets"),
        (["train-000.tar", "test-000.tar"], "it holds tar files; set data.name to webdataset"),
        (
            ["a.jpg", "b.jpg", "labels.csv"],
            r"if their labels are in '.*labels\.csv', set data.name to csv and data.labels",
        ),
    ],
)
def test_images_with_their_labels_beside_them_are_recognised(files, message, tmp_path):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=message):
        read_folder(str(tmp_path))


def test_other_files_beside_classes_are_left_out(tmp_path):
    plant(tmp_path, FEW)
    for name in ("backup.tar", "labels.csv", "dataset_info.json"):
        (tmp_path / name).touch()
    assert read_folder(str(tmp_path)).class_names == ["cat", "dog"]


def test_a_part_without_classes_is_left_out(tmp_path):
    """ImageNet's and many a competition's test images have no labels."""
    plant(tmp_path / "train", FEW)
    plant(tmp_path / "val", FEW)
    plant(tmp_path, {"test": 3})
    for needs_splits in (False, True):
        found = read_folder(str(tmp_path), needs_splits=needs_splits)
        assert ({path.split("/")[0] for path in inside(found.test, tmp_path)}, found.val) == ({"val"}, [])
        assert f"1 folders beside the splits (such as {tmp_path}/test)" in found.left_out


WRONG = [
    ({"train": FEW, "training": FEW, "test": FEW}, "train/ and training/ are both for train; rename or remove one"),
    ({"train": FEW}, r"must hold train/ and test/ or val/.* or set data.root to .*/train, of which a fifth"),
    ({"test": FEW, "val": FEW}, "must hold train/ and test/ or val/, each with a folder for each class; add them"),
    ({"train": FEW, "test": {"cat": 2, "cow": 2}}, "train/ and test/ have different classes: dog is in train/ only"),
    ({"train": FEW, "val": {"cat": 2, "cow": 2}, "test": FEW}, "train/ and val/ have different classes"),
    (
        {"A": FEW, "B": FEW},
        r"hold the same folders \(cat, dog\) and no images, so that they are splits rather than classes",
    ),
    ({"cat": {"train": 2, "test": 2}, "dog": {"train": 2, "test": 2}}, "hold the same folders"),
    (
        {"train": {"1": 1}, "test": {"1": 1}},
        "only the class folder 1; it must hold a folder of images for each of at least",
    ),
    ({"pets": {"cat": 1, "dog": 3}}, "cat has 1 image, and a class needs at least 2"),
]


@pytest.mark.parametrize(("folders", "message"), WRONG)
def test_folders_that_cannot_be_told_apart_are_refused(tmp_path, folders, message):
    for name, classes in folders.items():
        plant(tmp_path / name, classes)
    with pytest.raises(ValueError, match=message):
        read_folder(str(tmp_path))


def test_images_lie_at_any_depth_and_what_is_left_out_is_said(tmp_path):
    plant(tmp_path / "cat", {"tabby": 2, "persian": 2})
    plant(tmp_path, {"dog": 3}, suffix="JPEG")
    (tmp_path / "dog" / "notes.txt").write_text("good dog")
    (tmp_path / "labels.csv").write_text("")
    found = read_folder(str(tmp_path))
    assert len({path for path, _ in found.train + found.test}) == 7
    assert found.left_out == f"left out: 2 files that are no images (such as {tmp_path}/labels.csv)"


@pytest.mark.parametrize("suffix", ["gif", "jfif", "jpe", "jpeg", "tif", "webp", "bmp", "ppm", "PNG"])
def test_every_format_that_is_read_is_found(tmp_path, suffix):
    plant(tmp_path, FEW, suffix=suffix)
    found = read_folder(str(tmp_path))
    assert len(found.train) + len(found.test) == 5


# What systems leave


def test_hidden_and_system_entries_are_no_classes_and_no_images(tmp_path):
    plant(tmp_path, FEW)
    clean = read_folder(str(tmp_path))
    for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information"):
        plant(tmp_path, {name: 2})
        plant(tmp_path / "cat", {name: 2})
    shutil.copy(tmp_path / "cat" / "00.png", tmp_path / "cat" / "._00.png")
    (tmp_path / "Thumbs.db").touch()
    found = read_folder(str(tmp_path))
    assert (found.train, found.test, found.class_names) == (clean.train, clean.test, clean.class_names)
    assert found.left_out.startswith("left out: 14 hidden or system entries (such as ")


def test_only_files_are_images(tmp_path):
    plant(tmp_path, FEW)
    clean = read_folder(str(tmp_path))
    os.mkfifo(tmp_path / "cat" / "pipe.jpg")
    (tmp_path / "dog" / "linked.jpg").symlink_to("../cat/pipe.jpg")
    (tmp_path / "dog" / "zero.jpg").symlink_to("/dev/zero")
    found = read_folder(str(tmp_path))
    assert (found.train, found.test) == (clean.train, clean.test)
    assert found.left_out == f"left out: 3 entries that are neither files nor folders (such as {tmp_path}/cat/pipe.jpg)"


# Links


def links_to(target):
    def add(root):
        (root / "train" / "cat" / "loop").symlink_to(target.format(root=root), target_is_directory=True)

    return add


LOOPS = {
    "the folder itself": links_to("."),
    "its class": links_to("../cat"),
    "another class": links_to("../dog"),
    "the part": links_to(".."),
    "the test images": links_to("../../test"),
    "the root": links_to("../.."),
    "above the root": links_to("../../.."),
    "everything": links_to("/"),
    "nothing": links_to("nowhere"),
    "itself": links_to("loop"),
}


@pytest.mark.parametrize("add", LOOPS.values(), ids=LOOPS.keys())
def test_every_folder_is_read_once(tmp_path, add):
    root = tmp_path / "data"
    for part in ("train", "test"):
        plant(root / part, {"cat": 4, "dog": 4})
    clean = read_folder(str(root))
    add(root)
    found = read_folder(str(root))
    assert (found.train, found.test) == (clean.train, clean.test)
    assert "cat/loop" in found.left_out


def test_linked_folders_are_followed_once(tmp_path):
    plant(tmp_path / "store", {"cats": 3, "more": 2, "dogs": 4})
    root = tmp_path / "data"
    (root / "cat").mkdir(parents=True)
    (root / "cat" / "first").symlink_to(tmp_path / "store" / "cats")
    (root / "cat" / "second").symlink_to(tmp_path / "store" / "more")
    (root / "cat" / "twice").symlink_to(tmp_path / "store" / "more")
    (root / "dog").symlink_to(tmp_path / "store" / "dogs")
    (tmp_path / "store" / "more" / "back").symlink_to(root)
    found = read_folder(str(root))
    labels = [label for _, label in found.train + found.test]
    assert (labels.count(0), labels.count(1)) == (5, 4)
    assert "2 links to folders that are read already, or hold this one" in found.left_out
    assert list_images(str(root / "dog"))[0] == sorted(str(root / "dog" / f"{number:02}.png") for number in range(4))


@pytest.mark.parametrize("link", [os.symlink, os.link], ids=["symbolic", "hard"])
def test_test_images_that_are_links_to_training_images_are_refused(tmp_path, link):
    for part in ("train", "test"):
        plant(tmp_path / part, FEW)
    link(tmp_path / "train" / "cat" / "00.png", tmp_path / "test" / "cat" / "link.png")
    with pytest.raises(ValueError, match=r"1 test images are training images too, by links, such as .*cat/link.png"):
        read_folder(str(tmp_path))


@pytest.mark.parametrize("link", [os.symlink, os.link], ids=["symbolic", "hard"])
def test_an_image_and_links_to_it_are_one_image(tmp_path, link):
    plant(tmp_path, {"cat": 20, "dog": 20})
    clean = read_folder(str(tmp_path))
    for number in range(20):
        link(tmp_path / "cat" / f"{number:02}.png", tmp_path / "cat" / f"{number:02}-copy.png")
    link(tmp_path / "cat" / "00.png", tmp_path / "dog" / "copy.png")
    found = read_folder(str(tmp_path))
    paths = [path for path, _ in (*found.train, *found.test)]
    assert len({os.stat(path).st_ino for path in paths}) == len(paths) == 40
    assert f"21 links to images that are read already (such as {tmp_path}/cat/00" in found.left_out
    if link is os.symlink:
        assert (found.train, found.test) == (clean.train, clean.test)


def test_links_to_images_elsewhere_are_images(tmp_path):
    plant(tmp_path / "store", FEW)
    for path in (tmp_path / "store").rglob("*.png"):
        (tmp_path / "data" / path.parent.name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / path.parent.name / path.name).symlink_to(path)
    found = read_folder(str(tmp_path / "data"))
    assert (len(found.train) + len(found.test), found.left_out) == (5, "")


def test_a_class_that_is_a_link_to_another_is_refused(tmp_path):
    plant(tmp_path, FEW)
    (tmp_path / "kitty").symlink_to("cat")
    with pytest.raises(ValueError, match=r"kitty has no images .*; left out: 1 links to folders that are read already"):
        read_folder(str(tmp_path))


# Names and permissions


def test_a_class_whose_name_is_not_utf8_is_refused_and_files_are_not(tmp_path):
    plant(tmp_path, FEW)
    os.rename(tmp_path / "cat" / "00.png", os.fsencode(tmp_path / "cat") + b"/\xff.png")
    found = read_folder(str(tmp_path))
    assert len(found.train) + len(found.test) == 5
    os.rename(tmp_path / "cat", os.fsencode(tmp_path) + b"/caf\xe9")
    with pytest.raises(ValueError, match=r"the class folder .*/caf\\xe9 has a name that is not UTF-8; rename it"):
        read_folder(str(tmp_path))


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    plant(tmp_path, {"cat": 2, "dog": 2})
    forbidden = str(tmp_path / "dog")
    scan = folder_listing.os.scandir

    def refuse(path):
        if str(path) == forbidden:
            raise PermissionError(13, "Permission denied", forbidden)
        return scan(path)

    monkeypatch.setattr(folder_listing.os, "scandir", refuse)
    with pytest.raises(ValueError, match=r"dog cannot be read: Permission denied; change its permissions, or name"):
        read_folder(str(tmp_path))
