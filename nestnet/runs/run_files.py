"""The files of a run in its directory: checking that their names are free, and deleting them."""

import os
import stat
from pathlib import Path

from nestnet.runs.checkpoint_file import CHECKPOINT_NAME
from nestnet.runs.contents import EARLIER_EXPORT, FILES, FOLDERS, SNAPSHOT, TRACKER_FILES
from nestnet.storage.folders import remove_file, remove_folder
from nestnet.storage.opening import describe_file_type
from nestnet.storage.unfinished import remove_unfinished


def check_names(run_dir: Path) -> None:
    """Check that nothing else has a name that a run needs.

    A symbolic link, for example, would make the run write outside its folder.

    Args:
        run_dir: run directory.

    Raises:
        ValueError: If something else has such a name. The message names it.
    """
    for name in FILES:
        path = run_dir / name
        if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
            file_type = describe_file_type(os.lstat(path).st_mode)
            raise ValueError(f"{path} is {file_type}, and a run needs this name for a file; move it")
    for name in FOLDERS:
        path = run_dir / name
        if os.path.lexists(path) and not path.is_dir():
            file_type = describe_file_type(os.lstat(path).st_mode)
            raise ValueError(f"{path} is {file_type}, and a run needs this name for a folder; move it")


def delete_run(run_dir: Path) -> None:
    """Delete all files that a run wrote, and then its folders.

    Args:
        run_dir: run directory.

    Raises:
        ValueError: If a folder holds something that the run did not write, which is kept.
        OSError: If a file cannot be removed.
    """
    # Anything with one of these names that is not a file is kept, and the check below refuses it.
    for path in _written_paths(run_dir):
        if os.path.lexists(path) and stat.S_ISREG(os.lstat(path).st_mode):
            remove_file(path)
    folders = [run_dir / name for name in FOLDERS]
    # The run directory comes last, because it holds the others.
    for folder in (*folders, run_dir):
        remove_unfinished(folder, of_anyone=True)
        remaining = _list_folder(folder)
        if remaining:
            raise ValueError(
                f"{remaining[0]} is in the folder of a run that is to start again, and does not belong to the run; move it"
            )
        if os.path.lexists(folder):
            remove_folder(folder)


def _written_paths(run_dir: Path) -> list[Path]:
    """Return the paths with the names of files that a run writes."""
    paths = [run_dir / name for name in (*FILES, ".lock")]
    paths += [path for path in _list_folder(run_dir) if EARLIER_EXPORT.fullmatch(path.name)]
    patterns = {"checkpoints": CHECKPOINT_NAME, "snapshots": SNAPSHOT}
    for folder in FOLDERS:
        pattern = patterns.get(folder, TRACKER_FILES)
        for path in _list_folder(run_dir / folder):
            if pattern.fullmatch(path.name):
                paths.append(path)
    return paths


def _list_folder(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(folder.iterdir())
