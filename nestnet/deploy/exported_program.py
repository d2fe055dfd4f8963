"""The tracing of a subnet with torch.export, for the formats that hold a program."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from nestnet.deploy.raw_pixels import RawPixelNetwork
from nestnet.nn.model import NestedModel
from nestnet.text.messages import first_line
from nestnet.weights.metadata import Metadata


def create_standalone(net: NestedModel, metadata: Metadata) -> nn.Module:
    """Create the network for a file, in evaluation mode and the contiguous memory format.

    Args:
        net: nested network, on the CPU.
        metadata: metadata of the file, which names the subnet.

    Returns:
        The plain timm network, with the preparation of images before it if the metadata says so.
    """
    model = net.standalone(metadata.mode).eval().to(memory_format=torch.contiguous_format)
    if metadata.preprocessing == "inside":
        return RawPixelNetwork(model, metadata).eval()
    return model


def dynamic_axes(metadata: Metadata) -> dict[int, str]:
    """Return the name of each axis of the images that may have any size, by its position.

    Args:
        metadata: metadata of the file.
    """
    if metadata.preprocessing == "inside":
        return {0: "batch", 1: "height", 2: "width"}
    return {0: "batch"}


def trace_subnet(
    net: NestedModel, metadata: Metadata, largest_sizes: Mapping[str, int] | None = None
) -> torch.export.ExportedProgram:
    """Trace a subnet of a nested network as a program for images of any number, or of limited numbers and sizes.

    Args:
        net: nested network, on the CPU.
        metadata: metadata of the file, which names the subnet and says whether it prepares images.
        largest_sizes: largest size of each axis of `dynamic_axes` by its name, or `None` for any size. An axis whose
            largest size is 1 always has it.

    Returns:
        The program.
    """
    limits: Mapping[str, int | None] = largest_sizes or dict.fromkeys(dynamic_axes(metadata).values())
    channels, height, width = metadata.input_size
    # The example has two images, because torch would treat a size of 1 as a constant. It has the largest number if that
    # is limited: from 16 images on, torch chooses other convolutions, and would keep the limit below if it had seen fewer.
    batch_size = limits["batch"] or 2
    images = torch.zeros(batch_size, channels, height, width)
    if metadata.preprocessing == "inside":
        # No two sizes are the same, nor that of the network.
        images = torch.zeros(batch_size, height + 5, width + 11, channels, dtype=torch.uint8)
    axes = {}
    for position, name in dynamic_axes(metadata).items():
        if limits[name] != 1:
            axes[position] = torch.export.Dim(name, min=1, max=limits[name])
    return torch.export.export(create_standalone(net, metadata), (images,), dynamic_shapes=(axes,), strict=False)


@contextmanager
def explain_torch_errors(format_name: str, metadata: Metadata) -> Iterator[None]:
    """Silence torch's internal warnings, and turn its errors into one-line errors.

    The warnings can be ignored, because the file is checked against the network afterwards.

    Args:
        format_name: name of the format.
        metadata: metadata of the file, which names the architecture.

    Raises:
        ValueError: If torch cannot export the network.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except RuntimeError as error:
        raise ValueError(
            f"format = {format_name!r}: torch cannot export {metadata.architecture}: {first_line(error)}"
        ) from error
