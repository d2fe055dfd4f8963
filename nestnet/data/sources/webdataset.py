"""Images in tar files, as `webdataset` lays them out: `0001.jpg` and its label `0001.cls` or `0001.json` side by side.

A stream of tar files can only be shuffled approximately, and cannot be resumed exactly. The members are therefore
listed once, and each image is then read from its place in its file, in any order. This needs no package beside
Python's own `tarfile`, and nothing is unpacked.
"""

import json
import os
import re
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nestnet.config.schema_sections import DataConfig
from nestnet.data.folder.split_names import match_split
from nestnet.data.image_decoding import USUAL_EXTENSIONS, is_image_name
from nestnet.data.sources.labelled_images import LabelledImage, LabelledImages
from nestnet.data.sources.tar_store import Place, TarStore
from nestnet.storage.opening import open_regular
from nestnet.storage.read_back import read_plain_text
from nestnet.text.escape import quoted
from nestnet.text.messages import in_one_line

CLASS_NAMES_FILE = "classnames.txt"
"""File beside the shards that names the classes, one per line, in the order of the numbers in `.cls` members."""

DEFAULT_LABEL_KEY = "label"

MAX_LABEL_BYTES = 1 << 20
"""Largest size of a member with a label."""

BLOCK = tarfile.BLOCKSIZE

# As webdataset divides a name: the key is everything before the first dot of the file's name.
MEMBER_NAME = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)", re.DOTALL)


@dataclass
class _TarSample:
    """The members of a tar file whose names differ in their extensions only.

    Attributes:
        images: places of the images, by name.
        labels: places of the labels, by their extension, `cls` or `json`.
    """

    images: dict[str, Place] = field(default_factory=dict)
    labels: dict[str, Place] = field(default_factory=dict)


def read_webdataset(data: DataConfig) -> LabelledImages:
    """List the images and read the labels in the tar files of a folder.

    Args:
        data: configuration of the images; `root`, `label_column` and `multi_label` matter here.

    Returns:
        The images in the order of the names of the files, and of their members.

    Raises:
        ValueError: Naming the file and a remedy, if there is no tar file, one is damaged or compressed, or an image has
            no label or several images share one.
    """
    assert data.root is not None
    root = os.path.normpath(data.root)
    reader = _ShardReader(data, root)
    shards = reader.list_shards()
    for shard, split in shards:
        reader.read_shard(shard, split)
    notices: tuple[str, ...] = ()
    if reader.without_image:
        example = reader.without_image[0]
        notices = (f"left out: {len(reader.without_image):,} samples without an image (such as {example})",)
    if not reader.images:
        raise ValueError(f"{reader.field}: its tar files hold no images ({USUAL_EXTENSIONS})")
    store = TarStore(reader.places)
    return LabelledImages(
        root, store, reader.images, reader.class_names, has_one_label=not data.multi_label, notices=notices
    )


class _ShardReader:
    """Reader of tar files, which collects their images.

    Args:
        data: configuration of the images.
        root: folder of the tar files.

    Attributes:
        images: images so far.
        places: place of each image, by its path.
        without_image: samples that have no image.
        class_names: names of the classes, from the file beside the shards; `None` if there is none.
    """

    def __init__(self, data: DataConfig, root: str) -> None:
        self.data = data
        self.root = root
        self.field = f"data.root = {quoted(root)}"
        self.images: list[LabelledImage] = []
        self.places: dict[str, Place] = {}
        self.without_image: list[str] = []
        self.class_names: list[str] | None = None
        names_file = Path(root) / CLASS_NAMES_FILE
        if names_file.is_file():
            try:
                lines = read_plain_text(names_file).splitlines()
            except (ValueError, OSError) as error:
                raise ValueError(f"{names_file}: {in_one_line(error)}; name one class per line there") from error
            self.class_names = [line.strip() for line in lines if line.strip()]

    def list_shards(self) -> list[tuple[str, str | None]]:
        """Return the path of each tar file and the split it is for, which its name or its folder's name says."""
        if not Path(self.root).is_dir():
            raise ValueError(f"{self.field}: there is no such folder; name the folder of the tar files")
        shards: list[tuple[str, str | None]] = []
        compressed = []
        for path in sorted(Path(self.root).rglob("*")):
            if re.search(r"\.(tar\.\w+|tgz)$", path.name):
                compressed.append(path)
            if path.suffix != ".tar" or path.name.startswith("."):
                continue
            # The folder comes before the name: `train/valley-01.tar` is for training.
            matches = [match_split(part) for part in path.relative_to(self.root).parts]
            splits = [split for split in matches if split is not None]
            shards.append((str(path), splits[0] if splits else None))
        if compressed:
            raise ValueError(
                f"{self.field}: {compressed[0]} is compressed, and images cannot be read from it in any order; decompress it"
            )
        if not shards:
            raise ValueError(f"{self.field}: it holds no tar files (.tar)")
        without_split = [path for path, split in shards if split is None]
        if 0 < len(without_split) < len(shards):
            raise ValueError(
                f"{self.field}: the name of {without_split[0]} says no split, and others do; call them train, val or test"
            )
        return shards

    def read_shard(self, shard: str, split: str | None) -> None:
        """Add the images of a tar file.

        Args:
            shard: path of the tar file.
            split: split that it is for.
        """
        try:
            samples = self._list_samples(shard)
        except (tarfile.TarError, OSError, UnicodeError) as error:
            raise ValueError(
                f"{self.field}: {shard} cannot be read as a tar file ({in_one_line(error)}); replace it"
            ) from error
        for key, sample in samples.items():
            where = f"{self.field}: {key} in {shard}"
            if not sample.images:
                self.without_image.append(f"{key} in {shard}")
                continue
            if len(sample.images) > 1:
                raise ValueError(
                    f"{where} has {len(sample.images)} images, {' and '.join(sample.images)}; keep one of them"
                )
            [(name, place)] = sample.images.items()
            path = f"{shard}/{name}"
            self.places[path] = place
            self.images.append(LabelledImage(path, self._read_classes(sample, where), split))

    def _list_samples(self, shard: str) -> dict[str, _TarSample]:
        """Return the samples of a tar file by their keys, in its order."""
        samples: dict[str, _TarSample] = {}
        end = 0
        with open_regular(shard) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                end = member.offset_data + -(-member.size // BLOCK) * BLOCK
                archive.members = []  # type: ignore[attr-defined]  # they would take much memory
                name = MEMBER_NAME.fullmatch(member.name)
                if name is None or not member.isreg() or member.issparse() or _is_hidden(member.name):
                    continue
                sample = samples.setdefault(name[1], _TarSample())
                extension = name[2].lower()
                place = Place(shard, member.offset_data, member.size)
                if is_image_name(member.name):
                    if member.name in sample.images:
                        raise tarfile.ReadError(f"it holds {member.name} twice")
                    sample.images[member.name] = place
                elif extension in ("cls", "json"):
                    sample.labels[extension] = place
            # tarfile takes a file that was cut short for a shorter archive.
            file.seek(end)
            if file.read(BLOCK) != bytes(BLOCK):
                raise tarfile.ReadError("it ends before its end mark, or is damaged after its last readable member")
        return samples

    def _read_classes(self, sample: _TarSample, where: str) -> tuple[str, ...]:
        """Return the names of the classes of a sample."""
        if "cls" in sample.labels and not self.data.multi_label:
            text = _read_text(sample.labels["cls"], where).strip()
            return (self._name_class(text, f"{where}.cls"),)
        if "json" not in sample.labels:
            wanted = ".json" if self.data.multi_label else ".cls or .json"
            raise ValueError(f"{where} has no label ({wanted}); add one, or remove it")
        key = self.data.label_column or DEFAULT_LABEL_KEY
        where = f"{where}.json"
        try:
            content = json.loads(_read_text(sample.labels["json"], where))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where} is not JSON ({in_one_line(error)}); mend it") from error
        if not isinstance(content, dict) or key not in content:
            raise ValueError(f"{where} has no {quoted(key)}; set data.label_column to the name of its label")
        labels = content[key]
        if not self.data.multi_label:
            labels = [labels]
        elif not isinstance(labels, list):
            raise ValueError(
                f"{where}: {key} = {quoted(labels)} must be a list of labels, because data.multi_label is true"
            )
        return tuple(dict.fromkeys(self._name_class(label, where) for label in labels))

    def _name_class(self, label: Any, where: str) -> str:
        """Return the name of the class that a label stands for."""
        if isinstance(label, bool) or not isinstance(label, str | int) or label == "":
            raise ValueError(f"{where}: the label {quoted(label)} must be a name or a number; mend it")
        if self.class_names is None:
            return str(label)
        if label in self.class_names:
            return str(label)
        is_number = str(label).isdecimal()
        if not is_number or int(label) >= len(self.class_names):
            raise ValueError(
                f"{where}: the label {quoted(label)} is none of the {len(self.class_names)} classes in {CLASS_NAMES_FILE}; "
                "correct one of them"
            )
        return self.class_names[int(label)]


def _is_hidden(name: str) -> bool:
    """Return whether a member is one that a system left, such as `._0001.jpg` of macOS."""
    return any(part.startswith(".") for part in name.removeprefix("./").split("/"))


def _read_text(place: Place, where: str) -> str:
    if place.size > MAX_LABEL_BYTES:
        raise ValueError(f"{where} has {place.size:,} bytes, which is no label; remove it")
    try:
        return place.read().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{where} cannot be read ({in_one_line(error)}); mend it") from error
