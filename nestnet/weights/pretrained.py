"""Starting a nested network, or one of its subnets, from trained weights.

timm does the work: it fits the first convolution to other channels and the position embedding to another image size. The head
is taken where it is for the same classes, and otherwise keeps its new values.
"""

import argparse
import os
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import load_state_dict
from torch import Tensor

from nestnet.data.class_names import imagenet_class_names
from nestnet.models.registry import complete_pair
from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel
from nestnet.storage.files import open_regular, utf8_name
from nestnet.text.messages import first_line
from nestnet.weights.exporting import read_if_export
from nestnet.weights.metadata import Metadata

TIMM = "timm"
"""In place of a file: the weights that timm downloads for the network's name."""

COUNTER = ".num_batches_tracked"
"""End of the names of BatchNorm's counters, which checkpoints of before torch 0.4.1 do not have."""


def load_weights(
    net: NestedModel, mode: Mode | str, source: str | os.PathLike[str], *, class_names: Sequence[str] | None = None
) -> None:
    """Start the subnet of `mode` from an export, from another checkpoint of that network, or from timm's weights.

    What the mode does not use stays as it is. With private statistics, the base's start from those of motivated weights. The
    two exports of a run, loaded motivated first and then base, give its nested network.

    The head is taken where it has `net.num_classes` outputs. With `class_names` it is taken by name: an export whose classes
    have the same names gives each class its own row, in whatever order they come, and the head of any other file is left out.

    Args:
        net: network that gets the weights.
        mode: which of its subnets they are for.
        source: a safetensors or torch file in timm's names, or `"timm"`. Nothing in a file is executed.
        class_names: names of the network's classes, in order; by default its classes are taken to be the file's.

    Raises:
        ValueError: if the file cannot be read or is not of this network.

    >>> import nestnet
    >>> pair = nestnet.create_model("resnet20", "resnet32", num_classes=10)
    >>> nestnet.load_weights(pair, "base", "absent.safetensors")
    Traceback (most recent call last):
        ...
    ValueError: absent.safetensors cannot be read as weights: there is no such file
    """
    load_subnet(net, mode, source, class_names=class_names)


def load_subnet(
    net: NestedModel,
    mode: Mode | str,
    source: str | os.PathLike[str],
    *,
    class_names: Sequence[str] | None = None,
    usual_classes: bool = False,
) -> str | None:
    """As `load_weights`, and return what a person should know of the head.

    Args:
        usual_classes: whether the classes are those of a data set that everybody numbers alike. A file that does not name its
            classes is then taken to be of that data set, if it has as many.
    """
    mode = Mode(mode)
    file = _of_timm(net, mode) if str(source) == TIMM else _read(net, mode, Path(source))
    rows, remark = _rows(file, net.num_classes, class_names, usual_classes=usual_classes)
    name, options = net.architectures.of(mode), net.timm_options.of(mode)
    try:
        model = timm.create_model(
            name,
            pretrained=True,
            pretrained_cfg_overlay=file.overlay,
            num_classes=net.num_classes,
            in_chans=net.in_chans,
            **options,
        )
    except (RuntimeError, OSError, ValueError, AssertionError) as error:  # timm's, of shapes that it cannot fit
        raise ValueError(f"{source}: {name} cannot be started from it: {first_line(error)}") from error
    target = net if mode is Mode.MOTIVATED else net.subnet(mode)
    new, loaded = target.state_dict(), model.state_dict()
    heads = [key for key in loaded if file.is_of_head(key)]
    if rows != list(range(net.num_classes)) and not heads:
        raise ValueError(
            f"{source}: {remark or 'its classes come in another order'}, and {name} does not say which of its modules is the "
            "head: give it a `classifier` in its default_cfgs"
        )
    for key in heads:
        loaded[key] = new[key].clone() if rows is None else loaded[key][rows]
    target.load_state_dict(loaded)
    return remark


@dataclass(frozen=True)
class Weights:
    """Trained weights of one network.

    Attributes:
        heads: timm's names of the modules that make the head; none where the family does not say.
        num_classes: outputs of the head; 0 where there is none.
        class_names: of the outputs, in order; `None` where nothing tells.
        overlay: what timm must know to take them for its own; `None`: it downloads them.
    """

    heads: tuple[str, ...]
    num_classes: int
    class_names: list[str] | None
    overlay: dict[str, Any] | None = None

    def is_of_head(self, key: str) -> bool:
        """Whether a tensor of that name is of the head."""
        return any(key.startswith(f"{head}.") for head in self.heads)


def _rows(
    file: Weights, num_classes: int, class_names: Sequence[str] | None, *, usual_classes: bool
) -> tuple[list[int] | None, str | None]:
    """Which output of the file each class of a network is, and what a person should know of that.

    Returns:
        The outputs in the order of the network's classes; `None`: the head is not taken.
    """
    if file.num_classes == 0:
        return None, "it has no head"
    if file.num_classes != num_classes:
        return (
            None,
            f"its head is for {file.num_classes} classes, and this network has {num_classes}: the head is left out",
        )
    same = list(range(num_classes))
    if class_names is None or file.class_names == list(class_names):
        return same, None
    if file.class_names is None:
        if usual_classes:
            return same, "it does not name its classes, which are taken to be those of the data in their usual order"
        return None, "it does not name its classes, which may be others than these: the head is left out"
    unknown = [name for name in class_names if name not in file.class_names]
    if unknown:
        return None, f"its classes are others, none of them is {unknown[0]!r}: the head is left out"
    return [file.class_names.index(name) for name in class_names], None


def _of_timm(net: NestedModel, mode: Mode) -> Weights:
    """What is known of the weights that timm downloads for a network."""
    config = net.skeleton(mode).pretrained_cfg
    classes = config["num_classes"]
    names = list(imagenet_class_names().values())
    return Weights(_heads(config), classes, names if classes == len(names) else None)


def _heads(config: Mapping[str, Any]) -> tuple[str, ...]:
    """timm's names of the modules that make the head of a network."""
    classifier = config.get("classifier") or ()
    return (classifier,) if isinstance(classifier, str) else tuple(classifier)


def _read(net: NestedModel, mode: Mode, path: Path) -> Weights:
    """The weights of a file, if they are of the network of `mode`.

    Raises:
        ValueError: saying what is wrong with it.
    """
    name, skeleton = net.architectures.of(mode), net.skeleton(mode)
    metadata, state = _metadata(path), _tensors(path)
    if metadata is not None and metadata.architecture != name:
        raise ValueError(
            f"{path} holds {metadata.architecture}, and the {mode} network is {name}: name a file of that network"
        )
    config = skeleton.pretrained_cfg
    file = Weights(_heads(config), 0, (metadata.class_names or None) if metadata else None)
    expected = skeleton.state_dict()
    for key, tensor in expected.items():
        if key.endswith(COUNTER) and key not in state:
            # as torch fills them in
            state[key] = torch.zeros_like(tensor, device="cpu")
    own = {key for key in expected if not file.is_of_head(key)}
    found = {key for key in state if not file.is_of_head(key)}
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
    classes = 0 if file.heads else net.num_classes
    for head in file.heads:
        if f"{head}.weight" in state:
            classes = state[f"{head}.weight"].shape[0]
    stem = config.get("first_conv")
    channels = state[f"{stem}.weight"].shape[1] if f"{stem}.weight" in state else net.in_chans
    size = (channels, *config["input_size"][1:])
    overlay = {"state_dict": state, "num_classes": classes, "input_size": size, "source": "", "custom_load": False}
    return Weights(file.heads, classes, file.class_names, overlay)


def _metadata(path: Path) -> Metadata | None:
    """What a file says of itself, if it is one of our exports.

    Raises:
        ValueError: if it cannot be read, or is a damaged safetensors file.
    """
    try:
        open_regular(path).close()
    except FileNotFoundError as error:
        raise ValueError(f"{path} cannot be read as weights: there is no such file") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read as weights: {error.strerror}") from error
    return read_if_export(path) if path.suffix == ".safetensors" else None


def _tensors(path: Path) -> dict[str, Any]:
    """The state dict in a file, which `_metadata` found to be one that can be read.

    Raises:
        ValueError: saying why there is none.
    """
    try:
        if path.suffix != ".safetensors":
            _check_archive(path)
        # what timm's own training leaves beside the weights; timm itself allows it in newer releases than our oldest
        namespaces = torch.serialization.safe_globals([argparse.Namespace])
        with warnings.catch_warnings(), utf8_name(path) as name, namespaces:
            warnings.simplefilter("ignore", UserWarning)  # torch's, of what no checkpoint has; the error says it
            return load_state_dict(name, weights_only=True)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        reason = first_line(error)
    except Exception as error:  # what a damaged file makes of an unpickler can be any of them
        if "weights_only" in str(error) and "nsupported" in str(error):
            reason = (
                "it holds more than tensors, such as a whole model, and loading that could execute code; save the weights "
                "alone, by torch.save(model.state_dict(), FILE)"
            )
        else:
            reason = f"it is damaged, or holds no state dict ({type(error).__name__}: {first_line(error)})"
    raise ValueError(f"{path} cannot be read as weights: {reason}")


def _check_archive(path: Path) -> None:
    """See that a torch file takes no more memory than it has bytes. torch itself unpacks what is compressed.

    Raises:
        ValueError: for a zip archive with compressed entries, which torch never writes, or with entries that claim more
            than there is.
        zipfile.BadZipFile: if it begins as an archive and is none.
    """
    with open_regular(path) as file:
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


def fields_from_exports(model: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """What the exports that a configuration starts from say of the networks and the image size that it leaves open.

    Args:
        model: fields of `model` that are given.
        data: fields of `data` that are given.

    Returns:
        Fields of `model` and `data` as nested dictionaries; none where both networks are named, or no export is.

    Raises:
        ValueError: for a file that cannot be read, or two whose images have different sizes.
    """
    exports: dict[Mode, Metadata] = {}
    for mode in Mode:
        source = model.get(f"{mode}_weights")
        if source and source != TIMM and Path(source).suffix == ".safetensors" and not model.get(str(mode)):
            try:
                metadata = _metadata(Path(source))
            except ValueError as error:
                raise ValueError(f"model.{mode}_weights: {error}") from error
            if metadata is not None:
                exports[mode] = metadata
    if not exports:
        return {}
    named = [exports[mode].architecture if mode in exports else model.get(str(mode)) for mode in Mode]
    base, motivated = complete_pair(*named)
    fields: dict[str, Any] = {"model": {"base": base, "motivated": motivated}}
    if data.get("img_size") is None:
        fields["data"] = {"img_size": _img_size(exports)}
    return fields


def _img_size(exports: Mapping[Mode, Metadata]) -> int:
    """Pixels a side of the images that the exports are for."""
    sizes = {mode: metadata.size for mode, metadata in exports.items()}
    for mode, (height, width) in sizes.items():
        if height != width:
            raise ValueError(f"model.{mode}_weights: it is for images of {height} x {width} pixels; give data.img_size")
    sides = {mode: height for mode, (height, _) in sizes.items()}
    if len(set(sides.values())) > 1:
        raise ValueError(
            f"model.base_weights is for images of {sides[Mode.BASE]} pixels a side, and model.motivated_weights of "
            f"{sides[Mode.MOTIVATED]}; give data.img_size"
        )
    return next(iter(sides.values()))
