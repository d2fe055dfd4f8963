"""ExecuTorch's format, for phones and embedded devices: a program whose convolutions and products XNNPACK runs.

ExecuTorch reserves the memory of a program before it runs, so numbers and sizes of images have limits.
"""

import importlib
import json
import logging
import re
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nestnet.deploy.embedded_hash import HASH_PLACEHOLDER, check_hash, fill_in_hash, read_file
from nestnet.deploy.export_format import LoadedModel, ProgramFormat, UsageCode, file_code
from nestnet.deploy.exported_program import explain_torch_errors, trace_subnet
from nestnet.deploy.native_output import captured_native_output
from nestnet.nn.model import NestedModel
from nestnet.runtime.log import log_notice
from nestnet.storage.atomic import write_atomically
from nestnet.text.messages import first_line
from nestnet.text.units import format_count
from nestnet.weights.metadata import Metadata

MAX_BATCH_SIZE = 32
"""Largest number of images in a batch. It must be above 16 (see `nestnet.deploy.exported_program.trace_subnet`)."""

MAX_SIDE = 1024
"""Largest height and width in pixels of the images that a file prepares itself: 75 MiB are reserved for them, and for
images of 4096 pixels it would be 1.2 GiB."""

METADATA_METHOD = "nestnet_metadata"
"""Method of the program that returns the metadata as JSON."""

HASH_ENTRY = re.compile(rb'"sha256": "([0-9a-f]{64})"')
"""The hash in the metadata."""

_LIVING_PROGRAMS: "weakref.WeakSet[Any]" = weakref.WeakSet()
"""Programs that are loaded, each of which refers to the pool of threads."""


class ExecuTorchFormat(ProgramFormat):
    """Format of ExecuTorch's programs, with the metadata in a method that returns it."""

    name = "executorch"
    suffix = ".pte"
    packages = ("executorch",)

    @property
    def runtime(self) -> str:
        return f"executorch {version('executorch')}"

    def write(self, net: NestedModel, metadata: Metadata, path: Path) -> None:
        # A single image is prepared at a time: the limits of its sides decide how much memory is reserved.
        largest_sizes = {"batch": MAX_BATCH_SIZE}
        if metadata.preprocessing == "inside":
            largest_sizes = {"batch": 1, "height": MAX_SIDE, "width": MAX_SIDE}
        entries = metadata.to_entries() | {"sha256": HASH_PLACEHOLDER.decode()}
        with explain_torch_errors(self.name, metadata):
            program = trace_subnet(net, metadata, largest_sizes)
            with _quiet_executorch():
                content = self._lower(program, json.dumps(entries), metadata)
        write_atomically(path, fill_in_hash(content))

    def _lower(self, program: torch.export.ExportedProgram, entries: str, metadata: Metadata) -> bytes:
        """Return a program as ExecuTorch stores it."""
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        try:
            lowered = to_edge_transform_and_lower(
                program, partitioner=[XnnpackPartitioner()], constant_methods={METADATA_METHOD: entries}
            )
            return bytes(lowered.to_executorch().buffer)
        # The exceptions of executorch have no common base class.
        except Exception as error:
            raise ValueError(
                f"format = {self.name!r}: {self.runtime} cannot convert {metadata.architecture}: {first_line(error)}"
            ) from error

    def read(self, path: Path) -> tuple[Metadata, LoadedModel]:
        self.check_packages()
        content = read_file(path)
        check_hash(content, HASH_ENTRY, path, "ExecuTorch")
        with _quiet_executorch() as read_lines:
            threads = _set_threads()
            try:
                program = _load_program(content)
                entries = json.loads(program.load_method(METADATA_METHOD).execute([])[0])
                facts = program.load_method("forward").metadata
                taken = list(facts.input_tensor_meta(0).sizes())
                returned = list(facts.output_tensor_meta(0).sizes())
            # A method that the program lacks is a KeyError, and one that returns something else a TypeError.
            except (RuntimeError, ValueError, KeyError, TypeError) as error:
                reason = " ".join([first_line(error), *read_lines()[-1:]])
                raise ValueError(f"{path} cannot be run by {self.runtime}: {reason}") from error
        if threads != torch.get_num_threads():
            log_notice(
                f"{path} runs with {format_count(threads, 'thread', 'threads')}, as the file that was loaded before it"
            )
        metadata = Metadata.from_entries(entries, path)
        max_batch_size = taken[0]
        expected = [max_batch_size, *metadata.input_size]
        if metadata.preprocessing == "inside":
            expected = [max_batch_size, MAX_SIDE, MAX_SIDE, metadata.input_size[0]]
        if [taken, returned] != [expected, [max_batch_size, metadata.num_classes]]:
            raise ValueError(
                f"{path} does not hold what its metadata says: its input and output have the shapes {taken} and {returned}"
            )

        def run(images: Tensor) -> Tensor:
            if metadata.preprocessing == "inside":
                self.check_image_size(images.shape[1], images.shape[2])
            # The program, which must outlive its methods, keeps this one.
            method = program.load_method("forward")
            logits = []
            for batch in images.split(max_batch_size):
                # Other memory formats are taken for this one.
                logits.append(method.execute([batch.contiguous()])[0])
            return torch.cat(logits)

        return metadata, run

    def check_image_size(self, height: int, width: int) -> None:
        if max(height, width) > MAX_SIDE:
            raise ValueError(
                f"an image of {width} x {height} pixels is too large: files of the format executorch that prepare images "
                f"themselves take up to {MAX_SIDE} x {MAX_SIDE}; make it smaller, or export with preprocessing = 'outside'"
            )

    def describe_batches(self, preprocessing: str) -> str:
        if preprocessing == "inside":
            return f"one image of up to {MAX_SIDE} x {MAX_SIDE} pixels"
        return f"up to {MAX_BATCH_SIZE} of them"

    def usage(self, path: str, metadata: Metadata) -> UsageCode:
        imports, file = file_code(path)
        return UsageCode(
            [*imports, "from executorch.runtime import Runtime"],
            "program",
            f"Runtime.get().load_program({file})",
            "method.execute([images])[0]",
            ['method = program.load_method("forward")'],
        )


def _load_program(content: bytes) -> Any:
    """Return an `executorch.runtime.Program`."""
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(content)
    _LIVING_PROGRAMS.add(program)
    return program


def _import_runtime() -> None:
    """Import the runtime, whose compiled part only goes with the torch that it was built for."""
    try:
        importlib.import_module("executorch.runtime")
    except ImportError as error:
        raise ValueError(
            f"executorch {version('executorch')} cannot be imported beside torch {torch.__version__} "
            f"({first_line(error)}); install the release of executorch that was built for it"
        ) from error


def _set_threads() -> int:
    """Let ExecuTorch use as many threads as torch, unless a program is loaded, and return their number."""
    from executorch.extension.pybindings import portable_lib

    threads = torch.get_num_threads()
    if portable_lib._threadpool_get_thread_count() == threads:
        return threads
    # There is one pool of threads, which must not be replaced while a program refers to it.
    if not _LIVING_PROGRAMS:
        portable_lib._unsafe_reset_threadpool(threads)
    return int(portable_lib._threadpool_get_thread_count())


@contextmanager
def _quiet_executorch() -> Iterator[Callable[[], list[str]]]:
    """Silence what executorch prints and logs while it is imported, converts a program or loads one.

    Returns:
        A function that returns the lines that its C++ has printed on standard error.
    """
    # When executorch is imported, it gives Python's root logger a handler, and torchao warns about one of its enumerations.
    root = logging.getLogger()
    root_level, handlers = root.level, list(root.handlers)
    about_enumerations = logging.getLogger("torch.utils._pytree")
    level = about_enumerations.level
    about_enumerations.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), captured_native_output() as read_lines:
            warnings.simplefilter("ignore")
            _import_runtime()
            yield read_lines
    finally:
        about_enumerations.setLevel(level)
        root.setLevel(root_level)
        root.handlers[:] = handlers
