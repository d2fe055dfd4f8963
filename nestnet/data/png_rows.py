"""Whether a PNG file has the data of all the rows that its header claims.

Pillow reads a PNG whose compressed data ends early without an error, and leaves the missing rows black.
"""

import zlib
from typing import BinaryIO

from PIL import Image

# First column, first row, and the steps to the next column and row of each pass of an interlaced PNG (PNG
# specification, section 8.2). An image that is not interlaced has one pass.
ADAM7_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
SINGLE_PASS = ((0, 0, 1, 1),)

CHANNELS_BY_COLOUR_TYPE = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}

SIGNATURE_BYTES = 8
"""Length of the signature, after which the first chunk of a PNG file begins."""

PIECE_BYTES = 1 << 20
"""Largest number of bytes that are decompressed at once, so that a large image takes little memory."""


def ends_empty(image: Image.Image) -> bool:
    """Return whether the last row of a PNG is all zero, as Pillow leaves rows for which there is no data.

    Args:
        image: loaded image of the format PNG.
    """
    rows = 1
    if image.info.get("interlace"):
        # In an interlaced image the last row may belong to an earlier pass, in which case the row before it does not.
        rows = 2
    last_rows = image.crop((0, max(image.height - rows, 0), image.width, image.height))
    return last_rows.getbbox() is None


def has_all_rows(file: BinaryIO) -> bool:
    """Return whether the compressed data of a PNG has the bytes of all rows that its header claims.

    Args:
        file: open PNG file, at any position.
    """
    file.seek(SIGNATURE_BYTES)
    claimed = 0
    present = 0
    decompressor = zlib.decompressobj()
    while True:
        # A chunk has its length, its type, its data and a checksum (PNG specification, section 5.3).
        chunk_head = file.read(8)
        if len(chunk_head) < 8:
            break
        length = int.from_bytes(chunk_head[:4], "big")
        chunk_type = chunk_head[4:]
        data = file.read(length)
        file.read(4)  # the checksum
        if chunk_type == b"IHDR":
            claimed = _count_claimed_bytes(data)
        elif chunk_type == b"IDAT":
            while data and not decompressor.eof:
                present += len(decompressor.decompress(data, PIECE_BYTES))
                data = decompressor.unconsumed_tail
        elif chunk_type == b"IEND":
            break
    return present + len(decompressor.flush()) >= claimed


def _count_claimed_bytes(header: bytes) -> int:
    """Return the number of bytes of all rows, each with one byte for its filter, from the data of a PNG's header chunk."""
    width = int.from_bytes(header[:4], "big")
    height = int.from_bytes(header[4:8], "big")
    bits_per_pixel = header[8] * CHANNELS_BY_COLOUR_TYPE[header[9]]
    is_interlaced = header[12]
    total = 0
    for first_column, first_row, column_step, row_step in ADAM7_PASSES if is_interlaced else SINGLE_PASS:
        columns = len(range(first_column, width, column_step))
        rows = len(range(first_row, height, row_step))
        if columns:
            total += rows * (1 + (columns * bits_per_pixel + 7) // 8)
    return total
