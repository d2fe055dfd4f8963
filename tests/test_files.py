"""Files as the product opens them."""

import os

import pytest

from nestnet.escape import for_terminal
from nestnet.files import open_regular


def test_only_regular_files_are_opened(tmp_path):
    (tmp_path / "file").write_bytes(b"some")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "link-to-fifo").symlink_to("fifo")
    for name in ("file", "link"):
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"some"
    refused = {"fifo": "a FIFO", "link-to-fifo": "a FIFO", ".": "a folder", "/dev/null": "a device"}
    for name, kind in refused.items():
        with pytest.raises(OSError, match=f"it is {kind}, not a file"):
            open_regular(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("größe 猫 👩\u200d🔬", "größe 猫 👩\u200d🔬"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\nb\r\t", r"a\nb\r\t"),
        ("right\u202eleft\u2028", r"right\u202eleft\u2028"),
        (os.fsdecode(b"caf\xe9"), r"caf\xe9"),
    ],
)
def test_a_terminal_gets_nothing_invisible(text, shown):
    assert for_terminal(text) == shown
