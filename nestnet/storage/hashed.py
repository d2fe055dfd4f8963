"""safetensors files that carry their own SHA-256, so that damage to them is noticed.

The hash is the entry `sha256` of the metadata. It covers the header without that entry, and all bytes after
the header. The header is canonical (entries sorted, no spaces), so that equal contents give equal files.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from nestnet.storage.opening import SHORTAGES, open_regular, utf8_name
from nestnet.text.messages import first_line

# The format's own limit for the bytes of a header (`MAX_HEADER_SIZE` in safetensors' source).
LARGEST_HEADER = 100_000_000
# A file begins with the length of its header in this many bytes, little-endian.
LENGTH_BYTES = 8
# Bytes that are read and hashed at a time.
CHUNK = 1 << 20


def serialize_hashed(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> list[bytes | memoryview]:
    """Return the content of a safetensors file that carries its hash.

    Args:
        tensors: tensors by name, on any device; they may share memory.
        metadata: texts by name, without `sha256`.

    Returns:
        The bytes of the file in consecutive parts, so that the tensors are not copied once more.
    """
    # safetensors lays out the file. Its header is then replaced by a canonical one with the hash.
    file = save(_separate(tensors), dict(metadata))
    body_start = LENGTH_BYTES + int.from_bytes(file[:LENGTH_BYTES], "little")
    header = json.loads(file[LENGTH_BYTES:body_start])
    body = memoryview(file)[body_start:]
    digest = hashlib.sha256(_canonical(header))
    digest.update(body)
    header["__metadata__"]["sha256"] = digest.hexdigest()
    header_with_hash = _canonical(header)
    return [len(header_with_hash).to_bytes(LENGTH_BYTES, "little"), header_with_hash, body]


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors on the host, contiguous, and without shared memory, as safetensors requires."""
    separate = {}
    used_addresses = set()
    for name, tensor in tensors.items():
        host = tensor.detach().cpu().contiguous()
        # Memory that several names share, or that is larger than the tensor, is copied.
        is_shared = host.data_ptr() in used_addresses
        is_part = host.untyped_storage().nbytes() != host.nbytes
        if is_shared or is_part:
            host = host.clone()
        used_addresses.add(host.data_ptr())
        separate[name] = host
    return separate


def read_hashed(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read a file that must carry its hash.

    Nothing in the file is executed, and reading it takes no more memory than its size.

    Args:
        path: path of the file.

    Returns:
        Its metadata, and its tensors by name, on the CPU.

    Raises:
        ValueError: If it is absent or damaged, or has no hash.
        OSError: If the system is short of file handles or memory.
    """
    metadata = read_verified_metadata(path)
    if "sha256" not in metadata:
        raise ValueError(f"{path} is damaged, or was not written by nestnet: it has no sha256")
    with utf8_name(path) as name:
        return metadata, load_file(name)


def read_verified_metadata(path: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file, after checking its hash if it has one.

    Args:
        path: path of the file, which another program may have written.

    Returns:
        The metadata, including the hash; empty if the file has none.

    Raises:
        ValueError: If the file is absent or damaged.
        OSError: If the system is short of file handles or memory.
    """
    try:
        with open_regular(path) as file:
            _check_hash(path, file)
        # safetensors makes the format's own checks when it opens the file.
        with utf8_name(path) as name, safe_open(name, framework="pt") as tensors:
            return dict(tensors.metadata() or {})
    except FileNotFoundError as error:
        raise ValueError(f"{path}: there is no such file") from error
    except OSError as error:
        # A shortage says nothing about the file. As a ValueError it would make a run take an older checkpoint
        # in its place.
        if error.errno in SHORTAGES:
            raise
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    except (SafetensorError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        reason = first_line(error)
        raise ValueError(f"{path} is damaged: it is not a complete safetensors file ({reason})") from error


def _check_hash(path: Path, file: BinaryIO) -> None:
    """Check that an open file is complete, and that its hash is right if it has one."""
    # The length comes from the file and may be wrong. It is checked before that many bytes are read.
    size = os.fstat(file.fileno()).st_size
    header_length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    if size < LENGTH_BYTES or header_length > min(size - LENGTH_BYTES, LARGEST_HEADER):
        raise ValueError(
            f"{path} is damaged: its header should have {header_length:,} bytes, and the file has {size:,}"
        )
    header_bytes = file.read(header_length)
    header = json.loads(header_bytes)
    metadata = None
    if isinstance(header, dict):
        metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict):
        raise ValueError(f"{path} is damaged: its header is not that of a safetensors file")
    # This finds a file that was cut, or to which something was appended, even without a hash.
    end = LENGTH_BYTES + header_length + max(map(_end_of_tensor, header.values()), default=0)
    if size != end:
        raise ValueError(f"{path} is damaged: it should have {end:,} bytes, and has {size:,}")
    # Files of other programs, such as timm's, have no hash.
    if metadata.get("sha256") is None:
        return
    if _canonical(header) != header_bytes:
        raise ValueError(f"{path} is damaged: its header is not as it was written")
    expected = metadata.pop("sha256")
    digest = hashlib.sha256(_canonical(header))
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    if digest.hexdigest() != expected:
        raise ValueError(f"{path} is damaged: its SHA-256 is not the one it had when it was written")


def _end_of_tensor(entry: Any) -> int:
    """Return where the bytes of a tensor end, by its entry in the header; 0 for any other entry."""
    match entry:
        case {"data_offsets": [int(), int(end)]}:
            return end
    return 0


def _canonical(header: dict[str, Any]) -> bytes:
    """Return a header as JSON, padded with spaces to a multiple of 8 bytes, where the tensors begin."""
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)
