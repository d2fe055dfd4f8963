"""OpenVINO's format, for Intel's CPUs, GPUs and NPUs: a file `.xml` with the program, and `.bin` with the weights beside it."""

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nestnet.deploy.embedded_hash import HASH_PLACEHOLDER, check_hash, fill_in_hash, read_file
from nestnet.deploy.export_format import LoadedModel, ProgramFormat, UsageCode, read_bytes_code
from nestnet.deploy.onnx_format import OnnxFormat
from nestnet.deploy.signal_stack import kept_signal_stack
from nestnet.nn.model import NestedModel
from nestnet.storage.atomic import write_atomically
from nestnet.text.escape import for_python, is_utf8, quoted
from nestnet.text.messages import first_line
from nestnet.weights.metadata import Metadata

# The hash as OpenVINO writes it.
HASH_ENTRY = re.compile(rb'<sha256 value="([0-9a-f]{64})" />')

# OpenVINO's sign for a size that may be any.
ANY_SIZE = -1

# OpenVINO computes in bfloat16 by default where the CPU can.
PRECISION = '{"INFERENCE_PRECISION_HINT": "f32"}'


class OpenVinoFormat(ProgramFormat):
    """Format of OpenVINO's intermediate representation, with the metadata in its `rt_info`."""

    name = "openvino"
    suffix = ".xml"
    companion_suffixes = (".bin",)
    packages = ("onnx", "onnxscript", "openvino")

    @property
    def runtime(self) -> str:
        import openvino

        # The version is followed by a build number.
        return f"openvino {openvino.__version__.split('-')[0]}"

    def check_target(self, architecture: str, path: Path) -> None:
        if path.suffix != self.suffix:
            raise ValueError(f"output = {quoted(path)}: OpenVINO only reads files that end in .xml; choose such a name")

    def weights_file(self, path: Path) -> Path:
        return path.with_suffix(".bin")

    def write(self, net: NestedModel, metadata: Metadata, path: Path) -> None:
        import openvino

        # OpenVINO's own conversion of programs of torch.export gives wrong results for some of them.
        proto = OnnxFormat().trace(net, metadata)
        try:
            model = openvino.Core().read_model(proto.SerializeToString())
        except RuntimeError as error:
            raise ValueError(
                f"format = {self.name!r}: {self.runtime} cannot convert {metadata.architecture}: {first_line(error)}"
            ) from error
        model.set_rt_info(json.dumps(metadata.to_entries()), ["nestnet", "metadata"])
        model.set_rt_info(HASH_PLACEHOLDER.decode(), ["nestnet", "sha256"])
        # The file may have a name that OpenVINO cannot write.
        with tempfile.TemporaryDirectory() as folder:
            openvino.save_model(model, f"{folder}/model.xml", compress_to_fp16=False)
            content = Path(folder, "model.xml").read_bytes()
            weights = Path(folder, "model.bin").read_bytes()
        write_atomically(self.weights_file(path), weights)
        write_atomically(path, fill_in_hash(content, weights))

    def read(self, path: Path) -> tuple[Metadata, LoadedModel]:
        self.check_packages()
        content = read_file(path)
        weights = read_file(self.weights_file(path))
        check_hash(content, HASH_ENTRY, path, "OpenVINO", weights)

        compiled, entries = self._compile(content, weights, path)
        metadata = Metadata.from_entries(entries, path)
        shapes = []
        for value in (*compiled.inputs, *compiled.outputs):
            shapes.append([_size_of(dimension) for dimension in value.partial_shape])
        expected = [ANY_SIZE, *metadata.input_size]
        if metadata.preprocessing == "inside":
            expected = [ANY_SIZE, ANY_SIZE, ANY_SIZE, metadata.input_size[0]]
        if shapes != [expected, [ANY_SIZE, metadata.num_classes]]:
            raise ValueError(
                f"{path} does not hold what its metadata says: its input and output have the shapes {shapes}"
            )

        def run(images: Tensor) -> Tensor:
            # The array belongs to OpenVINO, which overwrites it in the next call.
            return torch.from_numpy(compiled([images.numpy()])[0].copy())

        return metadata, run

    def _compile(self, content: bytes, weights: bytes, path: Path) -> tuple[Any, dict[str, str]]:
        """Return an `openvino.CompiledModel` with as many threads as torch has, and the entries of the metadata."""
        import openvino

        config = {**json.loads(PRECISION), "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        try:
            core = openvino.Core()
            model = core.read_model(content, weights)
            entries = json.loads(model.get_rt_info(["nestnet", "metadata"]).astype(str))
            with kept_signal_stack():
                return core.compile_model(model, "CPU", config), entries
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{path} cannot be run by {self.runtime}: {first_line(error)}") from error

    def usage(self, path: str, metadata: Metadata) -> UsageCode:
        imports = ["import openvino"]
        file = for_python(path)
        if not is_utf8(path):
            imports.insert(0, "import pathlib")
            weights = read_bytes_code(str(self.weights_file(Path(path))))
            file = f"openvino.Core().read_model({read_bytes_code(path)}, {weights})"
        load = f'openvino.compile_model({file}, "CPU", {PRECISION})'
        return UsageCode(imports, "network", load, "network([images.numpy()])[0]")


def _size_of(dimension: Any) -> int:
    """Return a size of a shape of OpenVINO."""
    if dimension.is_dynamic:
        return ANY_SIZE
    return int(dimension.get_length())
