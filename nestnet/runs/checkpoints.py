"""The checkpoints of a run: one sealed file each, of which there is always a whole one.

A checkpoint is a nest of dictionaries and lists, with tensors and plain values in it. The tensors lie in a safetensors file
under their path, such as `net.conv1.weight`; the rest is JSON in its metadata. Nothing in such a file can be executed.
"""

import json
import re
import stat
from pathlib import Path
from typing import Any

from torch import Tensor

from nestnet.nn.mode import Mode
from nestnet.runtime.notices import log_notice
from nestnet.storage.files import kind_of_file, make_folder, remove, remove_unfinished, write_atomically
from nestnet.storage.hashed import read_hashed, serialize_hashed
from nestnet.storage.read_back import Rule, check_present, of_type, whole
from nestnet.storage.state_codec import State, decode, encode

FORMAT = "nestnet checkpoint 2"
NAME = re.compile(r"step-(\d{8,})(?:-epoch-(\d{4,}))?\.safetensors", re.ASCII)
"""What `file_name` gives."""
REMEDY = "another version of nestnet may have written it"


class Checkpoints:
    """The folder of a run's checkpoints: the last two, and those after which each subnet was best.

    Attributes:
        last: the file that was read or written last.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.last: Path | None = None
        self.needed: set[str] = set()
        self.lost: set[str] = set()

    def save(self, state: State) -> Path:
        """Write a checkpoint, and then remove those that are not kept any more.

        Only files are removed whose names are of checkpoints: whatever else lies in the folder is somebody's own.

        Args:
            state: has `steps_done`, `epochs_done`, whether this is the `end_of_epoch`, and `best`, per mode the `file` of its
                best checkpoint, or `None`.

        Raises:
            OSError: with one line, if it cannot be written; the others are as they were then.
        """
        path = self.folder / file_name(state["steps_done"], state["epochs_done"] if state["end_of_epoch"] else None)
        make_folder(self.folder)
        self._notice_lost()
        write(path, state)
        needed_before = self.needed
        self._is_last(path, state)
        for other in self.paths():
            if other.name not in self.needed | needed_before:
                remove(other)
        remove_unfinished(self.folder)
        return path

    def paths(self) -> list[Path]:
        """The files of all checkpoints, the newest first. Copies under other names, folders and links are none."""
        return [path for path in self._named() if stat.S_ISREG(path.lstat().st_mode)]

    def _named(self) -> list[Path]:
        """Whatever has the name of a checkpoint, the newest first."""
        if not self.folder.is_dir():
            return []
        found = [path for path in self.folder.iterdir() if NAME.fullmatch(path.name)]
        return sorted(found, key=position, reverse=True)

    def newest(self) -> State | None:
        """The last whole checkpoint; `None` if there has been none yet.

        A damaged one is passed over with a notice, as is what has the name of one and is no file.

        Raises:
            ValueError: if there are some, and all of them are damaged, or something else has the name of one.
        """
        paths = self._named()
        damaged: list[str] = []
        for path in paths:
            mode = path.lstat().st_mode
            if not stat.S_ISREG(mode):
                damaged.append(f"{path} is {kind_of_file(mode)}, not a file")
                continue
            try:
                state = self._read(path)
            except ValueError as error:
                damaged.append(str(error))
                continue
            for reason in damaged:
                log_notice(f"{reason}; the checkpoint before it is taken")
            self._is_last(path, state)
            return state
        if paths:
            raise ValueError(f"{self.folder} has no whole checkpoint ({'; '.join(damaged)}); start the run anew")
        self._check_names()
        return None

    def _check_names(self) -> None:
        """See that nothing has the name that a checkpoint will have, before anything is trained for it.

        Raises:
            ValueError: naming what is no file.
        """
        found = sorted(self.folder.iterdir()) if self.folder.is_dir() else []
        for path in found:
            if NAME.fullmatch(path.name):
                raise ValueError(f"{path} is {kind_of_file(path.lstat().st_mode)}, and no checkpoint; move it")

    def best(self, mode: Mode) -> State:
        """The checkpoint after which the subnet of `mode` had its highest top-1.

        Raises:
            ValueError: if no epoch is finished yet, or it is damaged.
        """
        last = self.newest()
        if last is None or last["best"][mode] is None:
            raise ValueError(f"{self.folder.parent} has no best checkpoint yet: its first epoch was not finished")
        best = self.folder / last["best"][mode]["file"]
        if self.last == best:
            return last
        self.last = best
        return self._read(best)

    def _notice_lost(self) -> None:
        """Say once which checkpoints that were to be kept are not there any more."""
        lost = [name for name in sorted(self.needed - self.lost) if not (self.folder / name).exists()]
        if lost:
            log_notice(f"{self.folder} has lost {', '.join(lost)} while the run trained; it goes on without")
            self.lost.update(lost)

    def _read(self, path: Path) -> State:
        state = read(path)
        check_present(path, state, FIELDS, REMEDY)
        return state

    def _is_last(self, path: Path, state: State) -> None:
        self.last, self.needed = path, {path.name, *(best["file"] for best in state["best"].values() if best)}


def file_name(steps: int, epochs: int | None = None) -> str:
    """Of a checkpoint after so many batches, and so many whole epochs where one has just ended. The names sort by age."""
    return f"step-{steps:08}{'' if epochs is None else f'-epoch-{epochs:04}'}.safetensors"


def position(path: Path) -> tuple[int, int]:
    """How many batches, and how many whole epochs, were trained at a checkpoint; -1 epochs where none had just ended."""
    found = NAME.fullmatch(path.name)
    assert found is not None
    return int(found[1]), -1 if found[2] is None else int(found[2])


def _is_best(value: Any) -> bool:
    """Whether this names a checkpoint per mode, or none yet."""
    if not isinstance(value, dict) or set(value) != {str(mode) for mode in Mode}:
        return False
    named = [best for best in value.values() if best is not None]
    return all(isinstance(best, dict) and NAME.fullmatch(str(best.get("file"))) for best in named)


FIELDS = {
    "steps_done": whole(),
    "epochs_done": whole(),
    "end_of_epoch": of_type(bool, "true or false"),
    "best": Rule("the file of each mode's best checkpoint, or null", _is_best),
}
"""What a checkpoint tells of its place among the others."""


def write(path: Path, state: State) -> None:
    """Write a checkpoint.

    Raises:
        ValueError: naming the place of what is neither a tensor nor a plain value.
        OSError: with one line, if it cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    plain = json.dumps(encode(state, "", tensors))
    write_atomically(path, serialize_hashed(tensors, {"format": FORMAT, "state": plain}))


def read(path: Path) -> State:
    """A checkpoint, if it is whole.

    Raises:
        ValueError: with one line, if it is not.
    """
    metadata, tensors = read_hashed(path)
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path} is no checkpoint of this version of nestnet: its format is {metadata.get('format')!r}"
        )
    try:
        state = decode(json.loads(metadata["state"]), tensors)
        if not isinstance(state, dict):
            raise TypeError("it holds no fields")
        return state
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no checkpoint of nestnet's: {error!r}") from error
