"""Reading the state dict of a safetensors or torch file, without executing anything in it."""

import argparse
import os
import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from timm.models import load_state_dict

from nestnet.storage.opening import open_regular, utf8_name
from nestnet.text.messages import first_line
from nestnet.weights.export_file import read_if_export
from nestnet.weights.metadata import Metadata

ARCHIVE_START = b"PK\x03\x04"
"""First bytes by which torch distinguishes its archives from the bare pickles of releases before 1.6."""


def read_file_metadata(path: Path) -> Metadata | None:
    """Read the metadata of a weights file if nestnet exported it.

    Args:
        path: safetensors or torch file.

    Returns:
        The metadata; `None` for another file, which is not read further unless it is a safetensors file.

    Raises:
        ValueError: If the file cannot be read, or is a damaged safetensors file.
    """
    try:
        open_regular(path).close()
    except FileNotFoundError as error:
        raise ValueError(f"{path} cannot be read as weights: there is no such file") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read as weights: {error.strerror}") from error
    if path.suffix != ".safetensors":
        return None
    return read_if_export(path)


def read_state_dict(path: Path) -> dict[str, Any]:
    """Read the state dict of a weights file, which may be a checkpoint that also holds other values.

    Args:
        path: safetensors or torch file that `read_file_metadata` accepts.

    Returns:
        The values in the file by name, which need not be tensors.

    Raises:
        ValueError: With the reason, if the file holds no state dict.
    """
    # timm's training script stores its arguments beside the weights. Only newer releases of timm than the oldest
    # that is supported allow them by themselves.
    namespaces = torch.serialization.safe_globals([argparse.Namespace])
    try:
        if path.suffix != ".safetensors":
            _check_archive(path)
        with warnings.catch_warnings(), utf8_name(path) as name, namespaces:
            warnings.simplefilter("ignore", UserWarning)  # torch's, about values that the error names
            return load_state_dict(name, weights_only=True)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        reason = first_line(error)
    except Exception as error:  # a damaged file can make an unpickler raise anything
        reason = _unpickling_reason(error)
    raise ValueError(f"{path} cannot be read as weights: {reason}")


def _unpickling_reason(error: Exception) -> str:
    """Return the reason why a file could not be unpickled."""
    # Newer releases of timm raise an error of their own from torch's.
    cause = error.__cause__
    if isinstance(cause, pickle.UnpicklingError):
        error = cause
    message = str(error)
    # torch's messages for values that could only be restored by executing code.
    if re.search("unsupported global|unrecognized function|allowlisted", message, re.IGNORECASE):
        return (
            "it holds more than tensors, such as a whole model, and loading that could execute code; save the weights alone, "
            "by torch.save(model.state_dict(), FILE)"
        )
    # The rest of torch's message is advice to load the file in a way that could execute code.
    reason = re.search(r"WeightsUnpickler error:\s*(.+)", message)
    if reason is not None:
        return f"it is damaged, or holds no state dict ({reason[1]})"
    return f"it is damaged, or holds no state dict ({type(error).__name__}: {first_line(error)})"


def _check_archive(path: Path) -> None:
    """Check that a torch file takes no more memory than it has bytes, because torch unpacks compressed entries.

    Raises:
        ValueError: For a zip archive with compressed entries, which torch never writes, or with entries that
            claim more bytes than the file has.
        zipfile.BadZipFile: If the file begins as an archive and is none.
    """
    with open_regular(path) as file:
        if file.read(len(ARCHIVE_START)) != ARCHIVE_START:
            return
        file_size = file.seek(0, os.SEEK_END)
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    # Stored entries take as many bytes in memory as in the file.
    claimed_size = 0
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"its entry {entry.filename!r} is compressed, which torch never does")
        claimed_size += entry.file_size
    if claimed_size > file_size:
        raise ValueError(f"its entries claim {claimed_size:,} bytes, and the file has {file_size:,}")
