"""Your own images, wherever their labels are."""

from collections.abc import Callable

from nestnet.config.schema_sections import DataConfig, DataName
from nestnet.data.folder.image_folder import read_folder
from nestnet.data.image_store import FILES
from nestnet.data.sources.csv_labels import read_csv
from nestnet.data.sources.hf_datasets import read_hf_datasets
from nestnet.data.sources.labelled_images import LabelledImages, OwnImages, divide_images
from nestnet.data.sources.webdataset import read_webdataset
from nestnet.text.escape import quoted

SOURCES: dict[DataName, Callable[[DataConfig], LabelledImages]] = {
    "csv": read_csv,
    "hf_datasets": read_hf_datasets,
    "webdataset": read_webdataset,
}
"""The function that lists images whose labels are stored beside them, by its name in `data.name`."""


def find_own_images(data: DataConfig) -> OwnImages:
    """Find a user's own images, and divide them into training, validation and test images. No image is opened.

    Args:
        data: configuration of the images; its fields that say where they are matter here.

    Returns:
        The images of each split.

    Raises:
        ValueError: If the images or their labels cannot be found, or there are not enough of them.
    """
    if data.name in SOURCES:
        return divide_images(SOURCES[data.name](data), name_source(data))
    assert data.root is not None
    folder = read_folder(data.root, needs_splits=data.name != "folder")
    return OwnImages(
        root=folder.root,
        store=FILES,
        train=folder.train,
        val=folder.val,
        test=folder.test,
        class_names=folder.class_names,
        has_splits=folder.has_splits,
        notices=(folder.left_out,) if folder.left_out else (),
    )


def name_source(data: DataConfig) -> str:
    """Return name and value of the field that says where the images are, for messages."""
    if data.labels is not None:
        return f"data.labels = {quoted(data.labels)}"
    return f"data.root = {quoted(data.root)}"
