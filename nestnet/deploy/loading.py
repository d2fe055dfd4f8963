"""The reading of an exported file of any format that can be read without executing code from it.

`nestnet predict` and all other commands that run exported files read them here.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from nestnet.deploy.export_format import LoadedModel
from nestnet.deploy.onnx_format import OnnxFormat
from nestnet.deploy.openvino_format import OpenVinoFormat
from nestnet.deploy.torch_export_format import TorchExportFormat
from nestnet.storage.opening import utf8_name
from nestnet.weights.export_file import read_export
from nestnet.weights.metadata import Metadata
from nestnet.weights.timm_folder import find_weights_file, is_timm_folder


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
        device: device on which the network of a safetensors file runs; ONNX and OpenVINO files always run on the
            CPU.

    Returns:
        The network.

    Raises:
        ValueError: If the file is absent, damaged, no export of nestnet, or of a format whose loading can
            execute code.
    """
    # nestnet's folders of timm's format hold an export.
    if is_timm_folder(path):
        path = find_weights_file(path)
    suffix = path.suffix.lower()
    if suffix == OnnxFormat.suffix:
        metadata, network = OnnxFormat().read(path)
        return LoadedExport(metadata, network, torch.device("cpu"), OnnxFormat.name)
    if suffix == OpenVinoFormat.suffix:
        metadata, network = OpenVinoFormat().read(path)
        return LoadedExport(metadata, network, torch.device("cpu"), OpenVinoFormat.name)
    # A file of torch.export could execute code.
    if suffix == TorchExportFormat.suffix:
        raise ValueError(
            f"{path}: loading a file of torch.export can execute code; name a .safetensors, .onnx or .xml file"
        )
    # Detect damage before the weights are read.
    metadata = read_export(path)
    model = metadata.create_model()
    with utf8_name(path) as name:
        model.load_state_dict(load_file(name))
    return LoadedExport(metadata, model.to(device), device, "safetensors")
