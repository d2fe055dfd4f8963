"""Labels from a CSV file, as programs and people write such files, and mistakes in them by line."""

import os

import pytest
from PIL import Image

from nestnet.config.schema_sections import DataConfig, ModelConfig
from nestnet.data.folder.held_out_images import is_held_out
from nestnet.data.image_data import load_data
from nestnet.data.sources.own_images import find_own_images


@pytest.fixture
def root(tmp_path):
    """A folder of images whose names are letters, one of them in a subfolder."""
    (tmp_path / "images" / "sub").mkdir(parents=True)
    for name in ("a.png", "b.png", "c.png", "d.png", "sub/e.png"):
        Image.new("RGB", (8, 8), "red").save(tmp_path / "images" / name)
    return tmp_path


def read(root, text, encoding="utf-8", **options):
    (root / "labels.csv").write_bytes(text.encode(encoding))
    labels = str(root / "labels.csv")
    return find_own_images(DataConfig(name="csv", root=str(root / "images"), labels=labels, **options))


def names(samples, root):
    return [(os.path.relpath(path, root / "images"), label) for path, label in samples]


FILES = {
    "plain": "path,label,split\na.png,cat,train\nb.png,dog,train\nc.png,dog,test\n",
    "quoted": '"path","label","split"\r\n"a.png","cat","train"\r\n"b.png","dog","train"\r\n"c.png","dog","test"\r\n',
    "other order, more columns": "split,id,label,path\ntraining,1,cat,a.png\ntrain,2,dog,./b.png\ntest,3,dog,sub/../c.png",
    "spaces and empty lines": "path, label, split\n\na.png, cat , train\nb.png, dog, train\n\nc.png, dog, test\n",
    "excel": "\ufeffpath,label,split\r\na.png,cat,train\r\nb.png,dog,train\r\nc.png,dog,validation\r\n",
}


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_a_table_is_read_as_it_is_written(text, root):
    own = read(root, text)
    assert own.class_names == ["cat", "dog"]
    assert names(own.train, root) == [("a.png", 0), ("b.png", 1)]
    assert names(own.test, root) == [("c.png", 1)]
    assert own.val == []


def test_names_with_separators_and_columns_of_other_names(root):
    Image.new("RGB", (8, 8)).save(root / "images" / 'x,"y".png')
    text = 'file,species,part\n"x,""y"".png","cat, black",train\nb.png,cafe\u0301,train\n'
    text += "c.png,caf\u00e9,dev\nd.png,caf\u00e9,test\n"
    own = read(root, text, image_column="file", label_column="species", split_column="part")
    assert own.class_names == ["caf\u00e9", "cat, black"], "accents are composed, as in the names of class folders"
    assert names(own.train, root) == [('x,"y".png', 1), ("b.png", 0)]
    assert [names(own.val, root), names(own.test, root)] == [[("c.png", 0)], [("d.png", 0)]]


def test_numbers_are_sorted_as_numbers(root):
    own = read(root, "path,label,split\na.png,10,train\nb.png,9,train\nc.png,10,test\n")
    assert own.class_names == ["9", "10"]


def test_without_splits_a_fifth_of_each_class_is_held_out_by_name(tmp_path):
    (tmp_path / "images").mkdir()
    rows = ["path,label"]
    for index in range(60):
        (tmp_path / "images" / f"{index}.png").touch()
        rows.append(f"{index}.png,{'cat' if index % 2 else 'dog'}")
    own = read(tmp_path, "\n".join(rows))
    assert not own.has_splits
    held_out = [f"{index}.png" for index in range(60) if is_held_out(f"{index}.png")]
    assert sorted(name for name, _ in names(own.test, tmp_path)) == sorted(held_out)
    assert {label for _, label in own.test} == {0, 1}
    assert len(own.train) + len(own.test) == 60


def test_several_labels_by_rows_and_by_cells(root):
    rows = "path,label,split\na.png,cat,train\na.png,dog,train\nb.png,,train\n"
    rows += "c.png,cat,train\nc.png,cat,train\nd.png,dog,test\n"
    own = read(root, rows, multi_label=True)
    assert names(own.train, root) == [("a.png", (0, 1)), ("b.png", ()), ("c.png", (0,))]
    cells = "path,label,split\na.png,dog | cat,train\nb.png,,train\nc.png,cat|cat|,train\nd.png,dog,test\n"
    assert read(root, cells, multi_label=True, label_separator="|").train == own.train


HEAD = "path,label\n"
ROWS = "b.png,dog\nc.png,dog\nd.png,cat\n"
WRONG = {
    "no column": ("file,label\na.png,cat\n", {}, "line 1: there is no column 'path'; its columns are 'file', 'label': set "
                  "data.image_column to one of them"),
    "semicolons": ("path;label\na.png;cat\n", {}, "line 1: its columns are separated by semicolons; save the table "
                   "with commas"),
    "two columns": ("path,label,label\n", {}, "line 1: there are two columns 'label'; rename one of them"),
    "no rows": (HEAD, {}, "it has no rows below the names of its columns"),
    "empty": ("", {}, "line 1: it is empty; give it the columns path and label, with a row for each image"),
    "no names": ("a.png,cat\n", {}, "line 1: it is a row for an image; name the columns in a line above, such as path,label"),
    "cells": (f"{HEAD}{ROWS}a.png,cat,x\n", {}, "line 5: it has 3 cells, and the first line 2; mend it"),
    "quote": (f'{HEAD}{ROWS}"a.png,cat\n', {}, "line 5: it is not CSV (unexpected end of data)"),
    "no path": (f"{HEAD} ,cat\n{ROWS}", {}, "line 2: it has no path; give one, or remove the line"),
    "no label": (f"{HEAD}a.png, \n{ROWS}", {}, "line 2: it has no label; give one, or remove the line"),
    "absent": (f"{HEAD}{ROWS}x.png,cat\ny.png,cat\n", {}, "images/x.png (2 of 5 images are absent); correct data.root"),
    "outside": (f"{HEAD}../labels.csv,cat\n{ROWS}", {}, "line 2: '../labels.csv' lies outside of data.root"),
    "elsewhere": (f"{HEAD}/etc/hostname,cat\n{ROWS}", {}, "line 2: '/etc/hostname' lies outside of data.root"),
    "twice": (f"{HEAD}{ROWS}./b.png,dog\n", {}, "b.png is on line 2 too; remove one of the lines"),
    "two labels": (f"{HEAD}{ROWS}b.png,cat\n", {}, "or set data.multi_label to true if images have several labels"),
    "two splits": ("path,label,split\na.png,cat,train\na.png,cat,test\n", {}, "a.png is for test, and for train on line 2"),
    "no split": ("path,label,split\na.png,cat,fold 3\n", {}, "line 2: 'fold 3' is not the name of a split; name it "
                 "train, val, test"),
    "one class": (f"{HEAD}a.png,cat\nb.png,cat\n", {}, "it has only the class cat; training needs images of "
                  "at least 2 classes"),
    "single": (f"{HEAD}{ROWS}", {}, "the class cat has only one image"),
    "no test": ("path,label,split\na.png,cat,train\nb.png,dog,train\n", {}, "has images for train only; add the others"),
    "unseen": ("path,label,split\na.png,cat,train\nb.png,dog,train\nc.png,eel,test\n", {}, "is of the class eel, of which "
               "there are no training images"),
    "no labels": ("path,label,split\na.png,cat,train\nb.png,dog,train\nc.png,,test\n", {"multi_label": True},
                  "none of the test images has a label"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "options", "message"), WRONG.values(), ids=WRONG)
def test_mistakes_are_named_with_their_line(text, options, message, root):
    with pytest.raises(ValueError, match=r"^data.labels = '.*labels.csv': ") as caught:
        read(root, text, **options)
    assert message in str(caught.value)


def test_a_table_in_another_encoding_is_named_with_its_line(root):
    with pytest.raises(ValueError, match=r"line 3: it is not UTF-8; save the table as CSV in UTF-8"):
        read(root, f"{HEAD}a.png,cat\nb.png,\u00e9\n", encoding="latin-1")


def test_files_that_are_no_tables(root):
    data = DataConfig(name="csv", root=str(root / "images"), labels=str(root / "absent.csv"))
    with pytest.raises(ValueError, match=r"absent.csv': it cannot be read: No such file or directory; name a CSV file"):
        find_own_images(data)
    with pytest.raises(ValueError, match=r"data.root = 'absent': there is no such folder"):
        find_own_images(DataConfig(name="csv", root="absent", labels="labels.csv"))


def test_links_between_splits_are_refused(root):
    (root / "images" / "link.png").symlink_to("a.png")
    with pytest.raises(ValueError, match=r"are the same file, by links, in two splits"):
        read(root, "path,label,split\na.png,cat,train\nb.png,dog,train\nlink.png,cat,test\n")


def test_a_run_keeps_the_labels_with_which_it_began(root, capfd):
    before = "path,label,split\na.png,cat,train\nb.png,dog,train\nc.png,dog,test\n"
    (root / "labels.csv").write_text(before)
    data = DataConfig(name="csv", root=str(root / "images"), labels=str(root / "labels.csv"), img_size=8)
    record = load_data(data, ModelConfig()).record()
    # A label is corrected, an image changes its split, and another one is added.
    (root / "labels.csv").write_text(
        "path,label,split\na.png,dog,train\nb.png,dog,test\nc.png,dog,test\nd.png,cat,train\n"
    )
    images = load_data(data, ModelConfig(), record)
    assert names(images.train.dataset.samples, root) == [("a.png", 0), ("b.png", 1)]
    assert names(images.test.dataset.samples, root) == [("c.png", 1)]
    said = capfd.readouterr().err
    assert "1 images have other labels now, such as" in said
    assert "1 images that the run does not know are left out, such as" in said


def test_an_absent_image_counts_as_damaged_if_such_are_skipped(root, capfd):
    text = "path,label,split\na.png,cat,train\nx.png,dog,train\nb.png,dog,train\nc.png,dog,test\ny.png,dog,test\n"
    (root / "labels.csv").write_text(text)
    labels = str(root / "labels.csv")
    data = DataConfig(name="csv", root=str(root / "images"), labels=labels, corrupt="skip", img_size=8)
    images = load_data(data, ModelConfig())
    assert [len(images.train), len(images.test)] == [3, 1]
    assert images.train[1, 0][1] == 1
    said = capfd.readouterr().err
    assert "y.png cannot be read as an image (No such file or directory); it is left out" in said
    assert "x.png cannot be read as an image (No such file or directory); the next image is taken in its place" in said
