"""The gradients of both networks on the weights that they share, and how far they agree."""

import math

import torch
from torch import Tensor

from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel


class SharedGradients:
    """Gradients of two networks on their shared weights, which are kept apart until the optimizer needs their sum.

    Autograd adds the gradients of all backward passes. Here each network's passes add to gradients of their
    own: `switch` after every backward pass exchanges them, and `join` after the last one adds them. Several
    processes average each network's gradients in its last backward pass, as they always do. The sum has the
    bits of autograd's own, except that with several parts or processes it is rounded in another order.

    Args:
        net: nested network.
    """

    def __init__(self, net: NestedModel) -> None:
        motivated = set(net.subnet(Mode.MOTIVATED).parameters())
        self.shared = [parameter for parameter in net.subnet(Mode.BASE).parameters() if parameter in motivated]
        self.others: list[Tensor | None] = []
        self.device = next(net.parameters()).device

    def begin(self) -> None:
        """Prepare for a batch that trains both networks, before its first backward pass."""
        self.others = [None] * len(self.shared)

    def switch(self) -> None:
        """Put the gradients of the network whose backward pass has run aside, and those of the other one in their place."""
        for index, parameter in enumerate(self.shared):
            own = parameter.grad
            parameter.grad = self.others[index]
            self.others[index] = own

    @torch.no_grad()
    def join(self) -> Tensor:
        """Add the gradients of both networks, after the last backward pass.

        Returns:
            Their agreement `[]` from before: the cosine of the angle between them, as one vector each. It is NaN
            if one of them is zero, and if the networks share no weight that is trained.
        """
        sums: list[Tensor] = []
        addends: list[Tensor] = []
        for parameter, other in zip(self.shared, self.others, strict=True):
            # Weights that are frozen have no gradients, and the others have two.
            if parameter.grad is None:
                parameter.grad = other
            elif other is not None:
                sums.append(parameter.grad)
                addends.append(other)
        # Their memory is free as soon as they have been added.
        self.others = []
        if not sums:
            return torch.full((), math.nan, device=self.device)
        agreement = _cosine(sums, addends)
        torch._foreach_add_(sums, addends)
        return agreement


def _cosine(first: list[Tensor], second: list[Tensor]) -> Tensor:
    """Return the cosine `[]` of the angle between two lists of tensors, each seen as one vector."""
    x = torch.cat([tensor.flatten() for tensor in first])
    y = torch.cat([tensor.flatten() for tensor in second])
    # On a CPU `sum` adds in pairs. `F.cosine_similarity`, `dot` and `norm` add one by one there, whose rounding
    # shows from the fourth digit on with 5 million numbers in float32.
    return (x * y).sum() / (x * x).sum().sqrt() / (y * y).sum().sqrt()
