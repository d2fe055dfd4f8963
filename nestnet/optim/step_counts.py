"""What two kinds of optimizer need beyond what torch does by itself with a nested network.

Any torch or timm optimizer trains a nested network as it is; `timm.optim.create_optimizer_v2(net, ...)` gives it the
parameter groups of timm's motivated model. The two functions here are for a fused SGD with momentum, and for Adam-type
optimizers that should count steps as the paper's copying does.
"""

import copy
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from nestnet.nn.model import NestedModel
from nestnet.nn.parameter import NestedParameter
from nestnet.optim.state import initial_state, is_scalar


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

    Raises:
        ValueError: if the optimizer has a step count for each tensor, but updates a tensor as a whole, by its norm for
            example. Training blocks is then another thing than copying whatever is counted.
    """
    from nestnet.optim.trials import updates_whole_tensors, whole_tensor_reason  # it imports this file

    divided = [module for module in net.modules() if isinstance(module, NestedParameter)]
    trained = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    example = next((nested.base for nested in divided if nested.base in trained), None)
    start = initial_state(optimizer, example) if example is not None else {}
    if any(is_scalar(value) for value in start.values()) and updates_whole_tensors(optimizer):
        raise ValueError(
            f"step_count = 'literal': it is to train as copying does, and {type(optimizer).__name__} computes "
            f"{whole_tensor_reason(optimizer)}, for which the blocks of a divided weight are tensors of their own; take 'own'"
        )

    def take_over(optimizer: Optimizer, *_: Any) -> None:
        for nested in divided:
            base_state = optimizer.state.get(nested.base, {})
            counts = {key: value for key, value in base_state.items() if is_scalar(value)}
            for block in (nested.right, nested.below):
                if not counts or block is None or block.grad is None:
                    continue
                if not optimizer.state[block]:
                    optimizer.state[block] = initial_state(optimizer, block)
                _take_over(counts, optimizer.state[block])

    optimizer.register_step_pre_hook(take_over)


def _take_over(counts: dict[str, Any], state: dict[str, Any]) -> None:
    for key, value in counts.items():
        if isinstance(value, Tensor) and isinstance(state.get(key), Tensor):
            # in place: a captured step would otherwise put a tensor of its private memory here
            state[key].copy_(value)
        else:
            state[key] = copy.deepcopy(value)


def fill_momentum(optimizer: Optimizer) -> None:
    """Give a fused SGD with momentum the zero buffers that it needs at the first motivated step.

    `torch.optim.SGD(fused=True, momentum=...)` raises a TypeError when parameters without a momentum buffer, the
    differential ones, join parameters that have one. A zero buffer gives the same step as none (at dampening 0).
    Other optimizers are not changed by it.

    Raises:
        ValueError: for a fused SGD with dampening, whose first step a zero buffer would change.
    """
    fused = isinstance(optimizer, torch.optim.SGD) and any(group["fused"] for group in optimizer.param_groups)
    if not fused:
        return
    for group in optimizer.param_groups:
        if group["dampening"]:
            raise ValueError(
                f"dampening = {group['dampening']}: a fused SGD, which cuda_graphs takes too, would damp the first gradient of "
                "weights that join later; leave out dampening, or fused"
            )

    def fill(optimizer: Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            trained = [p for p in group["params"] if p.grad is not None]
            if group["momentum"] and any(optimizer.state[p].get("momentum_buffer") is not None for p in trained):
                for p in trained:
                    if optimizer.state[p].get("momentum_buffer") is None:
                        optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)

    optimizer.register_step_pre_hook(fill)
