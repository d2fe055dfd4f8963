"""Nests of dictionaries, lists, tensors and plain values as JSON and named tensors. Nothing in such a file can be executed."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

State = dict[str, Any]


def round_trip(state: State) -> State:
    """A state as it would come back from a checkpoint, without a file; its tensors are the same ones.

    Raises:
        ValueError: naming the place of what is neither a tensor nor a plain value.
    """
    tensors: dict[str, Tensor] = {}
    plain = json.dumps(encode(state, "", tensors))
    kept: State = decode(json.loads(plain), tensors)
    return kept


def encode(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """A value for JSON, its tensors put aside. Dictionaries become lists of pairs: their keys may be numbers."""
    match value:
        case Tensor():
            tensors[path] = value
            return {"tensor": path}
        case torch.dtype():
            return {"dtype": str(value).removeprefix("torch.")}
        case Mapping():
            return {
                "dict": [[_plain(key, path), encode(item, _below(path, key), tensors)] for key, item in value.items()]
            }
        case tuple() | list():
            items = [encode(item, _below(path, index), tensors) for index, item in enumerate(value)]
            return {"tuple": items} if isinstance(value, tuple) else items
    return _plain(value, path)


def decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return the value that `encode` made JSON of.

    Args:
        value: what JSON holds.
        tensors: the tensors that `encode` put aside, by path.

    Returns:
        The nest of dictionaries, lists, tensors and plain values.

    Raises:
        KeyError: if a tensor is absent.
        TypeError: for JSON that `encode` does not make.
    """
    match value:
        case {"tensor": str(path)}:
            return tensors[path]
        case {"dtype": str(name)} if isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        case {"dict": pairs}:
            return {key: decode(item, tensors) for key, item in pairs}
        case {"tuple": items}:
            return tuple(decode(item, tensors) for item in items)
        case list():
            return [decode(item, tensors) for item in value]
        case dict():
            raise TypeError(f"{sorted(value)} is not what a checkpoint has")
    return value


def _plain(value: Any, path: str) -> Any:
    if isinstance(value, str):
        return str(value)  # of a Mode too
    if value is None or isinstance(value, (bool, int, float)):
        return value
    raise ValueError(f"{path}: {type(value).__name__} cannot be kept in a checkpoint; tensors and plain values can")


def _below(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def check_tensors(what: str, there: Any, wanted: Mapping[str, Tensor]) -> None:
    """Raises ValueError unless `there` has just the names, shapes and types of `wanted`."""
    if not isinstance(there, Mapping):
        raise ValueError(f"the checkpoint has no {what}")
    for name in dict.fromkeys((*wanted, *there)):
        found, right = (kind(tensors.get(name)) for tensors in (there, wanted))
        if found != right:
            raise ValueError(f"the checkpoint is of another network: {what}.{name} is {found}, and must be {right}")


def kind(tensor: Any) -> str:
    """Shape and type of a tensor, in words."""
    if not isinstance(tensor, Tensor):
        return "absent" if tensor is None else type(tensor).__name__
    return f"{tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
