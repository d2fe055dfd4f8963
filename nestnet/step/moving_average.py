"""A moving average of a network's weights and statistics."""

import copy
import itertools

import torch
from torch import Tensor

from nestnet.nn.model import NestedModel
from nestnet.optim.foreach import copy_all

WARMUP_POWER = 2 / 3
"""The default of timm's `ModelEmaV3`."""


class MovingAverage:
    """Exponential moving average of all parameters and buffers of a nested network.

    The decay warms up exactly as in timm's `ModelEmaV3(use_warmup=True)`. With a constant decay, the initial
    weights would dominate the average for about 1 / (1 - decay) updates, longer than a short run.

    An update queues a few kernels and never waits for the device. torch's `AveragedModel` reads its count of
    updates from a tensor at every update, which stops the host until the device has done all its work; timm's
    `ModelEmaV3` uses state dicts, for which a nested network has to join each divided weight.

    Args:
        net: network that is trained. Its parameters and buffers are looked up once and must stay the same objects.
        decay: final weight of the old average in each update, from 0 to below 1.

    Attributes:
        module: network with the averaged weights; before the first update a copy of the trained one.
        updates: number of updates so far. The first one copies the trained weights.
    """

    def __init__(self, net: NestedModel, decay: float) -> None:
        self.module = copy.deepcopy(net)
        self.decay = decay
        self.updates = 0
        # BatchNorm's batch counters are integers: they are copied, not averaged.
        self._trained_floats, self._trained_counters = _split_by_type(net)
        self._averaged_floats, self._averaged_counters = _split_by_type(self.module)

    @property
    def next_decay(self) -> float:
        """The decay of the next update: 0, 0.37, 0.52 ... up to `decay`."""
        # This is the formula of timm's `ModelEmaV3.get_decay` with gamma 1 and power 2/3.
        return min(1 - (1 + self.updates) ** -WARMUP_POWER, self.decay)

    @torch.no_grad()
    def update(self) -> None:
        """Update the average with the present weights and statistics."""
        # average + (1 - decay) * (trained - average), in a few kernels for all tensors.
        torch._foreach_lerp_(self._averaged_floats, self._trained_floats, 1 - self.next_decay)
        copy_all(self._trained_counters, self._averaged_counters)
        self.updates += 1


def _split_by_type(net: NestedModel) -> tuple[list[Tensor], list[Tensor]]:
    """Return the floating-point parameters and buffers of a network, and its integer ones."""
    floats: list[Tensor] = []
    counters: list[Tensor] = []
    for tensor in itertools.chain(net.parameters(), net.buffers()):
        if tensor.is_floating_point():
            floats.append(tensor)
        else:
            counters.append(tensor)
    return floats, counters
