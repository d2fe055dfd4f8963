"""A moving average of a network's weights and statistics."""

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nestnet.nn.differential import differential_tensors
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
        updates: number of updates since the average began. The first one copies the trained weights.
    """

    def __init__(self, net: NestedModel, decay: float) -> None:
        self.module = copy.deepcopy(net)
        self.decay = decay
        self.updates = 0
        self._whole = _TensorPairs()
        self._base = _TensorPairs()
        self._differential = _TensorPairs()
        # The copy has its tensors in the same order.
        differential = set(map(id, differential_tensors(net)))
        for trained, averaged in zip(_tensors(net), _tensors(self.module), strict=True):
            self._whole.add(trained, averaged)
            part = self._differential if id(trained) in differential else self._base
            part.add(trained, averaged)

    @property
    def next_decay(self) -> float:
        """The decay of the next update: 0, 0.37, 0.52 ... up to `decay`."""
        # This is the formula of timm's `ModelEmaV3.get_decay` with gamma 1 and power 2/3.
        return min(1 - (1 + self.updates) ** -WARMUP_POWER, self.decay)

    @torch.no_grad()
    def update(self, *, freeze_base: bool = False) -> None:
        """Update the average with the present weights and statistics.

        Args:
            freeze_base: whether the average of the base stays as it is.
        """
        pairs = self._differential if freeze_base else self._whole
        # average + (1 - decay) * (trained - average), in a few kernels for all tensors.
        torch._foreach_lerp_(pairs.averaged_floats, pairs.trained_floats, 1 - self.next_decay)
        copy_all(pairs.trained_counters, pairs.averaged_counters)
        self.updates += 1

    @torch.no_grad()
    def finish_base(self) -> None:
        """Make the averaged base that of the trained network too, and let the average of the rest begin anew.

        This comes before an extension of the base (`TrainStep.finish_step`). Otherwise the rest would be trained beside
        weights that are not those it is evaluated and exported with. The next update copies the differential weights,
        because their average so far is of steps that may not have trained them.
        """
        copy_all(self._base.averaged_floats, self._base.trained_floats)
        copy_all(self._base.averaged_counters, self._base.trained_counters)
        self.updates = 0


@dataclass
class _TensorPairs:
    """Tensors of the trained network and, at the same positions, of its average.

    BatchNorm's batch counters are integers: they are copied, not averaged.
    """

    trained_floats: list[Tensor] = field(default_factory=list)
    averaged_floats: list[Tensor] = field(default_factory=list)
    trained_counters: list[Tensor] = field(default_factory=list)
    averaged_counters: list[Tensor] = field(default_factory=list)

    def add(self, trained: Tensor, averaged: Tensor) -> None:
        """Add a tensor and its average."""
        if trained.is_floating_point():
            self.trained_floats.append(trained)
            self.averaged_floats.append(averaged)
        else:
            self.trained_counters.append(trained)
            self.averaged_counters.append(averaged)


def _tensors(net: NestedModel) -> Iterator[Tensor]:
    """Return the parameters and buffers of a network."""
    return itertools.chain(net.parameters(), net.buffers())
