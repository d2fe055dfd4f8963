"""The optimizer step of the motivated model, with a step count for each part of a divided tensor.

In the paper a divided tensor has one step count, which a switch copies from the base. A nested network has one for
each part, and so has the reference with `step_count="own"`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nestnet.nn.mode import Mode
from nestnet.nn.placement import Placement
from nestnet.optim.initial_state import is_scalar
from nestnet.verification.copying import copy_entries, copy_scalars, copy_through_map, has_shape_of
from nestnet.verification.optimizer_snapshot import OptimizerSnapshot


class DividedStep:
    """Step of the motivated model such that each part of a divided tensor has its own optimizer state.

    Args:
        optimizer: optimizer of the motivated model.
        parameters: parameters of this model, by name.
        placements: position of the base's part in each divided tensor, by name of the tensor.
        step_count: `"own"` or `"literal"`; see `nestnet.verification.reference.CopyReference`.

    Attributes:
        differential_counts: for each divided tensor whose differential part has been trained, the scalars
            of that part's optimizer state, such as Adam's `step`.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        parameters: Mapping[str, nn.Parameter],
        placements: Mapping[str, Placement],
        *,
        step_count: str,
    ) -> None:
        self.optimizer = optimizer
        self.parameters = parameters
        self.placements = placements
        self.has_own_counts = step_count == "own"
        self.differential_counts: dict[str, dict[str, Any]] = {}
        # Most optimizers create the state of a parameter at its first step, but Adagrad creates it at once.
        self.states_before_training: dict[str, dict[str, Any]] = {}
        for name in placements:
            self.states_before_training[name] = copy_entries(self._state(name))

    def __call__(self) -> None:
        """Take the step.

        A single step of the optimizer is not enough where the parts differ in their counts, or one has no
        state yet.
        """
        trained = [name for name in self.placements if self.parameters[name].grad is not None]
        apart = [name for name in trained if self._needs_own_step(name)]
        if apart:
            self._step_twice(apart)
        else:
            self.optimizer.step()
        for name in trained:
            if name not in apart:
                self.differential_counts[name] = copy_scalars(self._state(name))

    def _step_twice(self, apart: list[str]) -> None:
        """Take two steps from the same point, and combine their results.

        The first step uses the state of the base parts. The second uses the state of the differential
        parts of the tensors `apart`, and only these parts are taken from it.
        """
        # Step the base parts and all undivided tensors.
        before = OptimizerSnapshot(self.optimizer)
        self.optimizer.step()
        after_base_step = OptimizerSnapshot(self.optimizer)
        before.restore()

        # Step the differential parts.
        for name in apart:
            self.optimizer.state[self.parameters[name]] = self._differential_state(name)
        self.optimizer.step()
        differential: list[tuple[str, Tensor, dict[str, Any]]] = []
        for name in apart:
            values = self.parameters[name].detach().clone()
            differential.append((name, values, dict(self._state(name))))

        # Restore the first step's result, and overwrite the differential parts with the second's.
        after_base_step.restore()
        for name, values, state in differential:
            self._keep_differential(name, values, state)
            self.differential_counts[name] = copy_scalars(state)

    def _needs_own_step(self, name: str) -> bool:
        """Return whether a differential part's state differs from the state of the whole tensor."""
        has_counts = any(is_scalar(value) for value in self._state(name).values())
        is_first_update = name not in self.differential_counts
        if self.has_own_counts:
            return has_counts or is_first_update
        return not has_counts and is_first_update

    def _differential_state(self, name: str) -> dict[str, Any]:
        """Return the state with which the differential part of a divided tensor takes its next step."""
        if name not in self.differential_counts:
            return copy_entries(self.states_before_training[name])
        state = dict(self._state(name))
        state.update(copy_entries(self.differential_counts[name]))
        return state

    @torch.no_grad()
    def _keep_differential(self, name: str, values: Tensor, state: dict[str, Any]) -> None:
        """Write the differential part of `values` and `state` around the base part of a tensor and its state."""
        parameter = self.parameters[name]
        parameter_state = self._state(name)
        placement = self.placements[name]
        pairs = [(parameter, values)]
        for key, value in state.items():
            if has_shape_of(parameter, value):
                pairs.append((parameter_state[key], value))
        for kept, differential in pairs:
            # Overwrite the whole tensor, and then restore its base part.
            base = kept[placement.index].clone()
            kept.copy_(differential)
            copy_through_map(base, kept, placement, to=Mode.MOTIVATED)

    def _state(self, name: str) -> dict[str, Any]:
        return self.optimizer.state.get(self.parameters[name], {})
