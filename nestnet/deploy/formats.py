"""The kinds of file that a trained network leaves in: each can write one, load it in its own runtime, and say how that goes.

All hold the plain timm network with the metadata of `nestnet.metadata`, for batches of any number of images.
"""

import hashlib
import importlib.util
import io
import json
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from nestnet.models import cifar_resnet
from nestnet.nn.model import NestedModel
from nestnet.storage.files import open_regular, utf8_name, write_atomically
from nestnet.text.escape import for_python, is_utf8
from nestnet.text.messages import first_line
from nestnet.weights.exporting import read_export, write
from nestnet.weights.metadata import Metadata

Classify = Callable[[Tensor], Tensor]
"""From normalised images `[B, C, H, W]` to logits `[B, K]`, on the CPU."""


@dataclass(frozen=True)
class Usage:
    """Python that uses a file.

    Attributes:
        imports: lines.
        name: of what is loaded.
        load: the expression that loads it.
        more: lines that it takes before it can be called.
        call: the expression from `images` to logits.
    """

    imports: list[str]
    name: str
    load: str
    call: str
    more: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """How it is loaded, without the imports."""
        return "\n".join([f"{self.name} = {self.load}", *self.more]) if self.more else self.load


class Format(ABC):
    """A kind of file."""

    name: ClassVar[str]
    suffix: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    """Those that it takes besides nestnet's own."""

    @property
    @abstractmethod
    def runtime(self) -> str:
        """What loads the file, with its version."""

    @abstractmethod
    def write(self, net: NestedModel, metadata: Metadata, path: Path) -> None:
        """Write the subnet that the metadata is of; `net` is on the CPU."""

    @abstractmethod
    def load(self, path: Path, metadata: Metadata) -> Classify:
        """Load a file that was just written here, as its user will."""

    @abstractmethod
    def usage(self, path: str, metadata: Metadata) -> Usage: ...

    def check_packages(self) -> None:
        """See that all packages are there.

        Raises:
            ValueError: with the command that installs them.
        """
        absent = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if absent:
            raise ValueError(f'--format {self.name} takes {", ".join(absent)}: pip install "nestnet[{self.name}]"')


class Safetensors(Format):
    """timm's state dict, as `nestnet.export` writes it."""

    name, suffix = "safetensors", ".safetensors"

    @property
    def runtime(self) -> str:
        return f"timm {timm.__version__}"

    def write(self, net: NestedModel, metadata: Metadata, path: Path) -> None:
        write(net, metadata, path)

    def load(self, path: Path, metadata: Metadata) -> Classify:
        assert read_export(path) == metadata
        with utf8_name(path) as name:
            if path.suffix == self.suffix:
                return metadata.model(checkpoint_path=name)
            model = metadata.model()
            model.load_state_dict(safetensors.torch.load_file(name))
        return model

    def usage(self, path: str, metadata: Metadata) -> Usage:
        imports, more = ["import timm"], []
        arguments = [for_python(metadata.architecture), *(f"{name}={v}" for name, v in metadata.timm_arguments.items())]
        if metadata.architecture in cifar_resnet.default_cfgs:
            imports.insert(0, f"import nestnet  # makes {metadata.architecture} known to timm")
        if path.endswith(self.suffix) and is_utf8(path):
            arguments.append(f"checkpoint_path={for_python(path)}")
        else:  # timm takes a file with another ending for one of torch's
            imports.insert(-1, "import safetensors.torch")
            read = f"load_file({for_python(path)})"
            if not is_utf8(path):
                imports.insert(0, "import pathlib")
                read = f"load({_content(path)})"
            more.append(f"model.load_state_dict(safetensors.torch.{read})")
        return Usage(imports, "model", f"timm.create_model({', '.join(arguments)})", "model.eval()(images)", more)


class Onnx(Format):
    """One ONNX file: input `images`, output `logits`, metadata in `metadata_props`."""

    name, suffix, packages = "onnx", ".onnx", ("onnx", "onnxscript", "onnxruntime")

    PLACEHOLDER = b"the SHA-256 of this file was taken with these words in its place"
    """As long as the hash in hexadecimal digits."""

    @property
    def runtime(self) -> str:
        import onnxruntime

        return f"onnxruntime {onnxruntime.__version__}"

    def write(self, net: NestedModel, metadata: Metadata, path: Path) -> None:
        import onnx

        entries = metadata.entries() | {"sha256": self.PLACEHOLDER.decode()}
        model, images = _plain(net, metadata), torch.zeros(2, *metadata.input_size)
        with _quiet(self.name, metadata):
            program = torch.onnx.export(
                _program(model, images), dynamo=True, input_names=["images"], output_names=["logits"], verbose=False
            )
        assert program is not None
        proto = program.model_proto
        onnx.helper.set_model_props(proto, entries)
        file = proto.SerializeToString()
        assert file.count(self.PLACEHOLDER) == 1
        write_atomically(path, file.replace(self.PLACEHOLDER, hashlib.sha256(file).hexdigest().encode()))

    def load(self, path: Path, metadata: Metadata) -> Classify:
        found, classify = self.read(path)
        assert found == metadata
        return classify

    def read(self, path: Path) -> tuple[Metadata, Classify]:
        """The network of a file that is as it was written.

        Raises:
            ValueError: if it is absent, damaged, or was not written by nestnet.
        """
        self.check_packages()
        try:
            with open_regular(path) as opened:
                file = opened.read()
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from error
        # the entry as protobuf writes it: nothing else is looked at before the hash is right
        entry = re.search(rb"\x0a\x06sha256\x12\x40([0-9a-f]{64})", file)
        if entry is None:
            raise ValueError(f"{path} is damaged, or no ONNX export of nestnet: its metadata has no sha256")
        if hashlib.sha256(file.replace(entry[1], self.PLACEHOLDER)).hexdigest().encode() != entry[1]:
            raise ValueError(f"{path} is damaged: its SHA-256 is not the one it had when it was written")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own kinds have no base of their own
            raise ValueError(f"{path} cannot be run by {self.runtime}: {first_line(error)}") from error
        metadata = Metadata.read(session.get_modelmeta().custom_metadata_map, path)
        shapes = [list(value.shape)[1:] for value in (*session.get_inputs(), *session.get_outputs())]
        if shapes != [list(metadata.input_size), [metadata.num_classes]]:
            raise ValueError(
                f"{path} does not hold what its metadata says: its input and output have the shapes {shapes}"
            )

        def classify(images: Tensor) -> Tensor:
            return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])

        return metadata, classify

    def usage(self, path: str, metadata: Metadata) -> Usage:
        imports, file = ["import onnxruntime"], for_python(path)
        if not is_utf8(path):
            imports.insert(0, "import pathlib")
            file = _content(path)
        load = f"onnxruntime.InferenceSession({file})"
        return Usage(imports, "session", load, 'session.run(["logits"], {"images": images.numpy()})[0]')


class TorchExport(Format):
    """A program of torch.export, for torch without timm, and for AOTInductor and ExecuTorch."""

    name, suffix = "torch-export", ".pt2"

    METADATA = "nestnet.json"

    @property
    def runtime(self) -> str:
        return f"torch.export of torch {torch.__version__}"

    def write(self, net: NestedModel, metadata: Metadata, path: Path) -> None:
        with _quiet(self.name, metadata):
            program = _program(_plain(net, metadata), torch.zeros(2, *metadata.input_size))
            file = io.BytesIO()
            torch.export.save(program, file, extra_files={self.METADATA: json.dumps(metadata.entries())})
        write_atomically(path, file.getvalue())

    def load(self, path: Path, metadata: Metadata) -> Classify:
        """Only for a file of one's own: `torch.export.load` can execute what a file holds."""
        extra = {self.METADATA: ""}
        with _quiet(self.name, metadata), utf8_name(path) as name:
            model = torch.export.load(name, extra_files=extra).module()
        assert Metadata.read(json.loads(extra[self.METADATA]), path) == metadata
        return model

    def usage(self, path: str, metadata: Metadata) -> Usage:
        imports, file = ["import torch"], for_python(path)
        if not is_utf8(path):
            imports = ["import io", "import pathlib", *imports]
            file = f"io.BytesIO({_content(path)})"
        return Usage(imports, "model", f"torch.export.load({file}).module()", "model(images)")


FORMATS: dict[str, Format] = {kind.name: kind for kind in (Safetensors(), Onnx(), TorchExport())}


def format_of(path: Path, name: str | None = None) -> Format:
    """The format of that name; without one, that of the file's ending, or safetensors."""
    if name is not None:
        return FORMATS[name]
    return next((kind for kind in FORMATS.values() if kind.suffix == path.suffix.lower()), FORMATS["safetensors"])


def _content(path: str) -> str:
    """Python that reads a file for libraries that take names in UTF-8 alone."""
    return f"pathlib.Path({for_python(path)}).read_bytes()"


def _plain(net: NestedModel, metadata: Metadata) -> nn.Module:
    return net.standalone(metadata.mode).eval().to(memory_format=torch.contiguous_format)


def _program(model: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1)
    return torch.export.export(model, (images,), dynamic_shapes=({0: batch},), strict=False)


@contextmanager
def _quiet(name: str, metadata: Metadata) -> Iterator[None]:
    """Without torch's warnings on its own workings: the file is held against the network afterwards."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except RuntimeError as error:
        reason = first_line(error)
        raise ValueError(f"--format {name}: torch cannot write {metadata.architecture} so: {reason}") from error
