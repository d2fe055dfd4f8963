"""Networks without memory: the same names, shapes and types as torch's meta device gives, and nothing is drawn."""

import pytest
import timm
import torch
from torch import nn

from nestnet.nn.meta_device import meta_device

NAMES = ["resnet18", "vit_tiny_patch16_224", "efficientnet_b0", "convnext_atto", "swin_tiny_patch4_window7_224"]


@pytest.mark.parametrize("name", NAMES)
def test_a_network_is_torch_s_on_its_meta_device(name):
    with torch.device("meta"):
        expected = timm.create_model(name, num_classes=3)
    before = torch.get_rng_state()
    with meta_device():
        found = timm.create_model(name, num_classes=3)
    assert torch.equal(torch.get_rng_state(), before)
    ours, theirs = found.state_dict(), expected.state_dict()
    assert list(ours) == list(theirs)
    for key, tensor in ours.items():
        assert tensor.is_meta
        assert (tensor.shape, tensor.dtype) == (theirs[key].shape, theirs[key].dtype), key
    assert str(found) == str(expected)


def test_tensors_with_memory_are_initialised():
    with meta_device():
        drawn = nn.init.normal_(torch.empty(100, device="cpu"))
        filled = nn.init.constant_(torch.empty(2, device="cpu"), 3.0).mul_(2)
    assert 0.5 < drawn.std() < 2
    assert filled.tolist() == [6.0, 6.0]


def test_outside_everything_is_as_before():
    with pytest.raises(RuntimeError, match="mine"), meta_device():
        raise RuntimeError("mine")
    assert nn.Linear(2, 3).weight.device.type == "cpu"
    assert nn.init.uniform_(torch.empty(100)).std() > 0.1
