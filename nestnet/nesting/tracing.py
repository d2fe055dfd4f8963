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
from typing import Any

import torch
from torch import Tensor, nn

from nestnet.nesting.channels import tensors_in
from nestnet.nesting.per_channel import PerChannelNorms, reduce_norms, reduce_weights
from nestnet.nesting.plan import Plan, Trace
from nestnet.nesting.recorder import Lost, Recorder
from nestnet.nesting.trial_weights import POOL_SIZE, RandomWeights, blocks_left_out, copy_for_trials, place_weight
from nestnet.nn.batch_norm import counterpart_name
from nestnet.nn.placement import Placement

GAINS = (1.0, 0.5, 0.2, 0.05)
"""Factors of the random weights that are tried in turn, because what multiplies activations may overflow."""


class Tracer:
    """Copies of two networks, in which weights maps are tried.

    Args:
        base: base network, which is not changed.
        motivated: motivated network, which is not changed.
        inputs: input of both networks.
        private: names of the base's parameters that base mode has for itself, such as scales of BatchNorm.
    """

    def __init__(self, base: nn.Module, motivated: nn.Module, inputs: Tensor, private: Iterable[str] = ()) -> None:
        self.base = copy_for_trials(base)
        self.motivated = copy_for_trials(motivated)
        self.inputs = inputs.double().cpu() if inputs.is_floating_point() else inputs
        self.private = frozenset(private)
        self.base_parameters = dict(self.base.named_parameters(remove_duplicate=False))
        self.parameters = dict(self.motivated.named_parameters(remove_duplicate=False))
        self.base_modules = {}
        for path, module in self.base.named_modules(remove_duplicate=False):
            # The networks themselves are not compared by their inputs.
            if path and any(parameter is not None for parameter in module._parameters.values()):
                self.base_modules[path] = module
        self.base_weights = RandomWeights(0)
        self.weights = RandomWeights(POOL_SIZE // 2)
        for network in (self.base, self.motivated):
            reduce_norms(network)
        self.gain_number = -1
        self._take_next_gain()

    def trace(self, plan: Plan, *, stop_when_lost: bool = False) -> Trace:
        """Run the motivated network with the weights of the base in their places.

        Args:
            plan: weights map.
            stop_when_lost: whether to stop at the first module that gets another input than in the base.

        Returns:
            What was found.
        """
        while True:
            trace, is_finite = self._trace_once(plan, stop_when_lost)
            if is_finite or self.gain_number + 1 == len(GAINS):
                return trace
            self._take_next_gain()

    @torch.no_grad()
    def _take_next_gain(self) -> None:
        """Fill both networks with smaller weights, and run the base."""
        self.gain_number += 1
        gain = GAINS[self.gain_number]
        for parameter in self.base_parameters.values():
            self.base_weights.fill(parameter, gain)
        for parameter in self.parameters.values():
            self.weights.fill(parameter, gain)
        for name in self.private:
            self.base_parameters[name].fill_(_neutral_value(name))
        reduce_weights(self.base)
        reduce_weights(self.motivated)
        # Where the base's weights are in the motivated network's: nowhere yet.
        self.placed: dict[str, Placement] = {}
        self.records: dict[str, list[Tensor | None]] = {}

        def record(path: str, x: Tensor | None) -> None:
            # The module may write to its input.
            self.records.setdefault(path, []).append(None if x is None else x.clone())

        with PerChannelNorms(), _Hooks(self.base_modules, record):
            self.base_output = next(tensors_in(self.base(self.inputs)), None)

    @torch.no_grad()
    def _trace_once(self, plan: Plan, stop_when_lost: bool) -> tuple[Trace, bool]:
        """Return what was found, and whether all values were finite."""
        trace = Trace(order=tuple(self.records))
        for name, placement in plan.placements.items():
            self._place(name, placement)
        recorder = Recorder(
            self.base_modules,
            self.motivated,
            plan,
            trace,
            self.records,
            self._place,
            stop_when_lost=stop_when_lost,
        )
        with (
            blocks_left_out(self.motivated, plan.left_out, plan.widened),
            PerChannelNorms(),
            _Hooks(recorder.modules, recorder.compare),
        ):
            try:
                output = next(tensors_in(self.motivated(self.inputs)), None)
            except Lost:
                return trace, recorder.is_finite
            except Exception as error:  # of any kind: a block that was left out may be missed by any code
                trace.error = error
                return trace, recorder.is_finite
        base_output = self.base_output
        if base_output is None or output is None or base_output.shape != output.shape:
            return trace, recorder.is_finite
        largest = base_output.abs().max()
        # Networks whose outputs are all zero cannot be compared.
        if largest > 0:
            trace.difference = ((output - base_output).abs().max() / largest).item()
        is_finite = recorder.is_finite and (trace.first_lost is not None or math.isfinite(trace.difference))
        return trace, is_finite

    def _place(self, name: str, placement: Placement) -> None:
        """Write a weight of the base to its place, unless it is there."""
        if self.placed.get(name) == placement or name not in self.base_parameters:
            return
        self.placed[name] = placement
        if placement.private:
            # A scale and a shift of the base's own: neutral in both networks.
            counterpart = self.parameters[counterpart_name(placement.name)]
            counterpart.fill_(_neutral_value(name))
            return
        whole = self.parameters[placement.name]
        self.weights.fill(whole, GAINS[self.gain_number])
        owner = self.base_modules.get(name.rpartition(".")[0])
        is_transposed = isinstance(owner, nn.modules.conv._ConvTransposeNd) and len(placement.shape) > 1
        place_weight(self.base_parameters[name], whole, placement, is_transposed=is_transposed)


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
                self.see(path, next(tensors_in(values), None))

            self.handles.append(module.register_forward_pre_hook(before, with_kwargs=True))

    def __exit__(self, *details: Any) -> None:
        for handle in self.handles:
            handle.remove()


def _neutral_value(name: str) -> int:
    return 1 if name.endswith("weight") else 0
