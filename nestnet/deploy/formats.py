"""The formats of exported files by name."""

from pathlib import Path

from nestnet.deploy.executorch_format import ExecuTorchFormat
from nestnet.deploy.export_format import ExportFormat
from nestnet.deploy.onnx_format import OnnxFormat
from nestnet.deploy.openvino_format import OpenVinoFormat
from nestnet.deploy.safetensors_format import SafetensorsFormat
from nestnet.deploy.timm_format import TimmFormat
from nestnet.deploy.torch_export_format import TorchExportFormat

# To add a format, write a subclass of `ExportFormat` in its own file, and add an entry here.
EXPORT_FORMATS: dict[str, ExportFormat] = {
    "safetensors": SafetensorsFormat(),
    "onnx": OnnxFormat(),
    "torch-export": TorchExportFormat(),
    "openvino": OpenVinoFormat(),
    "executorch": ExecuTorchFormat(),
    "timm": TimmFormat(),
}


def choose_format(path: Path, name: str | None = None, *, opset: int | None = None) -> ExportFormat:
    """Choose the format of a file.

    Args:
        path: path of the file.
        name: name of the format; `None` to choose it by the file's suffix, with safetensors for an unknown suffix.
        opset: version of ONNX's operators; by default torch's own choice.

    Returns:
        The format.

    Raises:
        ValueError: If there is an opset and the format has none, or it cannot be written.
    """
    export_format = _find_format(path, name)
    if opset is None:
        return export_format
    return export_format.with_opset(opset)


def _find_format(path: Path, name: str | None) -> ExportFormat:
    """Return the format of a name; without one, the format of a file's suffix."""
    if name is not None:
        return EXPORT_FORMATS[name]
    suffix = path.suffix.lower()
    for export_format in EXPORT_FORMATS.values():
        if suffix and export_format.suffix == suffix:
            return export_format
    # There is no suffix, or an unknown one, such as `.bin`.
    return EXPORT_FORMATS["safetensors"]
