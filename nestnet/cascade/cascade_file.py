"""A cascade as one safetensors file, which holds the weights that both networks share once.

The file has the motivated network's tensors under `motivated.`, and under `base.` those of the base that are no part
of them, such as its BatchNorm statistics. The entry `base_tensors` of the metadata says for every other tensor of the
base which part of which tensor of the motivated network it is. `usage_without_nestnet` reads the file in a few lines
of timm, torch and safetensors.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from nestnet.cascade.module import Cascade
from nestnet.cascade.tensor_part import TensorPart
from nestnet.models.registry import find_architecture
from nestnet.nn.mode import Mode
from nestnet.nn.placement import WeightsMap
from nestnet.storage.atomic import write_atomically
from nestnet.storage.hashed import read_hashed, serialize_hashed
from nestnet.text.arguments import is_number
from nestnet.text.commands import format_command
from nestnet.text.escape import for_python
from nestnet.weights.export_file import describe_network, describe_tensors
from nestnet.weights.metadata import Metadata
from nestnet.weights.metadata_rules import CASCADE_ENTRY

Value = TypeVar("Value")

SETTINGS = ("threshold", "base_temperature", "motivated_temperature")
"""Entries of the metadata that are numbers: arguments of `Cascade`."""


@dataclass(frozen=True)
class StoredCascade:
    """A cascade that was read from a file.

    Attributes:
        cascade: cascade of two standalone networks, in evaluation mode on the CPU. Tensors that both have whole share
            their memory.
        metadata: metadata of the network of each mode.
    """

    cascade: Cascade
    metadata: dict[Mode, Metadata]


def write_cascade(cascade: Cascade, metadata: Mapping[Mode, Metadata], weights_map: WeightsMap, path: Path) -> None:
    """Write a cascade to a file.

    Args:
        cascade: cascade of two standalone networks, `nn.Module`s with timm's names of tensors.
        metadata: metadata of the network of each mode.
        weights_map: where the base's tensors lie inside the motivated network.
        path: file to write, which is replaced if it exists.

    Raises:
        OSError: If the file cannot be written.
    """
    assert isinstance(cascade.base, nn.Module)
    assert isinstance(cascade.motivated, nn.Module)
    motivated = cascade.motivated.state_dict()
    base = cascade.base.state_dict()
    tensors = {f"motivated.{name}": tensor for name, tensor in motivated.items()}
    parts: dict[str, list[Any]] = {}
    for name, tensor in base.items():
        placement = weights_map[name]
        if placement.name in motivated and not placement.private:
            part = TensorPart.of(placement)
            # Statistics that were recomputed for each network are two tensors, whatever the map says.
            if torch.equal(part.take(motivated[placement.name]), tensor):
                parts[name] = part.to_json()
                continue
        tensors[f"base.{name}"] = tensor
    entries = {"format": "pt", CASCADE_ENTRY: json.dumps(parts)}
    for setting in SETTINGS:
        entries[setting] = json.dumps(getattr(cascade, setting))
    for mode, of_mode in metadata.items():
        for name, text in of_mode.to_entries().items():
            entries[f"{mode}.{name}"] = text
    write_atomically(path, serialize_hashed(tensors, entries))


def read_cascade(path: Path) -> StoredCascade:
    """Read a cascade from a file. Nothing in the file is executed.

    Args:
        path: file that `write_cascade` wrote.

    Returns:
        The cascade.

    Raises:
        ValueError: If the file is absent, damaged, or no cascade of nestnet.
    """
    entries, tensors = read_hashed(path)
    if "architecture" in entries:
        raise ValueError(describe_network_alone(path))
    settings = {setting: _read_setting(entries, setting, path) for setting in SETTINGS}
    metadata: dict[Mode, Metadata] = {}
    for mode in Mode:
        metadata[mode] = Metadata.from_entries(_without_prefix(entries, mode), path)
    states = {mode: _without_prefix(tensors, mode) for mode in Mode}
    states[Mode.BASE] |= _cut_base(entries, states[Mode.MOTIVATED], path)
    networks: dict[Mode, nn.Module] = {}
    for mode, state in states.items():
        _check_tensors(path, metadata[mode], state)
        networks[mode] = metadata[mode].create_model()
        # The tensors are taken as they are, and not copied, so that both networks share those that are equal.
        networks[mode].load_state_dict(state, assign=True)
    try:
        cascade = Cascade(networks[Mode.BASE], networks[Mode.MOTIVATED], **settings)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return StoredCascade(cascade.eval(), metadata)


def describe_network_alone(path: Path) -> str:
    """Return the message for the export of one network where a cascade is needed.

    Args:
        path: file of the network.
    """
    command = format_command("predict", "IMAGES", model=path)
    return f"{path} holds one network, which `{command}` runs; name a cascade: a safetensors file, or a folder of ONNX files"


def usage_without_nestnet(path: str, metadata: Mapping[Mode, Metadata]) -> str:
    """Return Python code that loads both networks of a file with timm, torch and safetensors alone.

    Args:
        path: path of the file in the code.
        metadata: metadata of the network of each mode.

    Returns:
        The code, which defines `base` and `motivated`.
    """
    creations: list[str] = []
    registered: dict[str, list[str]] = {}
    for mode, of_mode in metadata.items():
        registered_by = find_architecture("architecture", of_mode.architecture).registered_by
        if registered_by is not None:
            registered.setdefault(registered_by, []).append(of_mode.architecture)
        arguments = [repr(of_mode.architecture)]
        for name, value in of_mode.timm_arguments.items():
            arguments.append(f"{name}={value!r}")
        creations.append(f"{mode} = timm.create_model({', '.join(arguments)}).eval()")
    return "\n".join(
        [
            "import json",
            "",
            *[f"import {name}  # makes {' and '.join(names)} known to timm" for name, names in registered.items()],
            "import timm",
            "import torch",
            "from safetensors import safe_open",
            "",
            f'with safe_open({for_python(path)}, "pt") as file:',
            "    metadata = file.metadata()",
            "    tensors = {key: file.get_tensor(key) for key in file.keys()}",
            "states = {}",
            'for mode in ("base", "motivated"):',
            "    states[mode] = {}",
            "    for key, tensor in tensors.items():",
            "        if key.startswith(mode):",
            '            states[mode][key.removeprefix(f"{mode}.")] = tensor',
            "# The other tensors of the base are parts of those of the motivated network.",
            'for key, (name, *dims) in json.loads(metadata["base_tensors"]).items():',
            '    part = states["motivated"][name]',
            "    for dim, spans in enumerate(dims):",
            "        part = torch.cat([part.narrow(dim, start, stop - start) for start, stop in spans], dim)",
            '    states["base"][key] = part',
            *creations,
            'base.load_state_dict(states["base"])',
            'motivated.load_state_dict(states["motivated"])',
        ]
    )


def _without_prefix(values: Mapping[str, Value], mode: Mode) -> dict[str, Value]:
    """Return the values of a mode, by their names without it."""
    prefix = f"{mode}."
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def _read_setting(entries: Mapping[str, str], name: str, path: Path) -> float:
    """Return a number of the metadata."""
    if name not in entries:
        raise ValueError(f"{path} is not a cascade of nestnet: its metadata has no {name}")
    try:
        value = json.loads(entries[name])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {name} in its metadata is not JSON") from error
    if not is_number(value):
        raise ValueError(f"{path}: {name} = {entries[name][:40]} in its metadata: it must be a number")
    return float(value)


def _cut_base(entries: Mapping[str, str], motivated: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the tensors of the base that are parts of those of the motivated network."""
    try:
        stored = json.loads(entries.get(CASCADE_ENTRY, ""))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: base_tensors in its metadata is not JSON") from error
    if not isinstance(stored, dict):
        raise ValueError(f"{path}: base_tensors in its metadata must be a part for each name")
    base: dict[str, Tensor] = {}
    for name, entry in stored.items():
        try:
            part = TensorPart.from_json(entry)
        except ValueError as error:
            raise ValueError(f"{path}: base_tensors has {name!r} in its metadata: {error}") from error
        if part.name not in motivated or not part.fits(motivated[part.name].shape):
            raise ValueError(f"{path}: base_tensors has {name!r}, a part of {part.name!r} that the file does not hold")
        base[name] = part.take(motivated[part.name])
    return base


def _check_tensors(path: Path, metadata: Metadata, state: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless a file has the tensors of the architecture that its metadata names."""
    expected = describe_network(path, metadata)
    found = describe_tensors(state)
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name, "absent") != found.get(name, "absent"):
            raise ValueError(
                f"{path} does not hold {metadata.architecture}: {name} is {found.get(name, 'absent')}, and must be "
                f"{expected.get(name, 'absent')}"
            )
