"""Nested states as JSON and named tensors.

A state, such as that of an optimizer, consists of nested dictionaries, lists and tuples that hold tensors,
dtypes and plain values. Nothing in the encoded form can be executed.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

State = dict[str, Any]
"""State of a run or of a part of it, by name."""

NUMBERS = {int, float}
"""Types of numbers that JSON gives back as they are."""


def encode(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Convert a value for JSON, with its tensors collected separately.

    Args:
        value: tensor, dtype, plain value (text, number, truth value or `None`), or nested dictionaries, lists
            and tuples of them.
        path: path of the value in the whole state, such as `optimizer.state.0`; empty for the whole state.
        tensors: dictionary to which the tensors are added, by their paths.

    Returns:
        The value, with a reference in place of each tensor. Dictionaries become lists of pairs, because their
        keys may be numbers, which JSON would turn into texts.

    Raises:
        ValueError: If the value holds anything else. The message names the path.
    """
    match value:
        case Tensor():
            tensors[path] = value
            return {"tensor": path}
        case torch.dtype():
            return {"dtype": str(value).removeprefix("torch.")}
        case Mapping():
            pairs = []
            for key, item in value.items():
                pairs.append([_encode_plain(key, path), encode(item, _join(path, key), tensors)])
            return {"dict": pairs}
        case tuple() | list():
            # Optimizers keep tuples, such as Adam's betas, which JSON would turn into lists.
            if _are_numbers(value):
                items = list(value)
            else:
                items = [encode(item, _join(path, index), tensors) for index, item in enumerate(value)]
            if isinstance(value, tuple):
                return {"tuple": items}
            return items
    return _encode_plain(value, path)


def decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Convert a value back that `encode` has converted for JSON.

    Args:
        value: value that was read from JSON.
        tensors: tensors that `encode` collected, by their paths.

    Returns:
        The original value.

    Raises:
        KeyError: If a tensor is absent.
        TypeError: If `encode` does not return such a value.
    """
    match value:
        case {"tensor": str(path)}:
            return tensors[path]
        # Only the name of a dtype is looked up in torch, whatever else the file may name.
        case {"dtype": str(name)} if isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        case {"dict": pairs}:
            return {key: decode(item, tensors) for key, item in pairs}
        case {"tuple": items}:
            return tuple(decode(items, tensors))
        case list():
            if _are_numbers(value):
                return value
            return [decode(item, tensors) for item in value]
        case dict():
            raise TypeError(f"{sorted(value)} is not what a checkpoint has")
    return value


def round_trip(state: State) -> State:
    """Return a state as it would be read from a checkpoint, without writing a file.

    Args:
        state: state to encode and decode.

    Returns:
        The state, with the very same tensors.

    Raises:
        ValueError: If it holds something that a checkpoint cannot hold. The message names its path.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(encode(state, "", tensors))
    decoded: State = decode(json.loads(text), tensors)
    return decoded


def check_tensors(name: str, tensors: Any, expected: Mapping[str, Tensor]) -> None:
    """Check that the tensors of a checkpoint have the names, shapes and dtypes of those that they replace.

    Args:
        name: name of the tensors' field in the checkpoint, for the message.
        tensors: tensors of the checkpoint by name.
        expected: tensors that they replace, by name.

    Raises:
        ValueError: If `tensors` is not a mapping, or a tensor differs. The message names the first one.
    """
    if not isinstance(tensors, Mapping):
        raise ValueError(f"the checkpoint has no {name}")
    # The names of the network come first, in its order, and then the names that it does not have.
    for key in dict.fromkeys((*expected, *tensors)):
        actual = describe_tensor(tensors.get(key))
        wanted = describe_tensor(expected.get(key))
        if actual != wanted:
            raise ValueError(f"the checkpoint is of another network: {name}.{key} is {actual}, and must be {wanted}")


def describe_tensor(tensor: Any) -> str:
    """Return the shape and the dtype of a tensor in words.

    Args:
        tensor: tensor, `None` for one that is absent, or anything else.

    Returns:
        A text such as `(64, 3) of float32`; `absent` for `None`, and the name of the type for anything else.
    """
    if tensor is None:
        return "absent"
    if not isinstance(tensor, Tensor):
        return type(tensor).__name__
    return f"{tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"


def _are_numbers(values: Sequence[Any]) -> bool:
    """Return whether all values are numbers, as in the state of Python's random generator, which has 625 of them."""
    return NUMBERS.issuperset(map(type, values))


def _encode_plain(value: Any, path: str) -> Any:
    if isinstance(value, str):
        return str(value)  # a `Mode` becomes a plain text
    if value is None or isinstance(value, (bool, int, float)):
        return value
    raise ValueError(f"{path}: {type(value).__name__} cannot be kept in a checkpoint; tensors and plain values can")


def _join(path: str, key: Any) -> str:
    if not path:
        return str(key)
    return f"{path}.{key}"
