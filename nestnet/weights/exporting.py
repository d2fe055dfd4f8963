"""Checkpoints that timm loads: one subnet's own tensors in a safetensors file, with what a user of it must know."""

import os
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open

from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel
from nestnet.storage.files import open_regular, utf8_name, write_atomically
from nestnet.storage.hashed import serialize_hashed, verified
from nestnet.text.messages import first_line
from nestnet.weights.metadata import Metadata


def export(
    net: NestedModel,
    mode: Mode | str,
    path: str | os.PathLike[str],
    *,
    class_names: Sequence[str] | None = None,
    input_size: tuple[int, int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    crop_pct: float | None = None,
) -> None:
    """Write the subnet of `mode` so that `timm.create_model(architecture, num_classes=K, checkpoint_path=path)` loads it.

    The file has timm's keys and holds the subnet's own tensors only. Its metadata (all strings; lists as JSON) are
    `architecture`, `mode`, `num_classes`, `class_names`, `input_size` (channels, height, width), `mean`, `std`, `crop_pct`,
    `image_reading` (in words), `nestnet_version`, and `sha256`, by which damage to the file is noticed. It is written beside
    `path` first and then renamed, so that `path` never holds half a file.

    Args:
        class_names: names of the outputs, in order: texts, each another one.
        input_size: of the images, `(channels, height, width)`; by default timm's for this architecture.
        mean: by which each channel of an image with values from 0 to 1 is normalised; by default timm's, or 0.5 where the
            images are not of 3 channels.
        std: likewise.
        crop_pct: the part of an image's shorter side that is kept, above 0, at most 1; by default images of up to 64 pixels
            are used whole, and of larger ones what timm has for the motivated network is kept, as a run evaluates.

    Raises:
        ValueError: if the names are not of so many classes, or the sizes or the normalisation are not of this network.
        OSError: if the file cannot be written.
    """
    mode = Mode(mode)
    metadata = Metadata.of(
        net, mode, class_names=class_names, input_size=input_size, mean=mean, std=std, crop_pct=crop_pct
    )
    write(net, metadata, Path(path))


def write(net: NestedModel, metadata: Metadata, path: Path) -> None:
    """Write the subnet that the metadata is of. Equal networks give equal files."""
    state = net.subnet(metadata.mode).state_dict()
    write_atomically(path, serialize_hashed(state, {"format": "pt", **metadata.entries()}))


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The metadata of an exported file, without reading its tensors.

    Raises:
        ValueError: if it is no safetensors file, or cannot be read.
    """
    path = Path(path)
    try:
        open_regular(path).close()
        with utf8_name(path) as name, safe_open(name, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{path} is no safetensors file: {reason}") from error


def read_export(path: str | os.PathLike[str]) -> Metadata:
    """What an exported file says of itself, if all of it is as it was written; no more than its header is kept in memory.

    Its SHA-256 is compared, and its metadata and the names, shapes and kinds of its tensors are held against the
    architecture that it names. The hash tells damage, and not who wrote the file; nothing in it is executed either way.

    Raises:
        ValueError: if it is absent, damaged, or no export of nestnet.

    >>> read_export("absent.safetensors")
    Traceback (most recent call last):
        ...
    ValueError: absent.safetensors: there is no such file
    """
    if (metadata := read_if_export(path)) is None:
        raise ValueError(f"{path} is no export of nestnet: its metadata has neither nestnet_version nor sha256")
    return metadata


def read_if_export(path: str | os.PathLike[str]) -> Metadata | None:
    """As `read_export`, but `None` for a sound safetensors file that nestnet did not write."""
    path = Path(path)
    entries = verified(path)
    # either entry tells: damage to the name of one must not let the file pass for another's
    if entries.keys().isdisjoint({"nestnet_version", "sha256"}):
        return None
    if "sha256" not in entries:
        raise ValueError(f"{path} is damaged, or of an older nestnet: its metadata has no sha256; export it again")
    metadata = Metadata.read(entries, path)
    _check_tensors(path, metadata)
    return metadata


KINDS = dict.fromkeys(("F16", "BF16", "F32", "F64"), "floating-point") | {"I64": "counts"}
"""safetensors' types of the tensors that networks have; timm converts one floating type into another as it loads."""


def _check_tensors(path: Path, metadata: Metadata) -> None:
    try:
        own = metadata.skeleton().state_dict()
    except (RuntimeError, AssertionError) as error:  # torch's and timm's, of sizes that no network can have
        sizes = metadata.timm_arguments
        raise ValueError(f"{path}: {metadata.architecture} of {sizes} cannot be: {first_line(error)}") from error
    wanted = {
        key: (list(tensor.shape), "floating-point" if tensor.is_floating_point() else "counts")
        for key, tensor in own.items()
    }
    with utf8_name(path) as name, safe_open(name, framework="pt") as file:
        parts = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118  # it is no mapping
        found = {key: (part.get_shape(), KINDS.get(part.get_dtype(), part.get_dtype())) for key, part in parts.items()}
    for key in sorted(wanted.keys() | found.keys()):
        there, right = (f"{of[key][1]} {of[key][0]}" if key in of else "absent" for of in (found, wanted))
        if there != right:
            raise ValueError(f"{path} does not hold {metadata.architecture}: {key} is {there}, and must be {right}")
