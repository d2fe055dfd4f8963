"""The comparison of a nested network with the copy-based reference, value by value.

Both train on the same batches with the same random numbers. Their losses are compared batch by batch, and
at the end their weights, buffers and optimizer state.
"""

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from nestnet.nn.mode import Mode, PerMode
from nestnet.nn.model import NestedModel
from nestnet.nn.parameter import NestedParameter, Weight
from nestnet.optim.momentum import fill_momentum
from nestnet.optim.step_counts import share_step_counts
from nestnet.step.outcome import Outcome
from nestnet.step.policy import Policy
from nestnet.step.random_state import get_torch_random_state, restore_torch_random_state
from nestnet.step.train_step import TrainStep
from nestnet.step.views import BatchTensor
from nestnet.text.arguments import check_choice
from nestnet.verification.copying import has_shape_of
from nestnet.verification.reference import CopyReference, CreateOptimizer, LossFunction

STEP_COUNTS = ("own", "literal")

NextMode = Callable[[Outcome | None], Mode]
"""From what the step of the last batch computed, `None` before the first, to the mode of the next batch."""


@dataclass
class Comparison:
    """Largest absolute differences between a nested network and its reference.

    The difference between NaN and any number counts as infinite.

    Attributes:
        differences: largest difference of losses, weights, buffers and optimizer state.
        steps: number of batches trained.
        switches: number of changes of mode, including the copies back at the ends of epochs.
        motivated_steps: number of motivated batches.
    """

    differences: dict[str, float] = field(
        default_factory=lambda: {"losses": 0.0, "weights": 0.0, "buffers": 0.0, "optimizer state": 0.0}
    )
    steps: int = 0
    switches: int = 0
    motivated_steps: int = 0

    @property
    def identical(self) -> bool:
        """Whether every number is the same to the last bit."""
        return not any(self.differences.values())

    def add(self, kind: str, nested: Any, reference: Any) -> None:
        """Include the difference of two tensors, or two numbers, that should be the same.

        Args:
            kind: one of the keys of `differences`.
            nested: value of the nested network.
            reference: value of the reference.
        """
        nested = torch.as_tensor(nested).detach().double()
        reference = torch.as_tensor(reference).detach().double()
        if nested.shape != reference.shape:
            difference = math.inf
        elif torch.equal(nested, reference) or not nested.numel():
            return
        else:
            # A NaN in either or both is an infinite difference.
            difference = (nested - reference).abs().nan_to_num(nan=math.inf).max().item()
        self.differences[kind] = max(self.differences[kind], difference)


def check_against_reference(
    net: NestedModel,
    create_optimizer: CreateOptimizer,
    batches: Iterable[tuple[BatchTensor, BatchTensor]],
    modes: Iterable[Mode] | NextMode,
    *,
    loss_function: LossFunction | PerMode[LossFunction] = nn.functional.cross_entropy,
    step_count: str = "own",
    policy: Policy | None = None,
    epoch_ends: Collection[int] = (),
    prepare: Callable[[Optimizer], None] | None = None,
) -> Comparison:
    """Train a nested network and its copy-based reference side by side, and compare every value.

    Args:
        net: nested network, which is trained in place.
        create_optimizer: function that creates an optimizer for a module's parameters, such as
            `lambda module: torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)`.
        batches: images `[B, C, H, W]` and labels `[B]`; each may be a `PerMode` of those of each network.
        modes: a mode for each batch, or a function that returns the mode of the next batch.
        loss_function: function of logits `[B, K]` and labels that returns the loss, or a `PerMode` of two.
        step_count: `"own"` or `"literal"`, for Adam-type optimizers; see `CopyReference`.
        policy: what a motivated batch trains; by default the motivated network alone, as in the paper.
        epoch_ends: numbers of the batches, from 1, after which an epoch ends.
        prepare: function that is called with the nested network's optimizer before training.

    Returns:
        The largest differences. In float32 on a CPU they are exactly 0 for optimizers that treat each
        entry of a weight separately; `docs/optimizers.md` has a table of all optimizers.

    Raises:
        ValueError: For an unknown `step_count`, or an optimizer that keeps of a weight what cannot be
            copied for a part of it, such as sums of its rows.

    Example:
        >>> import nestnet
        >>> net = nestnet.create_model("resnet8", "resnet14", num_classes=10)
        >>> batch = (torch.randn(4, 3, 8, 8), torch.arange(4))
        >>> sgd = lambda module: torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
        >>> check_against_reference(net, sgd, [batch, batch], [Mode.BASE, Mode.MOTIVATED]).switches
        2
    """
    check_choice("step_count", step_count, STEP_COUNTS)
    # The reference copies the weights of the network before it is trained.
    reference = CopyReference(net, create_optimizer, step_count=step_count, policy=policy)
    optimizer = create_optimizer(net)
    fill_momentum(optimizer)
    # By default each block counts its own steps; in the paper they are copied from the base.
    if step_count == "literal":
        share_step_counts(optimizer, net)
    if prepare is not None:
        prepare(optimizer)
    train_step = TrainStep(net, optimizer, loss_function, policy=policy)
    pair = _SideBySide(net, optimizer, train_step, reference, loss_function)
    next_mode = modes if callable(modes) else _in_turn(modes)
    outcome = None
    for images, labels in batches:
        outcome = pair.step(images, labels, next_mode(outcome))
        if pair.comparison.steps in epoch_ends:
            reference.end_epoch()
    return pair.finish()


def _in_turn(modes: Iterable[Mode]) -> NextMode:
    """Return a fixed sequence of modes as a function of the last outcome."""
    sequence = iter(modes)
    return lambda outcome: next(sequence)


@dataclass
class _SideBySide:
    """Nested network and its reference, which are trained on the same batches."""

    net: NestedModel
    optimizer: Optimizer
    train_step: TrainStep
    reference: CopyReference
    loss_function: LossFunction | PerMode[LossFunction]
    comparison: Comparison = field(default_factory=Comparison)

    def step(self, images: BatchTensor, labels: BatchTensor, mode: Mode) -> Outcome:
        """Train both on one batch, compare the losses, and return what the nested network's step computed."""
        device = self.train_step.device
        random_state = get_torch_random_state(device)
        outcome = self.train_step(images, labels, mode)

        # Restore the random state, so that dropout and stochastic depth drop the same activations.
        restore_torch_random_state(random_state, device)
        reference_losses = self.reference.step(images, labels, mode, self.loss_function)

        for trained, loss in outcome.losses().items():
            self.comparison.add("losses", loss, reference_losses[trained])
        self.comparison.steps += 1
        self.comparison.motivated_steps += mode is Mode.MOTIVATED
        return outcome

    def finish(self) -> Comparison:
        """Compare weights, buffers and optimizer state after training."""
        self.reference.end_epoch()
        self.comparison.switches = self.reference.switches
        _compare_weights_and_buffers(self.comparison, self.net, self.reference)
        _compare_optimizer_states(self.comparison, self.net, self.optimizer, self.reference)
        return self.comparison


def _compare_weights_and_buffers(comparison: Comparison, net: NestedModel, reference: CopyReference) -> None:
    """Compare the motivated network and the base separately.

    The reference has just copied back to the base, so that the base model is current; the motivated
    model's copy of it may be out of date, because a base step does not update it.
    """
    base = dict(reference.models[Mode.BASE].state_dict())
    # Clone the tensors, because the state dict shares memory with the model.
    motivated = {name: tensor.clone() for name, tensor in reference.models[Mode.MOTIVATED].state_dict().items()}
    net.weights_map.put(base, motivated)

    parameter_names = {name for name, stored in net.stored_tensors() if not _is_buffer(stored)}
    nested_motivated = net.state_dict()
    for name, tensor in motivated.items():
        kind = _kind_of(name, parameter_names)
        comparison.add(kind, nested_motivated[name], tensor)
    nested_base = net.subnet(Mode.BASE).state_dict()
    for name, tensor in base.items():
        kind = _kind_of(net.weights_map[name].name, parameter_names)
        comparison.add(kind, nested_base[name], tensor)


def _is_buffer(stored: Weight | Tensor) -> bool:
    return not isinstance(stored, (nn.Parameter, NestedParameter))


def _kind_of(name: str, parameter_names: set[str]) -> str:
    return "weights" if name in parameter_names else "buffers"


def _compare_optimizer_states(
    comparison: Comparison, net: NestedModel, optimizer: Optimizer, reference: CopyReference
) -> None:
    """Compare each parameter's state with the corresponding part of the reference's state."""
    base_names = {placement.name: base_name for base_name, placement in net.weights_map.items()}
    stored = dict(net.stored_tensors())
    for name in reference.parameters[Mode.MOTIVATED]:
        weight = stored[name]
        assert isinstance(weight, (nn.Parameter, NestedParameter))
        for parameter, expected in _expected_states(weight, name, base_names.get(name), reference):
            _compare_state(comparison, optimizer.state.get(parameter, {}), expected)
    # Parameters that the base alone has, the scales and shifts of separate BatchNorm.
    for base_name, placement in net.weights_map.items():
        if placement.private and base_name in reference.parameters[Mode.BASE]:
            own = stored[placement.name]
            assert isinstance(own, nn.Parameter)
            state = optimizer.state.get(own, {})
            _compare_state(comparison, state, reference.optimizer_state(Mode.BASE, base_name))


def _expected_states(
    weight: nn.Parameter | NestedParameter, name: str, base_name: str | None, reference: CopyReference
) -> Iterator[tuple[nn.Parameter, dict[str, Any]]]:
    """Yield each parameter of a weight with the state that the reference has for it.

    Args:
        weight: weight of the nested network: one parameter, or a base block and differential blocks.
        name: its name in the motivated model.
        base_name: its name in the base model; `None` if the base does not have it.
        reference: copy-based reference.
    """
    motivated_state = reference.optimizer_state(Mode.MOTIVATED, name)
    if base_name is None:
        assert isinstance(weight, nn.Parameter)
        yield weight, motivated_state
        return
    base_state = reference.optimizer_state(Mode.BASE, base_name)
    if not isinstance(weight, NestedParameter):
        yield weight, base_state
        return
    # The base model has the current state of the base block; the motivated model's may be out of date.
    yield weight.base, base_state

    # Tensors of the motivated state are divided into blocks like the weight; other values apply to every block.
    parameter = reference.parameters[Mode.MOTIVATED][name]
    blocks_by_key: dict[str, dict[str, Tensor]] = {}
    other_values: dict[str, Any] = {}
    for key, value in motivated_state.items():
        if has_shape_of(parameter, value):
            blocks_by_key[key] = weight.split(value)
        else:
            other_values[key] = value
    # The differential part's own counts take precedence: the motivated state has the counts of the base part.
    differential_counts = reference.divided_step.differential_counts.get(name, {})
    for block_name, block in weight.named_parameters():
        if block_name == "base":
            continue
        block_state: dict[str, Any] = {key: blocks[block_name] for key, blocks in blocks_by_key.items()}
        yield block, block_state | other_values | differential_counts


def _compare_state(comparison: Comparison, state: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compare the optimizer state of one parameter, whose values may be lists of tensors."""
    for key in state.keys() | expected.keys():
        # An absent entry counts as NaN, so that it differs from everything.
        leaves = tree_leaves(state.get(key, math.nan))
        expected_leaves = tree_leaves(expected.get(key, math.nan))
        for value, expected_value in itertools.zip_longest(leaves, expected_leaves, fillvalue=math.nan):
            if value is None and expected_value is None:
                continue
            comparison.add("optimizer state", _or_nan(value), _or_nan(expected_value))


def _or_nan(value: Any) -> Any:
    """Return NaN, which differs from everything, in place of `None`."""
    return math.nan if value is None else value
