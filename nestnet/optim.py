"""What two kinds of optimizer need beyond what torch does by itself with a nested network.

Any torch or timm optimizer trains a nested network as it is; `timm.optim.create_optimizer_v2(net, ...)` gives it the
parameter groups of timm's motivated model. The two functions here are for a fused SGD with momentum, and for Adam-type
optimizers that should count steps as the paper's copying does.
"""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from nestnet.blocks import NestedParameter
from nestnet.nested import NestedModel


def share_step_counts(optimizer: Optimizer, net: NestedModel) -> None:
    """Let the differential blocks of a divided weight take over its base block's step count before each step.

    Adam, AdamW and their kin keep one `step` for each tensor, for the bias correction. Here each block counts its own
    updates, so that its correction is right. The paper copies optimizer state from the base's tensor to the motivated's,
    and with it `step`: its differential entries are corrected as if they had been updated at every step. This function
    makes the nested network do the same, bit for bit; weights that only the motivated network has count their own
    updates in either case.

    Args:
        optimizer: one that holds the parameters of `net`. Optimizers whose state has no scalars, such as SGD, and those
            that count steps by group, such as timm's Lamb, are not changed by it.
    """
    divided = [module for module in net.modules() if isinstance(module, NestedParameter)]

    def take_over(optimizer: Optimizer, *_: Any) -> None:
        for nested in divided:
            base = optimizer.state.get(nested.base)
            if not base:
                continue
            for block in (nested.right, nested.below):
                if block is None or block.grad is None:
                    continue
                state = optimizer.state[block]
                for key, value in base.items():
                    if isinstance(value, Tensor) and isinstance(state.get(key), Tensor) and is_scalar(value):
                        # in place: a captured step would otherwise put a tensor of its private memory here
                        state[key].copy_(value)
                    elif is_scalar(value):
                        state[key] = value.clone() if isinstance(value, Tensor) else value
                    elif isinstance(value, Tensor) and key not in state:
                        state[key] = torch.zeros_like(block)

    optimizer.register_step_pre_hook(take_over)


def fill_momentum(optimizer: Optimizer) -> None:
    """Give a fused SGD with momentum the zero buffers that it needs at the first motivated step.

    `torch.optim.SGD(fused=True, momentum=...)` raises a TypeError when parameters without a momentum buffer, the
    differential ones, join parameters that have one. A zero buffer gives the same step as none (at dampening 0).
    Other optimizers are not changed by it.
    """

    def fill(optimizer: Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            trained = [p for p in group["params"] if p.grad is not None]
            if group["momentum"] and any(optimizer.state[p].get("momentum_buffer") is not None for p in trained):
                for p in trained:
                    if optimizer.state[p].get("momentum_buffer") is None:
                        optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)

    if isinstance(optimizer, torch.optim.SGD) and any(group["fused"] for group in optimizer.param_groups):
        optimizer.register_step_pre_hook(fill)


def is_scalar(value: Any) -> bool:
    """Whether a value of an optimizer's state is one number for a whole tensor, such as Adam's `step`."""
    return value.ndim == 0 if isinstance(value, Tensor) else isinstance(value, (int, float))
