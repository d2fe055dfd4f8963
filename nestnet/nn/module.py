"""Modules that own nested parameters: their state dicts, and the placements of their base tensors."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from nestnet.nn.mode import Mode
from nestnet.nn.parameter import NestedParameter, weight_name
from nestnet.nn.placement import Placement
from nestnet.nn.stage import Stage
from nestnet.nn.whole_tensor import WholeTensor


class NestedModule(nn.Module):
    """A module whose state dict holds its nested parameters as whole tensors, under their own names.

    Writes to such a tensor, or to a view of it, reach the blocks: see `nestnet.nn.whole_tensor`.
    """

    def nested_parameters(self) -> Iterator[tuple[str, NestedParameter]]:
        """Yield the name and the nested parameter for each one in this module itself, without those of its children."""
        for name, child in self._modules.items():
            if isinstance(child, NestedParameter):
                yield weight_name(name), child

    def weight_names(self) -> Iterator[str]:
        """Yield the names of the weights in this module itself, in the order of the plain module."""
        for name, parameter in self._parameters.items():
            if parameter is not None:
                yield name
        for name, _ in self.nested_parameters():
            yield name

    def placements(self) -> Iterator[tuple[str, Placement]]:
        """Yield the base name and the placement of each base tensor in this module itself."""
        for name, nested in self.nested_parameters():
            yield name, nested.placement.with_name(name)
        yield from _plain_placements(self)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        # With `keep_vars` the joined weight is part of the graph, and its gradients reach the blocks.
        for name, nested in self.nested_parameters():
            destination[prefix + name] = nested(Mode.MOTIVATED) if keep_vars else WholeTensor.join(nested)
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        assign = local_metadata.get("assign_to_params_buffers", False)
        # The nested parameters are loaded here, and torch loads what remains.
        remaining = dict(state_dict)
        for name, nested in self.nested_parameters():
            whole = remaining.pop(prefix + name, None)
            expected_shape = nested.placement.shape
            if whole is None:
                if strict:
                    missing_keys.append(prefix + name)
            elif tuple(whole.shape) != expected_shape:
                # torch's own words, by which code that loads checkpoints recognises the case.
                error_msgs.append(
                    f"size mismatch for {prefix}{name}: copying a param with shape {tuple(whole.shape)} from checkpoint, "
                    f"the shape in current model is {expected_shape}."
                )
            else:
                nested.load(whole, assign=assign)
        super()._load_from_state_dict(
            remaining, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


def collect_placements(module: nn.Module, name: str = "", base_name: str = "") -> Iterator[tuple[str, Placement]]:
    """Yield the base name and the placement of each tensor of a module and its children that the base network has.

    Args:
        module: nested network, or a part of it.
        name: prefix of the module's tensors in the nested network's state dict, with its trailing dot.
        base_name: prefix of the same tensors in the base network's state dict.

    Yields:
        The name in the base network's state dict, and the placement.
    """
    # torch's own layers inside a nested network, such as a GroupNorm, are whole in both modes.
    module_placements = module.placements() if isinstance(module, NestedModule) else _plain_placements(module)
    for local_base_name, placement in module_placements:
        yield base_name + local_base_name, placement.with_name(name + placement.name)
    for child_name, child in module.named_children():
        if isinstance(child, NestedParameter):
            continue  # among the placements of the module that owns it
        # In a stage the base has other block numbers, and no differential blocks.
        base_child_name = child_name
        if isinstance(module, Stage):
            position = module.base_positions[int(child_name)]
            if position is None:
                continue
            base_child_name = str(position)
        yield from collect_placements(child, f"{name}{child_name}.", f"{base_name}{base_child_name}.")


def _plain_placements(module: nn.Module) -> Iterator[tuple[str, Placement]]:
    """Yield the placements of a module's own parameters and saved buffers, which both modes use whole."""
    # The private dictionaries also hold entries that are `None`, and, unlike `named_parameters`, no children.
    for name, tensor in (*module._parameters.items(), *module._buffers.items()):
        if tensor is not None and name not in module._non_persistent_buffers_set:
            shape = tuple(tensor.shape)
            yield name, Placement(name, shape, shape)
