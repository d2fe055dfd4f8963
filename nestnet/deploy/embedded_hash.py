"""The SHA-256 that an exported program carries inside itself, and the reading of such a file.

It is taken while placeholders stand where it will be. Damage is found before a runtime parses anything of the file.
"""

import hashlib
import re
from pathlib import Path

from nestnet.storage.opening import open_regular

HASH_PLACEHOLDER = b"the SHA-256 of this file was taken with these words in its place"
"""What stands where the hash will be while it is computed; as long as the hash in hexadecimal digits."""


def fill_in_hash(content: bytes, companion: bytes = b"") -> bytes:
    """Return a file with its hash in place of the placeholder.

    Args:
        content: the file, with the placeholder exactly once.
        companion: a second file that the hash covers as well, such as one with the weights.
    """
    assert content.count(HASH_PLACEHOLDER) == 1
    return content.replace(HASH_PLACEHOLDER, _digest(content, companion))


def check_hash(
    content: bytes, entry: re.Pattern[bytes], path: Path, title: str, companion: bytes | None = None
) -> None:
    """Check that a file is as it was written.

    Args:
        content: the file.
        entry: pattern of the hash in it, with a group for its digits.
        path: path of the file, for error messages.
        title: name of the format, for error messages.
        companion: a second file that the hash covers as well; `None` if there is none.

    Raises:
        ValueError: If the file has no hash, or another one.
    """
    found = entry.search(content)
    if found is None:
        raise ValueError(f"{path} is damaged, or no {title} export of nestnet: its metadata has no sha256")
    if found[1] == _digest(content.replace(found[1], HASH_PLACEHOLDER), companion or b""):
        return
    if companion is None:
        raise ValueError(f"{path} is damaged: its SHA-256 is not the one it had when it was written")
    raise ValueError(
        f"{path} or the file of its weights is damaged: their SHA-256 is not the one that they had when written"
    )


def _digest(content: bytes, companion: bytes) -> bytes:
    """Return the SHA-256 of a file with its placeholder, and of its companion, in hexadecimal digits."""
    return hashlib.sha256(content + companion).hexdigest().encode()


def read_file(path: Path) -> bytes:
    """Return the content of an exported file.

    Args:
        path: the file.

    Raises:
        ValueError: If it cannot be read.
    """
    try:
        with open_regular(path) as file:
            return file.read()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
