"""The path of a file's model card, and the recognition of an existing card."""

from pathlib import Path

import yaml

from nestnet.storage.opening import open_regular
from nestnet.storage.safe_yaml import parse_yaml

# Number of bytes within which the YAML at the head of a card ends.
MAX_HEAD_BYTES = 4096


def choose_card_path(path: Path) -> Path:
    """Choose the path of the model card of a file.

    Args:
        path: exported file.

    Returns:
        `b.md` for `b.onnx`, or `b.onnx.md` where `b.md` is the card of another file.
    """
    card = path.with_suffix(".md")
    if read_described_file(card) in (None, path.name):
        return card
    return path.with_name(f"{path.name}.md")


def read_described_file(card: Path) -> str | None:
    """Return the name of the file that a model card describes.

    Args:
        card: path of the card.

    Returns:
        The name; `None` if there is no card, or if it was not written by nestnet and must not be replaced.
    """
    # Every card that nestnet writes has the tag. Cards of older versions do not name a file, and are kept.
    head = _read_head(card)
    tags = head.get("tags")
    model_file = head.get("model_file")
    if not isinstance(tags, list) or "nestnet" not in tags:
        return None
    if isinstance(model_file, str):
        return model_file
    return None


def _read_head(card: Path) -> dict[object, object]:
    """Return the YAML between the two lines of dashes at the head of a card; empty if there is none."""
    # Reading a FIFO would block, so only a regular file is opened, and only as much is read as a head can have.
    try:
        with open_regular(card) as file:
            text = file.read(MAX_HEAD_BYTES).decode(errors="replace")
    except OSError:
        return {}
    # The parts are: nothing before the first line of dashes, the YAML, and the rest.
    parts = text.split("---\n", 2)
    if len(parts) < 3 or parts[0]:
        return {}
    try:
        head = parse_yaml(parts[1])
    except yaml.YAMLError:
        return {}
    if isinstance(head, dict):
        return head
    return {}
