"""Loading an exported cascade, from a file or a folder."""

import os
from pathlib import Path

from nestnet.cascade.cascade_file import StoredCascade, read_cascade
from nestnet.cascade.module import Cascade
from nestnet.cascade.onnx_folder import read_onnx_folder


def load_cascade(path: str | os.PathLike[str]) -> Cascade:
    """Load a cascade that `nestnet cascade` exported. Nothing in it is executed.

    Args:
        path: safetensors file, or folder of ONNX files.

    Returns:
        The cascade, in evaluation mode on the CPU. A cascade of ONNX files runs in ONNX Runtime and stays on the CPU.

    Raises:
        ValueError: If there is no cascade there, or it is damaged.

    Example:
        ```python
        cascade = nestnet.load_cascade("cascade.safetensors")
        output = cascade.decide(images)  # output.logits [B, K], output.passed_on [B]
        ```
    """
    return read_stored_cascade(Path(path)).cascade


def read_stored_cascade(path: Path) -> StoredCascade:
    """Read a cascade with the metadata of its networks.

    Args:
        path: safetensors file, or folder of ONNX files.

    Returns:
        The cascade and the metadata.

    Raises:
        ValueError: If there is no cascade there, or it is damaged.
    """
    if path.is_dir():
        return read_onnx_folder(path)
    return read_cascade(path)
