"""What registers an architecture, and the facts that each family declares."""

import re

import pytest
import timm
import torch
from registries import forgotten
from timm.optim import list_optimizers
from torch import nn

import nestnet
from nestnet.models.pairs import complete_pair
from nestnet.models.registry import ARCHITECTURES
from nestnet.models.resnet import ResNetArchitecture


def resnet26():
    return ResNetArchitecture((2, 2, 2, 2), bottleneck=True)


def test_a_registered_architecture_nests_and_is_listed():
    with forgotten():
        assert nestnet.register_architecture("resnet26")(resnet26) is resnet26
        assert nestnet.list_models("resnet26") == ["resnet26"]
        assert nestnet.list_models("resnet50") == ["resnet50", "resnet26"]
        net = nestnet.create_model("resnet26", "resnet50", num_classes=5).eval()
        images = torch.randn(1, 3, 64, 64)
        torch.testing.assert_close(net(images, "base"), net.standalone("base")(images))
    assert "resnet26" not in nestnet.list_models()


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match=r"^architecture 'resnet20': there is one of this name already$"):
        nestnet.register_architecture("resnet20")


@pytest.mark.parametrize(
    ("variant", "answer"), [(lambda: None, "None"), (dict, "{}"), (lambda: ResNetArchitecture, "<class '.*'>")]
)
def test_what_is_no_architecture_is_not_registered(variant, answer):
    message = f"^architecture 'mine': .* must return a nestnet.Architecture, not {answer}$"
    with pytest.raises(ValueError, match=message):
        nestnet.register_architecture("mine")(variant)
    assert "mine" not in ARCHITECTURES


@pytest.mark.parametrize("name", nestnet.list_models())
def test_the_facts_of_a_family_are_so(name):
    architecture = ARCHITECTURES[name]
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=5)
    assert architecture.has_batch_norm == any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert architecture.takes_img_size == (architecture.img_size_divisor > 1) == hasattr(network, "patch_embed")
    assert architecture.is_for_small_images == (network.pretrained_cfg["input_size"][-1] == 32)
    assert architecture.registered_by == ("nestnet" if type(network).__module__.startswith("nestnet.") else None)
    assert architecture.training_defaults.optimizer in list_optimizers()


def test_what_a_family_of_ones_own_need_not_declare():
    facts = nestnet.Architecture
    declared = (facts.has_batch_norm, facts.img_size_divisor, facts.is_for_small_images, facts.paper_counts_flops)
    assert declared == (True, 1, False, False)
    assert facts.training_defaults.optimizer == "adamw"


@pytest.mark.parametrize(
    ("given", "pair"),
    [
        (("resnet8", None), ("resnet8", "resnet14")),
        ((None, "resnet20"), ("resnet14", "resnet20")),
        ((None, "resnet8"), ("resnet8", "resnet8")),
        (("resnet56", None), ("resnet56", "resnet56")),
        ((None, "vit_base_patch16_224"), ("vit_small_patch16_224", "vit_base_patch16_224")),
        ((None, "unknown"), ("unknown", "unknown")),
        ((None, None), (None, None)),
    ],
)
def test_a_pair_is_completed_by_the_next_network(given, pair):
    assert complete_pair(*given) == pair


def test_the_smallest_cifar_resnets_nest_like_the_others():
    net = nestnet.create_model("resnet8", "resnet14", num_classes=10)
    assert net.weights_map["layer3.0.conv2.weight"].name == "layer3.0.conv2.weight", (
        "one block is the first in any case"
    )
    sizes = [sum(p.numel() for p in net.subnet(mode).parameters()) for mode in nestnet.Mode]
    assert sizes == [78_042, 175_258]
    message = (
        "base = 'resnet14' (ResNet) does not fit inside motivated = 'resnet8' (ResNet): inside resnet8 fit resnet8; "
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        nestnet.create_model("resnet14", "resnet8")
