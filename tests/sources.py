"""Tiny data sets of each source of images, with the same images in all of them."""

import csv
import io
import json
import tarfile

import torch
from PIL import Image

SPLITS = {"train": 24, "test": 6}
CLASSES = ["cat", "dog"]


def draw(split, index):
    """An image of its own colour, and the number of its class."""
    colour = (7 * index, 40 if split == "train" else 200, 100 * (index % 2))
    return Image.new("RGB", (8, 8), colour), index % 2


def tags(index):
    """The numbers of the labels of an image that may have several: none, one or both."""
    return [[], [0], [1], [0, 1]][index % 4]


def encode(image):
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


def every_image():
    for split, count in SPLITS.items():
        for index in range(count):
            image, label = draw(split, index)
            yield split, index, image, label


def write_csv(root, *, multi_label=False):
    """Image files, and a table of their labels beside the folder; the command line that names them."""
    (root / "images").mkdir(parents=True)
    with open(root / "labels.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        for split, index, image, label in every_image():
            name = f"{split}-{index:02}.png"
            (root / "images" / name).write_bytes(encode(image))
            cell = "|".join(CLASSES[tag] for tag in tags(index)) if multi_label else CLASSES[label]
            writer.writerow([name, cell, split])
    named = ["--data.name", "csv", "--data.root", str(root / "images"), "--data.labels", str(root / "labels.csv")]
    if multi_label:
        named += ["--data.multi_label", "true", "--data.label_separator", "|", "--loss.name", "bce"]
    return named


def write_hf_datasets(root, *, multi_label=False):
    import datasets

    datasets.disable_progress_bars()
    label = datasets.ClassLabel(names=CLASSES)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.List(label) if multi_label else label})
    tables = {}
    for split, count in SPLITS.items():
        rows = {"image": [], "label": []}
        for index in range(count):
            image, number = draw(split, index)
            rows["image"].append({"bytes": encode(image), "path": None})
            rows["label"].append(tags(index) if multi_label else number)
        tables[split] = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict(tables).save_to_disk(str(root / "saved"))
    named = ["--data.name", "hf_datasets", "--data.root", str(root / "saved")]
    return [*named, "--data.multi_label", "true", "--loss.name", "bce"] if multi_label else named


def add_member(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def write_webdataset(root, *, multi_label=False):
    (root / "shards").mkdir(parents=True)
    (root / "shards" / "classnames.txt").write_text("\n".join(CLASSES))
    for split, count in SPLITS.items():
        for shard in range(2):
            with tarfile.open(root / "shards" / f"{split}-{shard:03}.tar", "w") as archive:
                for index in range(shard, count, 2):
                    image, label = draw(split, index)
                    add_member(archive, f"{index:04}.png", encode(image))
                    if multi_label:
                        add_member(archive, f"{index:04}.json", json.dumps({"label": tags(index)}).encode())
                    else:
                        add_member(archive, f"{index:04}.cls", str(label).encode())
    named = ["--data.name", "webdataset", "--data.root", str(root / "shards")]
    return [*named, "--data.multi_label", "true", "--loss.name", "bce"] if multi_label else named


WRITERS = {"csv": write_csv, "hf_datasets": write_hf_datasets, "webdataset": write_webdataset}


class Drawn(torch.utils.data.Dataset):
    """A data set in Python, which flips its images at random if it is to."""

    classes = CLASSES

    def __init__(self, split, *, flips=False):
        self.split = split
        self.flips = flips
        self.targets = [index % 2 for index in range(SPLITS[split])]

    def __len__(self):
        return SPLITS[self.split]

    def __getitem__(self, index):
        image, label = draw(self.split, index)
        # The left half is black, so that a flip shows.
        image.paste((0, 0, 0), (0, 0, 4, 8))
        if self.flips and torch.rand(()) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return image, label
