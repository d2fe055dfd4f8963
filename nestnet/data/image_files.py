"""Images that lie in files of their own, each read when it is asked for, and what happens where one cannot be."""

import itertools
import os
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch.utils.data import Dataset

from nestnet.runtime.notices import log_notice
from nestnet.storage.files import SHORTAGES, open_regular

# Of large images (from 89 million pixels on; from twice that on they are refused) and of odd EXIF data, which are not used.
# What matters about a file becomes `Unreadable`.
warnings.filterwarnings("ignore", module=r"PIL\.")

Sample = tuple[str, int]
"""The path of an image and its label."""

FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF", "WEBP")
"""Formats of photographs and drawings, by Pillow's names. Of the others that Pillow knows, some start a program to read a file:
EPS starts Ghostscript."""

EXTENSIONS = frozenset(ending for ending, name in Image.registered_extensions().items() if name in FORMATS)
"""Endings of image files, in lower case. `.avif` is one of them where Pillow was built with it."""

USUAL = "such as .jpg, .png, .webp, .tif or .gif"
"""Some of `EXTENSIONS`, for messages."""

OPENED = tuple(name for name in FORMATS if name in Image.OPEN)
"""Formats that Pillow opens under their own name; it opens MPO, of some cameras, as JPEG."""

READ_AS = "EXIF orientation applied, transparent pixels on white, 16 bits scaled to 8"
"""How the pixels of a file become those of an image, for whoever reads images without this module."""


class Unreadable(ValueError):
    """A file is no image, or not a whole one."""


class ImageFiles(Dataset[Any]):
    """Image files and their labels.

    Args:
        samples: path and label of each.
        mode: of PIL, that the images are brought to: `"RGB"` or `"L"`.
        root: folder below which they lie; what an image is called in a run's record starts there.
        command: that takes options, for advice, where the one at hand takes none.
        skip: whether an image that cannot be read is replaced by the next one that can, and named on standard error;
            otherwise it is an error. What replaces it follows from the files alone.
    """

    def __init__(
        self, samples: Sequence[Sample], mode: str, *, root: str = "", skip: bool = False, command: str | None = None
    ) -> None:
        self.samples = list(samples)
        self.mode = mode
        self.root = root
        self.skip = skip
        self.command = command
        # shared by all processes that read these images, so that each file is named once
        self.named = torch.zeros(len(self.samples) if skip else 0, dtype=torch.uint8).share_memory_()

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """The image and its label.

        Raises:
            Unreadable: naming the file.
        """
        if not self.skip:
            try:
                return self._read(index)
            except Unreadable as error:
                remedy = "give --data.corrupt skip"
                if self.command is not None:
                    remedy = f"let `{self.command} --data.corrupt skip` go on without it"
                raise Unreadable(f"{error}; replace it, or {remedy}") from error
        for candidate in itertools.chain(range(index, len(self)), range(index)):
            try:
                return self._read(candidate)
            except Unreadable as error:
                self._name(candidate, f"{error}; the next image is taken in its place", from_any_process=True)
        raise Unreadable(
            f"none of the {len(self)} images can be read; the last one tried is {self.samples[index - 1][0]}"
        )

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def labels(self) -> list[int]:
        return [label for _, label in self.samples]

    def paths(self) -> list[str]:
        return [path for path, _ in self.samples]

    def names(self) -> list[str]:
        """What each file is called below `root`, with `/` between the folders."""
        start = os.path.join(self.root, "")
        return [path.removeprefix(start).replace(os.sep, "/") for path, _ in self.samples]

    def part(self, indices: Iterable[int]) -> "ImageFiles":
        """Some of them; what replaces an unreadable one is then of these."""
        return self.with_samples([self.samples[index] for index in indices])

    def with_samples(self, samples: Sequence[Sample]) -> "ImageFiles":
        """Other files of the same folder, read in the same way."""
        return ImageFiles(samples, self.mode, root=self.root, skip=self.skip, command=self.command)

    def readable(self) -> "ImageFiles":
        """Those whose images can be read. Each is read once, and the others are named.

        Raises:
            Unreadable: if there is none.
        """

        def fault(index: int) -> str | None:
            try:
                self._read(index)
            except Unreadable as error:
                return str(error)
            return None

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            faults = list(pool.map(fault, range(len(self))))
        for index, said in enumerate(faults):
            if said is not None:
                self._name(index, f"{said}; it is left out")
        whole = [index for index, said in enumerate(faults) if said is None]
        if self.samples and not whole:
            raise Unreadable(f"none of the {len(self)} test images can be read; the first is {self.samples[0][0]}")
        return self.part(whole)

    def _name(self, index: int, what: str, *, from_any_process: bool = False) -> None:
        if not self.named[index]:
            self.named[index] = 1
            log_notice(what, from_any_process=from_any_process)

    def _read(self, index: int) -> tuple[Image.Image, int]:
        path, label = self.samples[index]
        return read_image(path, self.mode), label


def is_image(name: str) -> bool:
    """Whether a file is taken for an image by its name."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def read_image(path: str, mode: str) -> Image.Image:
    """Return the image of a file as people see it, in a mode of PIL.

    It is turned as its EXIF orientation says, and laid on white where it is transparent. 16 bits of grey are scaled to 8.

    Raises:
        Unreadable: if the file is absent, not a regular file, damaged, or no image of `FORMATS`, or if the range of its
            pixels is not known (32 bits, floating point).
    """
    with open_image(path) as (image, file):
        image.load()
        if image.format == "PNG" and _ends_empty(image) and not _has_all_rows(file):
            raise Unreadable("its data ends before its last row")
        if is_turned(image):
            ImageOps.exif_transpose(image, in_place=True)
        return _on_white(_of_eight_bits(image)).convert(mode)


@contextmanager
def open_image(path: str) -> Iterator[tuple[Image.Image, BinaryIO]]:
    """Open an image and its file. Width, mode and EXIF data are known then; the pixels are not read yet.

    Raises:
        Unreadable: if it cannot be opened, and in place of whatever goes wrong with it while it is open.
        OSError, MemoryError: if the system is short of something, which says nothing about the file.
    """
    try:
        with open_regular(path) as file, Image.open(file, formats=OPENED) as image:
            yield image, file
    except Exception as error:  # what a damaged file makes of a decoder can be any of them
        if isinstance(error, MemoryError) or getattr(error, "errno", None) in SHORTAGES:
            raise
        reason = error.strerror if isinstance(error, OSError) else None
        reason = reason or " ".join(str(error).replace(repr(path), "").split()) or type(error).__name__
        if isinstance(error, Image.UnidentifiedImageError):
            reason = "it is no image of a known format, or its beginning is damaged"
        raise Unreadable(f"{path} cannot be read as an image ({reason})") from error


def is_turned(image: Image.Image) -> bool:
    """Return whether the EXIF orientation asks for a rotation or a flip."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
    except Exception:  # damaged EXIF data of an image that is whole
        return False


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of an open image as it is shown."""
    # orientations 5 to 8 are those with a quarter turn (EXIF 2.32, section 4.6.4); Pillow gives the size of a TIFF as shown
    if image.format != "TIFF" and is_turned(image) and image.getexif()[ExifTags.Base.Orientation] >= 5:
        return image.height, image.width
    return image.width, image.height


def _of_eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16 bits to 8; Pillow's own conversion would cut off what is above 255."""
    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if sixteen:
        values = np.asarray(image).astype(np.uint32)
        scaled = Image.fromarray(((values + 128) // 257).astype(np.uint8))  # 65535 = 255 * 257, rounded
        transparent = image.info.get("transparency")
        if transparent is not None:
            scaled.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
        return scaled
    if image.mode in ("I", "F"):
        raise Unreadable("its pixels have 32 bits, and which of them is white is not known; convert it to 8 or 16 bits")
    return image


def _on_white(image: Image.Image) -> Image.Image:
    """What lies under transparent pixels is seldom meant to be seen."""
    if not image.has_transparency_data:
        return image
    pixels = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", pixels.size, "white"), pixels)


def _ends_empty(image: Image.Image) -> bool:
    """Whether a PNG's last row is all zero, as Pillow leaves the rows for which there is no data."""
    # of an interlaced image the last row can have come with an earlier pass, and then the one before it has not
    rows = 2 if image.info.get("interlace") else 1
    return image.crop((0, max(image.height - rows, 0), image.width, image.height)).getbbox() is None


# Of each pass of an interlaced PNG: its first column and row, and the steps to its next ones (PNG specification, section 8.2).
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""By the colour type."""


def _has_all_rows(file: BinaryIO) -> bool:
    """Whether the compressed data of a PNG has the bytes of all rows that its header claims."""
    file.seek(8)
    wanted = found = 0
    decoder = zlib.decompressobj()
    while len(head := file.read(8)) == 8:
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        data = file.read(length)
        file.read(4)  # the checksum
        if kind == b"IHDR":
            wanted = _png_bytes(data)
        if kind == b"IDAT":
            while data and not decoder.eof:
                found += len(decoder.decompress(data, 1 << 20))
                data = decoder.unconsumed_tail
        if kind == b"IEND":
            break
    return found + len(decoder.flush()) >= wanted


def _png_bytes(header: bytes) -> int:
    """Bytes of all rows, each with one for its filter, by the header of a PNG."""
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    bits_per_pixel = header[8] * PNG_CHANNELS[header[9]]
    interlaced = header[12]
    total = 0
    for left, top, column_step, row_step in ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns = len(range(left, width, column_step))
        rows = len(range(top, height, row_step))
        if columns:
            total += rows * (1 + (columns * bits_per_pixel + 7) // 8)
    return total
