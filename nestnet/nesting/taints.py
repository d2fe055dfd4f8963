"""Forward passes in which some entries are NaN, to see which inputs of the network's matrices they reach.

A matrix is the weight of a linear layer, or the kernel of a convolution that is not grouped: its rows write channels,
and its columns read them. No value passes through a matrix here: what it returns is random, whatever it gets. What it
gets is therefore computed one channel at a time, as far as the network does so, and NaN in one channel stays there.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from nestnet.nesting.channels import tensors_in
from nestnet.nesting.per_channel import PerChannelNorms, reduce_norms

LINEAR = F.linear
CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d, F.conv1d, F.conv2d, F.conv3d)
GROUP_NORMS = (F.group_norm, torch.group_norm)

Reader = tuple[str, int]
"""A matrix, by the name of its parameter, and the number of its call in the forward pass."""


@dataclass
class Reached:
    """What the NaN of one forward pass reached.

    Attributes:
        columns: for each call of a matrix that got NaN, whether each of its columns did `[I]`.
        output: whether the output of the network has NaN.
    """

    columns: dict[Reader, Tensor] = field(default_factory=dict)
    output: bool = False


class TaintedNetwork:
    """A network that runs with NaN in some entries.

    Args:
        network: network in evaluation mode, which is changed: it must be used for nothing else.
        inputs: input of the network.

    Attributes:
        module: the network.
        tensors: its parameters and buffers by name.
        tied: names of parameters that have several names.
        matrices: for each matrix that runs, by the name of its parameter, the name of its bias, if it has one.
    """

    def __init__(self, network: nn.Module, inputs: Tensor) -> None:
        self.module = network.float()
        self.inputs = inputs.float() if inputs.is_floating_point() else inputs
        reduce_norms(network)
        for module in network.modules():
            if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
                module.forward = partial(_attend, module)  # type: ignore[method-assign]
        parameters = dict(network.named_parameters())
        self.tensors: dict[str, Tensor] = dict(network.named_parameters(remove_duplicate=False))
        self.tensors.update(network.named_buffers())
        self.tied = _find_tied(network)
        self._names = {(parameter.data_ptr(), parameter.shape): name for name, parameter in parameters.items()}
        self._generator = torch.Generator().manual_seed(0)
        self.matrices: dict[str, str | None] = {}
        # What each call of a matrix returns, in the first pass and in all later ones.
        self._outputs: dict[Reader, Tensor] = {}
        self._calls: dict[str, int] = {}
        self._rows: Mapping[str, Tensor] = {}
        self._reached = Reached()
        self.run()

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a parameter or buffer.

        Args:
            name: one of its names.
        """
        return tuple(self.tensors[name].shape)

    def run(self, rows: Mapping[str, Tensor] | None = None) -> Reached:
        """Run the network once.

        Args:
            rows: for matrices, by name, the indices of the rows that write NaN.

        Returns:
            What the NaN reached.
        """
        self._calls = {}
        self._rows = rows or {}
        self._reached = Reached()
        # The fused kernels of attention lose NaN in queries and keys.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), _Mode(self._call_matrix):
            output = self.module(self.inputs)
        self._reached.output = any(bool(tensor.isnan().any()) for tensor in tensors_in(output))
        return self._reached

    @contextmanager
    def tainted(self, name: str, dim: int, entries: Tensor) -> Iterator[None]:
        """Set entries of a parameter or a buffer to NaN within a context.

        Args:
            name: name of the parameter or buffer.
            dim: dimension whose entries are set.
            entries: indices of them.
        """
        tensor = self.tensors[name].detach()
        values = tensor.clone()
        tensor.index_fill_(dim, entries, float("nan"))
        try:
            yield
        finally:
            tensor.copy_(values)

    def _call_matrix(self, func: Callable[..., Tensor], args: Any, options: Any) -> Tensor | None:
        """Return what a linear layer or a convolution gives; `None` if it is not the call of a matrix."""
        call = {**dict(zip(("input", "weight", "bias"), args, strict=False)), **options}
        x, weight, bias = call["input"], call["weight"], call.get("bias")
        name = self._names.get((weight.data_ptr(), weight.shape))
        is_linear = func is LINEAR
        # The columns of a grouped convolution are not those of its input.
        if name is None or not (is_linear or weight.shape[1] == x.shape[-weight.ndim + 1]):
            return None
        dim = x.ndim - 1 if is_linear else x.ndim - weight.ndim + 1
        reader = (name, self._calls.get(name, 0))
        self._calls[name] = reader[1] + 1
        bias_name = None if bias is None else self._names.get((bias.data_ptr(), bias.shape))
        if reader not in self._outputs:
            self.matrices[name] = bias_name
            shape = func(*args, **options).shape
            self._outputs[reader] = torch.randn(shape, generator=self._generator).to(x)
        y = self._outputs[reader].clone()
        if bias is not None and bias_name is None:
            # A bias that is made of other parameters passes their NaN on.
            y += (0 * bias).view(-1, *(1,) * (y.ndim - dim - 1))
        if name in self._rows:
            y.index_fill_(dim, self._rows[name], float("nan"))
        self._see_input(reader, x, y, dim, is_linear)
        return y

    def _see_input(self, reader: Reader, x: Tensor, y: Tensor, dim: int, is_linear: bool) -> None:
        """Note the columns of the input that are NaN, or pass on the NaN of a linear layer over another dimension."""
        others = [other for other in range(x.ndim) if other != dim]
        columns = _has_nan(x, others)
        if not columns.any():
            return
        if is_linear and columns.all():
            is_nan = x.isnan()
            some = is_nan.any(dim, keepdim=True)
            every = is_nan.all(dim, keepdim=True)
            if torch.equal(some, every) and not every.all():
                # Tokens are mixed and channels are not, as in an MLP-Mixer.
                y.masked_fill_(every, float("nan"))
                return
        self._reached.columns[reader] = columns


class _Mode(PerChannelNorms):
    """A context in which norms are reduced, and matrices are called through a function."""

    def __init__(self, call_matrix: Callable[[Any, Any, Any], Tensor | None]) -> None:
        super().__init__()
        self.call_matrix = call_matrix

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        if func is LINEAR or func in CONVOLUTIONS:
            y = self.call_matrix(func, args, options)
            return func(*args, **options) if y is None else y
        if func in GROUP_NORMS:
            groups = options["num_groups"] if "num_groups" in options else args[1]
            if groups > 1:
                # The channels of a group are mixed, so that only whole groups can change places.
                return func(*args, **options)
        return super().__torch_function__(func, types, args, options)


def _attend(module: nn.MultiheadAttention, query: Tensor, *args: Any, **options: Any) -> tuple[Tensor, None]:
    """Return what attention gives for one sequence, in several calls: its own forward pass is one call of torch's."""
    is_transposed = query.ndim == 3 and not module.batch_first
    x = query.transpose(0, 1) if is_transposed else query
    packed = F.linear(x, module.in_proj_weight, module.in_proj_bias)  # [B, N, 3 * D]
    heads = packed.unflatten(-1, (3, module.num_heads, -1)).movedim(-2, -4)  # [B, heads, N, 3, D / heads]
    x = F.scaled_dot_product_attention(*heads.unbind(-2))
    x = x.movedim(-3, -2).flatten(-2)
    x = F.linear(x, module.out_proj.weight, module.out_proj.bias)
    return x.transpose(0, 1) if is_transposed else x, None


def _has_nan(x: Tensor, dims: list[int]) -> Tensor:
    """Return whether there is NaN along some dimensions."""
    # A sum is faster than a look at each entry, and NaN with any of them.
    return x.sum(dims).isnan() if dims else x.isnan()


def _find_tied(network: nn.Module) -> set[str]:
    """Return the names of parameters that have several names."""
    names: dict[int, list[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    tied: set[str] = set()
    for same in names.values():
        if len(same) > 1:
            tied.update(same)
    return tied
