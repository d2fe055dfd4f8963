"""The copy-based reference: a literal implementation of Algorithm 1 (section 3.5) of arXiv 2602.21064.

There are two plain timm models and two torch optimizers. At each change of mode, and at the end of an
epoch that ends in motivated mode, weights, buffers and optimizer state are copied through the weights map. A
nested network does the same without copying: `nestnet.verification.comparison` compares the two.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel
from nestnet.nn.placement import Placement
from nestnet.optim.initial_state import is_scalar, make_initial_state
from nestnet.optim.momentum import fill_momentum
from nestnet.storage.state_codec import describe_tensor
from nestnet.verification.copying import copy_scalars, copy_through_map, has_shape_of
from nestnet.verification.optimizer_snapshot import OptimizerSnapshot

CreateOptimizer = Callable[[nn.Module], Optimizer]
LossFunction = Callable[[Tensor, Tensor], Tensor]


class CopyReference:
    """Two models with their optimizers, one of which is active at a time.

    Args:
        net: nested network. Both models start from the weights and buffers of its subnets, and copying
            follows its weights map.
        create_optimizer: function that creates an optimizer for the parameters of a model; called once for
            each model.
        step_count: how Adam-type optimizers count the steps of the differential part of a divided tensor.
            With `"literal"`, `step` is one number per tensor and is copied with the rest of the state, as
            in the paper. With `"own"`, the differential part counts its own updates, as in a nested network:
            the two parts of a tensor are then stepped one after the other, each with its own count.

    Attributes:
        models: timm's model of each mode.
        optimizers: optimizer of each model.
        parameters: parameters of each model, by name.
        active: mode of the model that holds the current weights.
        switches: number of changes of mode so far.
        differential_counts: for each divided tensor whose differential part has been trained, the scalars
            of that part's optimizer state, such as Adam's `step`.
    """

    def __init__(self, net: NestedModel, create_optimizer: CreateOptimizer, *, step_count: str = "own") -> None:
        self.models = {mode: net.standalone(mode) for mode in Mode}
        self.optimizers: dict[Mode, Optimizer] = {}
        self.parameters: dict[Mode, dict[str, nn.Parameter]] = {}
        for mode, model in self.models.items():
            self.parameters[mode] = dict(model.named_parameters())
            self.optimizers[mode] = create_optimizer(model)
            fill_momentum(self.optimizers[mode])
        # Training starts in base mode (Algorithm 1, line 1).
        self.active = Mode.BASE
        self.switches = 0

        # Collect what a switch copies, and the weights of which the base has only a part.
        motivated = self.parameters[Mode.MOTIVATED]
        self.shared_placements: dict[str, Placement] = {}
        self.divided_placements: dict[str, Placement] = {}
        for name, placement in net.weights_map.items():
            # Private tensors, such as the running statistics of each mode, are never copied.
            if not placement.private:
                self.shared_placements[name] = placement
            if placement.name in motivated and not placement.is_whole:
                self.divided_placements[placement.name] = placement

        self.has_own_counts = step_count == "own"
        self.differential_counts: dict[str, dict[str, Any]] = {}
        # Most optimizers create the state of a parameter at its first step, but Adagrad creates it at once.
        self.states_before_training: dict[str, dict[str, Any]] = {}
        for name in self.divided_placements:
            self.states_before_training[name] = copy.deepcopy(self.optimizer_state(Mode.MOTIVATED, name))
        # Entries that an optimizer adds to a parameter group later are step counts.
        self.setting_names: set[str] = set()
        for group in self.optimizers[Mode.MOTIVATED].param_groups:
            self.setting_names.update(group)

    def step(self, images: Tensor, labels: Tensor, mode: Mode, loss_function: LossFunction) -> float:
        """Train the model of a mode on one batch, after switching to it if it is not active.

        Args:
            images: batch of images `[B, C, H, W]`.
            labels: their labels `[B]`.
            mode: mode of the model to train.
            loss_function: function of logits `[B, K]` and labels that returns the loss.

        Returns:
            The loss of the batch.
        """
        self.switch(mode)
        model = self.models[mode]
        optimizer = self.optimizers[mode]
        loss = loss_function(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        if mode is Mode.MOTIVATED:
            self._step_motivated()
        else:
            optimizer.step()
        return loss.item()

    def end_epoch(self) -> None:
        """Switch to the base, because every epoch starts in base mode (line 39)."""
        self.switch(Mode.BASE)

    def switch(self, mode: Mode) -> None:
        """Copy everything to the model of a mode, unless it is already active (Algorithm 1, lines 25 and 31).

        Args:
            mode: mode that becomes active.
        """
        if mode is self.active:
            return
        self._copy_weights_and_buffers(mode)
        self._copy_optimizer_state(mode)
        self._copy_group_counts(mode)
        self.active = mode
        self.switches += 1

    def optimizer_state(self, mode: Mode, name: str) -> dict[str, Any]:
        """Return the optimizer state of a parameter; empty if it has not been trained.

        Args:
            mode: mode of the model.
            name: name of the parameter in that model.
        """
        return self.optimizers[mode].state.get(self.parameters[mode][name], {})

    # The copies of a switch. Weights and buffers: sections 3.1 and 3.2. Optimizer state: section 3.5.

    def _copy_weights_and_buffers(self, target: Mode) -> None:
        base_tensors = dict(self.models[Mode.BASE].state_dict())
        motivated_tensors = dict(self.models[Mode.MOTIVATED].state_dict())
        for name, placement in self.shared_placements.items():
            copy_through_map(base_tensors[name], motivated_tensors[placement.name], placement, to=target)

    def _copy_optimizer_state(self, target: Mode) -> None:
        for name, placement in self.shared_placements.items():
            # Buffers have no optimizer state.
            if name not in self.parameters[Mode.BASE]:
                continue
            parameters = {
                Mode.BASE: self.parameters[Mode.BASE][name],
                Mode.MOTIVATED: self.parameters[Mode.MOTIVATED][placement.name],
            }
            self._copy_parameter_state(parameters, placement, target)

    def _copy_parameter_state(self, parameters: dict[Mode, nn.Parameter], placement: Placement, target: Mode) -> None:
        """Copy the state of one parameter from the active optimizer.

        Raises:
            ValueError: If the state holds a statistic of a divided weight as a whole, such as sums of its rows.
        """
        source = self.active
        source_state = self.optimizers[source].state.get(parameters[source])
        if not source_state:
            return

        # If the target has never been trained, start from the initial state that its optimizer creates.
        optimizer = self.optimizers[target]
        parameter = parameters[target]
        if not optimizer.state.get(parameter):
            optimizer.state[parameter] = make_initial_state(optimizer, parameter)
        target_state = optimizer.state[parameter]

        # Tensors of the weight's shape are copied through the map, and scalars as they are.
        for key, value in source_state.items():
            is_one_value = value is None or isinstance(value, bool) or is_scalar(value)
            if placement.is_whole or is_one_value:
                target_state[key] = copy.deepcopy(value)
                continue
            if not has_shape_of(parameters[source], value):
                raise ValueError(
                    f"{type(optimizer).__name__}: it keeps {key} of a weight as a whole ({describe_tensor(value)}), "
                    "which cannot be copied for a part of the weight"
                )
            if target_state.get(key) is None:
                target_state[key] = torch.zeros_like(parameter)
            tensors = {target: target_state[key], source: value}
            copy_through_map(tensors[Mode.BASE], tensors[Mode.MOTIVATED], placement, to=target)

    def _copy_group_counts(self, target: Mode) -> None:
        """Copy step counts that an optimizer keeps per parameter group, such as timm's Lamb and Adan."""
        target_groups = self.optimizers[target].param_groups
        source_groups = self.optimizers[self.active].param_groups
        for target_group, source_group in zip(target_groups, source_groups, strict=True):
            for count in source_group.keys() - self.setting_names:
                target_group[count] = copy.deepcopy(source_group[count])

    # The step of the motivated model. In the paper a divided tensor has one step count, which a switch copies from
    # the base. A nested network has one for each part, and so has this reference with `step_count="own"`.

    def _step_motivated(self) -> None:
        """Step the motivated model such that each part of a divided tensor has its own optimizer state.

        A single optimizer step is not enough where the parts differ in their counts, or one has no state yet.
        """
        optimizer = self.optimizers[Mode.MOTIVATED]
        parameters = self.parameters[Mode.MOTIVATED]
        trained = [name for name in self.divided_placements if parameters[name].grad is not None]
        apart = [name for name in trained if self._needs_own_step(name)]
        if apart:
            self._step_twice(apart)
        else:
            optimizer.step()
        for name in trained:
            if name not in apart:
                self.differential_counts[name] = copy_scalars(optimizer.state[parameters[name]])

    def _step_twice(self, apart: list[str]) -> None:
        """Take two steps from the same point, and combine their results.

        The first step uses the state of the base parts. The second uses the state of the differential
        parts of the tensors `apart`, and only these parts are taken from it.
        """
        optimizer = self.optimizers[Mode.MOTIVATED]
        parameters = self.parameters[Mode.MOTIVATED]

        # Step the base parts and all undivided tensors.
        before = OptimizerSnapshot(optimizer)
        optimizer.step()
        after_base_step = OptimizerSnapshot(optimizer)
        before.restore()

        # Step the differential parts.
        for name in apart:
            optimizer.state[parameters[name]] = self._differential_state(name)
        optimizer.step()
        differential: list[tuple[str, Tensor, dict[str, Any]]] = []
        for name in apart:
            parameter = parameters[name]
            differential.append((name, parameter.detach().clone(), dict(optimizer.state[parameter])))

        # Restore the first step's result, and overwrite the differential parts with the second's.
        after_base_step.restore()
        for name, values, state in differential:
            self._keep_differential(name, values, state)
            self.differential_counts[name] = copy_scalars(state)

    def _needs_own_step(self, name: str) -> bool:
        """Return whether a differential part's state differs from the state of the whole tensor."""
        state = self.optimizer_state(Mode.MOTIVATED, name)
        has_counts = any(is_scalar(value) for value in state.values())
        is_first_update = name not in self.differential_counts
        if self.has_own_counts:
            return has_counts or is_first_update
        return not has_counts and is_first_update

    def _differential_state(self, name: str) -> dict[str, Any]:
        """Return the state with which the differential part of a divided tensor takes its next step."""
        if name not in self.differential_counts:
            return copy.deepcopy(self.states_before_training[name])
        parameter = self.parameters[Mode.MOTIVATED][name]
        state = dict(self.optimizers[Mode.MOTIVATED].state[parameter])
        state.update(copy.deepcopy(self.differential_counts[name]))
        return state

    @torch.no_grad()
    def _keep_differential(self, name: str, values: Tensor, state: dict[str, Any]) -> None:
        """Write the differential part of `values` and `state` around the base part of a tensor and its state."""
        parameter = self.parameters[Mode.MOTIVATED][name]
        parameter_state = self.optimizers[Mode.MOTIVATED].state[parameter]
        placement = self.divided_placements[name]
        pairs = [(parameter, values)]
        for key, value in state.items():
            if has_shape_of(parameter, value):
                pairs.append((parameter_state[key], value))
        for kept, differential in pairs:
            # Overwrite the whole tensor, and then restore its base part.
            base = kept[placement.index].clone()
            kept.copy_(differential)
            copy_through_map(base, kept, placement, to=Mode.MOTIVATED)
