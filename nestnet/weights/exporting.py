"""Writing a subnet as a safetensors file that timm loads, with metadata for its users."""

import os
from collections.abc import Sequence
from pathlib import Path

from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel
from nestnet.storage.atomic import write_atomically
from nestnet.storage.hashed import serialize_hashed
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
    multi_label: bool = False,
) -> None:
    """Write the subnet of `mode` to a file that `timm.create_model(architecture, num_classes=K, checkpoint_path=path)` loads.

    The file has timm's keys and holds the tensors of the subnet only. Its metadata (all strings; lists as
    JSON) are `architecture`, `mode`, `num_classes`, `class_names`, `input_size` (channels, height, width),
    `mean`, `std`, `crop_pct`, `multi_label`, `image_reading` (how image files are read, in words), `nestnet_version`,
    and `sha256`, which reveals damage to the file. The file is first written beside `path` and then renamed, so
    `path` never holds an incomplete file.

    Args:
        net: nested network.
        mode: subnet that is written, `"base"` or `"motivated"`.
        path: file, which is replaced if it exists.
        class_names: names of the outputs, in order: `net.num_classes` different strings. By default the
            classes have no names.
        input_size: channels, height and width of the images, in pixels; by default timm's for this
            architecture.
        mean: number for each channel that is subtracted from images with values from 0 to 1; by default
            timm's, or 0.5 for images that do not have 3 channels.
        std: number above 0 for each channel by which the difference is divided; by default timm's, or 0.5 for
            images that do not have 3 channels.
        crop_pct: part of an image's shorter side that is kept, above 0 and at most 1. By default images of up
            to 64 pixels a side are used as a whole, and larger ones are cropped as timm specifies for the
            motivated network, as in a run's evaluation.
        multi_label: whether an image may have any number of labels, so that the probability of a class is the sigmoid of
            its logit. By default the probabilities are a softmax.

    Raises:
        ValueError: If there is not one name for each class, or if the sizes or the normalisation do not fit
            this network.
        OSError: If the file cannot be written.

    Example:
        >>> import nestnet, timm
        >>> net = nestnet.create_model("resnet20", "resnet32", num_classes=2)
        >>> nestnet.export(net, "base", "base.safetensors", class_names=["cat", "dog"])  # doctest: +SKIP
        >>> model = timm.create_model("resnet20", num_classes=2, checkpoint_path="base.safetensors")  # doctest: +SKIP
    """
    # All arguments are checked before anything is written.
    metadata = Metadata.from_network(
        net,
        Mode(mode),
        class_names=class_names,
        input_size=input_size,
        mean=mean,
        std=std,
        crop_pct=crop_pct,
        multi_label=multi_label,
    )
    write_export(net, metadata, Path(path))


def write_export(net: NestedModel, metadata: Metadata, path: Path) -> None:
    """Write a subnet to a file with the given metadata. Equal networks give equal files.

    Args:
        net: nested network.
        metadata: metadata of the subnet, which includes its mode.
        path: file, which is replaced if it exists.
    """
    # Hugging Face's tools recognise PyTorch weights by the entry "format".
    state = net.subnet(metadata.mode).state_dict()
    write_atomically(path, serialize_hashed(state, {"format": "pt", **metadata.to_entries()}))
