"""A folder of photographs as they come from a phone, for the first task of docs/guide/two-tasks.md.

    python benchmarks/phone_photos.py --images FOLDER --output FOLDER [--classes cat dog horse] [--count 200]

The pictures are those of FOLDER/<class>/, such as CIFAR-10's, enlarged: they stand in for your own. All else is as a
phone and its owner leave it: JPEG files of 1200 x 900 pixels named IMG_0001.JPG, stored as the sensor saw them with an
EXIF orientation that says how they were held, the model and the date; and among them a grey picture, a copy, a file that
broke off in its transfer, an iPhone's HEIC file, and the system's own files.
"""

import argparse
import shutil
from pathlib import Path

from PIL import ExifTags, Image

SIZE = (1200, 900)
"""Width and height of a photograph as the sensor sees it."""

STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How the upright picture is turned in the file of each EXIF orientation: the inverse of what a viewer does."""

HELD = (1, 6, 1, 8, 1, 6, 3, 1)
"""Orientations of consecutive photographs: phones are mostly held upright or in landscape, and never mirrored."""


def save_photo(picture: Image.Image, path: Path, orientation: int, number: int) -> None:
    """Save a picture as a phone does that is held in some way.

    Args:
        picture: the picture as the owner sees it.
        path: file to write.
        orientation: EXIF orientation, 1 to 8.
        number: number of the photograph, which gives its time.
    """
    width, height = SIZE
    if orientation > 4:
        width, height = height, width
    photo = picture.resize((width, height), Image.Resampling.BICUBIC)
    turn = STORED[orientation]
    if turn is not None:
        photo = photo.transpose(turn)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Model] = "a phone"
    exif[ExifTags.Base.DateTime] = f"2026:11:{1 + number % 28:02} 12:{number % 60:02}:00"
    photo.save(path, exif=exif, quality=90)


def make_photos(images: Path, output: Path, classes: list[str], count: int) -> int:
    """Make the folder.

    Args:
        images: folder with a folder of pictures for each class.
        output: folder to make.
        classes: names of the classes.
        count: number of photographs, divided among the classes.

    Returns:
        The number of photographs that can be read.
    """
    number = 0
    for index, name in enumerate(classes):
        folder = output / name
        folder.mkdir(parents=True)
        of_class = count // len(classes) + (index < count % len(classes))
        for source in sorted((images / name).iterdir())[:of_class]:
            number += 1
            with Image.open(source) as picture:
                upright = picture.convert("RGB")
            if number == 5:
                upright = upright.convert("L")
            save_photo(upright, folder / f"IMG_{number:04}.JPG", HELD[number % len(HELD)], number)
        # What else lies in such folders.
        (folder / ".DS_Store").write_bytes(b"\0")
    first = output / classes[0]
    shutil.copy(first / "IMG_0003.JPG", first / "IMG_0003 (1).JPG")
    broken = (first / "IMG_0004.JPG").read_bytes()
    (first / "IMG_9001.JPG").write_bytes(broken[: len(broken) // 3])
    (output / classes[-1] / "IMG_9002.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    return number + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder with a folder of pictures for each class")
    parser.add_argument("--output", type=Path, required=True, help="folder to make")
    parser.add_argument("--classes", nargs="+", default=["cat", "dog", "horse"])
    parser.add_argument("--count", type=int, default=200, help="number of photographs")
    options = parser.parse_args()
    for name in options.classes:
        if not (options.images / name).is_dir():
            parser.error(f"--images {options.images}: there is no folder {name} in it")
    if options.output.exists():
        parser.error(f"--output {options.output}: it exists already; name a new folder")
    print(
        f"{make_photos(options.images, options.output, options.classes, options.count)} photographs in {options.output}"
    )


if __name__ == "__main__":
    main()
