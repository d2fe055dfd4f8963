"""The benchmark of exported files on this device: accuracy, time and size, of any networks, formats and precisions."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from nestnet.deploy.benchmark_accuracy import Accuracy, ImageChoice, measure_accuracies
from nestnet.deploy.loading import LoadedExport, UnsafeFormatError, load_export, measure_size
from nestnet.deploy.turns import Timing, time_in_turns
from nestnet.device import choose_device
from nestnet.runtime.log import log_notice
from nestnet.text.arguments import check_whole_number, is_number

BATCH_SIZES = (1, 64)
"""Numbers of images in a batch for which networks are timed by default."""


@dataclass(frozen=True)
class BenchmarkRow:
    """Measurement of one file with one batch size.

    Attributes:
        file: exported file, or folder of timm's format.
        network: name of its architecture.
        mode: mode of the subnet.
        format: name of its format.
        precision: `"float32"` or `"int8"`.
        accuracy: accuracy, and the number of images on which it was measured.
        size: number of bytes of the files that hold the network.
        batch_size: number of images in a batch.
        device: device that ran the network.
        threads: number of threads that ran it on a CPU.
        timing: durations of a batch in seconds.
    """

    file: Path
    network: str
    mode: str
    format: str
    precision: str
    accuracy: Accuracy
    size: int
    batch_size: int
    device: str
    threads: int
    timing: Timing


def benchmark(
    files: Sequence[Path],
    *,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    threads: int | None = None,
    seconds: float = 2.0,
    device: str = "auto",
    images: ImageChoice | None = None,
) -> list[BenchmarkRow]:
    """Measure exported files on this device.

    Args:
        files: exported files of any network, format and precision. A file that cannot be loaded without executing code
            from it is left out with a notice.
        batch_sizes: numbers of images in a batch, each at least 1.
        threads: number of threads on a CPU, at least 1; `None` for torch's own number.
        seconds: time in seconds for each file and batch size, above 0. A network that is slow takes longer, because each
            batch size is timed at least five times.
        device: device of networks that torch runs, as `nestnet.device.choose_device` takes it.
        images: images on which the accuracies are measured; `None` to measure none.

    Returns:
        A row for each file and batch size, by batch size and then in the order of the files.

    Raises:
        ValueError: If an argument is out of its range, a file cannot be read, or the images do not suit it.
    """
    for batch_size in batch_sizes:
        check_whole_number("batch_sizes", batch_size, 1, "images in a batch")
    if threads is not None:
        check_whole_number("threads", threads, 1, "threads on a CPU")
    if not is_number(seconds) or not 0 < seconds < math.inf:
        raise ValueError(f"seconds = {seconds!r}: it must be a number of seconds above 0")
    chosen_device = choose_device(device)
    # The threads are set first, because a session of onnxruntime keeps the number with which it was created.
    with _torch_threads(threads):
        exports = _load_files(files, chosen_device)
        if images is None:
            accuracies = {path: Accuracy.unknown(export.metadata) for path, export in exports.items()}
        else:
            accuracies = measure_accuracies(exports, images)
        rows = []
        for batch_size in dict.fromkeys(batch_sizes):
            timings = time_in_turns([_create_call(export, batch_size) for export in exports.values()], seconds)
            for (path, export), timing in zip(exports.items(), timings, strict=True):
                rows.append(_create_row(path, export, accuracies[path], batch_size, timing))
    return rows


def _load_files(files: Sequence[Path], device: torch.device) -> dict[Path, LoadedExport]:
    """Return the files that can be loaded without executing code, by path."""
    exports: dict[Path, LoadedExport] = {}
    for path in files:
        try:
            exports[path] = load_export(path, device)
        except UnsafeFormatError as error:
            log_notice(f"left out: {error}")
    if not exports:
        raise ValueError("none of the files can be timed; name exports as safetensors or ONNX files")
    return exports


@torch.inference_mode()
def _create_call(export: LoadedExport, batch_size: int) -> Callable[[], object]:
    """Return a function that runs a network on a batch, and returns when its logits have reached the host."""
    height, width = export.metadata.size
    channels = export.metadata.input_size[0]
    generator = torch.Generator().manual_seed(0)
    if export.metadata.preprocessing == "inside":
        shape = (batch_size, height, width, channels)
        images = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    else:
        images = torch.randn(batch_size, channels, height, width, generator=generator)
    images = images.to(export.device)

    @torch.inference_mode()
    def classify() -> object:
        return export.network(images).cpu()

    return classify


def _create_row(path: Path, export: LoadedExport, accuracy: Accuracy, batch_size: int, timing: Timing) -> BenchmarkRow:
    return BenchmarkRow(
        file=path,
        network=export.metadata.architecture,
        mode=str(export.metadata.mode),
        format=export.format,
        precision=export.metadata.precision,
        accuracy=accuracy,
        size=measure_size(path),
        batch_size=batch_size,
        device=str(export.device),
        threads=torch.get_num_threads(),
        timing=timing,
    )


@contextmanager
def _torch_threads(threads: int | None) -> Iterator[None]:
    """Make torch, and the sessions that are created within the block, use a number of threads."""
    threads_before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads_before)
