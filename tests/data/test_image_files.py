"""How the pixels of an image file become those of an image: as people see it."""

import errno
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from nestnet.data import image_store
from nestnet.data.image_decoding import UnreadableImageError, open_image, read_image, upright_size
from nestnet.data.image_files import ImageFiles
from nestnet.data.preprocessing import create_eval_transform

# An image of 2 x 3 pixels whose rows and columns all differ, as people see it.
UPRIGHT = np.arange(0, 240, 40, dtype=np.uint8).reshape(3, 2)
STORED = {  # by EXIF orientation: how the pixels lie in the file (EXIF 2.32, section 4.6.4, table 4)
    1: UPRIGHT,
    2: np.fliplr(UPRIGHT),
    3: np.rot90(UPRIGHT, 2),
    4: np.flipud(UPRIGHT),
    5: UPRIGHT.T,
    6: np.rot90(UPRIGHT, 1),
    7: np.rot90(UPRIGHT, 2).T,
    8: np.rot90(UPRIGHT, -1),
}


def save(path, pixels, orientation=None, **options):
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if orientation is not None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    image.save(path, **options)
    return str(path)


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", STORED)
def test_images_are_turned_as_their_exif_data_say(tmp_path, orientation, suffix):
    lossless = {"lossless": True} if suffix == "webp" else {}
    path = save(tmp_path / f"a.{suffix}", np.stack([STORED[orientation]] * 3, 2), orientation, **lossless)
    np.testing.assert_array_equal(np.asarray(read_image(path, "L")), UPRIGHT)
    np.testing.assert_array_equal(np.asarray(read_image(path, "RGB")), np.stack([UPRIGHT] * 3, 2))
    with open_image(path) as (image, _):
        assert upright_size(image) == (2, 3)


def test_photographs_are_turned(tmp_path):
    """The left half of a JPEG that lies on its side is what is seen above."""
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :16] = 255
    image = np.asarray(read_image(save(tmp_path / "a.jpg", pixels, 6), "L"))
    assert image.shape == (32, 16)
    assert image[:12].min() > 200
    assert image[20:].max() < 50


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_odd_orientations_and_damaged_exif_data_turn_nothing(tmp_path, orientation):
    path = save(tmp_path / "a.png", UPRIGHT, orientation)
    np.testing.assert_array_equal(np.asarray(read_image(path, "L")), UPRIGHT)
    Image.fromarray(UPRIGHT).save(tmp_path / "b.png", exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff")
    np.testing.assert_array_equal(np.asarray(read_image(str(tmp_path / "b.png"), "L")), UPRIGHT)


def transparent(mode):
    """Dark pixels: the first is transparent, the second half so, the third not at all."""
    image = Image.new("RGBA", (3, 1))
    for column, alpha in enumerate((0, 128, 255)):
        image.putpixel((column, 0), (20, 20, 20, alpha))
    if mode == "P":
        palette = Image.new("P", (3, 1))
        palette.putpalette([20, 20, 20] * 3)
        palette.putdata([0, 1, 2])
        palette.info["transparency"] = bytes([0, 128, 255])
        return palette
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_white(tmp_path, mode):
    """What lies under them is seldom meant to be seen."""
    transparent(mode).save(tmp_path / "a.png")
    for wanted in ("L", "RGB"):
        values = np.asarray(read_image(str(tmp_path / "a.png"), wanted)).reshape(3, -1)[:, 0]
        assert values[[0, 2]].tolist() == [255, 20]
        assert abs(int(values[1]) - (20 * 128 + 255 * 127) / 255) <= 1


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_one_colour_may_stand_for_transparency(tmp_path, mode):
    image = Image.new(mode, (2, 1), 20 if mode == "L" else (20, 20, 20))
    image.putpixel((1, 0), 30 if mode == "L" else (30, 30, 30))
    image.save(tmp_path / "a.png", transparency=20 if mode == "L" else (20, 20, 20))
    assert np.asarray(read_image(str(tmp_path / "a.png"), "L")).tolist() == [[255, 30]]


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, suffix):
    values = np.array([[0, 128, 257, 40_000, 65_406, 65_407, 65_535]], np.uint16)
    path = save(tmp_path / f"a.{suffix}", values)
    expected = np.round(values / 65_535 * 255).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(read_image(path, "L")), expected)
    np.testing.assert_array_equal(np.asarray(read_image(path, "RGB"))[..., 2], expected)


def test_one_of_sixteen_bits_of_grey_may_stand_for_transparency(tmp_path):
    image = Image.fromarray(np.array([[30_000, 30_001, 257]], np.uint16))
    image.save(tmp_path / "a.png", transparency=30_000)
    assert np.asarray(read_image(str(tmp_path / "a.png"), "L")).tolist() == [[255, 117, 1]]


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_pixels_of_unknown_range_cannot_be_read_and_can_be_skipped(tmp_path, kind):
    deep = save(tmp_path / "deep.tif", UPRIGHT.astype(kind))
    fine = save(tmp_path / "fine.png", UPRIGHT)
    with pytest.raises(
        UnreadableImageError, match="pixels have 32 bits, and which of them is white is not known; convert it"
    ):
        read_image(deep, "L")
    image, label = ImageFiles([(deep, 0), (fine, 1)], "L", skip=True)[0]
    assert (np.asarray(image).tolist(), label) == (UPRIGHT.tolist(), 1)


def png(width, height, rows, *, depth=8, colour=0, interlace=0, split=1):
    """A PNG that claims a height and has the data of so many rows."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    data = zlib.compress((b"\0" + b"\x50" * width) * rows)
    parts = (
        [data[start::split] for start in range(split)]
        if split == 1
        else [data[: len(data) // 2], data[len(data) // 2 :]]
    )
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    chunks = [chunk(b"IHDR", header), *(chunk(b"IDAT", part) for part in parts), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("width", "height", "rows"), [(10_000, 10_000, 1), (40, 40, 1), (40, 40, 37), (40, 40, 39), (40, 2, 0)]
)
def test_a_png_without_all_of_its_rows_is_no_image(tmp_path, width, height, rows):
    """Pillow would show black in their place."""
    (tmp_path / "a.png").write_bytes(png(width, height, rows))
    with pytest.raises(UnreadableImageError, match=r"its data ends before its last row|image file is truncated"):
        read_image(str(tmp_path / "a.png"), "L")


def test_whole_pngs_are_read_whatever_their_last_rows_hold(tmp_path):
    (tmp_path / "split.png").write_bytes(png(40, 40, 40, split=2))
    assert read_image(str(tmp_path / "split.png"), "L").getextrema() == (0x50, 0x50)
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        for size in ((1, 1), (5, 3), (33, 17)):
            Image.new(mode, size).save(tmp_path / "black.png")
            assert read_image(str(tmp_path / "black.png"), "L").size == size


def test_interlaced_rows_are_counted_by_pass(tmp_path):
    # 3 x 3 pixels: passes of 1, 1 and 2 columns in a row each, and so on; by hand 1 + 1, 1 + 1 (x2), 1 + 2, 1 + 3 bytes
    def interlaced(data):
        whole = png(3, 3, 0, interlace=1)
        start = whole.index(b"IDAT") - 4
        packed = zlib.compress(data)
        body = struct.pack(">I", len(packed)) + b"IDAT" + packed + struct.pack(">I", zlib.crc32(b"IDAT" + packed))
        return whole[:start] + body + whole[whole.index(b"IEND") - 4 :]

    rows = bytes([0, 0]) + bytes([0, 0]) + bytes([0, 0, 0]) + bytes([0, 0]) * 2 + bytes([0, 0, 0, 0])
    (tmp_path / "a.png").write_bytes(interlaced(rows))
    assert read_image(str(tmp_path / "a.png"), "L").size == (3, 3)
    (tmp_path / "a.png").write_bytes(interlaced(rows[:-4]))
    with pytest.raises(UnreadableImageError, match="its data ends before its last row"):
        read_image(str(tmp_path / "a.png"), "L")


@pytest.mark.parametrize(("width", "height"), [(20_000, 1), (1, 20_000), (300, 20), (40, 30)])
def test_very_long_images_are_cut_before_they_are_resized(width, height):
    """By their middle; all others are as timm treats them."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))
    seen = []
    found = create_eval_transform((80, 80), [0.5] * 3, [0.5] * 3, 0.9)
    resize = next(transform for transform in found.transforms[1].transforms if "Resize" in type(transform).__name__)
    resize.register_forward_hook(lambda module, inputs, output: seen.append(output.size))
    assert found(image).shape == (3, 80, 80)
    assert max(seen[0]) <= 8 * 89
    short = v2.functional.center_crop(image, [min(height, 8 * width), min(width, 8 * height)])
    torch.testing.assert_close(found(image), found.transforms[1](short))


def test_only_the_formats_of_images_are_opened(tmp_path):
    """Pillow would start Ghostscript for this one."""
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
    with pytest.raises(
        UnreadableImageError, match=r"a.jpg cannot be read as an image \(it is not an image of a known format"
    ):
        read_image(str(tmp_path / "a.jpg"), "L")


def test_a_shortage_of_the_system_is_no_fault_of_a_file(tmp_path, monkeypatch):
    """Otherwise `corrupt: skip` would leave good images out."""
    path = save(tmp_path / "a.png", UPRIGHT)

    def refuse(name):
        raise OSError(errno.EMFILE, "Too many open files", name)

    monkeypatch.setattr(image_store, "open_regular", refuse)
    with pytest.raises(OSError, match="Too many open files") as caught:
        ImageFiles([(path, 0)], "L", skip=True)[0]
    assert not isinstance(caught.value, UnreadableImageError)
