"""The formats of exported files by name."""

from pathlib import Path

from nestnet.deploy.export_format import ExportFormat
from nestnet.deploy.onnx_format import OnnxFormat
from nestnet.deploy.safetensors_format import SafetensorsFormat
from nestnet.deploy.torch_export_format import TorchExportFormat

# To add a format, write a subclass of `ExportFormat` in its own file, and add an entry here.
EXPORT_FORMATS: dict[str, ExportFormat] = {
    "safetensors": SafetensorsFormat(),
    "onnx": OnnxFormat(),
    "torch-export": TorchExportFormat(),
}


def choose_format(path: Path, name: str | None = None) -> ExportFormat:
    """Choose the format of a file.

    Args:
        path: path of the file.
        name: name of the format; `None` to choose it by the file's suffix, with safetensors for an unknown suffix.

    Returns:
        The format.
    """
    if name is not None:
        return EXPORT_FORMATS[name]
    for export_format in EXPORT_FORMATS.values():
        if export_format.suffix == path.suffix.lower():
            return export_format
    # The suffix is unknown, such as `.bin`.
    return EXPORT_FORMATS["safetensors"]
