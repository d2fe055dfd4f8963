"""A folder of images on which a trained network is evaluated: which of them count, and to which class each belongs."""

from collections.abc import Sequence
from pathlib import Path

from nestnet.data.folder.folder_walk import FolderWalk
from nestnet.data.folder.image_folder import check_is_folder, find_split_folders, naming_unreadable_folders
from nestnet.data.image_decoding import USUAL_EXTENSIONS
from nestnet.data.image_files import Sample
from nestnet.runtime.log import log_notice
from nestnet.text.escape import quoted
from nestnet.text.suggestions import list_some


def read_evaluation_folder(root: str, class_names: Sequence[str]) -> list[Sample]:
    """List the images of a folder, whose class folders are matched by name to the classes of a network.

    If the folder has splits, the images of `test/` count, or those of `val/` if there is no `test/` (or other usual
    names). Otherwise it holds the class folders itself, and all images count. Notices name what is left out.

    Args:
        root: path of the folder.
        class_names: names of the class folders, in the order of the labels.

    Returns:
        Path and label of each image, sorted by class and path. A class may have none.

    Raises:
        ValueError: Naming the folder and a remedy, if it is absent or cannot be listed, has a split to train on only,
            a folder that is no class, or no images.
    """
    field = f"data.root = {quoted(root)}"
    check_is_folder(root, field)
    with naming_unreadable_folders(field):
        walk = FolderWalk(field, root)
        folder = walk.unwrap(root)
        split_folders = find_split_folders(walk, folder, field)
        if split_folders:
            split = _choose_split(split_folders, field)
            folder = walk.unwrap(split_folders[split], split)
        classes = walk.read_classes(folder)
        walk.follow_links()
    _check_are_known(classes, class_names, field)
    samples: list[Sample] = []
    missing: list[str] = []
    for label, name in enumerate(class_names):
        paths = sorted(classes.get(name, []))
        samples += [(path, label) for path in paths]
        if not paths:
            missing.append(name)
    left_out = walk.describe_left_out()
    if not samples:
        others = f"; {left_out}" if left_out else ""
        raise ValueError(f"{field}: {folder} has no images ({USUAL_EXTENSIONS}) in folders named by class{others}")
    if left_out:
        log_notice(f"{field}: {left_out}")
    if missing:
        log_notice(
            f"{field}: there are no images of {len(missing)} of {len(class_names)} classes ({list_some(missing)}), which "
            "the means over the classes leave out"
        )
    return samples


def _choose_split(split_folders: dict[str, str], field: str) -> str:
    """Return the split to evaluate on."""
    for split in ("test", "val"):
        if split in split_folders:
            return split
    train = split_folders["train"]
    raise ValueError(
        f"{field}: it holds {Path(train).name}/ and no test/ or val/; add one, or set data.root to {train}"
    )


def _check_are_known(classes: dict[str, list[str]], class_names: Sequence[str], field: str) -> None:
    """Check that each folder is a class of the network. A misspelt name would otherwise leave images out."""
    unknown = sorted(set(classes) - set(class_names))
    if not unknown:
        return
    verb = "is no class" if len(unknown) == 1 else "are no classes"
    raise ValueError(
        f"{field}: {list_some(unknown)} {verb} of the network, which knows {list_some(class_names)}; rename or remove "
        "the folder"
    )
