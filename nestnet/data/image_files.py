"""The dataset of image files: each file is read when it is requested, and unreadable ones can be skipped."""

import itertools
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from nestnet.data.image_decoding import UnreadableImageError, read_image
from nestnet.data.image_store import FILES, ImageStore
from nestnet.runtime.log import log_notice

Label = int | tuple[int, ...]
"""The number of an image's class, or the numbers of its classes where images may have several labels."""

Sample = tuple[str, Label]
"""The path of an image and its label."""


def numbers_of(label: Label) -> tuple[int, ...]:
    """Return the numbers of an image's classes, of which most images have one."""
    if isinstance(label, tuple):
        return label
    return (label,)


class ImageFiles(Dataset[Any]):
    """Dataset of image files and their labels.

    Args:
        samples: path and label of each image.
        mode: mode of Pillow that images are converted to, `"RGB"` or `"L"`.
        root: folder that holds the files; the names of images in a run's record are relative to it.
        skip: whether an image that cannot be read is replaced by the next readable one, with a notice that names
            it. Otherwise it is an error. The replacement depends on the files only, not on chance.
        command: command that resumes the run, for advice about an unreadable image; `None` if the current command
            accepts the field `data.corrupt` itself.
        store: store of the images; by default each is a file.
        num_targets: number of classes `K` if images may have several labels, which are then given as a vector `[K]`;
            `None` if each has one.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        mode: str,
        *,
        root: str = "",
        skip: bool = False,
        command: str | None = None,
        store: ImageStore = FILES,
        num_targets: int | None = None,
    ) -> None:
        self.samples = list(samples)
        self.mode = mode
        self.root = root
        self.skip = skip
        self.command = command
        self.store = store
        self.num_targets = num_targets
        # Shared by all worker processes that read these images, so that each file is named once.
        flags = len(self.samples) if skip else 0
        self.is_named = torch.zeros(flags, dtype=torch.uint8).share_memory_()

    def __getitem__(self, index: int) -> tuple[Image.Image, int | Tensor]:
        """Return an image and its label, or the vector `[K]` that is 1 for each of its labels.

        Raises:
            UnreadableImageError: Naming the file, if it cannot be read and is not to be skipped, or none can
                be read.
        """
        if not self.skip:
            try:
                return self._read(index)
            except UnreadableImageError as error:
                raise UnreadableImageError(f"{error}; replace it, or {self._advise_skipping()}") from error
        # Try the images after it, then those from the beginning. As the order is fixed, the replacement is the
        # same in every epoch and with any number of workers.
        for candidate in itertools.chain(range(index, len(self)), range(index)):
            try:
                return self._read(candidate)
            except UnreadableImageError as error:
                self._name_once(candidate, f"{error}; the next image is taken in its place", from_any_process=True)
        raise UnreadableImageError(
            f"none of the {len(self)} images can be read; the last one tried is {self.samples[index - 1][0]}"
        )

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def labels(self) -> list[Label]:
        """Label of each image."""
        return [label for _, label in self.samples]

    @property
    def paths(self) -> list[str]:
        """Path of each image."""
        return [path for path, _ in self.samples]

    @property
    def names(self) -> list[str]:
        """Name of each image: its path below `root`, with `/` between folders."""
        prefix = os.path.join(self.root, "")
        return [path.removeprefix(prefix).replace(os.sep, "/") for path in self.paths]

    def subset(self, indices: Iterable[int]) -> "ImageFiles":
        """Return a dataset of some of the images; the replacement of an unreadable one then belongs to the subset.

        Args:
            indices: positions of the images, in the desired order.
        """
        return self.with_samples([self.samples[index] for index in indices])

    def with_samples(self, samples: Sequence[Sample]) -> "ImageFiles":
        """Return a dataset of other files in the same root, read in the same way.

        Args:
            samples: path and label of each image.
        """
        return ImageFiles(
            samples,
            self.mode,
            root=self.root,
            skip=self.skip,
            command=self.command,
            store=self.store,
            num_targets=self.num_targets,
        )

    def drop_unreadable(self) -> "ImageFiles":
        """Return a dataset without the unreadable images. Every image is read once, and notices name the unreadable ones.

        Raises:
            UnreadableImageError: If none can be read.
        """
        # Pillow decodes without Python's lock, so that threads are enough to use all cores.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            faults = list(pool.map(self._find_fault, range(len(self))))
        readable = []
        for index, fault in enumerate(faults):
            if fault is None:
                readable.append(index)
            else:
                self._name_once(index, f"{fault}; it is left out")
        if self.samples and not readable:
            raise UnreadableImageError(
                f"none of the {len(self)} test images can be read; the first is {self.samples[0][0]}"
            )
        return self.subset(readable)

    def _find_fault(self, index: int) -> str | None:
        """Return the reason why an image cannot be read; `None` if it can."""
        try:
            self._read(index)
        except UnreadableImageError as error:
            return str(error)
        return None

    def _advise_skipping(self) -> str:
        if self.command is None:
            return "set data.corrupt to skip"
        return f"run `{self.command}` with data.corrupt set to skip"

    def _name_once(self, index: int, notice: str, *, from_any_process: bool = False) -> None:
        if not self.is_named[index]:
            self.is_named[index] = 1
            log_notice(notice, from_any_process=from_any_process)

    def _read(self, index: int) -> tuple[Image.Image, int | Tensor]:
        path, label = self.samples[index]
        image = read_image(path, self.mode, self.store)
        if isinstance(label, int):
            return image, label
        assert self.num_targets is not None
        target = torch.zeros(self.num_targets)
        target[list(label)] = 1
        return image, target
