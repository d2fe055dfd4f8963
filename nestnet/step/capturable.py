"""Optimizers whose step can be captured in a CUDA graph."""

import torch
from torch import Tensor
from torch.optim import SGD, Adadelta, Adam, Adamax, AdamW, NAdam, Optimizer, RAdam, RMSprop

CAPTURABLE = (SGD, Adam, AdamW, Adamax, NAdam, RAdam, RMSprop, Adadelta)
"""Optimizers whose whole step runs on the device, with the learning rate as a tensor.

Other optimizers may have a setting `capturable` and still read a number on the host, or keep using the learning
rate of the capture.
"""


def make_capturable(optimizer: Optimizer) -> None:
    """Configure a torch optimizer to take its step without the host.

    Args:
        optimizer: optimizer, whose settings and state are changed in place.

    Raises:
        ValueError: If the optimizer cannot be captured.
    """
    if type(optimizer) not in CAPTURABLE:
        names = [kind.__name__ for kind in CAPTURABLE]
        raise ValueError(
            f"cuda_graphs: {type(optimizer).__name__} cannot be captured; torch's {', '.join(names[:-1])} and {names[-1]} can"
        )
    # torch has several implementations of each optimizer: select one that reads the learning rate on the
    # device.
    for group in optimizer.param_groups:
        if isinstance(optimizer, SGD):
            # SGD's loops read a tensor learning rate on the host; its fused kernel reads it on the device.
            group.update(foreach=False, fused=True)
            continue
        group["capturable"] = True
        if not group.get("fused"):
            # Some optimizers' single-tensor loops read the learning rate as a number.
            group["foreach"] = True
    # Step counts that were created without the setting are on the host.
    for parameter, state in optimizer.state.items():
        if isinstance(state.get("step"), Tensor):
            state["step"] = state["step"].to(parameter.device, torch.float32)


def get_settings(optimizer: Optimizer) -> list[dict[str, object]]:
    """Return the settings of an optimizer that a capture fixes.

    Args:
        optimizer: optimizer.

    Returns:
        The settings of each group of parameters, without the learning rate.
    """
    settings: list[dict[str, object]] = []
    for group in optimizer.param_groups:
        fixed = dict(group)
        del fixed["params"]
        del fixed["lr"]
        settings.append(fixed)
    return settings
