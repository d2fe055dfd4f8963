"""The tracing of a subnet with torch.export, for the formats that hold a program."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from nestnet.nn.model import NestedModel
from nestnet.text.messages import first_line
from nestnet.weights.metadata import Metadata


def create_standalone(net: NestedModel, metadata: Metadata) -> nn.Module:
    """Create the plain timm network for a file, in evaluation mode and the contiguous memory format.

    Args:
        net: nested network, on the CPU.
        metadata: metadata of the file, which names the subnet.
    """
    return net.standalone(metadata.mode).eval().to(memory_format=torch.contiguous_format)


def trace_program(model: nn.Module, input_size: tuple[int, int, int]) -> torch.export.ExportedProgram:
    """Trace a network as a program for batches of any size.

    Args:
        model: network to trace, in evaluation mode.
        input_size: channels, height and width of the images.
    """
    # The example has two images, because torch would treat a size of 1 as a constant.
    images = torch.zeros(2, *input_size)
    # The batch size is dynamic; the image size is fixed.
    batch_size = torch.export.Dim("batch", min=1)
    return torch.export.export(model, (images,), dynamic_shapes=({0: batch_size},), strict=False)


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
