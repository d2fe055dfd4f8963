"""The folder of a run's checkpoints, which always holds a complete one."""

import stat
from pathlib import Path
from typing import Any

from nestnet.nn.mode import Mode
from nestnet.runs.checkpoint_file import (
    CHECKPOINT_NAME,
    checkpoint_name,
    parse_checkpoint_name,
    read_checkpoint,
    write_checkpoint,
)
from nestnet.runtime.log import log_notice
from nestnet.storage.folders import make_folder, remove_file
from nestnet.storage.opening import describe_file_type
from nestnet.storage.read_back import check_present
from nestnet.storage.rules import Rule, of_type, whole
from nestnet.storage.state_codec import State
from nestnet.storage.unfinished import remove_unfinished

CHECKPOINT_REMEDY = "another version of nestnet may have written it"


class Checkpoints:
    """The folder of a run's checkpoints: the last two, and those after which each subnet was best.

    Args:
        folder: path of the folder, which need not exist.

    Attributes:
        folder: path of the folder.
        last: file that was read or written last; `None` before the first one.
        needed: names of the files that the last checkpoint needs: its own, and those of the best checkpoints.
        lost: names of needed files whose loss was reported.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.last: Path | None = None
        self.needed: set[str] = set()
        self.lost: set[str] = set()

    def save(self, state: State) -> Path:
        """Write a checkpoint, and then remove those that are no longer kept.

        Only files with the names of checkpoints are removed: whatever else is in the folder belongs to the user.

        Args:
            state: state of the run. Its fields include `steps_done`, `epochs_done`, `end_of_epoch` (whether an
                epoch has just ended) and `best` (for each mode the `file` of its best checkpoint, or `None`).

        Returns:
            The path of the checkpoint.

        Raises:
            OSError: If it cannot be written. The other checkpoints are unchanged then.
        """
        epochs = None
        if state["end_of_epoch"]:
            epochs = state["epochs_done"]
        path = self.folder / checkpoint_name(state["steps_done"], epochs)
        make_folder(self.folder)
        self._notice_lost()
        write_checkpoint(path, state)
        # The previous checkpoint is kept too, in case this one is damaged before it is read. So are the best
        # checkpoints that the previous one names.
        needed_before = self.needed
        self._remember(path, state)
        for other in self.paths():
            if other.name not in self.needed | needed_before:
                remove_file(other)
        remove_unfinished(self.folder)
        return path

    def paths(self) -> list[Path]:
        """Return the files of all checkpoints, the newest first, without folders, links and copies under other names.

        Returns:
            The paths; empty if the folder is absent.
        """
        return [path for path in self._named_paths() if stat.S_ISREG(path.lstat().st_mode)]

    def newest(self) -> State | None:
        """Read the newest complete checkpoint.

        Damaged checkpoints, and anything else with the name of a checkpoint, are skipped with a notice.

        Returns:
            The state; `None` if there is no checkpoint yet.

        Raises:
            ValueError: If there are checkpoints, and all of them are damaged, or something else has the name of one.
        """
        # The reasons are logged only once a complete checkpoint is found. Otherwise they are part of the error.
        paths = self._named_paths()
        reasons: list[str] = []
        for path in paths:
            mode = path.lstat().st_mode
            if not stat.S_ISREG(mode):
                reasons.append(f"{path} is {describe_file_type(mode)}, not a file")
                continue
            try:
                state = self._read(path)
            except ValueError as error:
                reasons.append(str(error))
                continue
            for reason in reasons:
                log_notice(f"{reason}; the checkpoint before it is used")
            self._remember(path, state)
            return state
        if paths:
            raise ValueError(f"{self.folder} has no complete checkpoint ({'; '.join(reasons)}); start the run again")
        return None

    def best(self, mode: Mode) -> State:
        """Read the checkpoint after which the subnet of a mode had its highest top-1.

        Args:
            mode: mode of the subnet.

        Returns:
            The state.

        Raises:
            ValueError: If no epoch is finished yet, or the checkpoint is absent or damaged.
        """
        # Only the newest checkpoint knows which one is the best so far.
        newest = self.newest()
        if newest is None or newest["best"][mode] is None:
            raise ValueError(f"{self.folder.parent} has no best checkpoint yet: its first epoch was not finished")
        best = self.folder / newest["best"][mode]["file"]
        if self.last == best:
            return newest
        # Callers name the file `last` in their errors.
        self.last = best
        return self._read(best)

    def _named_paths(self) -> list[Path]:
        """Return all paths with the name of a checkpoint, the newest first."""
        if not self.folder.is_dir():
            return []
        paths = [path for path in self.folder.iterdir() if CHECKPOINT_NAME.fullmatch(path.name)]
        return sorted(paths, key=parse_checkpoint_name, reverse=True)

    def _notice_lost(self) -> None:
        """Log a notice, once for each file, about kept checkpoints that are missing."""
        # The user may have removed them to save space, so the run does not end.
        lost = [name for name in sorted(self.needed - self.lost) if not (self.folder / name).exists()]
        if lost:
            log_notice(f"{self.folder} has lost {', '.join(lost)} while the run trained; it continues without them")
            self.lost.update(lost)

    def _read(self, path: Path) -> State:
        state = read_checkpoint(path)
        check_present(path, state, POSITION_FIELDS, CHECKPOINT_REMEDY)
        return state

    def _remember(self, path: Path, state: State) -> None:
        """Record a checkpoint as the last one, and the files that it needs."""
        self.last = path
        self.needed = {path.name}
        for best in state["best"].values():
            if best:
                self.needed.add(best["file"])


def _names_best(value: Any) -> bool:
    """Return whether a value has for each mode the file of a checkpoint, or `None`."""
    if not isinstance(value, dict) or set(value) != {str(mode) for mode in Mode}:
        return False
    for best in value.values():
        if best is None:
            continue
        if not isinstance(best, dict) or not CHECKPOINT_NAME.fullmatch(str(best.get("file"))):
            return False
    return True


POSITION_FIELDS = {
    "steps_done": whole(),
    "epochs_done": whole(),
    "end_of_epoch": of_type(bool, "true or false"),
    "best": Rule("the file of each mode's best checkpoint, or null", _names_best),
}
"""Rules for the fields of a checkpoint that give its position in the run."""
