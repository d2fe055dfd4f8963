"""The copy-based reference: Algorithm 1 of arXiv 2602.21064 taken literally, and the check of a nested network against it.

Two plain timm models, two torch optimizers. At each change of mode, and at the end of an epoch that ends motivated, weights,
buffers and optimizer state are copied through the weights map. A nested network does the same without a copy; the
check runs both on the same batches, with the same random numbers, and compares every number.
"""

import copy
import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel, whole_name
from nestnet.nn.parameter import NestedParameter
from nestnet.nn.placement import Placement
from nestnet.optim.state import initial_state, is_scalar
from nestnet.optim.step_counts import fill_momentum, share_step_counts
from nestnet.storage.state_codec import kind
from nestnet.training.random_state import restore_torch_random_state, torch_random_state

MakeOptimizer = Callable[[nn.Module], Optimizer]
LossFunction = Callable[[Tensor, Tensor], Tensor]
STEP_COUNTS = ("own", "literal")


class CopyReference:
    """Two models and two optimizers that take turns.

    Args:
        net: both models start from the weights and buffers of its subnets, and copying follows its weights map.
        create_optimizer: makes an optimizer of a model's parameters; it is called once for each model.
        step_count: how Adam-type optimizers count the steps of the differential part of a tensor that the base has a
            part of. `"literal"`: `step` is one number a tensor and is copied with the rest of the state. `"own"`: that
            part counts its own updates, as in a nested network; the two parts of a tensor are then stepped one after the
            other, each with its own count.
    """

    def __init__(self, net: NestedModel, create_optimizer: MakeOptimizer, *, step_count: str = "own") -> None:
        self.weights_map = net.weights_map
        self.models = {mode: net.standalone(mode) for mode in Mode}
        self.optimizers = {mode: create_optimizer(model) for mode, model in self.models.items()}
        for optimizer in self.optimizers.values():
            fill_momentum(optimizer)
        self.parameters = {mode: dict(model.named_parameters()) for mode, model in self.models.items()}
        motivated = self.parameters[Mode.MOTIVATED]
        self.divided = {p.name: p for p in self.weights_map.values() if p.name in motivated and not p.is_whole}
        self.own_counts = step_count == "own"
        self.own_scalars: dict[str, dict[str, Any]] = {}
        """Of each divided tensor whose differential part has been trained: that part's counts."""
        # most optimizers make a parameter's state at its first step, and Adagrad at once
        states = self.optimizers[Mode.MOTIVATED].state
        self.new_states = {name: copy.deepcopy(states.get(motivated[name], {})) for name in self.divided}
        self.settings = {name for group in self.optimizers[Mode.MOTIVATED].param_groups for name in group}
        self.active = Mode.BASE
        self.switches = 0

    def step(self, images: Tensor, labels: Tensor, mode: Mode, loss_function: LossFunction) -> float:
        """Train the model of `mode` on one batch, after copying if it was not the active one; returns the loss."""
        self.switch(mode)
        model = self.models[mode]
        loss = loss_function(model(images), labels)
        self.optimizers[mode].zero_grad()
        loss.backward()
        if mode is Mode.MOTIVATED:
            self._step_motivated()
        else:
            self.optimizers[mode].step()
        return loss.item()

    def end_epoch(self) -> None:
        """An epoch that ends motivated is followed by a copy back to the base."""
        self.switch(Mode.BASE)

    def switch(self, mode: Mode) -> None:
        """Copy weights, buffers and optimizer state to the model of `mode`, unless it is the active one."""
        if mode is self.active:
            return
        source, target = self.active, mode
        states = {m: dict(model.state_dict()) for m, model in self.models.items()}
        for name, placement in self.weights_map.items():
            if placement.private:
                continue  # each mode keeps its own running statistics
            base, motivated = states[Mode.BASE][name], states[Mode.MOTIVATED][placement.name]
            copy_part(base, motivated, placement, to=target)
            if name in self.parameters[Mode.BASE]:
                parameters = {Mode.BASE: self.parameters[Mode.BASE][name]}
                parameters[Mode.MOTIVATED] = self.parameters[Mode.MOTIVATED][placement.name]
                self._copy_optimizer_state(parameters, placement, source, target)
        for group, other in zip(
            self.optimizers[target].param_groups, self.optimizers[source].param_groups, strict=True
        ):
            for counted in other.keys() - self.settings:  # timm's Lamb and Adan count steps by group
                group[counted] = copy.deepcopy(other[counted])
        self.active = mode
        self.switches += 1

    def _copy_optimizer_state(
        self, parameters: dict[Mode, nn.Parameter], placement: Placement, source: Mode, target: Mode
    ) -> None:
        optimizer, parameter = self.optimizers[target], parameters[target]
        other = self.optimizers[source].state.get(parameters[source])
        if not other:
            return
        if not optimizer.state.get(parameter):
            optimizer.state[parameter] = initial_state(optimizer, parameter)
        state = optimizer.state[parameter]
        for key, value in other.items():
            if placement.is_whole or value is None or isinstance(value, bool) or is_scalar(value):
                state[key] = copy.deepcopy(value)
                continue
            if not isinstance(value, Tensor) or value.shape != parameters[source].shape:
                raise ValueError(
                    f"{type(optimizer).__name__}: it keeps {key} of a weight as a whole ({kind(value)}), of which nothing can "
                    "be copied for a part of the weight"
                )
            if state.get(key) is None:
                state[key] = torch.zeros_like(parameter)
            tensors = {target: state[key], source: value}
            copy_part(tensors[Mode.BASE], tensors[Mode.MOTIVATED], placement, to=target)

    def _step_motivated(self) -> None:
        """Take a step of the motivated optimizer, in which each part of a divided tensor has state of its own.

        Where the differential part has other counts than the base's part, or no state yet, one step cannot give both. Then
        two are taken from the same point. The first has the state of the base's part; all but the differential parts is kept
        of it. The second has that of the differential parts, which are kept of it.
        """
        optimizer, parameters = self.optimizers[Mode.MOTIVATED], self.parameters[Mode.MOTIVATED]
        apart = [name for name in self.divided if parameters[name].grad is not None and self._stands_apart(name)]
        if apart:
            self._step_apart(apart)
        else:
            optimizer.step()
        for name in self.divided:
            if parameters[name].grad is not None and name not in apart:
                self.own_scalars[name] = _scalars(optimizer.state[parameters[name]])

    def _step_apart(self, apart: list[str]) -> None:
        """Take the two steps, where the differential parts of the tensors `apart` need one of their own."""
        optimizer, parameters = self.optimizers[Mode.MOTIVATED], self.parameters[Mode.MOTIVATED]
        before = _Snapshot(optimizer)
        optimizer.step()
        after = _Snapshot(optimizer)
        before.restore()
        for name in apart:
            optimizer.state[parameters[name]] = self._differential_state(name)
        optimizer.step()
        values = {name: parameters[name].detach().clone() for name in apart}
        states = {name: dict(optimizer.state[parameters[name]]) for name in apart}
        after.restore()
        for name in apart:
            self._keep_differential(name, values[name], states[name])
            self.own_scalars[name] = _scalars(states[name])

    def _stands_apart(self, name: str) -> bool:
        """Whether the state of a divided tensor's differential part is not what lies around the base's part."""
        state = self.optimizers[Mode.MOTIVATED].state.get(self.parameters[Mode.MOTIVATED][name], {})
        counts = any(is_scalar(value) for value in state.values())
        if self.own_counts:
            return counts or name not in self.own_scalars
        return not counts and name not in self.own_scalars

    def _differential_state(self, name: str) -> dict[str, Any]:
        """The state that a divided tensor's differential part takes its next step with."""
        if name not in self.own_scalars:
            return copy.deepcopy(self.new_states[name])
        state = self.optimizers[Mode.MOTIVATED].state[self.parameters[Mode.MOTIVATED][name]]
        return {**state, **copy.deepcopy(self.own_scalars[name])}

    @torch.no_grad()
    def _keep_differential(self, name: str, values: Tensor, state: dict[str, Any]) -> None:
        """Put the differential part of `values` and `state` around the base's part of a divided tensor and its state."""
        parameter, placement = self.parameters[Mode.MOTIVATED][name], self.divided[name]
        own_state = self.optimizers[Mode.MOTIVATED].state[parameter]
        pairs = [(parameter, values)]
        pairs += [(own_state[key], value) for key, value in state.items() if _has_shape_of(parameter, value)]
        for ours, theirs in pairs:
            base = ours[placement.index].clone()
            ours.copy_(theirs)
            copy_part(base, ours, placement, to=Mode.MOTIVATED)


class _Snapshot:
    """All that a step of an optimizer changes, as it is now."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.values = [(p, p.detach().clone()) for p in parameters]
        self.states = [(p, copy.deepcopy(optimizer.state[p])) for p in parameters if optimizer.state.get(p)]
        self.groups = [_settings(group) for group in optimizer.param_groups]

    @torch.no_grad()
    def restore(self) -> None:
        for parameter, values in self.values:
            parameter.copy_(values)
        self.optimizer.state.clear()
        for parameter, state in self.states:
            self.optimizer.state[parameter] = state
        for group, settings in zip(self.optimizer.param_groups, self.groups, strict=True):
            for name in group.keys() - settings.keys() - {"params"}:
                del group[name]
            group.update(settings)


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    return {name: copy.deepcopy(value) for name, value in group.items() if name != "params"}


def _scalars(state: dict[str, Any]) -> dict[str, Any]:
    return {key: copy.deepcopy(value) for key, value in state.items() if is_scalar(value)}


def _has_shape_of(parameter: Tensor, value: Any) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape


@torch.no_grad()
def copy_part(base: Tensor, motivated: Tensor, placement: Placement, *, to: Mode) -> None:
    """Copy a base tensor into its place in the motivated one, or out of it."""
    if to is Mode.MOTIVATED:
        motivated[placement.index] = base
    else:
        base.copy_(motivated[placement.index])


@dataclass
class Comparison:
    """The largest absolute difference between a nested network and its reference, of each kind; NaN differs by infinity.

    Attributes:
        differences: for losses, weights, buffers and optimizer state.
        steps: batches trained.
        switches: changes of mode, the copies back at the ends of epochs included.
        motivated: batches trained in motivated mode.
    """

    differences: dict[str, float] = field(
        default_factory=lambda: {"losses": 0.0, "weights": 0.0, "buffers": 0.0, "optimizer state": 0.0}
    )
    steps: int = 0
    switches: int = 0
    motivated: int = 0

    @property
    def identical(self) -> bool:
        """Whether every number is the same to the last bit."""
        return not any(self.differences.values())

    def add(self, kind: str, ours: Any, theirs: Any) -> None:
        """Take in two tensors, or two numbers, that should be the same."""
        ours, theirs = (torch.as_tensor(value).detach().double() for value in (ours, theirs))
        if ours.shape != theirs.shape:
            difference = math.inf
        elif torch.equal(ours, theirs) or not ours.numel():
            return
        else:
            difference = (ours - theirs).abs().nan_to_num(nan=math.inf).max().item()
        self.differences[kind] = max(self.differences[kind], difference)


def check_against_reference(
    net: NestedModel,
    create_optimizer: MakeOptimizer,
    batches: Iterable[tuple[Tensor, Tensor]],
    modes: Iterable[Mode] | Callable[[float | None], Mode],
    *,
    loss_function: LossFunction = nn.functional.cross_entropy,
    step_count: str = "own",
    epoch_ends: Iterable[int] = (),
    prepare: Callable[[Optimizer], None] | None = None,
) -> Comparison:
    """Train `net` and its copy-based reference side by side and compare every number.

    Args:
        net: is trained in place.
        create_optimizer: makes an optimizer of a module's parameters, such as
            `lambda module: torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)`.
        batches: images `[B, C, H, W]` and labels `[B]`.
        modes: a mode for each batch, or a function that gives the next mode from the last loss (`None` at the start).
        step_count: `"own"` or `"literal"`, for Adam-type optimizers: see `CopyReference`.
        epoch_ends: the batches, counted from 1, after which an epoch ends.
        prepare: is called with the nested network's optimizer, to change it further.

    Returns:
        The largest differences. In float32 on a CPU they are exactly 0 for optimizers that treat each entry of a weight by
        itself (SGD, the Adam family, RMSprop); `docs/optimizers.md` has a table of all.

    Raises:
        ValueError: for an optimizer that keeps for a weight what cannot be copied for a part of it, such as sums of rows.
    """
    if step_count not in STEP_COUNTS:
        raise ValueError(f"step_count = {step_count!r}: it must be one of {', '.join(STEP_COUNTS)}")
    reference = CopyReference(net, create_optimizer, step_count=step_count)
    optimizer = create_optimizer(net)
    fill_momentum(optimizer)
    if step_count == "literal":
        share_step_counts(optimizer, net)
    if prepare is not None:
        prepare(optimizer)
    comparison, ends, loss = Comparison(), set(epoch_ends), None
    device = next(net.parameters()).device
    next_mode = modes if callable(modes) else _in_turn(modes)
    for images, labels in batches:
        mode = next_mode(loss)
        random_before = torch_random_state(device)
        loss = _nested_step(net, optimizer, images, labels, mode, loss_function)
        restore_torch_random_state(random_before, device)  # so that both drop the same activations
        comparison.add("losses", loss, reference.step(images, labels, mode, loss_function))
        comparison.steps += 1
        comparison.motivated += mode is Mode.MOTIVATED
        if comparison.steps in ends:
            reference.end_epoch()
            loss = None
    reference.end_epoch()
    comparison.switches = reference.switches
    _compare(comparison, net, optimizer, reference)
    return comparison


def _in_turn(modes: Iterable[Mode]) -> Callable[[float | None], Mode]:
    """A fixed sequence as a function of the last loss."""
    sequence = iter(modes)
    return lambda loss: next(sequence)


def _nested_step(
    net: NestedModel, optimizer: Optimizer, images: Tensor, labels: Tensor, mode: Mode, loss_function: LossFunction
) -> float:
    loss = loss_function(net(images, mode), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def _compare(comparison: Comparison, net: NestedModel, optimizer: Optimizer, reference: CopyReference) -> None:
    """Compare all state of both. The base's part is the base model's; the motivated model's copy of it may be out of date."""
    base, motivated = (dict(reference.models[mode].state_dict()) for mode in (Mode.BASE, Mode.MOTIVATED))
    whole = {name: tensor.clone() for name, tensor in motivated.items()}
    net.weights_map.put(base, whole)
    ours = {**net.state_dict(), **net.subnet(Mode.BASE).state_dict(prefix="base:")}
    theirs = {**whole, **{f"base:{name}": tensor for name, tensor in base.items()}}
    parameters = {whole_name(name) for name, _ in net.named_parameters()}
    parameters |= {f"base:{name}" for name, p in net.weights_map.items() if p.name in parameters}
    for name, tensor in theirs.items():
        comparison.add("weights" if name in parameters else "buffers", ours[name], tensor)

    base_names = {p.name: name for name, p in net.weights_map.items()}
    for name, parameter in reference.parameters[Mode.MOTIVATED].items():
        state = reference.optimizers[Mode.MOTIVATED].state.get(parameter, {})
        weight = getattr(net.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2])
        expected: list[tuple[nn.Parameter, dict[str, Any]]] = []
        if name in base_names:
            base_parameter = reference.parameters[Mode.BASE][base_names[name]]
            base_state = reference.optimizers[Mode.BASE].state.get(base_parameter, {})
            expected.append((weight.base if isinstance(weight, NestedParameter) else weight, base_state))
        else:
            expected.append((weight, state))
        if isinstance(weight, NestedParameter):
            shaped = {key: weight.split(value) for key, value in state.items() if _has_shape_of(parameter, value)}
            others = {key: value for key, value in state.items() if key not in shaped}
            for block_name, block in weight.named_parameters():
                if block_name != "base":
                    parts = {key: blocks[block_name] for key, blocks in shaped.items()}
                    expected.append((block, {**parts, **others, **reference.own_scalars.get(name, {})}))
        for block, block_state in expected:
            own_state = optimizer.state.get(block, {})
            for key in own_state.keys() | block_state.keys():
                # some keep a list of tensors
                leaves = [tree_leaves(state.get(key, math.nan)) for state in (own_state, block_state)]
                for values in itertools.zip_longest(*leaves, fillvalue=math.nan):
                    if any(value is not None for value in values):
                        comparison.add("optimizer state", *[math.nan if value is None else value for value in values])
