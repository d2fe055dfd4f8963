"""Loading an exported cascade, from a file or a folder."""

import os
from pathlib import Path

from nestnet.cascade.cascade_file import StoredCascade, describe_network_alone, read_cascade
from nestnet.cascade.module import Cascade
from nestnet.cascade.onnx_folder import read_onnx_folder
from nestnet.deploy.formats import choose_format
from nestnet.runs.contents import is_run_directory
from nestnet.text.commands import format_command


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
        # A run directory has a cascade.json too, which says how the cascade was chosen.
        if is_run_directory(path):
            command = format_command("cascade", path, output="FILE")
            raise ValueError(f"{path} is a run directory; name the file that `{command}` writes")
        return read_onnx_folder(path)
    if choose_format(path).holds_program:
        raise ValueError(describe_network_alone(path))
    return read_cascade(path)
