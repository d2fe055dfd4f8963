"""Starting a nested network, or one of its subnets, from trained weights.

timm does the work: it fits the first convolution to other channels, the position embedding to another image size, and
leaves out a head for other classes, which then keeps its new values.
"""

import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import timm
from timm.models import load_state_dict
from torch import Tensor

from nestnet.export import read_if_export
from nestnet.files import utf8_name
from nestnet.mode import Mode
from nestnet.nested import NestedModel

TIMM = "timm"
"""In place of a file: the weights that timm downloads for the network's name."""


def load_weights(net: NestedModel, mode: Mode | str, source: str | os.PathLike[str]) -> None:
    """Start the subnet of `mode` from an export, from another checkpoint of that network, or from timm's weights.

    What the mode does not use stays as it is. With private statistics, the base's start from those of motivated weights. The
    two exports of a run, loaded motivated first and then base, give its nested network. A head that is
    not for `net.num_classes` classes is left out.

    Args:
        source: a safetensors or torch file in timm's names, or `"timm"`. Nothing in a file is executed.

    Raises:
        ValueError: if the file cannot be read or is not of this network.

    >>> import nestnet
    >>> pair = nestnet.create_model("resnet20", "resnet32", num_classes=10)
    >>> nestnet.load_weights(pair, "base", "absent.safetensors")
    Traceback (most recent call last):
        ...
    ValueError: absent.safetensors cannot be read as weights: there is no such file
    """
    mode = Mode(mode)
    overlay = None if str(source) == TIMM else _overlay(net, mode, Path(source))
    name, options = net.architectures.of(mode), net.timm_options.of(mode)
    try:
        model = timm.create_model(
            name,
            pretrained=True,
            pretrained_cfg_overlay=overlay,
            num_classes=net.num_classes,
            in_chans=net.in_chans,
            **options,
        )
    except (RuntimeError, OSError, ValueError, AssertionError) as error:  # timm's, of shapes that it cannot fit
        raise ValueError(f"{source}: {name} cannot be started from it: {_first_line(error)}") from error
    (net if mode is Mode.MOTIVATED else net.subnet(mode)).load_state_dict(model.state_dict())


def _overlay(net: NestedModel, mode: Mode, path: Path) -> dict[str, Any]:
    """What timm must know to take the weights of a file for its own."""
    name, skeleton = net.architectures.of(mode), net.skeleton(mode)
    state, trained = _read(path)
    config = skeleton.pretrained_cfg
    if trained not in (None, name):
        raise ValueError(f"{path} holds {trained}, and the {mode} network is {name}: name a file of that network")
    head, stem = config["classifier"], config["first_conv"]
    expected = skeleton.state_dict()
    own = {key for key in expected if not key.startswith(f"{head}.")}
    found = {key for key in state if not key.startswith(f"{head}.")}
    if own != found:
        key = min(own ^ found)
        raise ValueError(
            f"{path} holds no weights of {name} by timm's names: {key!r} is {'absent' if key in own else 'not of it'}"
        )
    for key, tensor in state.items():
        if not isinstance(tensor, Tensor) or (key in expected and tensor.ndim != expected[key].ndim):
            raise ValueError(
                f"{path} holds no weights of {name}: {key} is no tensor of as many dimensions as it must have"
            )
    classes = state[f"{head}.weight"].shape[0] if f"{head}.weight" in state else 0
    channels = state[f"{stem}.weight"].shape[1]
    size = (channels, *config["input_size"][1:])
    return {"state_dict": state, "num_classes": classes, "input_size": size, "source": "", "custom_load": False}


def _read(path: Path) -> tuple[dict[str, Any], str | None]:
    """The tensors of a file that is sound as far as it can tell, and the architecture that it names, if it does."""
    metadata = read_if_export(path) if path.suffix == ".safetensors" and path.exists() else None
    try:
        if not path.exists():
            raise ValueError("there is no such file")
        if path.suffix != ".safetensors":
            _check_archive(path)
        with warnings.catch_warnings(), utf8_name(path) as name:
            warnings.simplefilter("ignore", UserWarning)  # torch's, of what no checkpoint has; the error says it
            state = load_state_dict(name, weights_only=True)
        return state, metadata.architecture if metadata else None
    except Exception as error:  # what a damaged file makes of an unpickler can be any of them
        raise ValueError(f"{path} cannot be read as weights: {_first_line(error)}") from error


def _check_archive(path: Path) -> None:
    """See that a torch file takes no more memory than it has bytes. torch itself unpacks what is compressed.

    Raises:
        ValueError: for a zip archive with compressed entries, which torch never writes, or with entries that claim more
            than there is.
        zipfile.BadZipFile: if it begins as an archive and is none.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":  # by which torch tells its archives from the bare pickles of before 1.6
            return
        size = file.seek(0, os.SEEK_END)
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"its entry {entry.filename!r} is compressed, which torch never does")
    if (claimed := sum(entry.file_size for entry in entries)) > size:
        raise ValueError(f"its entries claim {claimed:,} bytes, and the file has {size:,}")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
