"""The export of a subnet in 8-bit integers: calibrated on training images, and checked by its accuracy."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nestnet.data.image_data import ImageData
from nestnet.data.loaders import create_eval_loader
from nestnet.data.seeding import mix_seed
from nestnet.data.transformed_images import EvalImages
from nestnet.deploy.accuracy import choose_measure, measure_accuracy
from nestnet.deploy.accuracy_check import AccuracyCheck
from nestnet.deploy.export_format import ExportFormat
from nestnet.deploy.onnx_format import OnnxFormat
from nestnet.deploy.quantization import quantize
from nestnet.nn.model import NestedModel
from nestnet.runs.reading import Run
from nestnet.text.arguments import is_number, is_whole
from nestnet.weights.metadata import Metadata

# Number of calibration images in a batch, over which the ends of the ranges are averaged. Larger batches have more outliers,
# and smaller ones have ranges that are too narrow. After short trainings on images of 32 pixels, EfficientNet-B0 lost 7
# points of top-1 with the range of all images, 4 with batches of 32 and at most 1 with batches of 8; ViT-tiny lost 2 with
# batches of 1.
BATCH_SIZE = 8


@dataclass(frozen=True)
class Int8Settings:
    """Settings of an export in 8-bit integers.

    Attributes:
        calibration_images: number of training images on which the ranges of the activations are measured, at
            least 1; a run with fewer training images uses all of them. More of them take longer.
        tolerance: percentage points of top-1, or of mean average precision where images may have several labels, from 0 to
            100, by which the file may be worse than the network in float32 on the test images.

    Raises:
        ValueError: If a value is out of its range.
    """

    calibration_images: int = 512
    tolerance: float = 1.0

    def __post_init__(self) -> None:
        if not is_whole(self.calibration_images, 1):
            raise ValueError(f"calibration_images = {self.calibration_images!r}: it must be a whole number, at least 1")
        if not is_number(self.tolerance) or not 0 <= self.tolerance <= 100:
            raise ValueError(f"tolerance = {self.tolerance!r}: it must be from 0 to 100 percentage points")


def choose_int8_settings(
    precision: str, calibration_images: int | None = None, tolerance: float | None = None
) -> Int8Settings | None:
    """Return the settings of a quantisation for options that may have been left out.

    Args:
        precision: precision of the file, `"float32"` or `"int8"`.
        calibration_images: number of training images; `None` for the default.
        tolerance: percentage points; `None` for the default.

    Returns:
        The settings; `None` for a file in float32.

    Raises:
        ValueError: If a value is out of its range, or is given for a file in float32.
    """
    given: dict[str, Any] = {"calibration_images": calibration_images, "tolerance": tolerance}
    given = {name: value for name, value in given.items() if value is not None}
    if precision == "int8":
        return Int8Settings(**given)
    for name, value in given.items():
        raise ValueError(f"{name} = {value}: it is for 8-bit integers; leave it out, or set precision to int8")
    return None


def require_onnx(export_format: ExportFormat) -> OnnxFormat:
    """Return a format if its files can hold 8-bit integers.

    Args:
        export_format: format of the file.

    Raises:
        ValueError: If they cannot.
    """
    if not isinstance(export_format, OnnxFormat):
        raise ValueError(
            f"precision = 'int8': files of the format {export_format.name} hold float32 alone; set format to onnx, or "
            "name a file that ends in .onnx"
        )
    return export_format


def require_preprocessing_outside(preprocessing: str) -> None:
    """Check that a file in 8-bit integers is not to prepare images itself.

    Args:
        preprocessing: `"inside"` or `"outside"`.

    Raises:
        ValueError: If it is.
    """
    if preprocessing == "inside":
        raise ValueError(
            "preprocessing = 'inside': files in 8-bit integers take normalised images; leave it out, or set precision "
            "to float32"
        )


def write_int8(
    export_format: OnnxFormat,
    net: NestedModel,
    metadata: Metadata,
    path: Path,
    run: Run,
    images: ImageData,
    settings: Int8Settings,
) -> tuple[Metadata, AccuracyCheck]:
    """Write a subnet in 8-bit integers as an ONNX file, and measure what that costs.

    Args:
        export_format: format of the file.
        net: nested network, on the CPU in evaluation mode.
        metadata: metadata of the network in float32, which names the subnet.
        path: file to write.
        run: run that trained the network.
        images: images of the run.
        settings: number of images for calibration, and the tolerance.

    Returns:
        The metadata of the file, and the comparison of accuracies.

    Raises:
        ValueError: If onnxruntime cannot quantise the network.
    """
    indices = choose_calibration_images(len(images.train), settings.calibration_images, run.config.seed)
    calibration_images = EvalImages(images.train.dataset, images.eval_transform)
    quantized = quantize(export_format.trace(net, metadata), _stack_batches(calibration_images, indices))

    # Both networks see the same batches, which are those of `nestnet evaluate`.
    classify = export_format.create_network(quantized, path)
    measure = choose_measure(multi_label=metadata.multi_label)
    batches = create_eval_loader(images, run.config.data)
    accuracies = measure_accuracy([net.subnet(metadata.mode), classify], batches, measure)
    check = AccuracyCheck(
        network=f"{metadata.architecture} ({metadata.mode})",
        runtime=export_format.runtime,
        calibration_images=len(indices),
        test_images=len(images.test),
        measure=measure,
        in_float32=accuracies[0],
        in_int8=accuracies[1],
        tolerance=settings.tolerance,
    )

    # The metadata says what was measured, so it is written afterwards.
    quantization = {
        "calibration_images": check.calibration_images,
        "test_images": check.test_images,
        f"float32_{measure.key}": round(check.in_float32, 4),
        f"int8_{measure.key}": round(check.in_int8, 4),
    }
    metadata = replace(metadata, quantization=quantization)
    export_format.store(quantized, metadata, path)
    export_format.load(path, metadata)
    return metadata, check


def choose_calibration_images(available: int, wanted: int, seed: int) -> list[int]:
    """Return the indices of the training images for calibration, in an order that the seed shuffles.

    Args:
        available: number of training images.
        wanted: number of images for calibration.
        seed: seed of the run.
    """
    generator = torch.Generator().manual_seed(mix_seed(seed))
    return torch.randperm(available, generator=generator)[:wanted].tolist()


def _stack_batches(images: EvalImages, indices: list[int]) -> Iterator[Tensor]:
    """Yield batches `[B, C, H, W]` of the images with these indices."""
    for start in range(0, len(indices), BATCH_SIZE):
        batch = [images[index][0] for index in indices[start : start + BATCH_SIZE]]
        yield torch.stack(batch)
