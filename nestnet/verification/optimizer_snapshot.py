"""A snapshot of an optimizer, so that a step can be undone and repeated."""

from typing import Any

import torch
from torch.optim import Optimizer

from nestnet.verification.copying import copy_entries


class OptimizerSnapshot:
    """Copy of everything that a step of an optimizer changes: weights, state, and group settings.

    Args:
        optimizer: optimizer to copy from, and to restore into.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.values = []
        self.states = []
        self.group_settings = []
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                # Copy the weights, and the state of those that have been trained.
                self.values.append((parameter, parameter.detach().clone()))
                if optimizer.state.get(parameter):
                    self.states.append((parameter, copy_entries(optimizer.state[parameter])))
            self.group_settings.append(_copy_settings(group))

    @torch.no_grad()
    def restore(self) -> None:
        """Restore everything. It can be called once only, because the optimizer then owns the state of this snapshot."""
        for parameter, values in self.values:
            parameter.copy_(values)
        self.optimizer.state.clear()
        for parameter, state in self.states:
            self.optimizer.state[parameter] = state
        for group, settings in zip(self.optimizer.param_groups, self.group_settings, strict=True):
            # A step may add an entry, such as the step count of timm's Lamb.
            for added in group.keys() - settings.keys() - {"params"}:
                del group[added]
            group.update(settings)


def _copy_settings(group: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of everything in a parameter group but its parameters."""
    return copy_entries({name: value for name, value in group.items() if name != "params"})
