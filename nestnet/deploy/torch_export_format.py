"""The torch.export format, for torch without timm: a program that AOTInductor and ExecuTorch also read."""

import io
import json
from pathlib import Path

import torch

from nestnet.deploy.export_format import ExportFormat, LoadedModel, UsageCode, read_bytes_code
from nestnet.deploy.exported_program import explain_torch_errors, trace_subnet
from nestnet.nn.model import NestedModel
from nestnet.storage.atomic import write_atomically
from nestnet.storage.opening import utf8_name
from nestnet.text.escape import for_python, is_utf8
from nestnet.weights.metadata import Metadata

# Extra file in the archive, which holds the metadata.
METADATA_FILE = "nestnet.json"


class TorchExportFormat(ExportFormat):
    """Format of a program of torch.export, with the metadata in an extra file."""

    name = "torch-export"
    suffix = ".pt2"
    holds_program = True

    @property
    def runtime(self) -> str:
        return f"torch.export of torch {torch.__version__}"

    def write(self, net: NestedModel, metadata: Metadata, path: Path) -> None:
        content = io.BytesIO()
        with explain_torch_errors(self.name, metadata):
            program = trace_subnet(net, metadata)
            torch.export.save(program, content, extra_files={METADATA_FILE: json.dumps(metadata.to_entries())})
        write_atomically(path, content.getvalue())

    def load(self, path: Path, metadata: Metadata) -> LoadedModel:
        """Load a file that was just written.

        Do not load any other file: `torch.export.load` can execute code from a file.

        Args:
            path: file that `write` wrote.
            metadata: metadata that it was written with.

        Returns:
            The loaded network.
        """
        # torch fills in the contents of the extra files that are listed.
        extra_files = {METADATA_FILE: ""}
        with explain_torch_errors(self.name, metadata), utf8_name(path) as name:
            model = torch.export.load(name, extra_files=extra_files).module()
        assert Metadata.from_entries(json.loads(extra_files[METADATA_FILE]), path) == metadata
        return model

    def usage(self, path: str, metadata: Metadata) -> UsageCode:
        imports = ["import torch"]
        file = for_python(path)
        if not is_utf8(path):
            imports = ["import io", "import pathlib", *imports]
            file = f"io.BytesIO({read_bytes_code(path)})"
        return UsageCode(imports, "model", f"torch.export.load({file}).module()", "model(images)")
