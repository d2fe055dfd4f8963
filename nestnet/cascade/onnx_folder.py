"""A cascade as a folder: an ONNX file of each network, and the settings of the cascade."""

import json
from collections.abc import Mapping
from pathlib import Path

from nestnet.cascade.cascade_file import SETTINGS, StoredCascade
from nestnet.cascade.module import Cascade
from nestnet.deploy.onnx_format import OnnxFormat
from nestnet.nn.mode import Mode
from nestnet.nn.model import NestedModel
from nestnet.storage.atomic import write_atomically
from nestnet.storage.read_back import read_json
from nestnet.storage.rules import number
from nestnet.weights.metadata import Metadata

SETTINGS_FILE = "cascade.json"
"""Name of the file with the settings in the folder."""

REMEDY = "export the cascade again"


def write_onnx_folder(
    cascade: Cascade, nets: Mapping[Mode, NestedModel], metadata: Mapping[Mode, Metadata], folder: Path
) -> None:
    """Write both networks and the settings of a cascade.

    Args:
        cascade: the cascade.
        nets: nested network for each mode, on the CPU.
        metadata: metadata of the network of each mode.
        folder: folder to write to.

    Raises:
        ValueError: If torch cannot export a network.
        OSError: If a file cannot be written.
    """
    for mode in Mode:
        OnnxFormat().write(nets[mode], metadata[mode], folder / f"{mode}.onnx")
    settings = {setting: getattr(cascade, setting) for setting in SETTINGS}
    write_atomically(folder / SETTINGS_FILE, json.dumps(settings, indent=2) + "\n")


def read_onnx_folder(folder: Path) -> StoredCascade:
    """Read a cascade that runs in ONNX Runtime, on the CPU.

    Args:
        folder: folder that `write_onnx_folder` wrote.

    Returns:
        The cascade.

    Raises:
        ValueError: If a file is absent or damaged, or onnxruntime is not installed.
    """
    rules = {setting: number(0) for setting in SETTINGS}
    settings = read_json(folder / SETTINGS_FILE, rules, REMEDY)
    metadata: dict[Mode, Metadata] = {}
    networks = {}
    for mode in Mode:
        metadata[mode], networks[mode] = OnnxFormat().read(folder / f"{mode}.onnx")
    values = {setting: settings[setting] for setting in SETTINGS}
    return StoredCascade(Cascade(networks[Mode.BASE], networks[Mode.MOTIVATED], **values).eval(), metadata)
