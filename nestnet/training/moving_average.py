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
    """An exponential moving average of all parameters and buffers of a nested network.

    The decay warms up as that of timm's `ModelEmaV3(use_warmup=True)`, whose numbers it gives: a constant one would keep
    the initial weights for about 1 / (1 - decay) updates, which short runs do not have.

    An update queues a few kernels and never waits for the device. torch's `AveragedModel` reads its count of updates from a
    tensor at every update, which stops the host until the device has done all its work; timm's `ModelEmaV3` goes through
    state dicts, for which a nested network joins each divided weight.

    Args:
        net: network that is trained. Its parameters and buffers keep their identity: they are looked up once.
        decay: share of itself that the average keeps at each update in the end, from 0 to below 1.

    Attributes:
        module: network with the averaged weights; before the first update a copy of the trained one.
        updates: number of updates until now. The first one takes the trained weights as they are.
    """

    def __init__(self, net: NestedModel, decay: float) -> None:
        self.module = copy.deepcopy(net)
        self.decay = decay
        self.updates = 0
        # counters of batches are not averaged, but copied
        self._trained_floats, self._trained_counters = _divided(net)
        self._averaged_floats, self._averaged_counters = _divided(self.module)

    @property
    def next_decay(self) -> float:
        """The decay of the next update: 0, 0.37, 0.52 ... up to `decay`."""
        return min(1 - (1 + self.updates) ** -WARMUP_POWER, self.decay)

    @torch.no_grad()
    def update(self) -> None:
        """Take in the trained weights and statistics as they are now."""
        torch._foreach_lerp_(self._averaged_floats, self._trained_floats, 1 - self.next_decay)
        copy_all(self._trained_counters, self._averaged_counters)
        self.updates += 1


def _divided(net: NestedModel) -> tuple[list[Tensor], list[Tensor]]:
    """All parameters and buffers: those with fractions, and whole numbers."""
    floats: list[Tensor] = []
    counters: list[Tensor] = []
    for tensor in itertools.chain(net.parameters(), net.buffers()):
        (floats if tensor.is_floating_point() else counters).append(tensor)
    return floats, counters
