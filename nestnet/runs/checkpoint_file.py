"""The file of a checkpoint, and its name.

A checkpoint consists of nested dictionaries and lists that hold tensors and plain values. The tensors are stored
in a safetensors file under their paths, such as `net.conv1.weight`; everything else is JSON in the file's
metadata. The file carries its hash, and nothing in it can be executed.
"""

import json
import re
from pathlib import Path

from torch import Tensor

from nestnet.storage.atomic import write_atomically
from nestnet.storage.hashed import read_hashed, serialize_hashed
from nestnet.storage.state_codec import State, decode, encode

# Version of the fields of a checkpoint, which is written into it.
FORMAT = "nestnet checkpoint 2"
CHECKPOINT_NAME = re.compile(r"step-(\d{8,})(?:-epoch-(\d{4,}))?\.safetensors", re.ASCII)
"""Names that `checkpoint_name` returns."""


def checkpoint_name(steps: int, epochs: int | None = None) -> str:
    """Return the name of a checkpoint's file. Names sort by age.

    Args:
        steps: number of batches that were trained.
        epochs: number of epochs that were trained, at the end of an epoch; `None` within an epoch.

    Returns:
        The name of the file.

    Example:
        >>> checkpoint_name(390), checkpoint_name(780, 2)
        ('step-00000390.safetensors', 'step-00000780-epoch-0002.safetensors')
    """
    if epochs is None:
        return f"step-{steps:08}.safetensors"
    return f"step-{steps:08}-epoch-{epochs:04}.safetensors"


def parse_checkpoint_name(path: Path) -> tuple[int, int]:
    """Return the position in the run that the name of a checkpoint gives. Positions sort by age.

    Args:
        path: path of a file with a name from `checkpoint_name`.

    Returns:
        The number of batches and the number of epochs that were trained; -1 epochs within an epoch.

    Example:
        >>> parse_checkpoint_name(Path("step-00000780-epoch-0002.safetensors"))
        (780, 2)
    """
    # From 100,000,000 batches on, names no longer sort by age, but these numbers do.
    match = CHECKPOINT_NAME.fullmatch(path.name)
    assert match is not None
    steps = int(match[1])
    if match[2] is None:
        return steps, -1
    return steps, int(match[2])


def write_checkpoint(path: Path, state: State) -> None:
    """Write a checkpoint.

    Args:
        path: path of the file.
        state: state of the run.

    Raises:
        ValueError: If the state holds something other than tensors, dtypes and plain values. The message names
            its path.
        OSError: If the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(encode(state, "", tensors))
    write_atomically(path, serialize_hashed(tensors, {"format": FORMAT, "state": text}))


def read_checkpoint(path: Path) -> State:
    """Read a checkpoint.

    Args:
        path: path of the file.

    Returns:
        The state of the run.

    Raises:
        ValueError: If the file is absent or damaged, or is not a checkpoint of this version of nestnet.
    """
    metadata, tensors = read_hashed(path)
    # An older or newer version may give other fields another meaning.
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path} is not a checkpoint of this version of nestnet: its format is {metadata.get('format')!r}"
        )
    try:
        state = decode(json.loads(metadata["state"]), tensors)
        if not isinstance(state, dict):
            raise TypeError("it holds no fields")
        return state
    # The hash was right, so this can only be a file that another program wrote.
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a checkpoint of nestnet: {error!r}") from error
