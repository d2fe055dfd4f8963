"""Modules without memory: names, shapes and facts of a network that is not to compute."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

INITIALISERS = frozenset(
    (
        *(Tensor.normal_, Tensor.uniform_, Tensor.erfinv_, Tensor.mul_, Tensor.add_, Tensor.clamp_, Tensor.zero_),
        *(init.normal_, init.uniform_, init.kaiming_uniform_, init.constant_),
    )
)
"""What sets the values of weights in place. For a tensor without memory torch goes through many of these in Python."""


@contextmanager
def meta_device() -> Iterator[None]:
    """Create tensors on the meta device within, without computing their values.

    Building a network takes half the time of `torch.device("meta")` alone, because nothing initialises its weights.

    Example:
        >>> with meta_device():
        ...     layer = torch.nn.Linear(2, 3)
        >>> layer.weight.shape, layer.weight.is_meta
        (torch.Size([3, 2]), True)
    """
    with torch.device("meta"), _SkipInitialisation():
        yield


class _SkipInitialisation(TorchFunctionMode):
    """Mode in which what would set the values of a tensor without memory does nothing."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in INITIALISERS:
            # The functions of `torch.nn.init` pass all arguments by name.
            tensor: Tensor = args[0] if args else kwargs["tensor"]
            if tensor.is_meta:
                return tensor
        return func(*args, **kwargs)
