"""The reading of an exported file of any format that can be read without executing code from it.

`nestnet predict` and all other commands that run exported files read them here.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from nestnet.deploy.executorch_format import ExecuTorchFormat
from nestnet.deploy.export_format import LoadedModel, ProgramFormat
from nestnet.deploy.onnx_format import OnnxFormat
from nestnet.deploy.openvino_format import OpenVinoFormat
from nestnet.deploy.safetensors_format import SafetensorsFormat
from nestnet.deploy.timm_format import TimmFormat
from nestnet.deploy.torch_export_format import TorchExportFormat
from nestnet.nn.mode import Mode
from nestnet.runs.contents import is_run_directory
from nestnet.storage.opening import utf8_name
from nestnet.weights.export_file import read_export
from nestnet.weights.metadata import Metadata
from nestnet.weights.metadata_rules import describe_cascade
from nestnet.weights.timm_folder import find_weights_file, is_timm_folder

PROGRAM_FORMATS: tuple[ProgramFormat, ...] = (OnnxFormat(), OpenVinoFormat(), ExecuTorchFormat())
"""Formats of programs that their runtimes read without executing code of the file."""


class UnsafeFormatError(ValueError):
    """A file of a format whose loading can execute code from the file."""


@dataclass(frozen=True)
class LoadedExport:
    """Exported network that is ready to run.

    Attributes:
        metadata: metadata of the file.
        network: function from images on the device to logits `[B, K]`: from normalised images `[B, C, H, W]`, or from raw
            pixels `[B, H, W, C]` if `metadata.preprocessing` is `"inside"`.
        device: device on which the network runs.
        format: name of the format, as in `nestnet.deploy.formats.EXPORT_FORMATS`.
    """

    metadata: Metadata
    network: LoadedModel
    device: torch.device
    format: str


def load_export(path: Path, device: torch.device) -> LoadedExport:
    """Read an exported file. Nothing in it is executed.

    Args:
        path: file that `nestnet export` or `nestnet.export` wrote, or folder of timm's format.
        device: device on which the network of a safetensors file runs; programs always run on the CPU.

    Returns:
        The network.

    Raises:
        UnsafeFormatError: If the file is of a format whose loading can execute code.
        ValueError: If the file is absent, damaged, or no export of nestnet.
    """
    # nestnet's folders of timm's format hold an export.
    format_name = SafetensorsFormat.name
    if is_timm_folder(path):
        format_name = TimmFormat.name
        path = find_weights_file(path)
    elif path.is_dir():
        _refuse_folder(path)
    suffix = path.suffix.lower()
    for program_format in PROGRAM_FORMATS:
        if suffix == program_format.suffix:
            metadata, network = program_format.read(path)
            return LoadedExport(metadata, network, torch.device("cpu"), program_format.name)
    # A file of torch.export could execute code.
    if suffix == TorchExportFormat.suffix:
        raise UnsafeFormatError(
            f"{path}: loading a file of torch.export can execute code; name a .safetensors, .onnx, .xml or .pte file"
        )
    # Detect damage before the weights are read.
    metadata = read_export(path)
    model = metadata.create_model()
    with utf8_name(path) as name:
        model.load_state_dict(load_file(name))
    return LoadedExport(metadata, model.to(device), device, format_name)


def _refuse_folder(path: Path) -> None:
    """Raise ValueError for a folder that holds more than one network, with the name of one."""
    if is_run_directory(path):
        example = path / f"{Mode.BASE}.safetensors"
        raise ValueError(f"{path} is a run directory; name the export of one network, such as {example}")
    if all((path / f"{mode}{OnnxFormat.suffix}").exists() for mode in Mode):
        raise ValueError(describe_cascade(path))


def measure_size(path: Path) -> int:
    """Return the number of bytes of the files that hold an exported network.

    Args:
        path: file or folder that `load_export` has read; of a folder of timm's format, the weights count.
    """
    if is_timm_folder(path):
        path = find_weights_file(path)
    size = path.stat().st_size
    if path.suffix.lower() == OpenVinoFormat.suffix:
        size += path.with_suffix(".bin").stat().st_size
    return size
