"""The listing of one folder: its subfolders, its images, and entries that are neither."""

import os
from dataclasses import dataclass, field

from nestnet.data.image_decoding import is_image_name

# Names of files and folders that operating systems and other software create, in lower case. Names that begin
# with a dot are hidden too.
SYSTEM_NAMES = {
    "__macosx",  # archives made on macOS
    "__pycache__",
    "@eadir",  # Synology
    "#recycle",
    "#snapshot",
    "@recycle",  # QNAP
    "@recently-snapshot",
    "$recycle.bin",  # Windows
    "recycler",
    "system volume information",
    "thumbs.db",
    "desktop.ini",
    "lost+found",  # Linux
    "network trash folder",  # macOS
    "temporary items",
}


@dataclass
class FolderListing:
    """The names of the entries of one folder, each list sorted.

    Attributes:
        folders: subfolders, and links to folders.
        images: files whose names are those of images, and links to nothing with such names.
        other_files: entries whose names are not those of images.
        not_files: entries that have names of images and are neither files nor folders, such as pipes.
        hidden: entries whose names begin with a dot, or that a system left.
    """

    folders: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    other_files: list[str] = field(default_factory=list)
    not_files: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)


def list_folder(folder: str) -> FolderListing:
    """Return the entries of one folder by kind.

    Args:
        folder: path of the folder.

    Raises:
        OSError: If it cannot be listed.
    """
    listing = FolderListing()
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith(".") or entry.name.lower() in SYSTEM_NAMES:
                listing.hidden.append(entry.name)
            elif _is_folder(entry):
                listing.folders.append(entry.name)
            elif not is_image_name(entry.name):
                listing.other_files.append(entry.name)
            elif entry.is_file() or not os.path.exists(entry.path):
                # A broken link counts as an image that cannot be read: leaving it out would hide that it is
                # broken.
                listing.images.append(entry.name)
            else:
                listing.not_files.append(entry.name)
    return listing


def _is_folder(entry: os.DirEntry[str]) -> bool:
    if entry.is_symlink():
        return os.path.isdir(entry.path)  # unlike `entry.is_dir`, it does not fail on a link that leads to itself
    return entry.is_dir()
