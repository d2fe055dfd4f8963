"""Running a base and a motivated network side by side, and finding each of the base's channels in the other network.

Both get random weights, the motivated network the base's in their places. The columns beside the base's are zero, so that
what only the motivated network computes does not reach the base's rows. Blocks that base mode skips are left out, and
norms over channels are reduced to their scale and shift. If the weights map makes sense, the motivated network then
computes the base's values among its own, up to the logits.

Where a module reads a concatenation, the base's channels are not the first ones of its input. They are found by their
values, and so are the columns in which the base's weights belong.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nestnet.nesting.per_channel import PerChannelNorms, reduce_norms
from nestnet.nn.batch_norm import PRIVATE_PREFIX
from nestnet.nn.division import Groups
from nestnet.nn.placement import Placement

TOLERANCE = 1e-8
"""Largest relative difference of values that count as equal. Both networks compute in float64."""

GAINS = (1.0, 0.5, 0.2)
"""Factors of the random weights that are tried in turn, because what multiplies activations may overflow."""

IN_PLACE_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass
class Trace:
    """What was found by running two networks side by side.

    Attributes:
        difference: largest difference of the outputs, relative to the largest output.
        order: paths of the base's modules with parameters, in the order in which they run.
        first_lost: path of the first module that gets another input than in the base; `None` if there is none.
        placements: placements of base parameters that the inputs show to be others than was assumed, by name.
        error: what the motivated network raised; `None` if it ran.
    """

    difference: float = float("inf")
    order: list[str] = field(default_factory=list)
    first_lost: str | None = None
    placements: dict[str, Placement] = field(default_factory=dict)
    error: Exception | None = None

    @property
    def agrees(self) -> bool:
        """Whether the motivated network computes what the base does."""
        return self.error is None and self.difference < TOLERANCE

    @property
    def agreed_modules(self) -> int:
        """Number of modules that run before the first one that gets another input."""
        if self.first_lost is None:
            return len(self.order)
        return self.order.index(self.first_lost)


def trace_pair(
    base: nn.Module,
    motivated: nn.Module,
    placements: Mapping[str, Placement],
    skipped: Iterable[str],
    inputs: Tensor,
) -> Trace:
    """Run two networks side by side.

    Args:
        base: base network, which is changed: it must be used for nothing else.
        motivated: motivated network, which is changed too.
        placements: placement of each base parameter in the motivated network.
        skipped: paths of the motivated blocks that base mode skips.
        inputs: input of both networks.

    Returns:
        What was found.

    Raises:
        Exception: Whatever the base raises for these inputs.
    """
    for network in (base, motivated):
        network.requires_grad_(False).double().eval().cpu()
        _reset_statistics(network)
    # Leaving blocks out changes the paths of others.
    networks = _Networks(base, motivated, placements)
    leave_out(motivated, skipped)
    if inputs.is_floating_point():
        inputs = inputs.double().cpu()
    trace = Trace()
    with torch.no_grad(), PerChannelNorms():
        for gain in GAINS:
            trace = _trace_once(networks, inputs, gain)
            if trace.error is not None or math.isfinite(trace.difference):
                break
    return trace


class _Networks:
    """Two networks, and what a placement connects."""

    def __init__(self, base: nn.Module, motivated: nn.Module, placements: Mapping[str, Placement]) -> None:
        self.base = base
        self.motivated = motivated
        self.placements = placements
        self.base_parameters = dict(base.named_parameters(remove_duplicate=False))
        self.parameters = dict(motivated.named_parameters(remove_duplicate=False))
        # The parameters that each base module owns, and the module that holds them in the motivated network.
        self.owned: dict[str, dict[str, Placement]] = {}
        self.base_modules: dict[str, nn.Module] = {}
        self.modules: dict[str, nn.Module] = {}
        for base_name, placement in placements.items():
            path, _, name = base_name.rpartition(".")
            # The networks themselves are not compared by their inputs.
            if not path or placement.private or base_name not in self.base_parameters:
                continue
            self.owned.setdefault(path, {})[name] = placement
            self.base_modules[path] = base.get_submodule(path)
            self.modules[path] = motivated.get_submodule(placement.name.rpartition(".")[0])

    def fill(self, gain: float) -> None:
        """Give both networks random weights, and the motivated network the base's in their places."""
        generator = torch.Generator().manual_seed(0)
        for network in (self.base, self.motivated):
            _fill(network, generator, gain)
            reduce_norms(network)
        for name, placement in self.placements.items():
            if name not in self.base_parameters:
                continue
            base = self.base_parameters[name]
            if not placement.private:
                place_weight(base, self.parameters[placement.name], placement)
                continue
            # A scale and a shift of the base's own: neutral in both networks.
            counterpart = self.parameters[placement.name.replace(f".{PRIVATE_PREFIX}", ".")]
            for parameter in (base, counterpart):
                parameter.fill_(1 if name.endswith("weight") else 0)


def _trace_once(networks: _Networks, inputs: Tensor, gain: float) -> Trace:
    networks.fill(gain)
    trace = Trace()
    recorder = _Recorder(networks, trace)
    with _Hooks(networks.base_modules, recorder.record):
        base_output = _first_tensor(networks.base(inputs))
    with _Hooks(networks.modules, recorder.compare):
        try:
            output = _first_tensor(networks.motivated(inputs))
        except Exception as error:  # of any kind: a block that was left out may be missed by any code
            trace.error = error
            return trace
    if base_output is None or output is None or base_output.shape != output.shape:
        return trace
    largest = base_output.abs().max()
    if largest > 0:
        trace.difference = ((output - base_output).abs().max() / largest).item()
    return trace


class _Recorder:
    """Records the inputs of the base's modules, and finds their channels in the inputs of the motivated network's."""

    def __init__(self, networks: _Networks, trace: Trace) -> None:
        self.networks = networks
        self.trace = trace
        # A module may run several times.
        self.inputs: dict[str, list[Tensor | None]] = {path: [] for path in networks.owned}
        self.calls: dict[str, int] = dict.fromkeys(networks.owned, 0)

    def record(self, path: str, x: Tensor | None) -> None:
        """Keep the input of a base module."""
        if not self.inputs[path]:
            self.trace.order.append(path)
        # The module may write to its input.
        self.inputs[path].append(None if x is None else x.clone())

    def compare(self, path: str, x: Tensor | None) -> None:
        """Look for the base's input in that of the motivated network's module."""
        call = self.calls[path]
        self.calls[path] += 1
        if self.trace.first_lost is not None or call >= len(self.inputs[path]):
            return
        base_x = self.inputs[path][call]
        if x is None or base_x is None:
            return
        located = locate_channels(base_x, x)
        if located is None:
            self.trace.first_lost = path
            return
        dim, positions = located
        if positions is not None:
            self._move_weights(path, dim, base_x.ndim, positions)

    def _move_weights(self, path: str, dim: int, ndim: int, positions: list[int]) -> None:
        """Move the base's weights of a module to the columns, or rows, that its input shows."""
        module = self.networks.modules[path]
        base_module = self.networks.base_modules[path]
        for name, placement in self.networks.owned[path].items():
            sizes = _channel_sizes(module, name, placement, dim, ndim)
            if sizes is None or len(positions) != sizes[0]:
                continue
            groups = _groups_of(positions, sizes[1])
            if _mixes_channels(module, placement):
                changed = replace(placement, column_groups=groups)
            else:
                changed = replace(placement, groups=groups)
            if changed.is_same_as(placement):
                continue
            self.trace.placements[f"{path}.{name}"] = changed
            place_weight(base_module._parameters[name], module._parameters[name], changed)


class _Hooks:
    """A context in which a function sees the input of each of some modules before they run."""

    def __init__(self, modules: Mapping[str, nn.Module], see: Callable[[str, Tensor | None], None]) -> None:
        self.modules = modules
        self.see = see
        self.handles: list[Any] = []

    def __enter__(self) -> None:
        for path, module in self.modules.items():

            def before(module: nn.Module, args: Any, options: Any, path: str = path) -> None:
                values = (*args, *options.values())
                self.see(path, _first_tensor(values))

            self.handles.append(module.register_forward_pre_hook(before, with_kwargs=True))

    def __exit__(self, *details: Any) -> None:
        for handle in self.handles:
            handle.remove()


def locate_channels(base: Tensor, whole: Tensor) -> tuple[int, list[int] | None] | None:
    """Find the channels of a base activation in that of the motivated network, by their values.

    Args:
        base: activation of the base.
        whole: activation of the motivated network.

    Returns:
        The dimension of the channels and the position of each base channel in it; `None` in place of the positions if
        both activations are the same. `None` if a base channel is not among the others.
    """
    if base.ndim != whole.ndim:
        return None
    scale = base.abs().max().clamp_min(1e-300)
    differing = [dim for dim in range(base.ndim) if base.shape[dim] != whole.shape[dim]]
    if not differing:
        return (0, None) if (base - whole).abs().max() <= TOLERANCE * scale else None
    if len(differing) > 1:
        return None
    # Each channel as one number: its product with random numbers.
    dim = differing[0]
    flat_base = base.movedim(dim, 0).flatten(1)
    flat = whole.movedim(dim, 0).flatten(1)
    generator = torch.Generator().manual_seed(1)
    mixture = torch.randn(flat.shape[1], generator=generator, dtype=torch.float64) / flat.shape[1] ** 0.5
    distances = (flat_base @ mixture).unsqueeze(1) - (flat @ mixture).unsqueeze(0)  # [c, C]
    matches = distances.abs() <= TOLERANCE * scale
    if not matches.any(1).all():
        return None
    # Equal channels, such as those that a ReLU sets to zero, are taken in order.
    positions: list[int] = []
    for row in matches:
        candidates = row.nonzero().flatten().tolist()
        later = [position for position in candidates if not positions or position > positions[-1]]
        if not later:
            return None
        # The next position, if it is possible.
        following = positions[-1] + 1 if positions else 0
        positions.append(following if following in later else later[0])
    return dim, positions


def _groups_of(positions: list[int], size: int) -> Groups:
    """Return the groups of a dimension of which the base has the first entries, from the positions of its entries."""
    parts: list[tuple[int, int]] = []
    run_start = 0
    start = positions[0]
    if start > 0:
        parts.append((0, start))
    for index in range(1, len(positions) + 1):
        is_end = index == len(positions)
        if is_end or positions[index] != positions[index - 1] + 1:
            end = size if is_end else positions[index]
            parts.append((index - run_start, end - start))
            run_start = index
            start = end
    if len(set(parts)) == 1:
        return len(parts)
    return tuple(parts)


def _mixes_channels(module: nn.Module, placement: Placement) -> bool:
    """Return whether the columns of a weight are those of the input. Otherwise its rows are, as in a norm."""
    return len(placement.shape) > 1 and getattr(module, "groups", 1) == 1


def _channel_sizes(module: nn.Module, name: str, placement: Placement, dim: int, ndim: int) -> tuple[int, int] | None:
    """Return the sizes of the dimension of a weight that reads the channels in dimension `dim` of the input.

    Args:
        module: module of the motivated network that owns the weight.
        name: name of the weight in it.
        placement: placement of the base's weight.
        dim: dimension of the input in which the networks differ.
        ndim: number of dimensions of the input.

    Returns:
        The base's size and the whole size; `None` if the weight does not read the channels one by one.
    """
    is_convolution = isinstance(module, nn.modules.conv._ConvNd)
    if _mixes_channels(module, placement):
        channel_dim = 1 if is_convolution else ndim - 1
        if name != "weight" or dim != channel_dim or not (is_convolution or isinstance(module, nn.Linear)):
            return None
        return placement.base_shape[1], placement.shape[1]
    is_depthwise = is_convolution and module.groups == module.in_channels == module.out_channels
    is_norm = len(placement.shape) == 1 and not is_convolution and not isinstance(module, nn.Linear)
    if is_depthwise or is_norm:
        return placement.base_shape[0], placement.shape[0]
    return None


# Random weights.


def _fill(network: nn.Module, generator: torch.Generator, gain: float) -> None:
    for parameter in network.parameters():
        if parameter.ndim > 1:
            fan_in = max(parameter[0].numel(), 1)
            values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(gain * values / fan_in**0.5)
        else:
            values = torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(gain * (0.5 + values))


def place_weight(base: Tensor | None, whole: Tensor | None, placement: Placement) -> None:
    """Write a weight of the base into one of the motivated network, with zeros beside it in its rows.

    Args:
        base: the base's weight.
        whole: the motivated network's weight, which is changed.
        placement: position of the one in the other.
    """
    assert base is not None
    assert whole is not None
    if placement.is_whole:
        whole.copy_(base)
        return
    whole[placement.rows.base_indices] = 0
    whole[placement.index] = base


def _reset_statistics(network: nn.Module) -> None:
    """Set running statistics to those of a new network: the two networks may have other ones."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.reset_running_stats()


def leave_out(network: nn.Module, paths: Iterable[str]) -> None:
    """Remove blocks from a network, in place.

    Args:
        network: network that is used for nothing else.
        paths: paths of the blocks. One in a list is removed from it; any other becomes the identity.
    """
    for path in paths:
        parent_path, _, name = path.rpartition(".")
        parent = network.get_submodule(parent_path)
        if isinstance(parent, IN_PLACE_CONTAINERS):
            del parent._modules[name]
        else:
            parent._modules[name] = _Identity()
    # Lists are read by number, so that the remaining blocks are numbered anew.
    for parent_path in {path.rpartition(".")[0] for path in paths}:
        parent = network.get_submodule(parent_path)
        if isinstance(parent, (nn.Sequential, nn.ModuleList)):
            children = list(parent._modules.values())
            parent._modules.clear()
            for number, child in enumerate(children):
                parent._modules[str(number)] = child


class _Identity(nn.Module):
    """Returns its first input, whatever else it is given."""

    def forward(self, x: Any, *args: Any, **options: Any) -> Any:
        return x


def _first_tensor(value: Any) -> Tensor | None:
    """Return the first tensor in a tensor, a list, a tuple or a dictionary."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for entry in value:
            found = _first_tensor(entry)
            if found is not None:
                return found
    return None
