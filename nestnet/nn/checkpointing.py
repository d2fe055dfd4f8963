"""Gradient checkpointing: blocks whose activations are computed again in the backward pass instead of being kept.

A block is then computed twice in each step. The gradients are those of an ordinary step, to the bit: torch restores the
random numbers of dropout, and BatchNorm updates its running statistics in the first pass only, as it would without
checkpointing.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from nestnet.nn.mode import Mode


def run_block(block: nn.Module, x: Tensor, mode: Mode, *, grad_checkpointing: bool) -> Tensor:
    """Return what a block returns.

    Args:
        block: block with `forward(x, mode)`.
        x: input of the block.
        mode: mode in which it runs.
        grad_checkpointing: whether only the input of the block is kept for the backward pass.

    Returns:
        The output of the block.
    """
    # What has no gradient needs no backward pass, such as the forward pass of an evaluation.
    if grad_checkpointing and torch.is_grad_enabled():
        output: Tensor = checkpoint(block, x, mode, use_reentrant=False)
    else:
        output = block(x, mode)
    return output


def is_recomputing() -> bool:
    """Return whether this is a forward pass within a backward pass, where checkpointing computes activations again."""
    # -1 outside of the backward pass of this thread. torch's own checkpointing asks the same.
    return torch._C._current_graph_task_id() != -1


def keep_statistics_when_recomputing(network: nn.Module) -> None:
    """Let the BatchNorm layers of a plain network update their running statistics once per step only.

    Args:
        network: network whose author's code computes blocks again, with layers of torch's or timm's.
    """
    for layer in network.modules():
        if isinstance(layer, _BatchNorm) and _stop_statistics not in layer._forward_pre_hooks.values():
            layer.register_forward_pre_hook(_stop_statistics)
            # Checkpointing leaves a forward pass by an exception as soon as it has computed what it needs.
            layer.register_forward_hook(_continue_statistics, always_call=True)


def _stop_statistics(layer: Any, args: Any) -> None:
    # Copies take the second update. Without running statistics autograd would save other tensors than in the first pass.
    if layer.training and layer.track_running_stats and is_recomputing():
        layer.statistics = dict(layer._buffers)
        for name, buffer in layer.statistics.items():
            layer._buffers[name] = buffer.clone()


def _continue_statistics(layer: Any, args: Any, output: Any) -> None:
    statistics = vars(layer).pop("statistics", None)
    if statistics is not None:
        layer._buffers.update(statistics)
