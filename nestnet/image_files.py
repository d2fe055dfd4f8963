"""Images that lie in files of their own, each read when it is asked for, and what happens where one cannot be."""

import itertools
import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from PIL import Image
from torch.utils.data import Dataset

from nestnet.torchrun import is_first_process

Sample = tuple[str, int]
"""The path of an image and its label."""


class Unreadable(ValueError):
    """A file is no image, or not a whole one."""


class ImageFiles(Dataset[Any]):
    """Image files and their labels.

    Args:
        samples: path and label of each.
        mode: of PIL, that the images are brought to: `"RGB"` or `"L"`.
        skip: whether an image that cannot be read is replaced by the next one that can, and named on standard error;
            otherwise it is an error. What replaces it follows from the files alone.
    """

    def __init__(self, samples: Sequence[Sample], mode: str, *, skip: bool = False) -> None:
        self.samples, self.mode, self.skip = list(samples), mode, skip
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
                raise Unreadable(f"{error}; replace or remove it, or give --data.corrupt skip") from error
        for candidate in itertools.chain(range(index, len(self)), range(index)):
            try:
                return self._read(candidate)
            except Unreadable as error:
                self._name(candidate, f"{error}; the next image is taken in its place")
        raise Unreadable(
            f"none of the {len(self)} images can be read; the last one tried is {self.samples[index - 1][0]}"
        )

    def __len__(self) -> int:
        return len(self.samples)

    def part(self, indices: Iterable[int]) -> "ImageFiles":
        """Some of them; what replaces an unreadable one is then of these."""
        return ImageFiles([self.samples[index] for index in indices], self.mode, skip=self.skip)

    def readable(self, indices: Sequence[int]) -> list[int]:
        """Those indices whose images can be read. Each is read once, and the others are named.

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
            faults = list(pool.map(fault, indices))
        for index, said in zip(indices, faults, strict=True):
            if said is not None and is_first_process():  # all processes look at the same files
                self._name(index, f"{said}; it is left out")
        whole = [index for index, said in zip(indices, faults, strict=True) if said is None]
        if indices and not whole:
            raise Unreadable(
                f"none of the {len(indices)} test images can be read; the first is {self.samples[indices[0]][0]}"
            )
        return whole

    def _name(self, index: int, what: str) -> None:
        if not self.named[index]:
            self.named[index] = 1
            print(f"nestnet: {what}", file=sys.stderr, flush=True)

    def _read(self, index: int) -> tuple[Image.Image, int]:
        path, label = self.samples[index]
        return read_image(path, self.mode), label


def read_image(path: str, mode: str) -> Image.Image:
    """An image file in a mode of PIL.

    Raises:
        Unreadable: if it is absent, damaged, or no image.
        ValueError: if its pixels have more than 8 bits, which PIL would cut off.
    """
    try:
        with Image.open(path) as image:
            deep = image.mode.startswith(("I", "F"))
            converted = image.convert(mode)
    except Exception as error:  # what a damaged file makes of a decoder can be any of them
        reason = " ".join(str(error).replace(repr(path), "").split()) or type(error).__name__
        raise Unreadable(f"{path} cannot be read as an image ({reason})") from error
    if deep:
        raise ValueError(
            f"{path} has pixels of more than 8 bits, of which only the lowest would be read; convert it to 8 bits"
        )
    return converted
