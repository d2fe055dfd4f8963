"""Folders whose images have their labels beside them, given where folders of classes are expected: what to set instead."""

import os
from pathlib import Path

from nestnet.data.folder.folder_listing import FolderListing
from nestnet.text.escape import quoted

HF_FILES = ({"dataset_dict.json"}, {"dataset_info.json", "state.json"})
"""Files that `save_to_disk` of Hugging Face's datasets writes: for several splits, and for one."""


def check_is_no_other_source(listing: FolderListing, field: str) -> None:
    """Refuse a folder that is a data set of another format.

    Args:
        listing: entries of the folder.
        field: name and value of the field that names it, for the message.

    Raises:
        ValueError: If it is a data set that was saved by Hugging Face's datasets, or holds tar files alone.
    """
    if any(names.issubset(listing.other_files) for names in HF_FILES):
        raise ValueError(f"{field}: Hugging Face's datasets saved it; set data.name to hf_datasets")
    has_tar_files = any(name.endswith(".tar") for name in listing.other_files)
    if has_tar_files and not listing.folders and not listing.images:
        raise ValueError(f"{field}: it holds tar files; set data.name to webdataset")


def check_has_no_table(listing: FolderListing, folder: str, field: str) -> None:
    """Refuse images that belong to no class folder and lie beside a table, which probably has their labels.

    Args:
        listing: entries of the folder.
        folder: path of the folder.
        field: name and value of the field that names it, for the message.

    Raises:
        ValueError: If there are such images and a table.
    """
    tables = [name for name in listing.other_files if Path(name).suffix.lower() == ".csv"]
    if tables and listing.images:
        table = quoted(os.path.join(folder, tables[0]))
        raise ValueError(
            f"{field}: {len(listing.images)} images, such as {listing.images[0]}, lie in {folder} itself; if their labels are "
            f"in {table}, set data.name to csv and data.labels to this table, or move them into class folders"
        )
