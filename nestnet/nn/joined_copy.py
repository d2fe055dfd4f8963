"""The joined values of a divided weight, kept equal to its blocks in both directions."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nestnet.nn.mode import Mode

if TYPE_CHECKING:
    from nestnet.nn.parameter import NestedParameter


class JoinedCopy:
    """The joined values of a divided weight, which all tensors of one entry of a state dict share.

    Args:
        weight: divided weight.

    Attributes:
        values: whole weight `[O, I, ...]`, an ordinary tensor.
    """

    def __init__(self, weight: "NestedParameter") -> None:
        self.weight = weight
        # An inference tensor could not be written to outside of inference mode.
        with torch.inference_mode(False), torch.no_grad():
            self.values = weight(Mode.MOTIVATED).detach()
        self._remember_blocks()

    def refresh(self) -> None:
        """Copy the current values of the blocks if they have changed since the last call."""
        if self._blocks_are_unchanged():
            return
        with torch.no_grad():
            self.values.copy_(self.weight(Mode.MOTIVATED))
        self._remember_blocks()

    def write_back(self) -> None:
        """Set the blocks to the current values of the copy."""
        self.weight.load(self.values)  # in place, so that optimizers keep their parameters
        for block in self.weight.blocks():
            # Operations are intercepted below autograd, where writing does not increase a tensor's version.
            if not block.is_inference():
                torch.autograd.graph.increment_version(block)
        self._remember_blocks()

    def _blocks_are_unchanged(self) -> bool:
        # Loading with `assign=True` replaces blocks by other parameters, and `to()` may do so too.
        blocks = self.weight.blocks()
        if len(blocks) != len(self._blocks):
            return False
        are_same_tensors = all(now is before for now, before in zip(blocks, self._blocks, strict=True))
        if not are_same_tensors or self._versions is None:
            return False
        return self._versions == _versions(blocks)

    def _remember_blocks(self) -> None:
        self._blocks = self.weight.blocks()
        self._versions = _versions(self._blocks)


def _versions(blocks: Sequence[Tensor]) -> list[int] | None:
    """Return the version of each block, which counts writes, or `None` if one is an inference tensor without a version."""
    if any(block.is_inference() for block in blocks):
        return None
    return [block._version for block in blocks]
