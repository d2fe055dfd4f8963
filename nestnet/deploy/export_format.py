"""The interface of an export format: writing, loading in its own runtime, and code that uses a file.

Files of all formats hold the plain timm network, with the metadata of `nestnet.weights.metadata`, and accept
batches of any size. Formats that hold a program can also hold the preparation of images.
"""

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from nestnet.nn.model import NestedModel
from nestnet.text.escape import for_python, is_utf8
from nestnet.weights.metadata import Metadata

LoadedModel = Callable[[Tensor], Tensor]
"""A loaded file: from images to logits `[B, K]`, on the CPU. Images are normalised ones `[B, C, H, W]`, or raw pixels
`[B, H, W, C]` if the file prepares them itself."""


@dataclass(frozen=True)
class UsageCode:
    """Python code that uses a file.

    Attributes:
        imports: import statements.
        name: name of the variable for the loaded network.
        load: expression that loads the file.
        call: expression from `images` to logits.
        setup: lines between `load` and `call`.
    """

    imports: list[str]
    name: str
    load: str
    call: str
    setup: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Return the code that loads the file, without the imports."""
        if not self.setup:
            return self.load
        return "\n".join([f"{self.name} = {self.load}", *self.setup])


class ExportFormat(ABC):
    """A format of exported files.

    Attributes:
        name: name of the format in commands and messages.
        suffix: usual suffix of its files, in lower case; empty for folders, which have none.
        weights_name: name of the file of the weights, for a format that is a folder; `None` for a single file.
        companion_suffixes: suffixes of further files that it writes beside a file, under the same name.
        packages: packages that it needs in addition to nestnet's dependencies; the extra of nestnet that
            installs them has the name of the format.
        holds_program: whether files hold a program, which can prepare images, or weights alone.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    weights_name: ClassVar[str | None] = None
    companion_suffixes: ClassVar[tuple[str, ...]] = ()
    packages: ClassVar[tuple[str, ...]] = ()
    holds_program: ClassVar[bool] = False

    @property
    @abstractmethod
    def runtime(self) -> str:
        """Name and version of the library that loads a file."""

    @abstractmethod
    def write(self, net: NestedModel, metadata: Metadata, path: Path) -> None:
        """Write a subnet of a nested network.

        Args:
            net: nested network, on the CPU.
            metadata: metadata of the file, which names the subnet.
            path: file to write, or folder to make.

        Raises:
            ValueError: If the network cannot be written in this format.
        """

    @abstractmethod
    def load(self, path: Path, metadata: Metadata) -> LoadedModel:
        """Load a file that was just written, as its user would.

        Args:
            path: file that `write` wrote.
            metadata: metadata that it was written with.

        Returns:
            The loaded network.
        """

    @abstractmethod
    def usage(self, path: str, metadata: Metadata) -> UsageCode:
        """Return Python code that uses a file.

        Args:
            path: path of the file in the code.
            metadata: metadata of the file.

        Returns:
            The code.
        """

    def describe_batches(self, preprocessing: str) -> str:
        """Return how many images a file takes at a time, for a comment in code.

        Args:
            preprocessing: `"inside"` or `"outside"`.
        """
        if preprocessing == "inside":
            return "any number of one size"
        return "any number of them"

    def with_opset(self, opset: int) -> "ExportFormat":
        """Return this format with an opset of the user's choice.

        Args:
            opset: version of ONNX's operators.

        Raises:
            ValueError: If files of this format have no opset, or it cannot be written.
        """
        raise ValueError(f"opset = {opset}: it is for ONNX files; leave it out, or set format to onnx")

    def check_preprocessing(self, preprocessing: str) -> None:
        """Check that files of this format can hold the preparation of images, if they are to.

        Args:
            preprocessing: `"inside"` or `"outside"`.

        Raises:
            ValueError: If they cannot.
        """
        if preprocessing == "inside" and not self.holds_program:
            raise ValueError(
                f"preprocessing = 'inside': files of the format {self.name} hold weights alone; "
                "set format to onnx, or to another one that holds a program"
            )

    def check_target(self, architecture: str, path: Path) -> None:  # noqa: B027  # most formats hold every network
        """Check that a network can be written in this format under this path, before anything is computed.

        Args:
            architecture: timm's name of the network.
            path: path of the file or folder.

        Raises:
            ValueError: If it cannot.
        """

    def check_image_size(self, height: int, width: int) -> None:  # noqa: B027  # most formats take every size
        """Check that files of this format that prepare images can take one of this size.

        Args:
            height: height of the image in pixels.
            width: width of the image in pixels.

        Raises:
            ValueError: If they cannot.
        """

    def weights_file(self, path: Path) -> Path:
        """Return the file of the weights.

        Args:
            path: file or folder of this format.
        """
        if self.weights_name is None:
            return path
        return path / self.weights_name

    def check_packages(self) -> None:
        """Check that all packages are installed.

        Raises:
            ValueError: If some are not, with the command that installs them.
        """
        # Do not import the packages, which takes seconds.
        absent = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if absent:
            raise ValueError(
                f"format = {self.name!r}: it needs {', '.join(absent)}; "
                f'install them with pip install "nestnet[{self.name}]"'
            )


class ProgramFormat(ExportFormat):
    """A format of programs whose runtime reads any file without executing code from it."""

    holds_program = True

    @abstractmethod
    def read(self, path: Path) -> tuple[Metadata, LoadedModel]:
        """Read a file, after checking that it is as it was written.

        Args:
            path: file that nestnet wrote, with any companions beside it.

        Returns:
            The metadata of the file, and its network.

        Raises:
            ValueError: If the file or a companion is absent or damaged, or was not written by nestnet.
        """

    def load(self, path: Path, metadata: Metadata) -> LoadedModel:
        read_metadata, model = self.read(path)
        assert read_metadata == metadata
        return model


def file_code(path: str) -> tuple[list[str], str]:
    """Return Python code for a file that a library opens: the imports that it needs, and the expression.

    Args:
        path: path of the file in the code.
    """
    if is_utf8(path):
        return [], for_python(path)
    return ["import pathlib"], read_bytes_code(path)


def read_bytes_code(path: str) -> str:
    """Return Python code that reads a file, for libraries that only accept file names in UTF-8.

    Args:
        path: path of the file in the code.
    """
    return f"pathlib.Path({for_python(path)}).read_bytes()"
