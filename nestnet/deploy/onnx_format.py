"""The ONNX format, for ONNX Runtime and other ONNX runtimes, with safe reading of such files."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nestnet.deploy.embedded_hash import HASH_PLACEHOLDER, check_hash, fill_in_hash, read_file
from nestnet.deploy.export_format import LoadedModel, ProgramFormat, UsageCode, file_code
from nestnet.deploy.exported_program import dynamic_axes, explain_torch_errors, trace_subnet
from nestnet.nn.model import NestedModel
from nestnet.storage.atomic import write_atomically
from nestnet.text.messages import first_line
from nestnet.weights.metadata import Metadata

# The oldest opset for which torch has implementations; its conversion to older ones fails for most networks.
MIN_OPSET = 18

# The entry of the metadata as protobuf writes it: field 1, 6 bytes, "sha256"; field 2, 64 bytes, the hash.
HASH_ENTRY = re.compile(rb"\x0a\x06sha256\x12\x40([0-9a-f]{64})")


class OnnxFormat(ProgramFormat):
    """Format of ONNX files with the input `images`, the output `logits`, and the metadata in `metadata_props`.

    Args:
        opset: version of ONNX's operators; `None` for torch's own choice.
    """

    name = "onnx"
    suffix = ".onnx"
    packages = ("onnx", "onnxscript", "onnxruntime")

    def __init__(self, opset: int | None = None) -> None:
        self.opset = opset

    def with_opset(self, opset: int) -> "OnnxFormat":
        self.check_packages()
        import onnx

        newest = onnx.defs.onnx_opset_version()
        if not MIN_OPSET <= opset <= newest:
            raise ValueError(
                f"opset = {opset}: torch writes {MIN_OPSET} or newer, and onnx {onnx.__version__} knows up to {newest}"
            )
        return OnnxFormat(opset)

    @property
    def runtime(self) -> str:
        import onnxruntime

        return f"onnxruntime {onnxruntime.__version__}"

    def write(self, net: NestedModel, metadata: Metadata, path: Path) -> None:
        self.store(self.trace(net, metadata), metadata, path)

    def trace(self, net: NestedModel, metadata: Metadata) -> Any:
        """Return a subnet as an `onnx.ModelProto`, without metadata. Arguments and errors are those of `write`."""
        options: dict[str, Any] = {}
        if self.opset is not None:
            options["opset_version"] = self.opset
        with explain_torch_errors(self.name, metadata):
            program = torch.onnx.export(
                trace_subnet(net, metadata),
                dynamo=True,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=(dynamic_axes(metadata),),
                verbose=False,
                **options,
            )
        assert program is not None
        proto = program.model_proto
        # Where an operator cannot be converted, torch writes another opset instead of raising an error.
        if self.opset not in (None, _find_opset(proto)):
            raise ValueError(
                f"opset = {self.opset}: torch cannot write {metadata.architecture} with it; "
                f"take {_find_opset(proto)}, or leave it out"
            )
        return proto

    def store(self, proto: Any, metadata: Metadata, path: Path) -> None:
        """Write a network as a file, with its metadata, its opset and its SHA-256.

        Args:
            proto: network from `trace`, which may have been changed since.
            metadata: metadata of the file.
            path: file to write.
        """
        import onnx

        entries = metadata.to_entries() | {"opset": str(_find_opset(proto)), "sha256": HASH_PLACEHOLDER.decode()}
        onnx.helper.set_model_props(proto, entries)
        write_atomically(path, fill_in_hash(proto.SerializeToString()))

    def read(self, path: Path) -> tuple[Metadata, LoadedModel]:
        self.check_packages()
        content = read_file(path)
        check_hash(content, HASH_ENTRY, path, "ONNX")

        session = self._create_session(content, path)
        metadata = Metadata.from_entries(session.get_modelmeta().custom_metadata_map, path)
        shapes = []
        for value in (*session.get_inputs(), *session.get_outputs()):
            shapes.append(list(value.shape)[1:])  # the first size is the batch size, which is symbolic
        expected: list[int | str] = list(metadata.input_size)
        if metadata.preprocessing == "inside":
            expected = ["height", "width", metadata.input_size[0]]
        if shapes != [expected, [metadata.num_classes]]:
            raise ValueError(
                f"{path} does not hold what its metadata says: its input and output have the shapes {shapes}"
            )

        return metadata, _as_network(session)

    def create_network(self, proto: Any, path: Path) -> LoadedModel:
        """Return a network that has not been stored yet.

        Args:
            proto: network from `trace`, which may have been changed since.
            path: file that it is for, for error messages.

        Returns:
            The network, run by onnxruntime.

        Raises:
            ValueError: If onnxruntime cannot run it.
        """
        return _as_network(self._create_session(proto.SerializeToString(), path))

    def _create_session(self, content: bytes, path: Path) -> Any:
        """Return an `onnxruntime.InferenceSession` with as many threads as torch has."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        # The exceptions of onnxruntime have no common base class.
        except Exception as error:
            raise ValueError(f"{path} cannot be run by {self.runtime}: {first_line(error)}") from error

    def usage(self, path: str, metadata: Metadata) -> UsageCode:
        imports, file = file_code(path)
        load = f"onnxruntime.InferenceSession({file})"
        return UsageCode(
            [*imports, "import onnxruntime"], "session", load, 'session.run(["logits"], {"images": images.numpy()})[0]'
        )


def _find_opset(proto: Any) -> int:
    """Return the opset of an `onnx.ModelProto`."""
    # Other domains are those of operators that are not ONNX's own.
    return int(next(imported.version for imported in proto.opset_import if imported.domain == ""))


def _as_network(session: Any) -> LoadedModel:
    """Return an `onnxruntime.InferenceSession` as a function from images to logits."""

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])

    return run
