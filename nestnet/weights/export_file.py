"""Reading the metadata of an exported file, after checking that the file is intact."""

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from nestnet.storage.hashed import read_verified_metadata
from nestnet.storage.opening import open_regular, utf8_name
from nestnet.text.messages import first_line
from nestnet.weights.metadata import Metadata

KINDS = {
    "F16": "floating-point",
    "BF16": "floating-point",
    "F32": "floating-point",
    "F64": "floating-point",
    "I64": "counts",
}
"""safetensors' types of the tensors that networks have. timm converts floating-point types into each other as it loads them."""


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return the metadata of an exported file as it is stored, without reading or checking its tensors.

    Args:
        path: safetensors file.

    Returns:
        The entries of the metadata, all strings.

    Raises:
        ValueError: If it is not a safetensors file, or cannot be read.
    """
    # Opening a FIFO or a device could block forever: `open_regular` refuses both.
    path = Path(path)
    try:
        open_regular(path).close()
        with utf8_name(path) as name, safe_open(name, framework="pt") as file:
            return dict(file.metadata() or {})
    except OSError as error:
        raise ValueError(f"{path} is not a safetensors file: {error.strerror}") from error
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error


def read_export(path: str | os.PathLike[str]) -> Metadata:
    """Read the metadata of an exported file, and check that the file is as it was written.

    Its SHA-256 is compared, and its metadata and the names, shapes and types of its tensors are compared with
    the architecture that it names. Only its header is kept in memory. The hash reveals damage but
    does not tell who wrote the file. Nothing in the file is executed.

    Args:
        path: file that `nestnet.export` wrote.

    Returns:
        The metadata.

    Raises:
        ValueError: If the file is absent, damaged, or no export of nestnet.

    Example:
        >>> read_export("absent.safetensors")
        Traceback (most recent call last):
            ...
        ValueError: absent.safetensors: there is no such file
    """
    metadata = read_if_export(path)
    if metadata is None:
        raise ValueError(f"{path} is not an export of nestnet: its metadata has neither nestnet_version nor sha256")
    return metadata


def read_if_export(path: str | os.PathLike[str]) -> Metadata | None:
    """Read the metadata of a safetensors file if nestnet exported it.

    Args:
        path: safetensors file.

    Returns:
        The metadata as from `read_export`, or `None` for an intact safetensors file that nestnet did not
        write.

    Raises:
        ValueError: If the file is absent or damaged.
    """
    path = Path(path)
    entries = read_verified_metadata(path)
    # Either entry suffices: a file in which the name of one is damaged must not be treated as a file that nestnet
    # did not write.
    if "nestnet_version" not in entries and "sha256" not in entries:
        return None
    if "sha256" not in entries:
        raise ValueError(f"{path} is damaged, or of an older nestnet: its metadata has no sha256; export it again")
    metadata = Metadata.from_entries(entries, path)
    _check_tensors(path, metadata)
    return metadata


def _check_tensors(path: Path, metadata: Metadata) -> None:
    """Raise ValueError unless a file has the tensors of the architecture that its metadata names."""
    # A matching hash does not prove that nestnet wrote the file.
    expected = describe_network(path, metadata)
    tensors = _describe_file(path)
    for key in sorted(expected.keys() | tensors.keys()):
        description = tensors.get(key, "absent")
        expected_description = expected.get(key, "absent")
        if description != expected_description:
            raise ValueError(
                f"{path} does not hold {metadata.architecture}: {key} is {description}, and must be {expected_description}"
            )


def describe_network(path: Path, metadata: Metadata) -> dict[str, str]:
    """Return kind and shape of each tensor of the network that the metadata describes.

    Args:
        path: file, for error messages.
        metadata: metadata of the network.

    Returns:
        The descriptions by name.

    Raises:
        ValueError: If timm cannot build the network.
    """
    try:
        state = metadata.skeleton().state_dict()
    except (RuntimeError, AssertionError) as error:  # raised by torch and timm for sizes that no network can have
        sizes = metadata.timm_arguments
        raise ValueError(
            f"{path}: {metadata.architecture} cannot be created with {sizes}: {first_line(error)}"
        ) from error
    return describe_tensors(state)


def describe_tensors(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Return kind and shape of each tensor.

    Args:
        state: tensors by name.

    Returns:
        The descriptions by name, such as `floating-point [64, 3, 7, 7]`.
    """
    # One kind for all floating-point types, so that an export in half precision fits too.
    descriptions = {}
    for key, tensor in state.items():
        kind = "floating-point" if tensor.is_floating_point() else "counts"
        descriptions[key] = f"{kind} {list(tensor.shape)}"
    return descriptions


def _describe_file(path: Path) -> dict[str, str]:
    """Return kind and shape of each tensor of a file, from its header."""
    descriptions = {}
    with utf8_name(path) as name, safe_open(name, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118  # it is not a mapping
            tensor = file.get_slice(key)
            data_type = tensor.get_dtype()
            descriptions[key] = f"{KINDS.get(data_type, data_type)} {tensor.get_shape()}"
    return descriptions
