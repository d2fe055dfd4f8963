"""The walk through a folder of images and all folders below it, with an account of what is left out."""

import os
import unicodedata

from nestnet.data.folder.file_links import find_same_files
from nestnet.data.folder.folder_listing import FolderListing, list_folder
from nestnet.data.folder.split_names import match_split
from nestnet.text.escape import for_terminal, is_utf8, quoted

READ_ALREADY = "links to folders that are read already, or hold this one"


def list_images(folder: str) -> tuple[list[str], str]:
    """Return the image files below a folder, at any depth.

    Args:
        folder: path of the folder.

    Returns:
        The sorted paths of the images, and a description of the other entries, which is empty if there are
        none.

    Raises:
        OSError: If the folder cannot be listed.
    """
    walk = FolderWalk(quoted(folder), folder)
    paths: list[str] = []
    walk.add_images(folder, paths)
    walk.follow_links()
    return sorted(paths), walk.describe_left_out()


class FolderWalk:
    """Walk through folders that reads each real folder once and records what it leaves out.

    Links to folders wait until all folders that are not links have been read, because a link can lead to one
    of them: from a class of the training images to the test images, or back to the beginning.

    Args:
        field: name and value of the configuration field that names the folder, for messages.
        root: folder at which the walk begins.
    """

    def __init__(self, field: str, root: str) -> None:
        self.field = field
        self.roots = [os.path.realpath(root)]
        # Device and inode of each folder that was read.
        self.entered: set[tuple[int, int]] = set()
        # Each link to a folder, with the list of images of the class that it lies in.
        self.links: list[tuple[str, list[str]]] = []
        # Paths that are left out, by reason.
        self.left_out: dict[str, list[str]] = {}
        self.listings: dict[str, FolderListing] = {}

    def get_listing(self, folder: str) -> FolderListing:
        """Return the entries of a folder; it is listed at the first call only."""
        if folder not in self.listings:
            self.listings[folder] = list_folder(folder)
        return self.listings[folder]

    def unwrap(self, folder: str, split: str | None = None) -> str:
        """Descend into a folder as long as a single subfolder is its only content, as in many unpacked archives.

        Args:
            folder: path of the folder.
            split: split that the folder holds. A subfolder may have the name of that split too.

        Returns:
            The path of the last folder that was reached.
        """
        listing = self.get_listing(folder)
        while len(listing.folders) == 1 and not listing.images:
            only_folder = listing.folders[0]
            if match_split(only_folder) not in (None, split):
                break
            deeper = os.path.join(folder, only_folder)
            deeper_listing = self.get_listing(deeper)
            if not deeper_listing.folders:
                break
            folder = deeper
            listing = deeper_listing
        return folder

    def note_entries_beside(self, folder: str, split_folders: list[str]) -> None:
        """Record the entries of a folder other than the folders of its splits.

        Args:
            folder: path of the folder.
            split_folders: paths of the folders of its splits.
        """
        listing = self.get_listing(folder)
        for path in _join_all(folder, listing.folders):
            if path not in split_folders:
                self._note("folders beside the splits", [path])
        self._note("images outside of any class", _join_all(folder, listing.images))
        self._note_other_entries(folder, listing)

    def read_classes(self, folder: str) -> dict[str, list[str]]:
        """Return the image files of each class folder, at any depth.

        Images behind links to folders are added to the same lists by `follow_links`.

        Args:
            folder: folder that holds the class folders.

        Returns:
            The paths of the images of each class, by the name of its folder.

        Raises:
            ValueError: If images lie in `folder` itself, its subfolders are no classes, or a class name is
                not UTF-8.
        """
        # No link below this folder may lead back to it, nor to a folder that holds it.
        self._enter(folder)
        self.roots.append(os.path.realpath(folder))
        listing = self.get_listing(folder)
        if listing.images:
            raise ValueError(
                f"{self.field}: {len(listing.images)} images, such as {listing.images[0]}, lie in {folder} itself and so "
                "belong to no class; move them into class folders, or remove them"
            )
        self._note_other_entries(folder, listing)
        self._check_are_classes(folder)
        classes: dict[str, list[str]] = {}
        for name in listing.folders:
            if not is_utf8(name):
                path = for_terminal(os.path.join(folder, name))
                raise ValueError(f"{self.field}: the class folder {path} has a name that is not UTF-8; rename it")
            # macOS decomposes accents, and a class has one name on all systems.
            images = classes.setdefault(unicodedata.normalize("NFC", name), [])
            self._add_images_of_subfolder(folder, name, images)
        return classes

    def _check_are_classes(self, folder: str) -> None:
        """Check that the subfolders are classes and not some other division, such as folds or image sizes."""
        paths = _join_all(folder, self.get_listing(folder).folders)
        if len(paths) < 2:
            return
        common_folders = self.get_listing(paths[0]).folders
        if len(common_folders) < 2:
            return
        # Classes may be divided into subfolders, but hardly all of them into the same ones.
        for path in paths:
            listing = self.get_listing(path)
            if listing.images or listing.folders != common_folders:
                return
        examples = ", ".join(common_folders[:3])
        if len(common_folders) > 3:
            examples += ", ..."
        raise ValueError(
            f"{self.field}: all folders in {folder} hold the same folders ({examples}) and no images, so that they are "
            "splits rather than classes; name them train and test, or, if they are classes, put their images into them "
            "directly"
        )

    def add_images(self, folder: str, images: list[str]) -> None:
        """Add the paths of a folder's images, at any depth, to a list; links to folders wait for `follow_links`.

        Args:
            folder: path of the folder.
            images: list to which the paths are appended.
        """
        listing = self.get_listing(folder)
        self._note_other_entries(folder, listing)
        images += _join_all(folder, listing.images)
        for name in listing.folders:
            self._add_images_of_subfolder(folder, name, images)
        del self.listings[folder]  # it is not needed again, and all of them would take much memory

    def _add_images_of_subfolder(self, folder: str, name: str, images: list[str]) -> None:
        path = os.path.join(folder, name)
        if os.path.islink(path):
            self.links.append((path, images))
        elif self._enter(path):
            self.add_images(path, images)
        else:
            self._note(READ_ALREADY, [path])

    def follow_links(self) -> None:
        """Read the folders to which links lead, unless they were read already."""
        while self.links:
            link, images = self.links.pop(0)
            target = os.path.realpath(link)
            # Reading a folder that holds a root would read the root's images once more.
            encloses_root = any(os.path.commonpath([target, root]) == target for root in self.roots)
            if encloses_root or not self._enter(target):
                self._note(READ_ALREADY, [link])
            else:
                self.add_images(link, images)

    def drop_linked_duplicates(self, classes: dict[str, list[str]]) -> None:
        """Keep one of the paths that lead to the same image, so that the image cannot be in two splits.

        The file itself is preferred over links to it.

        Args:
            classes: paths of the images of each class; the lists are changed.
        """
        all_paths = [path for paths in classes.values() for path in paths]
        duplicates: set[str] = set()
        for same in find_same_files(all_paths):
            # False sorts before True: a path that is no symbolic link comes first.
            kept = min(same, key=lambda path: (os.path.islink(path), path))
            duplicates |= set(same) - {kept}
        self._note("links to images that are read already", sorted(duplicates))
        for paths in classes.values():
            paths[:] = [path for path in paths if path not in duplicates]

    def _enter(self, folder: str) -> bool:
        """Record that a real folder is read, and return whether this is the first time."""
        status = os.stat(folder)
        folder_id = (status.st_dev, status.st_ino)
        is_first_time = folder_id not in self.entered
        self.entered.add(folder_id)
        return is_first_time

    def _note_other_entries(self, folder: str, listing: FolderListing) -> None:
        self._note("files that are no images", _join_all(folder, listing.other_files))
        self._note("entries that are neither files nor folders", _join_all(folder, listing.not_files))
        self._note("hidden or system entries", _join_all(folder, listing.hidden))

    def _note(self, reason: str, paths: list[str]) -> None:
        if paths:
            self.left_out.setdefault(reason, []).extend(paths)

    def describe_left_out(self) -> str:
        """Return how many entries are left out, why, and an example for each reason; an empty string if there are none."""
        if not self.left_out:
            return ""
        descriptions = [f"{len(paths):,} {reason} (such as {paths[0]})" for reason, paths in self.left_out.items()]
        return "left out: " + ", ".join(descriptions)


def _join_all(folder: str, names: list[str]) -> list[str]:
    return [os.path.join(folder, name) for name in names]
