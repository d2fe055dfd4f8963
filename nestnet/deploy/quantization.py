"""The quantisation of an ONNX network to 8-bit integers by onnxruntime: static, calibrated on images.

The result holds the weights as integers, with a scale for each output channel, and a scale and a zero point for each
activation, which are found by running the network on the images (`QuantFormat.QDQ`).
"""

import logging
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from nestnet.text.messages import first_line

# The operators that are quantised: those with weights, and those between them that a convolutional network needs to
# stay in integers. Normalisations, softmax and gates such as SiLU lose most accuracy in 8 bits and win little time.
QUANTIZED_OPERATORS = ["Conv", "Gemm", "MatMul", "Add", "Relu", "MaxPool", "AveragePool", "GlobalAveragePool"]


def quantize(proto: Any, batches: Iterable[Tensor]) -> Any:
    """Return a network in 8-bit integers.

    Args:
        proto: network in float32, an `onnx.ModelProto` with the input `images`.
        batches: batches of normalised images `[B, C, H, W]` on which the ranges of the activations are measured. A
            range goes from the smallest to the largest value in a batch, both averaged over the batches.

    Returns:
        The `onnx.ModelProto` of the quantised network, with the same input and output.

    Raises:
        ValueError: If onnxruntime cannot quantise the network.
    """
    import onnx
    from onnxruntime import quantization

    # onnxruntime works on files.
    with tempfile.TemporaryDirectory() as folder, _quiet_logging():
        prepared = Path(folder) / "prepared.onnx"
        quantized = Path(folder) / "quantized.onnx"
        try:
            # Infer the shape of each tensor, and fold constants: without that some operators stay in float32.
            quantization.quant_pre_process(proto, prepared)
            quantization.quantize_static(
                prepared,
                quantized,
                _create_reader(batches),
                per_channel=True,
                # Activations are unsigned and weights signed, as onnxruntime recommends for CPUs. Weights have 7 bits:
                # on CPUs without VNNI the sum of two products of 8 bits can exceed the 16 bits that it is given.
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                reduce_range=True,
                op_types_to_quantize=QUANTIZED_OPERATORS,
                # The average over the batches: the range of all images together follows the outlier of a single one.
                extra_options={"CalibMovingAverage": True},
            )
        # The exceptions of onnxruntime have no common base class.
        except Exception as error:
            raise ValueError(
                f"precision = 'int8': onnxruntime cannot quantise the network: {first_line(error)}"
            ) from error
        return onnx.load(quantized)


def _create_reader(batches: Iterable[Tensor]) -> Any:
    """Return a `CalibrationDataReader` over batches of images."""
    from onnxruntime.quantization import CalibrationDataReader

    class BatchReader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(batches)

        def get_next(self) -> dict[str, Any] | None:
            images = next(self.batches, None)
            if images is None:
                return None
            return {"images": images.numpy()}

    return BatchReader()


@contextmanager
def _quiet_logging() -> Iterator[None]:
    """Silence what onnxruntime logs, at the root logger, about operators that it leaves as they are."""
    root = logging.getLogger()
    # Without any handler `logging.warning` would add one to the root logger for the rest of the process.
    handler = logging.NullHandler()
    disabled_before = logging.root.manager.disable
    root.addHandler(handler)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled_before)
        root.removeHandler(handler)
