import itertools
import math
import re

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import set_fused_attn, use_fused_attn
from torch.utils.flop_counter import FlopCounterMode

from nestnet import LossDecrease, Mode
from nestnet.conditions.base import motivated_rate
from nestnet.cost.efficiency import flops_efficiency, flops_ratio
from nestnet.cost.network import forward_cost, network_cost
from nestnet.cost.run import average_cost, forecast
from nestnet.models.registry import create_model

CIFAR_BLOCKS = {"resnet8": 1, "resnet14": 2, "resnet20": 3, "resnet32": 5, "resnet44": 7, "resnet56": 9}
VIT_WIDTHS = {"vit_tiny_patch16_224": 192, "vit_small_patch16_224": 384, "vit_base_patch16_224": 768}

costs = st.floats(1e3, 1e12)
points = st.tuples(st.floats(0, 100), costs)


def cifar_sizes(blocks, pixels, channels=3, classes=10):
    """By hand: multiply-accumulates, outputs of BatchNorm, outputs of ReLU and inputs of the pooling."""
    macs = pixels**2 * 16 * channels * 9
    norm = relu = pixels**2 * 16
    for width, inputs in ((16, 16), (32, 16), (64, 32)):
        pixels = pixels if width == 16 else math.ceil(pixels / 2)
        area, shortcut = pixels**2 * width, width != inputs
        macs += area * (inputs * 9 + (2 * blocks - 1) * width * 9 + shortcut * inputs)
        norm += area * (2 * blocks + shortcut)
        relu += area * 2 * blocks
    return macs + 64 * classes, norm, relu, pixels**2 * 64


@pytest.mark.parametrize(
    ("name", "printed"), [("resnet20", 82.82), ("resnet32", 140.13), ("resnet44", 197.44), ("resnet56", 254.76)]
)
def test_the_paper_s_convention_to_its_last_digit(name, printed):
    assert round(forward_cost(name, img_size=32, num_classes=10, convention="paper") / 1e6, 2) == printed


@pytest.mark.parametrize(
    ("name", "giga"),
    [("vit_tiny_patch16_224", 1.26), ("vit_small_patch16_224", 4.61), ("resnet50", 4.1), ("resnet101", 7.8)],
)
def test_the_usual_figures_at_224_pixels(name, giga):
    assert forward_cost(name, img_size=224) == pytest.approx(giga * 1e9, rel=0.02)


@pytest.mark.parametrize("name", CIFAR_BLOCKS)
@pytest.mark.parametrize(("pixels", "channels", "classes"), [(8, 1, 10), (13, 3, 100)])
def test_cifar_resnets_by_hand(name, pixels, channels, classes):
    macs, norm, relu, pooled = cifar_sizes(CIFAR_BLOCKS[name], pixels, channels, classes)
    options = {"img_size": pixels, "in_chans": channels, "num_classes": classes}
    assert forward_cost(name, **options) == macs
    assert forward_cost(name, **options, convention="paper") == 2 * (macs + 2 * norm + relu + 2 * pooled)


@pytest.mark.parametrize("name", VIT_WIDTHS)
@pytest.mark.parametrize(("pixels", "classes"), [(32, 10), (70, 1000)])
def test_vits_by_hand(name, pixels, classes):
    width, patches = VIT_WIDTHS[name], (pixels // 16) ** 2
    tokens = patches + 1
    linear, attention = (
        tokens * 12 * width**2,
        2 * tokens**2 * width,
    )  # q, k, v, output and an MLP of 4 widths; q k and w v
    by_hand = patches * width * 3 * 16**2 + 12 * (linear + attention) + width * classes
    assert forward_cost(name, img_size=pixels, num_classes=classes) == by_hand
    assert forward_cost(name, img_size=pixels, num_classes=classes, convention="paper") == by_hand


def test_attention_counts_the_same_whether_fused_or_not():
    options, fused = {"img_size": 48, "num_classes": 7}, use_fused_attn()
    macs = forward_cost("vit_tiny_patch16_224", **options)
    set_fused_attn(False)
    try:
        # arguments that are not in the cache
        unfused = forward_cost("vit_tiny_patch16_224", **options | {"num_classes": 8})
    finally:
        set_fused_attn(bool(fused))
    assert unfused == macs + 192


@pytest.mark.parametrize("name", ["resnet18", "resnet101", "efficientnet_b0", "efficientnet_b2"])
def test_torch_s_own_counter_agrees(name):
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        timm.create_model(name, num_classes=10).eval()(torch.empty(1, 3, 32, 32))
    assert 2 * forward_cost(name, img_size=32, num_classes=10) == counter.get_total_flops()


@pytest.mark.parametrize(
    ("name", "pixels", "giga"),
    [("efficientnet_b0", 224, 0.39), ("efficientnet_b1", 240, 0.70), ("efficientnet_b3", 300, 1.8)],
)
def test_efficientnets_cost_what_their_paper_says_at_their_own_resolution(name, pixels, giga):
    # arXiv 1905.11946, table 2
    assert forward_cost(name, img_size=pixels, convention="paper") == pytest.approx(giga * 1e9, rel=0.02)


def test_counting_leaves_no_trace():
    state = torch.get_rng_state()
    network_cost("vit_tiny_patch16_224", img_size=33, num_classes=3)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.is_grad_enabled()


def test_activations_by_hand():
    found = network_cost("resnet20", img_size=32, num_classes=10)
    _, norm, relu, _ = cifar_sizes(3, 32)
    # inputs of the first convolution, of each BatchNorm, of what follows each ReLU, and of the head
    assert found.activation_bytes == 4 * (3 * 32**2 + norm + relu + 64)
    assert found.parameters == sum(p.numel() for p in timm.create_model("resnet20").parameters())
    assert found.macs == forward_cost("resnet20", img_size=32, num_classes=10)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "efficientnet_b0"])
@torch.no_grad()
def test_activations_are_those_of_real_tensors(name):
    options = {"img_size": 64} if name.startswith("vit") else {}
    network = timm.create_model(name, num_classes=10, **options)

    def saved(images):
        memory = {}

        def keep(tensor):
            storage = tensor.untyped_storage()
            memory[storage.data_ptr()] = storage
            return tensor

        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            network(torch.randn(images, 3, 64, 64))
        return sum(storage.nbytes() for storage in memory.values())

    assert network_cost(name, img_size=64, num_classes=10).activation_bytes == saved(5) - saved(4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet21"}, "name = 'resnet21' is not a network of timm's; did you mean resnet"),
        ({"img_size": 0}, "img_size = 0: it must be a whole number of at least 1"),
        ({"img_size": 32.0}, "img_size = 32.0: it must be a whole number of at least 1"),
        ({"img_size": [32, 32, 3]}, "img_size = [32, 32, 3]: it must be a whole number of at least 1"),
        ({"num_classes": True}, "num_classes = True: it must be a whole number of at least 1"),
        ({"in_chans": -1}, "in_chans = -1: it must be a whole number of at least 1"),
        (
            {"name": "vit_tiny_patch16_224", "img_size": 15},
            "img_size = 15: vit_tiny_patch16_224 needs at least 16 pixels",
        ),
        ({"convention": "flops"}, "convention = 'flops': it must be one of macs, paper"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)) as raised:
        forward_cost(**{"name": "resnet20", "img_size": 32} | options)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("k", range(1, 6))
def test_one_order_of_losses_in_k_plus_one_factorial_motivates(k):
    motivated = 0
    for losses in itertools.permutations(range(k + 1)):
        condition = LossDecrease(k)
        for loss in losses:
            condition.update(loss)
        motivated += condition.mode is Mode.MOTIVATED
    assert motivated_rate(k) == motivated / math.factorial(k + 1)


@given(costs, costs, st.integers(1, 8))
def test_a_forecast_is_an_average_at_the_expected_rate(base, motivated, k):
    found = forecast(base, motivated, k=k)
    assert found == average_cost(base, motivated, motivated_fraction=motivated_rate(k))
    assert min(base, motivated) * (1 - 1e-9) <= found <= max(base, motivated) * (1 + 1e-9)
    assert abs(forecast(base, motivated, k=k + 1) - base) <= abs(found - base), "rarer motivation costs less"


@given(costs, costs, st.lists(st.booleans(), min_size=1, max_size=50))
def test_an_average_is_the_sum_over_the_batches(base, motivated, modes):
    total = sum(motivated if mode else base for mode in modes)
    found = average_cost(base, motivated, motivated_fraction=sum(modes) / len(modes))
    assert found == pytest.approx(total / len(modes))


@given(points, points, st.floats(0.01, 100))
def test_efficiency_is_a_slope(nested, base, scale):
    if nested[1] == base[1]:
        with pytest.raises(ValueError, match=r"cost = .* of both networks"):
            flops_efficiency(nested, base)
        return
    found = flops_efficiency(nested, base)
    assert base[0] + found * (nested[1] - base[1]) == pytest.approx(nested[0], abs=1e-6)
    assert flops_efficiency(base, nested) == pytest.approx(found)
    scaled = [(accuracy, scale * cost) for accuracy, cost in (nested, base)]
    if nested[1] != pytest.approx(
        base[1], rel=1e-9
    ):  # of costs that differ by a rounding, scaling changes the difference
        assert flops_efficiency(*scaled) == pytest.approx(found / scale, rel=1e-3)


@given(st.floats(0.01, 0.99), st.floats(0.01, 3), st.floats(0.1, 30))
def test_a_ratio_is_the_gain_s_share_over_the_cost_s_share(fraction, gain, difference):
    base, motivated = (90.0, 1e8), (90 + difference, 3e8)
    nested = (90 + gain * difference, average_cost(1e8, 3e8, motivated_fraction=fraction))
    assert flops_ratio(nested=nested, base=base, motivated=motivated) == pytest.approx(gain / fraction)
    assert flops_ratio(nested=motivated, base=base, motivated=motivated) == pytest.approx(1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: motivated_rate(0), "k = 0: it must be a whole number of at least 1, how many in a row motivate"),
        (lambda: forecast(1, 2, k=1.5), "k = 1.5: it must be a whole number"),
        (lambda: average_cost(1, 2, motivated_fraction=1.1), "motivated_fraction = 1.1: it must be from 0 to 1"),
        (lambda: average_cost(1, 2, motivated_fraction=math.nan), "motivated_fraction = nan: it must be from 0 to 1"),
        (
            lambda: flops_efficiency((1, 5.0), (2, 5)),
            "cost = 5 of both networks: ACC/FLOPs needs two costs that differ",
        ),
        (
            lambda: flops_ratio(nested=(92, 6), base=(90, 5), motivated=(90, 9)),
            "accuracy = 90 of both base and motivated: F_Ratio needs a motivated network that differs in accuracy",
        ),
    ],
)
def test_what_cannot_be_computed_is_said(call, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        call()


def test_a_network_of_your_own_costs_what_timm_s_of_the_same_layers_does():
    net = create_model("resnet20", "resnet32", num_classes=10)
    for mode in Mode:
        own = net.standalone(mode)
        name = net.architectures.of(mode)
        expected = network_cost(name, img_size=32, num_classes=10)
        assert network_cost(own, img_size=32) == expected
        assert forward_cost(own, img_size=32) == expected.macs
        assert own.training
