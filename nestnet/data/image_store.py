"""Where the encoded bytes of images lie: in files of their own, or inside of larger files."""

import os
from abc import ABC, abstractmethod
from typing import BinaryIO

from nestnet.storage.opening import open_regular


class ImageStore(ABC):
    """A store of encoded images, such as JPEG files, each of which has a path.

    Worker processes of a loader get copies of a store, so that it keeps no file open.
    """

    @abstractmethod
    def open(self, path: str) -> BinaryIO:
        """Open an image to read its encoded bytes.

        Args:
            path: path of the image in the store.

        Returns:
            The bytes as a file, at its beginning.

        Raises:
            OSError: If they cannot be read. `strerror` gives the reason.
        """

    @abstractmethod
    def has(self, path: str) -> bool:
        """Return whether the store has an image of this path, be it readable or not."""


class FileStore(ImageStore):
    """The store of images that are files of their own."""

    def open(self, path: str) -> BinaryIO:
        """Open an image file; see `ImageStore.open`."""
        return open_regular(path)

    def has(self, path: str) -> bool:
        """Return whether there is a file, or a link to nothing, of this path."""
        return os.path.lexists(path)


FILES = FileStore()
"""The store in which the path of an image is that of its file."""
