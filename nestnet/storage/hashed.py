"""safetensors files that carry their own SHA-256, so that no damage to them goes unnoticed.

The hash is the entry `sha256` of the metadata. It is taken over the header without that entry and all bytes after the header.
The header is canonical (entries sorted, no spaces), so that equal contents give equal files.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from nestnet.storage.files import SHORTAGES, open_regular, utf8_name
from nestnet.text.messages import first_line

LARGEST_HEADER = 100_000_000
"""Bytes; the format's own limit."""


def serialize_hashed(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> list[bytes | memoryview]:
    """The file with these tensors and this metadata, and its hash, in parts that follow one another."""
    file = save(_apart(tensors), dict(metadata))
    length = int.from_bytes(file[:8], "little")
    header, body = json.loads(file[8 : 8 + length]), memoryview(file)[8 + length :]
    digest = hashlib.sha256(_canonical(header))
    digest.update(body)
    header["__metadata__"]["sha256"] = digest.hexdigest()
    written = _canonical(header)
    return [len(written).to_bytes(8, "little"), written, body]


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the host, contiguous, and none in the memory of another or in part of some: safetensors refuses those."""
    apart, seen = {}, set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        if own.data_ptr() in seen or own.untyped_storage().nbytes() != own.nbytes:
            own = own.clone()
        seen.add(own.data_ptr())
        apart[name] = own
    return apart


def read_hashed(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a whole file; nothing in it is executed, and no more memory is taken than it has bytes.

    Raises:
        ValueError: if it is absent, damaged, or has no hash.
    """
    metadata = verified(path)
    if "sha256" not in metadata:
        raise ValueError(f"{path} is damaged, or was not written by nestnet: it has no sha256")
    with utf8_name(path) as name:
        return metadata, load_file(name)


def verified(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file, whose hash is right if it has one.

    Raises:
        ValueError: if it is absent or damaged.
        OSError: if the system is short of file handles or memory.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, LARGEST_HEADER):
                raise ValueError(
                    f"{path} is damaged: its header is to have {length:,} bytes, and the file has {size:,}"
                )
            written = file.read(length)
            header = json.loads(written)
            metadata = header.get("__metadata__", {}) if isinstance(header, dict) else None
            if not isinstance(metadata, dict):
                raise ValueError(f"{path} is damaged: its header is none of a safetensors file")
            end = 8 + length + max(map(_end, header.values()), default=0)
            if size != end:
                raise ValueError(f"{path} is damaged: it is to have {end:,} bytes, and has {size:,}")
            if (expected := metadata.get("sha256")) is not None:
                if _canonical(header) != written:
                    raise ValueError(f"{path} is damaged: its header is not as it was written")
                del metadata["sha256"]
                digest = hashlib.sha256(_canonical(header))
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
                if digest.hexdigest() != expected:
                    raise ValueError(f"{path} is damaged: its SHA-256 is not the one it had when it was written")
                metadata["sha256"] = expected
        with utf8_name(path) as name, safe_open(name, framework="pt") as tensors:  # the format's own checks
            return dict(tensors.metadata() or {})
    except FileNotFoundError as error:
        raise ValueError(f"{path}: there is no such file") from error
    except OSError as error:
        if error.errno in SHORTAGES:
            raise  # it says nothing about the file: an older checkpoint would be taken in its place
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    except (SafetensorError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        reason = first_line(error)
        raise ValueError(f"{path} is damaged: it is no safetensors file, or not a whole one ({reason})") from error


def _end(entry: Any) -> int:
    """Where the bytes of a tensor end, by its entry in the header; 0 for any other entry."""
    match entry:
        case {"data_offsets": [int(), int(end)]}:
            return end
    return 0


def _canonical(header: dict[str, Any]) -> bytes:
    """As JSON, padded with spaces to a multiple of 8 bytes, where the tensors begin."""
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)
