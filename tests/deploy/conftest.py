"""What the tests of several formats of programs write."""

import pytest
import torch
from helpers import randomised

import nestnet
from nestnet import Mode
from nestnet.weights.metadata import Metadata


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return randomised(nestnet.create_model("resnet8", "resnet14", num_classes=4)).eval()


@pytest.fixture(scope="module")
def metadata(network):
    return Metadata.from_network(
        network, Mode.BASE, class_names=["<a>", 'say "b"', "猫", "\x01"], input_size=(3, 16, 16)
    )
