"""A divided weight as `state_dict()` hands it out: one tensor of ordinary behaviour over blocks that share no memory.

The state dict of an ordinary module holds the module's own memory, and code such as timm's `ModelEmaV3` or `torch.nn.init`
changes models through it. The blocks of a divided weight have no memory in common, so `state_dict()` joins them in a copy. Here
the copy stays connected to its blocks: it takes in what they have become before each use, and hands on what was written to it.

What is written arrives, however it is written: by methods, indices, `out=`, `torch._foreach_*`, optimizers and collectives,
in any mode of autograd, and through any view, `detach()`, `data` or parameter that shares the copy's memory. That is so because
PyTorch's dispatcher leads every operation on such a tensor through `__torch_dispatch__`, and the schema of an operation says
what it writes to. Refused with a RuntimeError is what would give the memory away (`storage()`, DLPack,
`__cuda_array_interface__`, sharing with other processes) or replace it (`set_`, `resize_`, assigning `data`, and other
operations in place on shape and strides). NumPy arrays of it are read-only.

Two things cannot be noticed: writing to the address that `data_ptr()` gives, and that the replay of a captured CUDA graph has
trained the blocks; after replays, take a new state dict.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from nestnet.nn.mode import Mode

if TYPE_CHECKING:
    import numpy as np

    from nestnet.nn.parameter import NestedParameter


class JoinedCopy:
    """The joined values of a divided weight, which all tensors of one entry of a state dict share.

    Args:
        weight: divided weight.

    Attributes:
        values: the values `[O, I, ...]`, an ordinary tensor.
    """

    def __init__(self, weight: "NestedParameter") -> None:
        self.weight = weight
        # an inference tensor could not be written to outside of inference mode
        with torch.inference_mode(False), torch.no_grad():
            self.values = weight(Mode.MOTIVATED).detach()
        self._remember()

    def refresh(self) -> None:
        """Take in the values that the blocks have now, if they have changed."""
        blocks = self.weight.blocks()
        if len(blocks) == len(self._blocks):
            same = all(now is before for now, before in zip(blocks, self._blocks, strict=True))
            if same and self._versions is not None and self._versions == _versions(blocks):
                return
        with torch.no_grad():
            self.values.copy_(self.weight(Mode.MOTIVATED))
        self._remember()

    def write_back(self) -> None:
        """Give the blocks the values that the copy has now."""
        self.weight.load(self.values)
        for block in self.weight.blocks():
            # below autograd, where operations are intercepted, nothing counts what is written
            if not block.is_inference():
                torch.autograd.graph.increment_version(block)
        self._remember()

    def _remember(self) -> None:
        self._blocks = self.weight.blocks()
        self._versions = _versions(self._blocks)


def _versions(blocks: Sequence[Tensor]) -> list[int] | None:
    """How often each block was written to; `None` where one is an inference tensor, which does not count it."""
    if any(block.is_inference() for block in blocks):
        return None
    return [block._version for block in blocks]


class WholeTensor(Tensor):
    """A divided weight of a state dict, or a view of one: see the module.

    Results that share no memory with it, copies of it, pickles and files are plain tensors.
    """

    # The results of operations are of this class only where `__torch_dispatch__` makes them so.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # torch says so

    _joined: JoinedCopy
    _plain: Tensor
    """The same memory as an ordinary tensor."""

    @classmethod
    def of(cls, weight: "NestedParameter") -> Tensor:
        """Join the blocks of a weight. Those that are no ordinary tensors, such as fake ones, are joined without connection."""
        copy = JoinedCopy(weight)
        return cls._sharing(copy, copy.values) if type(copy.values) is Tensor else copy.values

    @classmethod
    def _sharing(cls, copy: JoinedCopy, values: Tensor) -> "WholeTensor":
        """A tensor over the memory of `values`, which is that of the copy or a part of it."""
        whole = Tensor._make_subclass(cls, values)
        whole._joined = copy
        whole._plain = values
        return whole

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch declares it without types
        cls, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.inplace_view in func.tags:
            _refuse(f"{func.overloadpacket}()")
        used = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, cls)]
        for copy in _copies(used):
            copy.refresh()
        plain_args, plain_kwargs = pytree.tree_map_only(cls, lambda whole: whole._plain, (args, kwargs))
        result = func(*plain_args, **plain_kwargs)
        if func.namespace == "c10d":
            # A collective writes while it runs, and its schema does not say to which of its tensors.
            _wait(result)
            written = used
        else:
            written = [leaf for leaf in _written(func, args, kwargs) if isinstance(leaf, cls)]
        for copy in _copies(written):
            copy.write_back()
        return pytree.tree_map_only(Tensor, lambda tensor: cls._connected(tensor, used), result)

    @classmethod
    def _connected(cls, result: Tensor, used: Sequence["WholeTensor"]) -> Tensor:
        """Return the result of an operation, as a view of the copy if it shares memory with one that was used."""
        for whole in used:
            if result is whole._plain:
                return whole
        for whole in used:
            if torch._C._is_alias_of(result, whole._plain):  # type: ignore[attr-defined]  # no stub
                return cls._sharing(whole._joined, result)
        return result

    def _current(self) -> Tensor:
        """The present values as an ordinary tensor, only to be read."""
        self._joined.refresh()
        return self._plain

    # AsyncScalar without the dispatcher

    def numpy(self, *, force: bool = False) -> "np.ndarray":
        """The values as an array that cannot be written to."""
        array = self._current().numpy(force=force)
        array.flags.writeable = False
        return array

    def tolist(self) -> Any:
        return self._current().tolist()

    def untyped_storage(self) -> Any:
        """Where the memory lies and how large it is, which is all that safetensors asks; the rest of a storage is refused."""
        return Memory(self._current().untyped_storage())

    def __repr__(self, **options: Any) -> str:  # type: ignore[override]  # so is this
        return repr(self._current())

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._current().__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied = self._current().clone()
        memo[id(self)] = copied
        return copied

    def __copy__(self) -> Tensor:
        return self.detach()

    # Writing without the dispatcher

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
class Memory:
    """The place of a copy in memory, in place of a storage that could be written to."""

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
    """The copies that the tensors are of, each once."""
    return list({id(tensor._joined): tensor._joined for tensor in tensors}.values())


def _written(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[Any]:
    """The arguments that an operation writes to, lists of tensors taken apart."""
    schema = func._schema
    if not schema.is_mutable:
        return
    given = dict(kwargs)
    for argument, value in zip(schema.arguments, args, strict=False):
        given[argument.name] = value
    for argument in schema.arguments:
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from pytree.tree_leaves(given.get(argument.name))


def _wait(result: Any) -> None:
    """Wait for the collective whose result this is."""
    for leaf in pytree.tree_leaves(result):
        if isinstance(leaf, torch.ScriptObject):
            torch.distributed.Work.unbox(leaf).wait()


def _refuse(what: str) -> NoReturn:
    raise RuntimeError(
        f"{what}: this tensor of a state dict is joined from the blocks of a nested weight, which would not get what is "
        "written there; clone() it to have a tensor of your own, or write with copy_()"
    )
