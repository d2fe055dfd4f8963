"""Folders of small images."""

from PIL import Image


def plant(folder, counts, size=(8, 8), mode="RGB", suffix="png"):
    """A folder of images for each class, each image of its own value."""
    for label, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            value = 40 * label + index
            colour = value if mode == "L" else (value,) * 3
            Image.new(mode, size, colour).save(folder / name / f"{index:02}.{suffix}")
