"""A divided weight as `state_dict()` returns it: one tensor that behaves as usual over blocks that share no memory.

The state dict of an ordinary module shares its memory with the module, and code such as timm's `ModelEmaV3`
or `torch.nn.init` changes models through it. The blocks of a divided weight have no memory in common, so
`state_dict()` joins them in a copy. This copy stays connected to its blocks: before each use it is refreshed
from their current values, and after each write its values are written back to them.

Every kind of write reaches the blocks: by methods, indices, `out=`, `torch._foreach_*`, optimizers and
collectives, in any mode of autograd, and through any view, `detach()`, `data` or parameter that shares the
memory of the copy. The reason is that PyTorch's dispatcher passes every operation on such a tensor to
`__torch_dispatch__`, and that the schema of an operation names the arguments to which it writes. Operations
that would give the memory away (`storage()`, DLPack, `__cuda_array_interface__`, sharing with other
processes) or replace it (`set_`, `resize_`, assigning `data`, and other in-place operations on shape and
strides) are refused with a RuntimeError. Its NumPy arrays are read-only.

Two writes cannot be noticed: one to the address that `data_ptr()` returns, and one to the blocks by the
replay of a captured CUDA graph. Take a new state dict after replays.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from nestnet.nn.joined_copy import JoinedCopy

if TYPE_CHECKING:
    import numpy as np

    from nestnet.nn.parameter import NestedParameter


class WholeTensor(Tensor):
    """A divided weight in a state dict, or a view of one; `join` creates it.

    Results of operations that share no memory with it, its copies, pickles and files are plain tensors. The
    docstring of the module describes how it is connected to the blocks of the weight.
    """

    # The results of operations are of this class only where `__torch_dispatch__` makes them so.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # torch says so

    _joined: JoinedCopy
    """Copy to which the tensor belongs."""
    _plain: Tensor
    """Ordinary tensor over the same memory."""

    @classmethod
    def join(cls, weight: "NestedParameter") -> Tensor:
        """Return the joined blocks of a weight.

        Args:
            weight: divided weight.

        Returns:
            A `WholeTensor` `[O, I, ...]`. If the blocks are not ordinary tensors, such as fake tensors, the
            result is joined from them without a connection to them.
        """
        copy = JoinedCopy(weight)
        # Tracing with fake tensors needs the shape only.
        if type(copy.values) is not Tensor:
            return copy.values
        return cls._sharing(copy, copy.values)

    @classmethod
    def _sharing(cls, copy: JoinedCopy, values: Tensor) -> "WholeTensor":
        """Return a tensor over the memory of `values`, which is that of the copy or a part of it."""
        whole = Tensor._make_subclass(cls, values)
        whole._joined = copy
        whole._plain = values
        return whole

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch declares it without types
        cls, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        # Operations in place on shape and strides, such as `t_`, would leave the copy with another layout.
        if torch.Tag.inplace_view in func.tags:
            _refuse(f"{func.overloadpacket}()")
        used = cls._instances_among(pytree.tree_leaves((args, kwargs)))
        # Several tensors may belong to the same copy, which is refreshed and written back once.
        for copy in _copies(used):
            copy.refresh()
        # The operation runs on ordinary tensors over the same memory.
        plain_args, plain_kwargs = pytree.tree_map_only(cls, lambda whole: whole._plain, (args, kwargs))
        result = func(*plain_args, **plain_kwargs)
        if func.namespace == "c10d":
            # A collective writes while it runs, and its schema does not say to which of its tensors.
            _wait(result)
            written = used
        else:
            written = cls._instances_among(_written_arguments(func, args, kwargs))
        for copy in _copies(written):
            copy.write_back()
        return pytree.tree_map_only(Tensor, lambda tensor: cls._connected(tensor, used), result)

    @classmethod
    def _instances_among(cls, values: Iterable[Any]) -> list["WholeTensor"]:
        return [value for value in values if isinstance(value, cls)]

    @classmethod
    def _connected(cls, result: Tensor, used: Sequence["WholeTensor"]) -> Tensor:
        """Return a result of an operation, as a `WholeTensor` if it shares the memory of one of the used tensors."""
        # An operation in place returns its argument.
        for whole in used:
            if result is whole._plain:
                return whole
        for whole in used:
            if torch._C._is_alias_of(result, whole._plain):  # type: ignore[attr-defined]  # no stub
                return cls._sharing(whole._joined, result)
        return result

    def _current(self) -> Tensor:
        """Return the current values as an ordinary tensor, which must only be read."""
        self._joined.refresh()
        return self._plain

    # Methods that read without the dispatcher.

    def numpy(self, *, force: bool = False) -> "np.ndarray":
        """Return the values as a read-only array."""
        array = self._current().numpy(force=force)
        array.flags.writeable = False
        return array

    def tolist(self) -> Any:
        return self._current().tolist()

    def untyped_storage(self) -> Any:
        """Return the address, the size and the device of the memory, which is all that safetensors reads."""
        return StorageFacts(self._current().untyped_storage())

    def __repr__(self, **options: Any) -> str:  # type: ignore[override]  # torch declares it without types
        return repr(self._current())

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._current().__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied = self._current().clone()
        memo[id(self)] = copied
        return copied

    def __copy__(self) -> Tensor:
        return self.detach()

    # Methods that would write without the dispatcher.

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, values: Tensor) -> None:
        _refuse("assigning data")

    def storage(self) -> NoReturn:
        _refuse("storage()")

    def share_memory_(self) -> NoReturn:
        _refuse("share_memory_()")

    def apply_(self, function: Callable[[float], float]) -> NoReturn:
        _refuse("apply_()")

    def __dlpack__(self, **options: Any) -> NoReturn:
        _refuse("__dlpack__()")

    @property
    def __cuda_array_interface__(self) -> NoReturn:
        _refuse("__cuda_array_interface__")


@dataclass(frozen=True)
class StorageFacts:
    """The address, the size and the device of a storage, without the access for writing that a storage gives."""

    _storage: torch.UntypedStorage

    @property
    def device(self) -> torch.device:
        return self._storage.device

    def data_ptr(self) -> int:
        return self._storage.data_ptr()

    def nbytes(self) -> int:
        return self._storage.nbytes()

    def size(self) -> int:
        return self._storage.size()

    def __getattr__(self, name: str) -> NoReturn:
        _refuse(f"untyped_storage().{name}")


def _copies(tensors: Sequence[WholeTensor]) -> list[JoinedCopy]:
    """Return the copies to which the tensors belong, without duplicates."""
    by_id = {id(tensor._joined): tensor._joined for tensor in tensors}
    return list(by_id.values())


def _written_arguments(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the arguments to which an operation writes, and the elements of those that are lists."""
    # Most operations write to no argument, which the schema tells at once.
    schema = func._schema
    if not schema.is_mutable:
        return
    values = dict(kwargs)
    for argument, value in zip(schema.arguments, args, strict=False):
        values[argument.name] = value
    for argument in schema.arguments:
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from pytree.tree_leaves(values.get(argument.name))


def _wait(result: Any) -> None:
    """Wait until the collective that returned `result` has finished."""
    for leaf in pytree.tree_leaves(result):
        if isinstance(leaf, torch.ScriptObject):
            torch.distributed.Work.unbox(leaf).wait()


def _refuse(operation: str) -> NoReturn:
    raise RuntimeError(
        f"{operation}: this tensor of a state dict is joined from the blocks of a nested weight, and the blocks would "
        "not receive what is written there; clone() it to have a tensor of your own, or write with copy_()"
    )
