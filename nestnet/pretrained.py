"""Starting a nested network, or one of its subnets, from trained weights.

timm does the work: it fits the first convolution to other channels, the position embedding to another image size, and
leaves out a head for other classes, which then keeps its new values.
"""

import os
import warnings
from pathlib import Path
from typing import Any

import timm
from timm.models import load_state_dict

from nestnet.export import read_metadata
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
    except (RuntimeError, OSError) as error:
        raise ValueError(f"{source}: {name} cannot be started from it: {_first_line(error)}") from error
    (net if mode is Mode.MOTIVATED else net.subnet(mode)).load_state_dict(model.state_dict())


def _overlay(net: NestedModel, mode: Mode, path: Path) -> dict[str, Any]:
    """What timm must know to take the weights of a file for its own."""
    state, skeleton = _read(path), net.skeleton(mode)
    name, config = net.architectures.of(mode), skeleton.pretrained_cfg
    trained = read_metadata(path).get("architecture", name) if path.suffix == ".safetensors" else name
    if trained != name:
        raise ValueError(f"{path} holds {trained}, and the {mode} network is {name}: name a file of that network")
    head, stem = config["classifier"], config["first_conv"]
    own = {key for key in skeleton.state_dict() if not key.startswith(f"{head}.")}
    found = {key for key in state if not key.startswith(f"{head}.")}
    if own != found:
        key = min(own ^ found)
        raise ValueError(
            f"{path} holds no weights of {name} by timm's names: {key!r} is {'absent' if key in own else 'not of it'}"
        )
    classes = state[f"{head}.weight"].shape[0] if f"{head}.weight" in state else 0
    channels = state[f"{stem}.weight"].shape[1]
    size = (channels, *config["input_size"][1:])
    return {"state_dict": state, "num_classes": classes, "input_size": size, "source": "", "custom_load": False}


def _read(path: Path) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch's, of what no checkpoint has; the error says it
            return load_state_dict(str(path), weights_only=True)
    except FileNotFoundError as error:
        raise ValueError(f"{path} cannot be read as weights: there is no such file") from error
    except Exception as error:  # what a damaged file makes of an unpickler can be any of them
        raise ValueError(f"{path} cannot be read as weights: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
