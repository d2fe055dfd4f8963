"""The safetensors format, for timm and PyTorch: timm's state dict."""

from pathlib import Path

import safetensors.torch
import timm

from nestnet.deploy.export_format import ExportFormat, LoadedModel, UsageCode, read_bytes_code
from nestnet.models.registry import find_architecture
from nestnet.nn.model import NestedModel
from nestnet.storage.opening import utf8_name
from nestnet.text.escape import for_python, is_utf8
from nestnet.weights.export_file import read_export
from nestnet.weights.exporting import write_export
from nestnet.weights.metadata import Metadata


class SafetensorsFormat(ExportFormat):
    """Format of timm's state dict, as `nestnet.export` writes it."""

    name = "safetensors"
    suffix = ".safetensors"

    @property
    def runtime(self) -> str:
        return f"timm {timm.__version__}"

    def write(self, net: NestedModel, metadata: Metadata, path: Path) -> None:
        write_export(net, metadata, path)

    def load(self, path: Path, metadata: Metadata) -> LoadedModel:
        assert read_export(path) == metadata
        with utf8_name(path) as name:
            if path.suffix == self.suffix:
                return metadata.create_model(checkpoint_path=name)
            # timm would read a file with another suffix by `torch.load`.
            model = metadata.create_model()
            model.load_state_dict(safetensors.torch.load_file(name))
        return model

    def usage(self, path: str, metadata: Metadata) -> UsageCode:
        imports = ["import timm"]
        setup = []
        arguments = [for_python(metadata.architecture)]
        for name, value in metadata.timm_arguments.items():
            arguments.append(f"{name}={for_python(value) if isinstance(value, str) else repr(value)}")
        # A network that is not timm's own must be registered with timm first.
        registered_by = find_architecture("architecture", metadata.architecture).registered_by
        if registered_by is not None:
            imports.insert(0, f"import {registered_by}  # makes {metadata.architecture} known to timm")

        if path.endswith(self.suffix) and is_utf8(path):
            arguments.append(f"checkpoint_path={for_python(path)}")
        else:
            # timm would read the file by `torch.load`, or cannot open a name that is not UTF-8. The import is
            # sorted before timm.
            imports.insert(-1, "import safetensors.torch")
            state = f"safetensors.torch.load_file({for_python(path)})"
            if not is_utf8(path):
                imports.insert(0, "import pathlib")
                state = f"safetensors.torch.load({read_bytes_code(path)})"
            setup.append(f"model.load_state_dict({state})")
        load = f"timm.create_model({', '.join(arguments)})"
        return UsageCode(imports, "model", load, "model.eval()(images)", setup)
