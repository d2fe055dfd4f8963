"""The decoding of image files: which files are images, and how their pixels are read."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps

from nestnet.data.image_store import FILES, ImageStore
from nestnet.data.png_rows import ends_empty, has_all_rows
from nestnet.storage.opening import SHORTAGES

# Pillow warns about large images (from 89 million pixels; above twice that it refuses them) and about odd EXIF
# data that are not used here. Anything that matters about a file is raised as an `UnreadableImageError`.
warnings.filterwarnings("ignore", module=r"PIL\.")

# Formats of photographs and drawings, by Pillow's names. Some of Pillow's other formats start an external
# program to read a file: EPS starts Ghostscript.
IMAGE_FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF", "WEBP")

# Extensions of image files, in lower case. `.avif` is one of them if Pillow was built with it.
IMAGE_EXTENSIONS = frozenset(
    extension for extension, name in Image.registered_extensions().items() if name in IMAGE_FORMATS
)

# Some of the extensions, for messages.
USUAL_EXTENSIONS = "such as .jpg, .png, .webp, .tif or .gif"

# Formats that Pillow opens under their own name. It opens MPO, the format of some cameras, as JPEG.
OPENABLE_FORMATS = tuple(name for name in IMAGE_FORMATS if name in Image.OPEN)

# Description of the decoding, for users who read images without this module.
DECODING_RULE = "EXIF orientation applied, transparent pixels on white, 16 bits scaled to 8"


class UnreadableImageError(ValueError):
    """Error for a file that is not a complete, readable image."""


def is_image_name(name: str) -> bool:
    """Return whether the extension of a file's name is that of an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_EXTENSIONS


def read_image(path: str, mode: str, store: ImageStore = FILES) -> Image.Image:
    """Read an image file as a viewer would display it.

    The image is rotated by its EXIF orientation, transparent pixels are laid on white, and 16-bit grey is scaled
    to 8 bits.

    Args:
        path: path of the image file.
        mode: mode of Pillow that the image is converted to, `"RGB"` or `"L"`.
        store: store that has the image; by default the path is that of a file.

    Returns:
        The image in the given mode.

    Raises:
        UnreadableImageError: If the file is absent, not a regular file, damaged, or of none of
            `IMAGE_FORMATS`, or if the range of its pixels is not known (32 bits, floating point).
    """
    with open_image(path, store) as (image, file):
        image.load()
        # Counting the rows takes a second decompression, so it is done only where the last row is all zero.
        if image.format == "PNG" and ends_empty(image) and not has_all_rows(file):
            raise UnreadableImageError("its data ends before its last row")
        if is_turned(image):
            ImageOps.exif_transpose(image, in_place=True)
        return _lay_on_white(_scale_to_eight_bits(image)).convert(mode)


@contextmanager
def open_image(path: str, store: ImageStore = FILES) -> Iterator[tuple[Image.Image, BinaryIO]]:
    """Open an image and its file within a context: size, mode and EXIF data are read, the pixels are not.

    Args:
        path: path of the image file.
        store: store that has the image; by default the path is that of a file.

    Yields:
        The image, and the file that it is read from.

    Raises:
        UnreadableImageError: If the image cannot be opened, or in place of any error that it causes within the
            context.
        OSError, MemoryError: If the system runs out of a resource, whatever the state of the file.
    """
    try:
        with store.open(path) as file, Image.open(file, formats=OPENABLE_FORMATS) as image:
            yield image, file
    except Exception as error:  # a damaged file can make a decoder raise any exception
        if isinstance(error, MemoryError) or getattr(error, "errno", None) in SHORTAGES:
            raise
        raise UnreadableImageError(f"{path} cannot be read as an image ({_explain(error, path)})") from error


def _explain(error: Exception, path: str) -> str:
    """Return the reason why an image cannot be read, in one line and without the path."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is not an image of a known format, or its beginning is damaged"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    message = str(error).replace(repr(path), "")
    return " ".join(message.split()) or type(error).__name__


def is_turned(image: Image.Image) -> bool:
    """Return whether the EXIF orientation of an open image asks for a rotation or a flip."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
    except Exception:  # the EXIF data are damaged, but the image may be intact
        return False


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height in pixels of an open image as a viewer would display it.

    Args:
        image: open image, whose pixels need not be loaded.

    Returns:
        Width and height.
    """
    # Orientations 5 to 8 include a quarter turn (EXIF 2.32, section 4.6.4). Pillow has already applied it to the
    # size of a TIFF.
    if image.format != "TIFF" and is_turned(image) and image.getexif()[ExifTags.Base.Orientation] >= 5:
        return image.height, image.width
    return image.width, image.height


def _scale_to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits. Pillow's own conversion would clip values above 255."""
    # Pillow opens 16-bit grey as "I;16", or as "I", its mode for 32 bits; in PNG and PPM files "I" means 16 bits
    # too.
    has_sixteen_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if has_sixteen_bits:
        # 65535 = 255 * 257, and adding 128 rounds to the nearest value.
        values = np.asarray(image).astype(np.uint32)
        scaled = Image.fromarray(((values + 128) // 257).astype(np.uint8))
        # One grey value may stand for transparency; after scaling it could not be distinguished from its
        # neighbours.
        transparent = image.info.get("transparency")
        if transparent is not None:
            alpha = np.where(values == transparent, 0, 255).astype(np.uint8)
            scaled.putalpha(Image.fromarray(alpha))
        return scaled
    if image.mode in ("I", "F"):
        raise UnreadableImageError(
            "its pixels have 32 bits, and which of them is white is not known; convert it to 8 or 16 bits"
        )
    return image


def _lay_on_white(image: Image.Image) -> Image.Image:
    """Replace transparent pixels by white ones: their stored colours are seldom meant to be seen."""
    if not image.has_transparency_data:
        return image
    pixels = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", pixels.size, "white"), pixels)
