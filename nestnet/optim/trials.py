"""Trials of an optimizer on a few small tensors, with the settings that it has: what it can do is found by doing it.

They tell whether a run with it can be resumed, and whether training blocks of a weight is the same as training the whole.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nestnet.optim.state import aside, fresh_optimizer, load_optimizer
from nestnet.optim.step_counts import fill_momentum
from nestnet.storage.state_codec import round_trip
from nestnet.text.messages import first_line

SHAPES = ((7,), (20, 18), (6, 5, 3, 3))
"""Of a bias, a matrix and a convolution. Adafactor keeps sums of rows and columns where both have more than 16 entries."""

ROUNDING = 1e-5
"""Largest difference of weights, relative to how far they were moved, that rounding explains."""

WHOLE_TENSOR = {
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
"""By the name of an optimizer's class: what it computes from a whole tensor."""


def check_trainable(optimizer: Optimizer) -> None:
    """Find out whether a run of a nested network with this optimizer does what it should, and can be resumed.

    Raises:
        ValueError: with the reason, if a step fails, if what its steps of one tensor leave behind changes those of another that
            is trained at other times, or if it does not go on exactly as it was from the state that it saves.
    """
    name = type(optimizer).__name__
    try:
        mixes = not updates_whole_tensors(optimizer) and _mixes_tensors(optimizer)
    except Exception as error:  # whatever an optimizer may raise
        raise ValueError(f"{name} cannot take a step: {first_line(error)}") from error
    if mixes:
        raise ValueError(
            f"{name} uses for one tensor what it computed for another at an earlier step, and in a nested network these are "
            "trained at different steps; take another optimizer, or a newer timm"
        )
    try:
        resumes = _resumes(optimizer)
    except Exception as error:
        raise ValueError(f"the state of {name} cannot be saved and loaded: {first_line(error)}") from error
    if not resumes:
        raise ValueError(f"{name} does not go on as it was from the state that it saves, so that no run can be resumed")


def updates_whole_tensors(optimizer: Optimizer) -> bool:
    """Whether an update of an entry depends on other entries of the tensor, such as on a norm of all of them.

    If so, a nested network, whose weights are divided into blocks, does not train as the copying of whole tensors does.
    """
    return difference_of_blocks(optimizer) > ROUNDING


def difference_of_blocks(optimizer: Optimizer) -> float:
    """Train whole tensors, and their blocks as parameters of their own with the same gradients.

    Returns:
        The largest difference of weights, relative to how far the weights of a block were moved. 0 means that the optimizer
        treats each entry of a tensor by itself; up to `ROUNDING`, that the last bit of an entry depends on where it lies
        in memory; and more, that it computes something from the whole tensor.
    """
    whole = _Trial(optimizer, SHAPES)
    blocks = _Trial(optimizer, [tuple(block.shape) for shape in SHAPES for block in _blocks(torch.empty(shape))])
    start = [block.clone() for block in whole.in_blocks()]
    with torch.no_grad():
        for block, values in zip(blocks.parameters(), start, strict=True):
            block.copy_(values)
    for step in range(4):
        whole.draw_gradients(seed=step)
        gradients = [block for parameter in whole.parameters() for block in _blocks(_gradient(parameter))]
        for block, gradient in zip(blocks.parameters(), gradients, strict=True):
            block.grad = gradient.clone(memory_format=torch.contiguous_format)
        whole.step()
        blocks.step()
    return _largest_difference(blocks.parameters(), list(whole.in_blocks()), start)


def _mixes_tensors(optimizer: Optimizer) -> bool:
    """Whether a tensor that is trained at some steps is moved otherwise if others are trained in between as well."""
    results: list[list[nn.Parameter]] = []
    for others_train_between in (False, True):
        trial = _Trial(optimizer, SHAPES)
        rates = [group["lr"] for group in trial.optimizer.param_groups]
        sometimes = [group["params"][-1] for group in trial.optimizer.param_groups]
        start = [parameter.detach().clone() for parameter in sometimes]
        for step in range(8):
            trial.draw_gradients(seed=step)
            for parameter in trial.parameters():
                trained_between = others_train_between and all(parameter is not p for p in sometimes)
                if step not in (2, 3, 6) and not trained_between:
                    parameter.grad = None
            for group, rate in zip(trial.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate / (1 + step)
            trial.step()
        results.append(sometimes)
    together, in_turn = results
    return _largest_difference(in_turn, together, start) > ROUNDING


def _resumes(optimizer: Optimizer) -> bool:
    """Whether another optimizer goes on, from the state that is saved after some steps, as the first one does.

    On a CPU that means to the last bit; other devices may round in another way each time.
    """
    first = _Trial(optimizer, SHAPES)
    second = _Trial(optimizer, SHAPES)
    start = [parameter.detach().clone() for parameter in first.parameters()]
    first.train(steps=2, seed=0)
    second.take_over(first)
    first.train(steps=2, seed=1)
    second.train(steps=2, seed=1)
    allowed = 0.0 if first.device.type == "cpu" else ROUNDING
    return _largest_difference(second.parameters(), first.parameters(), start) <= allowed


def whole_tensor_reason(optimizer: Optimizer) -> str:
    """What an optimizer that updates a tensor as a whole, or all but so, computes of it, in words."""
    reason = WHOLE_TENSOR.get(type(optimizer).__name__)
    if reason is not None:
        return reason
    if any(group.get("caution") for group in optimizer.param_groups):
        return "the mean over a tensor of a mask, by which a cautious update is divided"
    return "something of all entries of a tensor, such as a norm"


class _Trial:
    """Small parameters and a new optimizer over them, with each group's settings of the one that is tried.

    Args:
        optimizer: the one that is tried.
        shapes: of the parameters in each group.
    """

    def __init__(self, optimizer: Optimizer, shapes: Sequence[tuple[int, ...]]) -> None:
        self.device = next((p.device for group in optimizer.param_groups for p in group["params"]), torch.device("cpu"))
        generator = torch.Generator().manual_seed(0)
        groups = []
        for group in optimizer.param_groups:
            tensors = [torch.randn(shape, generator=generator).to(self.device) for shape in shapes]
            groups.append((group, [nn.Parameter(tensor) for tensor in tensors]))
        self.optimizer = fresh_optimizer(optimizer, groups)
        fill_momentum(self.optimizer)

    def parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def in_blocks(self) -> Iterator[Tensor]:
        for parameter in self.parameters():
            yield from _blocks(parameter.detach())

    def draw_gradients(self, seed: int) -> None:
        """Gradients that are many times as large in one part of a tensor as in another, so that a norm of all shows."""
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            gradient = torch.randn(parameter.shape, generator=generator)
            gradient[len(gradient) // 2 :] *= 30
            parameter.grad = gradient.to(self.device)

    def step(self) -> None:
        with aside(self.device):
            self.optimizer.step()

    def train(self, steps: int, seed: int) -> None:
        with aside(self.device):
            torch.manual_seed(seed)
            for number in range(steps):
                self.draw_gradients(seed + number)
                self.optimizer.step()

    @torch.no_grad()
    def take_over(self, other: "_Trial") -> None:
        """Go on from the weights and the saved state of another trial."""
        for parameter, theirs in zip(self.parameters(), other.parameters(), strict=True):
            parameter.copy_(theirs)
        load_optimizer(self.optimizer, round_trip(other.optimizer.state_dict()))


def _blocks(tensor: Tensor) -> list[Tensor]:
    """A tensor as a nested parameter divides it: base, right, below; a vector has no columns."""
    rows = len(tensor) - len(tensor) // 3
    if tensor.ndim == 1:
        return [tensor[:rows], tensor[rows:]]
    columns = tensor.shape[1] - tensor.shape[1] // 3
    return [tensor[:rows, :columns], tensor[:rows, columns:], tensor[rows:]]


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _largest_difference(found: Sequence[Tensor], expected: Sequence[Tensor], before: Sequence[Tensor]) -> float:
    """The largest difference of tensors, relative to how far each was moved from what it was before."""
    largest = 0.0
    for ours, theirs, start in zip(found, expected, before, strict=True):
        difference = _distance(ours, theirs)
        if difference > 0:
            moved = _distance(ours, start)
            largest = max(largest, difference / moved if moved > 0 else math.inf)
    return largest


def _distance(tensor: Tensor, other: Tensor) -> float:
    """The largest difference of two tensors' entries; entries that are NaN or infinite in both do not count."""
    difference = (tensor.detach() - other.detach()).abs()
    same = torch.isclose(tensor, other, rtol=0, atol=0, equal_nan=True)
    return difference.masked_fill(same, 0).nan_to_num(nan=math.inf).max().item()
