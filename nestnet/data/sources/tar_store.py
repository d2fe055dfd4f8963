"""Images inside of tar files, each read from its place without unpacking the file."""

import errno
import io
from typing import BinaryIO, NamedTuple

from nestnet.data.image_store import ImageStore
from nestnet.storage.opening import open_regular


class Place(NamedTuple):
    """The place of a member in a tar file.

    Attributes:
        shard: path of the tar file.
        offset: position of its first byte.
        size: number of its bytes.
    """

    shard: str
    offset: int
    size: int

    def read(self) -> bytes:
        """Return the bytes of the member.

        Raises:
            OSError: If the file cannot be read, or ends before.
        """
        with open_regular(self.shard) as file:
            file.seek(self.offset)
            content = file.read(self.size)
        if len(content) < self.size:
            raise OSError(errno.EIO, "its tar file ends before its end", self.shard)
        return content


class TarStore(ImageStore):
    """The store of images in tar files. The path of an image is that of its tar file and its name in it.

    Args:
        places: place of each image, by its path.
    """

    def __init__(self, places: dict[str, Place]) -> None:
        self.places = places

    def open(self, path: str) -> BinaryIO:
        """Read an image from its place; see `ImageStore.open`."""
        if path not in self.places:
            raise OSError(errno.ENOENT, "its tar file has no such member", path)
        return io.BytesIO(self.places[path].read())

    def has(self, path: str) -> bool:
        """Return whether a tar file has an image of this name."""
        return path in self.places
