"""Random weights for the check of a pair, and the blocks that are left out of it."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nestnet.nn.placement import Placement

POOL_SIZE = 1048583
"""Number of random values from which all weights are taken in turn. It is a prime, so that no two rows are alike."""

IN_PLACE_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@cache
def _draw_pools() -> tuple[Tensor, Tensor]:
    """Return normal values and uniform ones, of which every check of a pair takes the same."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(POOL_SIZE, generator=generator, dtype=torch.float64)
    uniform = torch.rand(POOL_SIZE, generator=generator, dtype=torch.float64)
    return normal, uniform


class RandomWeights:
    """Random values for parameters. Those of a parameter are the same each time.

    Args:
        offset: number of values of the pool that are skipped, so that two networks get different weights.
    """

    def __init__(self, offset: int) -> None:
        self.normal, self.uniform = _draw_pools()
        self.next_start = offset
        self.starts: dict[int, int] = {}

    def fill(self, parameter: Tensor, gain: float) -> None:
        """Fill a parameter.

        Args:
            parameter: contiguous tensor, which is changed.
            gain: factor of the values.
        """
        start = self.starts.setdefault(id(parameter), self.next_start)
        if start == self.next_start:
            self.next_start += parameter.numel()
        is_matrix = parameter.ndim > 1
        pool = self.normal if is_matrix else self.uniform
        flat = parameter.view(-1)
        filled = 0
        while filled < len(flat):
            place = (start + filled) % POOL_SIZE
            count = min(len(flat) - filled, POOL_SIZE - place)
            flat[filled : filled + count] = pool[place : place + count]
            filled += count
        if is_matrix:
            fan_in = max(parameter[0].numel(), 1)
            parameter.mul_(gain / fan_in**0.5)
        else:
            parameter.add_(0.5).mul_(gain)


def place_weight(base: Tensor, whole: Tensor, placement: Placement, *, is_transposed: bool = False) -> None:
    """Write a weight of the base into one of the motivated network, with zeros beside it for further inputs.

    Args:
        base: the base's weight.
        whole: the motivated network's weight, which is changed.
        placement: position of the one in the other.
        is_transposed: whether the rows are inputs and the columns outputs, as in a transposed convolution.
    """
    if placement.is_whole:
        whole.copy_(base)
        return
    if is_transposed:
        whole.movedim(1, 0)[placement.columns.base_indices] = 0
        whole[placement.index] = base
        return
    if whole.ndim > 1 and whole.numel() == len(whole):
        # A single column may be that of inputs, which it sums up.
        whole.zero_()
    whole[placement.rows.base_indices] = 0
    whole[placement.index] = base


def copy_for_trials(network: nn.Module) -> nn.Module:
    """Return a copy of a network that computes in float64 and in evaluation mode, without values of its own.

    Args:
        network: network, which is not changed. The parameters of the copy are to be filled.
    """
    parameters: dict[int, Any] = {}
    for parameter in network.parameters():
        # Copies of the values would be overwritten.
        values = torch.empty(parameter.shape, dtype=torch.float64, device="cpu")
        parameters[id(parameter)] = nn.Parameter(values, requires_grad=False)
    copied = copy.deepcopy(network, parameters).cpu().double().eval()
    for module in copied.modules():
        # The two networks may have other statistics.
        if isinstance(module, _BatchNorm):
            module.reset_running_stats()
    return copied


@contextmanager
def blocks_left_out(network: nn.Module, paths: Iterable[str], widened: Iterable[str] = ()) -> Iterator[None]:
    """Leave blocks of a network out within a context.

    Args:
        network: network, which is changed within the context.
        paths: paths of the blocks. One in a list is removed from it; any other becomes the identity.
        widened: those of them that have more outputs than inputs, and that append zeros to their inputs instead.
    """
    widened = set(widened)
    names: dict[str, list[str]] = {}
    for path in paths:
        parent_path, _, name = path.rpartition(".")
        names.setdefault(parent_path, []).append(name)
    # Removing blocks from one list changes the paths of those below it, so that all are looked up before.
    parents = {path: network.get_submodule(path) for path in names}
    kept = {path: dict(parent._modules) for path, parent in parents.items()}
    for path, parent in parents.items():
        for name in names[path]:
            whole_path = f"{path}.{name}" if path else name
            if whole_path in widened:
                parent._modules[name] = _Widening(parent._modules[name])
            elif isinstance(parent, IN_PLACE_CONTAINERS):
                del parent._modules[name]
            else:
                parent._modules[name] = _Identity()
        _number_anew(parent)
    try:
        yield
    finally:
        for path, parent in parents.items():
            _set_children(parent, kept[path])


def _number_anew(parent: nn.Module) -> None:
    """Number the remaining blocks of a list, which are read by number."""
    if isinstance(parent, (nn.Sequential, nn.ModuleList)):
        children = list(parent._modules.values())
        _set_children(parent, {str(number): child for number, child in enumerate(children)})


def _set_children(parent: nn.Module, children: Mapping[str, nn.Module | None]) -> None:
    parent._modules.clear()
    parent._modules.update(children)


class _Identity(nn.Module):
    """Returns its first input, whatever else it is given."""

    def forward(self, x: Any, *args: Any, **options: Any) -> Any:
        return x


class _Widening(nn.Module):
    """Returns its first input with zeros for the further channels of the block in whose place it is."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, *args: Any, **options: Any) -> Tensor:
        outputs = self.block(x, *args, **options)
        whole = torch.zeros_like(outputs)
        # Raises an error if the sizes differ in anything but a bigger number of channels.
        differing = [dim for dim in range(x.ndim) if x.shape[dim] != outputs.shape[dim]]
        dim = differing[0] if differing else 0
        whole.narrow(dim, 0, x.shape[dim]).copy_(x)
        return whole
