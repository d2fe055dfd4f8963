"""The count of the operations of a forward pass by fvcore, in one of two conventions."""

import math
import warnings
from typing import Any, Literal

import torch
from torch import nn

Convention = Literal["macs", "paper"]
"""How operations are counted: as multiply-accumulates, or as arXiv 2602.21064 prints them."""

CONVENTIONS: tuple[Convention, ...] = ("macs", "paper")


def count_operations(network: nn.Module, shape: tuple[int, ...], *, elementwise: bool) -> int:
    """Return the number of operations of a forward pass in evaluation mode.

    Args:
        network: network, which is put into evaluation mode.
        shape: shape `[1, C, H, W]` of one image.
        elementwise: whether to count floating point operations, 2 per multiply-accumulate, of normalisation,
            ReLU and pooling too. Otherwise multiply-accumulates alone are counted.

    Returns:
        Number of multiply-accumulates or of floating point operations.
    """
    with warnings.catch_warnings():
        # fvcore scripts losses, which are not used here, while it is imported.
        warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated")
        from fvcore.nn import FlopCountAnalysis
    analysis = FlopCountAnalysis(network.eval(), torch.empty(shape))
    # fvcore's own handles also count norms and pooling, so all of them are replaced.
    analysis.clear_op_handles().set_op_handle(**_mac_handles())
    if elementwise:
        analysis.set_op_handle(**_elementwise_handles())
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with torch.no_grad():
        total = int(analysis.total())
    return 2 * total if elementwise else total


def _mac_handles() -> dict[str, Any]:
    from fvcore.nn.jit_handles import conv_flop_jit, linear_flop_jit, matmul_flop_jit

    return {
        "aten::_convolution": conv_flop_jit,
        "aten::linear": linear_flop_jit,
        "aten::matmul": matmul_flop_jit,  # attention where timm does not use the fused kernel
        "aten::scaled_dot_product_attention": _attention_macs,
    }


def _elementwise_handles() -> dict[str, Any]:
    # These counts are doubled together with the multiply-accumulates: only then do the paper's figures follow to
    # the last digit.
    from fvcore.nn.jit_handles import batchnorm_flop_jit, elementwise_flop_counter

    return {
        "aten::batch_norm": batchnorm_flop_jit,  # 2 per output
        "aten::relu": elementwise_flop_counter(0, 1),
        "aten::relu_": elementwise_flop_counter(0, 1),
        "aten::adaptive_avg_pool2d": elementwise_flop_counter(2, 0),
    }


def _attention_macs(inputs: list[Any], outputs: list[Any]) -> int:
    # Queries [..., N, d] times keys [..., M, d], and weights [..., N, M] times values [..., M, D]
    query, key, value = (tensor.type().sizes() for tensor in inputs[:3])
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
