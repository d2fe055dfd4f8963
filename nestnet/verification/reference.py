"""The copy-based reference: a literal implementation of Algorithm 1 (section 3.5) of arXiv 2602.21064.

There are two plain timm models and two torch optimizers. At each change of mode, and at the end of an
epoch that ends in motivated mode, weights, buffers and optimizer state are copied through the weights map. A
nested network does the same without copying: `nestnet.verification.comparison` compares the two.

The algorithm has one addition: a motivated batch may train both models, if the policy says so.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nestnet.nn.mode import Mode, PerMode, for_mode
from nestnet.nn.model import NestedModel
from nestnet.nn.placement import Placement
from nestnet.optim.initial_state import is_scalar, make_initial_state
from nestnet.optim.momentum import fill_momentum
from nestnet.step.policy import Policy
from nestnet.step.views import BatchTensor
from nestnet.storage.state_codec import describe_tensor
from nestnet.verification.copying import copy_through_map, copy_value, has_shape_of
from nestnet.verification.divided_step import DividedStep

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
        policy: what a motivated batch trains; by default the motivated model alone, as in the paper.

    Attributes:
        models: timm's model of each mode.
        optimizers: optimizer of each model.
        parameters: parameters of each model, by name.
        active: mode of the model that holds the current weights.
        switches: number of changes of mode so far.
        divided_step: step of the motivated model's optimizer.
    """

    def __init__(
        self,
        net: NestedModel,
        create_optimizer: CreateOptimizer,
        *,
        step_count: str = "own",
        policy: Policy | None = None,
    ) -> None:
        self.policy = policy or Policy()
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
        divided_placements: dict[str, Placement] = {}
        for name, placement in net.weights_map.items():
            # Private tensors, such as the running statistics of each mode, are never copied.
            if not placement.private:
                self.shared_placements[name] = placement
            if placement.name in motivated and not placement.is_whole:
                divided_placements[placement.name] = placement
        self.divided_step = DividedStep(
            self.optimizers[Mode.MOTIVATED], motivated, divided_placements, step_count=step_count
        )
        # Entries that an optimizer adds to a parameter group later are step counts.
        self.setting_names: set[str] = set()
        for group in self.optimizers[Mode.MOTIVATED].param_groups:
            self.setting_names.update(group)

    def step(
        self,
        images: BatchTensor,
        labels: BatchTensor,
        mode: Mode,
        loss_function: LossFunction | PerMode[LossFunction],
    ) -> dict[Mode, float]:
        """Train on one batch. A base batch trains the base, and a motivated batch what the policy says.

        Args:
            images: batch of images `[B, C, H, W]`, for both models or for each.
            labels: their labels `[B]`, for both models or for each.
            mode: mode of the batch.
            loss_function: function of logits `[B, K]` and labels that returns the loss, for both models or for
                each.

        Returns:
            The loss of each model that was trained, against the labels and without weights.
        """
        if len(self.policy.modes(mode)) > 1:
            return self._train_both(images, labels, loss_function)
        loss = self._train_one(for_mode(images, mode), for_mode(labels, mode), mode, for_mode(loss_function, mode))
        return {mode: loss}

    def _train_one(self, images: Tensor, labels: Tensor, mode: Mode, loss_function: LossFunction) -> float:
        """Train the model of a mode, after switching to it if it is not active, and return its loss."""
        self.switch(mode)
        optimizer = self.optimizers[mode]
        loss = loss_function(self.models[mode](images), labels)
        optimizer.zero_grad()
        loss.backward()
        if mode is Mode.MOTIVATED:
            self.divided_step()
        else:
            optimizer.step()
        return loss.item()

    def _train_both(
        self, images: BatchTensor, labels: BatchTensor, loss_function: LossFunction | PerMode[LossFunction]
    ) -> dict[Mode, float]:
        """Train both models, each with its own loss, by one step of the motivated model, and return their losses."""
        self.switch(Mode.MOTIVATED)
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()

        # The motivated model is first, because the base may learn from its output.
        motivated_logits = self.models[Mode.MOTIVATED](for_mode(images, Mode.MOTIVATED))
        motivated_loss = for_mode(loss_function, Mode.MOTIVATED)(motivated_logits, for_mode(labels, Mode.MOTIVATED))
        (self.policy.motivated_loss_weight * motivated_loss).backward()

        # The base gets the same weights and, where both share them, the statistics that this pass has updated.
        self._copy_weights_and_buffers(Mode.BASE)
        base_logits = self.models[Mode.BASE](for_mode(images, Mode.BASE))
        base_loss = for_mode(loss_function, Mode.BASE)(base_logits, for_mode(labels, Mode.BASE))
        self.policy.base_loss(base_loss, base_logits, motivated_logits.detach()).backward()
        # The shared statistics have been updated once more.
        self._copy_weights_and_buffers(Mode.MOTIVATED)

        # One step trains the sum of both losses. Weights and state of the base are copied at the next switch.
        self._add_base_gradients()
        self._step_private_weights()
        self.divided_step()
        return {Mode.MOTIVATED: motivated_loss.item(), Mode.BASE: base_loss.item()}

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

    # What one step for both models needs.

    def _add_base_gradients(self) -> None:
        """Add the gradient of each base tensor to the part of the motivated tensor that holds it."""
        for name, parameter in self.parameters[Mode.BASE].items():
            placement = self.shared_placements.get(name)
            if placement is None:
                continue
            gradient = self.parameters[Mode.MOTIVATED][placement.name].grad
            assert gradient is not None
            assert parameter.grad is not None
            gradient[placement.index] += parameter.grad

    def _step_private_weights(self) -> None:
        """Step the weights that the base has for itself alone, with the base's optimizer."""
        base = self.parameters[Mode.BASE]
        if base.keys() <= self.shared_placements.keys():
            return
        # Without a gradient, the optimizer leaves the other weights as they are: the motivated model steps them.
        for name in base.keys() & self.shared_placements.keys():
            base[name].grad = None
        self._copy_group_counts(Mode.BASE)
        self.optimizers[Mode.BASE].step()

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
                target_state[key] = copy_value(value)
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
                target_group[count] = copy_value(source_group[count])
