"""Optimizers that compute something from a whole tensor, for which training the blocks of a weight is different.

A nested network stores a divided weight as blocks, each of which is a separate parameter. An optimizer that
treats every entry of a tensor by itself trains them as it would train the whole weight. One that computes a norm,
for example, computes it from each block.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from nestnet.optim.trial_run import ROUNDING, SHAPES, TrialRun, largest_relative_difference

WHOLE_TENSOR_COMPUTATIONS = {
    "Adafactor": "means of rows and columns, and the root mean square of an update",
    "AdafactorBigVision": "means of rows and columns, and the root mean square of an update",
    "AdamP": "the projection of an update away from its weight, by their norms",
    "SGDP": "the projection of an update away from its weight, by their norms",
    "Kron": "a preconditioner of rows and columns, at random",
    "Lamb": "a trust ratio of the norms of a weight and its update, and the norm of all gradients",
    "Lars": "a trust ratio of the norms of a weight and its gradient",
    "MADGRAD": "cube roots, whose last bit depends on where an entry lies in memory",
    "Mars": "the norm of a corrected gradient",
    "Muon": "an orthogonal matrix from the whole update of a weight",
    "NvNovoGrad": "one second moment for a tensor, the norm of its gradient",
}
"""Description of what an optimizer computes from a whole tensor, by the name of its class."""


def updates_whole_tensors(optimizer: Optimizer) -> bool:
    """Return whether the update of an entry depends on other entries of the tensor, such as on a norm of all of them.

    If so, a nested network does not train as the copying of whole tensors does.

    Args:
        optimizer: optimizer, which is tried on small tensors and is not changed.

    Returns:
        Whether the update of an entry depends on other entries.
    """
    return measure_block_difference(optimizer) > ROUNDING


def measure_block_difference(optimizer: Optimizer) -> float:
    """Return how differently an optimizer trains whole tensors and their blocks with the same gradients.

    Args:
        optimizer: optimizer, which is tried on small tensors and is not changed.

    Returns:
        The largest difference of weights, relative to the change of the weights of a block. It is 0 if
        the optimizer treats each entry of a tensor by itself, at most `ROUNDING` if the last bit of an entry
        depends on where it lies in memory, and larger if the optimizer computes something from the whole
        tensor.
    """
    block_shapes = []
    for shape in SHAPES:
        for block in _split(torch.empty(shape)):
            block_shapes.append(tuple(block.shape))
    whole_run = TrialRun(optimizer, SHAPES)
    block_run = TrialRun(optimizer, block_shapes)

    # Start from the same weights.
    start = [block.clone() for block in _split_all(whole_run.parameters())]
    with torch.no_grad():
        for block, values in zip(block_run.parameters(), start, strict=True):
            block.copy_(values)

    # Take the same steps.
    for step in range(4):
        whole_run.draw_gradients(seed=step)
        gradients = _split_all(whole_run.gradients())
        for block, gradient in zip(block_run.parameters(), gradients, strict=True):
            block.grad = gradient.clone(memory_format=torch.contiguous_format)
        whole_run.step()
        block_run.step()
    return largest_relative_difference(block_run.parameters(), _split_all(whole_run.parameters()), start)


def describe_whole_tensor_update(optimizer: Optimizer) -> str:
    """Describe what an optimizer computes from a whole tensor.

    Args:
        optimizer: optimizer whose `measure_block_difference` is above 0.

    Returns:
        A noun phrase that follows "it computes" in a message.
    """
    computation = WHOLE_TENSOR_COMPUTATIONS.get(type(optimizer).__name__)
    if computation is not None:
        return computation
    # timm's cautious optimizers (Liang et al. 2024, arXiv 2411.16085) are the ordinary classes with this
    # option.
    if any(group.get("caution") for group in optimizer.param_groups):
        return "the mean over a tensor of a mask, by which a cautious update is divided"
    return "something of all entries of a tensor, such as a norm"


def _split_all(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the blocks of all tensors, detached."""
    blocks = []
    for tensor in tensors:
        blocks.extend(_split(tensor.detach()))
    return blocks


def _split(tensor: Tensor) -> list[Tensor]:
    """Divide a tensor as a nested parameter does, into base, right and below. A vector has no columns."""
    # Two thirds of rows and columns are the base's.
    rows = len(tensor) - len(tensor) // 3
    if tensor.ndim == 1:
        return [tensor[:rows], tensor[rows:]]
    columns = tensor.shape[1] - tensor.shape[1] // 3
    return [tensor[:rows, :columns], tensor[:rows, columns:], tensor[rows:]]
