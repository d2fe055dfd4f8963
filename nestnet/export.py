"""Checkpoints that timm loads: one subnet's own tensors in a safetensors file, with what a user of it must know."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from nestnet.mode import Mode
from nestnet.nested import NestedModel
from nestnet.version import __version__


def export(
    net: NestedModel,
    mode: Mode | str,
    path: str | os.PathLike[str],
    *,
    class_names: Sequence[str] | None = None,
    input_size: tuple[int, int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> None:
    """Write the subnet of `mode` so that `timm.create_model(architecture, num_classes=K, checkpoint_path=path)` loads it.

    The file has timm's keys and holds the subnet's own tensors only. Its metadata (all strings; lists as JSON) are
    `architecture`, `mode`, `num_classes`, `class_names`, `input_size` (channels, height, width), `mean`, `std` and
    `nestnet_version`. It is written beside `path` first and then renamed, so that `path` never holds half a file.

    Args:
        class_names: of the outputs, in order.
        input_size: of the images, `(channels, height, width)`; by default timm's for this architecture.
        mean: by which each channel of an image with values from 0 to 1 is normalised; by default timm's.
        std: likewise.

    Raises:
        ValueError: if there are not as many names as classes.
    """
    mode = Mode(mode)
    subnet, path = net.subnet(mode), Path(path)
    names = list(class_names) if class_names is not None else []
    if names and len(names) != net.num_classes:
        raise ValueError(f"class_names has {len(names)} names for a network of num_classes = {net.num_classes}")
    defaults = net.skeleton(mode).pretrained_cfg
    size = input_size or (net.in_chans, *net.timm_options.of(mode).get("img_size", defaults["input_size"][1:]))
    metadata = {
        "format": "pt",
        "architecture": subnet.architecture,
        "mode": str(mode),
        "num_classes": str(net.num_classes),
        "class_names": json.dumps(names),
        "input_size": json.dumps(list(size)),
        "mean": json.dumps(list(mean if mean is not None else defaults["mean"])),
        "std": json.dumps(list(std if std is not None else defaults["std"])),
        "nestnet_version": __version__,
    }
    # safetensors refuses tensors that share memory or are not contiguous
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in subnet.state_dict().items()}
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_bytes(_sorted(save(state, metadata)))
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _sorted(file: bytes) -> bytes:
    """The file with its header's entries in order: safetensors writes metadata in a random one, equal networks give equal
    files here. The format: the header's length in 8 bytes, the header as JSON, padded to a multiple of 8, the tensors."""
    length = int.from_bytes(file[:8], "little")
    header = json.dumps(json.loads(file[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + file[8 + length :]


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The metadata of an exported file, without reading its tensors.

    Raises:
        ValueError: if it is no safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file: {error}") from error
