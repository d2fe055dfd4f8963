"""The checkpoints of a run: one sealed file each, of which there is always a whole one.

A checkpoint is a nest of dictionaries and lists, with tensors and plain values in it. The tensors lie in a safetensors file
under their path, such as `net.conv1.weight`; the rest is JSON in its metadata. Nothing in such a file can be executed.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nestnet.files import write_atomically
from nestnet.mode import Mode
from nestnet.sealed import read_sealed, sealed

State = dict[str, Any]

FORMAT = "nestnet checkpoint 1"


class Checkpoints:
    """The folder of a run's checkpoints: the last two, and those after which each subnet was best.

    Attributes:
        last: the file that was read or written last.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.last: Path | None = None
        self.needed: set[str] = set()

    def save(self, state: State) -> Path:
        """Write a checkpoint, and then remove those that are not kept any more.

        Args:
            state: has `steps_done`, `epochs_done`, whether this is the `end_of_epoch`, and `best`, per mode the `file` of its
                best checkpoint, or `None`.

        Raises:
            OSError: with one line, if it cannot be written; the others are as they were then.
        """
        path = self.folder / file_name(state["steps_done"], state["epochs_done"] if state["end_of_epoch"] else None)
        self.folder.mkdir(exist_ok=True)
        write(path, state)
        needed_before = self.needed
        self._is_last(path, state)
        for other in self.folder.iterdir():
            if other.name not in self.needed | needed_before:
                other.unlink()
        return path

    def newest(self) -> State | None:
        """The last whole checkpoint; `None` if there has been none yet. A damaged one is passed over, with a line on stderr.

        Raises:
            ValueError: if there are some, and all of them are damaged.
        """
        paths = sorted(self.folder.glob("step-*.safetensors"), key=lambda path: path.stem, reverse=True)
        damaged: list[str] = []
        for path in paths:
            try:
                state = read(path)
            except ValueError as error:
                damaged.append(str(error))
                continue
            for reason in damaged:
                print(f"{reason}; the checkpoint before it is taken", file=sys.stderr)
            self._is_last(path, state)
            return state
        if paths:
            raise ValueError(f"{self.folder} has no whole checkpoint ({'; '.join(damaged)}); start the run anew")
        return None

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
        return read(best)

    def _is_last(self, path: Path, state: State) -> None:
        self.last, self.needed = path, {path.name, *(best["file"] for best in state["best"].values() if best)}


def file_name(steps: int, epochs: int | None = None) -> str:
    """Of a checkpoint after so many batches, and so many whole epochs where one has just ended. The names sort by age."""
    return f"step-{steps:08}{'' if epochs is None else f'-epoch-{epochs:04}'}.safetensors"


def write(path: Path, state: State) -> None:
    """Write a checkpoint.

    Raises:
        ValueError: naming the place of what is neither a tensor nor a plain value.
        OSError: with one line, if it cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    plain = json.dumps(_encoded(state, "", tensors))
    write_atomically(path, sealed(tensors, {"format": FORMAT, "state": plain}))


def read(path: Path) -> State:
    """A checkpoint, if it is whole.

    Raises:
        ValueError: with one line, if it is not.
    """
    metadata, tensors = read_sealed(path)
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path} is no checkpoint of this version of nestnet: its format is {metadata.get('format')!r}"
        )
    try:
        state = _decoded(json.loads(metadata["state"]), tensors)
        if not isinstance(state, dict):
            raise TypeError("it holds no fields")
        return state
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no checkpoint of nestnet's: {error!r}") from error


def as_kept(state: State) -> State:
    """A state as it would come back from a checkpoint, without a file; its tensors are the same ones.

    Raises:
        ValueError: naming the place of what is neither a tensor nor a plain value.
    """
    tensors: dict[str, Tensor] = {}
    plain = json.dumps(_encoded(state, "", tensors))
    kept: State = _decoded(json.loads(plain), tensors)
    return kept


def _encoded(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """A value for JSON, its tensors put aside. Dictionaries become lists of pairs: their keys may be numbers."""
    match value:
        case Tensor():
            tensors[path] = value
            return {"tensor": path}
        case torch.dtype():
            return {"dtype": str(value).removeprefix("torch.")}
        case Mapping():
            return {
                "dict": [[_plain(key, path), _encoded(item, _below(path, key), tensors)] for key, item in value.items()]
            }
        case tuple() | list():
            items = [_encoded(item, _below(path, index), tensors) for index, item in enumerate(value)]
            return {"tuple": items} if isinstance(value, tuple) else items
    return _plain(value, path)


def _decoded(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    match value:
        case {"tensor": str(path)}:
            return tensors[path]
        case {"dtype": str(name)} if isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        case {"dict": pairs}:
            return {key: _decoded(item, tensors) for key, item in pairs}
        case {"tuple": items}:
            return tuple(_decoded(item, tensors) for item in items)
        case list():
            return [_decoded(item, tensors) for item in value]
        case dict():
            raise TypeError(f"{sorted(value)} is not what a checkpoint has")
    return value


def _plain(value: Any, path: str) -> Any:
    if isinstance(value, str):
        return str(value)  # of a Mode too
    if value is None or isinstance(value, (bool, int, float)):
        return value
    raise ValueError(f"{path}: {type(value).__name__} cannot be kept in a checkpoint; tensors and plain values can")


def _below(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def check_tensors(what: str, there: Any, wanted: Mapping[str, Tensor]) -> None:
    """Raises ValueError unless `there` has just the names, shapes and types of `wanted`."""
    if not isinstance(there, Mapping):
        raise ValueError(f"the checkpoint has no {what}")
    for name in dict.fromkeys((*wanted, *there)):
        found, right = (kind(tensors.get(name)) for tensors in (there, wanted))
        if found != right:
            raise ValueError(f"the checkpoint is of another network: {what}.{name} is {found}, and must be {right}")


def kind(tensor: Any) -> str:
    """Shape and type of a tensor, in words."""
    if not isinstance(tensor, Tensor):
        return "absent" if tensor is None else type(tensor).__name__
    return f"{tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
