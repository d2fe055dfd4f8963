"""Momentum buffers that torch's fused SGD needs when differential weights are first trained."""

from typing import Any

import torch
from torch.optim import Optimizer


def fill_momentum(optimizer: Optimizer) -> None:
    """Give a fused SGD with momentum the zero buffers that it needs at the first motivated step.

    `torch.optim.SGD(fused=True, momentum=...)` raises a TypeError when parameters without a momentum buffer,
    the differential ones, are trained together with parameters that have one. A step from a zero buffer is
    the same as a step without one if dampening is 0. Other optimizers are left unchanged.

    Args:
        optimizer: optimizer, to which a hook is added that runs before each step.

    Raises:
        ValueError: If the optimizer is a fused SGD with dampening, for which a zero buffer would change the
            first step.

    Example:
        >>> import nestnet, torch
        >>> net = nestnet.create_model("resnet20", "resnet32", num_classes=10)
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, fused=True)
        >>> nestnet.fill_momentum(optimizer)
    """
    if not isinstance(optimizer, torch.optim.SGD):
        return
    if not any(group["fused"] for group in optimizer.param_groups):
        return
    # The first gradient becomes the momentum as it is, but is multiplied by 1 - dampening if there is a
    # buffer.
    for group in optimizer.param_groups:
        if group["dampening"]:
            raise ValueError(
                f"dampening = {group['dampening']}: a fused SGD, which cuda_graphs uses too, would damp the first gradient of "
                "weights that join later; leave out dampening, or fused"
            )
    optimizer.register_step_pre_hook(_fill_missing_buffers)


def _fill_missing_buffers(optimizer: Optimizer, *_: Any) -> None:
    """Add zero buffers in each group in which some of the trained parameters have a buffer and others have none."""
    for group in optimizer.param_groups:
        if not group["momentum"]:
            continue
        without_buffer = []
        has_buffers = False
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            if optimizer.state[parameter].get("momentum_buffer") is None:
                without_buffer.append(parameter)
            else:
                has_buffers = True
        # In the first step no parameter has a buffer, and torch creates all of them from the gradients.
        if has_buffers:
            for parameter in without_buffer:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
