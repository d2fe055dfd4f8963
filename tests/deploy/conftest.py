"""What the tests of several formats of programs write."""

import functools
import importlib

import pytest
import torch
from helpers import randomised

import nestnet
from nestnet import Mode
from nestnet.weights.metadata import Metadata


@pytest.fixture(scope="session", autouse=True)
def _operators_read_once():
    """torch has onnxscript parse the source of all of ONNX's operators for each export, and lists its own operators anew."""
    registry = importlib.import_module("torch.onnx._internal.exporter._registration").ONNXRegistry
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "from_torchlib", staticmethod(functools.cache(registry.from_torchlib)))
        patch.setattr(
            "torch._export.utils._collect_all_valid_cia_ops_for_namespace",
            functools.cache(torch._export.utils._collect_all_valid_cia_ops_for_namespace),
        )
        yield


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return randomised(nestnet.create_model("resnet8", "resnet14", num_classes=4)).eval()


@pytest.fixture(scope="module")
def metadata(network):
    return Metadata.from_network(
        network, Mode.BASE, class_names=["<a>", 'say "b"', "猫", "\x01"], input_size=(3, 16, 16)
    )
