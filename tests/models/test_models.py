"""Every pair against timm: names, shapes, logits, initialisation."""

import functools

import pytest
import timm
import torch
from helpers import make, randomised
from torch import nn

import nestnet
from nestnet import Mode
from nestnet.models.cifar_resnet import CifarResNet
from nestnet.models.registry import check_pair
from nestnet.models.vit import QKV_MAPS, ViTArchitecture
from nestnet.nn.batch_norm import STATISTICS
from nestnet.nn.meta_device import meta_device
from nestnet.nn.mode import PerMode
from nestnet.nn.parameter import NestedParameter

NAMES = nestnet.list_models()
PAIRS = [(base, motivated) for motivated in NAMES for base in nestnet.list_models(motivated)]


def options_of(base: str, motivated: str) -> list[dict[str, object]]:
    """All kinds for a network in the next one, and one of them, in turn, for any other pair."""
    options = [{"batch_norm": kind} for kind in STATISTICS]
    if base.startswith("vit"):
        options = [{"img_size": 32, "qkv_map": kind} for kind in QKV_MAPS]
    apart = NAMES.index(motivated) - NAMES.index(base)
    return options if apart == 1 else [options[apart % len(options)]]


STATISTIC = ("running_mean", "running_var", "num_batches_tracked")


def without_private(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.rpartition(".")[2].startswith("base_")}


@functools.cache
def layout(name: str, img_size: int | None) -> list[tuple[str, torch.Size]]:
    """The keys and shapes of timm's own model."""
    with meta_device():
        model = timm.create_model(name, num_classes=5, **({"img_size": img_size} if img_size else {}))
    return [(key, tensor.shape) for key, tensor in model.state_dict().items()]


@pytest.mark.parametrize(("base", "motivated"), PAIRS)
@torch.inference_mode()
def test_both_subnets_are_timm_s_networks(base, motivated):
    images = torch.randn(2, 3, 32, 32)
    pair = check_pair(base, motivated)
    for options in options_of(base, motivated):
        with meta_device():  # as `create_model` begins; it would go on with timm's weights, and here others are drawn
            net = pair.motivated.nest(PerMode(base, motivated), pair, num_classes=5, in_chans=3, **options)
        net = randomised(net.to_empty(device="cpu")).eval()
        assert list(net.weights_map) == [key for key, _ in layout(base, options.get("img_size"))]
        for mode, name in zip(Mode, (base, motivated), strict=True):
            ours, theirs = net.subnet(mode), layout(name, options.get("img_size"))
            assert [(key, tensor.shape) for key, tensor in ours.state_dict().items()] == theirs
            sizes = [shape.numel() for key, shape in theirs if not key.endswith(STATISTIC)]
            assert sum(p.numel() for p in ours.parameters()) == sum(sizes)
            expected = net.standalone(mode)(images)
            torch.testing.assert_close(net(images, mode), expected, rtol=1e-5, atol=1e-6)
            assert expected.std() > 0, "logits that do not depend on the images test nothing"
        assert list(without_private(net.state_dict())) == [key for key, _ in layout(motivated, options.get("img_size"))]


@pytest.mark.parametrize(
    ("base", "motivated", "options"),
    [
        ("resnet20", "resnet56", {"depth_map": "first"}),
        ("resnet18", "resnet34", {"drop_rate": [0.1, 0.3], "drop_path_rate": [0.1, 0.2]}),
        ("vit_tiny_patch16_224", "vit_small_patch16_224", {"img_size": (48, 32), "drop_path_rate": [0.1, 0.3]}),
        (
            "vit_tiny_patch16_224",
            "vit_base_patch16_224",
            {
                "img_size": 32,
                "drop_rate": 0.1,
                "pos_drop_rate": 0.1,
                "proj_drop_rate": [0.0, 0.1],
                "attn_drop_rate": 0.1,
            },
        ),
        ("efficientnet_b0", "efficientnet_b2", {"drop_rate": [0.2, 0.3], "drop_path_rate": 0.2}),
        ("efficientnet_b0", "efficientnet_b3", {"depth_map": "last"}),
    ],
)
def test_training_draws_and_drops_what_the_mode_s_own_network_does(base, motivated, options):
    net = randomised(nestnet.create_model(base, motivated, num_classes=5, **options)).train()
    images = (
        torch.randn(4, 3, *options.get("img_size", (32, 32)))
        if base.startswith("vit") and isinstance(options["img_size"], tuple)
        else torch.randn(4, 3, 32, 32)
    )
    for mode in Mode:
        alone = net.standalone(mode)
        torch.manual_seed(1)
        ours = net(images, mode)
        torch.manual_seed(1)
        torch.testing.assert_close(ours, alone(images), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("base", "motivated"), [("resnet20", "resnet32"), ("efficientnet_b0", "efficientnet_b1")])
def test_a_new_network_has_timm_s_initialisation_of_the_motivated_one(base, motivated):
    torch.manual_seed(3)
    net = nestnet.create_model(base, motivated, num_classes=5)
    torch.manual_seed(3)
    expected = timm.create_model(motivated, num_classes=5)
    state = net.state_dict()
    for name, tensor in expected.state_dict().items():
        assert torch.equal(state[name], tensor), name
    for name, tensor in net.subnet("base").state_dict().items():
        placement = net.weights_map[name]
        assert torch.equal(state[placement.name][placement.index], tensor), name


def test_vision_transformers_of_other_depths_do_not_nest():
    motivated = ViTArchitecture(width=384, depth=6)
    assert motivated.contains(ViTArchitecture(width=192, depth=6))
    assert not motivated.contains(ViTArchitecture(width=192, depth=3))
    assert not motivated.contains(ViTArchitecture(width=192))


def test_timm_s_motivated_state_loads_as_it_is():
    net, other = (nestnet.create_model("resnet20", "resnet32", num_classes=5) for _ in range(2))
    state = randomised(other).standalone("motivated").state_dict()
    net.load_state_dict(state)
    for name, tensor in without_private(net.state_dict()).items():
        assert torch.equal(tensor, state[name])
    assert torch.equal(net.bn1.base_running_mean, state["bn1.running_mean"])
    net.load_state_dict(other.state_dict())
    assert torch.equal(net.bn1.base_running_mean, other.bn1.base_running_mean), "a nested state brings its own"


@pytest.mark.parametrize("family", ["resnet", "vit", "efficientnet"])
def test_a_subnet_loads_timm_s_state_of_its_mode(family):
    net, other = randomised(make(family)), randomised(make(family))
    kept = {name: t.clone() for name, t in net.named_parameters() if name.endswith((".right", ".below"))}
    for mode in Mode:
        state = other.standalone(mode).state_dict()
        net.subnet(mode).load_state_dict(state)
        assert all(torch.equal(t, state[name]) for name, t in net.subnet(mode).state_dict().items())
        if mode is Mode.BASE:
            assert all(torch.equal(net.get_parameter(name), t) for name, t in kept.items())


def test_a_subnet_refuses_another_network_s_state():
    net = nestnet.create_model("resnet20", "resnet32", num_classes=5)
    with pytest.raises(RuntimeError, match="loading the base subnet: missing keys"):
        net.subnet("base").load_state_dict({})
    with pytest.raises(
        RuntimeError, match=r"size mismatch for fc.weight: \(7, 64\) in the state, \(5, 64\) in resnet20"
    ):
        net.subnet("base").load_state_dict({**net.subnet("base").state_dict(), "fc.weight": torch.zeros(7, 64)})
    with pytest.raises(ValueError, match="a subnet shares its memory"):
        net.subnet("base").load_state_dict({}, assign=True)


class TestWeightsMap:
    def test_depth(self):
        last = nestnet.create_model("resnet20", "resnet32").weights_map
        assert [last[f"layer2.{i}.conv1.weight"].name for i in range(3)] == [
            "layer2.0.conv1.weight",
            "layer2.1.conv1.weight",
            "layer2.4.conv1.weight",
        ]
        first = nestnet.create_model("resnet20", "resnet32", depth_map="first").weights_map
        assert first["layer2.2.conv1.weight"].name == "layer2.2.conv1.weight"

    def test_packed_queries_keys_and_values(self):
        heads = nestnet.create_model("vit_tiny_patch16_224", "vit_small_patch16_224", img_size=32).weights_map
        rows = heads["blocks.3.attn.qkv.weight"].index[0].tolist()
        assert rows == [*range(192), *range(384, 576), *range(768, 960)]
        prefix = nestnet.create_model(
            "vit_tiny_patch16_224", "vit_small_patch16_224", img_size=32, qkv_map="prefix"
        ).weights_map
        assert prefix["blocks.3.attn.qkv.weight"].index == (slice(576), slice(192))

    def test_statistics(self):
        private = nestnet.create_model("efficientnet_b0", "efficientnet_b2").weights_map["conv_stem.weight"]
        assert not private.private
        shared = nestnet.create_model("efficientnet_b1", "efficientnet_b2", batch_norm="shared").weights_map
        assert shared["bn2.running_mean"].index == (slice(1280),)
        assert not any(placement.private for placement in shared.values())
        private_map = nestnet.create_model("efficientnet_b1", "efficientnet_b2").weights_map
        assert private_map["bn2.running_mean"].name == "bn2.base_running_mean"
        assert private_map["bn2.running_mean"].private
        assert not private_map["bn2.weight"].private
        separate = nestnet.create_model("efficientnet_b1", "efficientnet_b2", batch_norm="separate").weights_map
        assert str(separate["bn2.weight"]) == "bn2.base_weight"
        assert all(placement.private == (".bn" in f".{name}") for name, placement in separate.items())

    @pytest.mark.parametrize(("base", "motivated"), [("resnet18", "resnet34"), ("efficientnet_b0", "efficientnet_b3")])
    def test_take_and_put_are_inverse(self, base, motivated):
        net = randomised(nestnet.create_model(base, motivated, num_classes=5))
        state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        taken = {name: tensor.clone() for name, tensor in net.weights_map.take(state).items()}
        whole, base_state = net.state_dict(), net.subnet("base").state_dict()
        assert all(torch.equal(t, base_state[name]) for name, t in taken.items())
        net.weights_map.put({name: torch.zeros_like(t) for name, t in taken.items()}, state)
        assert all(not tensor.any() for tensor in net.weights_map.take(state).values())
        net.weights_map.put(taken, state)
        assert all(torch.equal(tensor, whole[name]) for name, tensor in state.items())

    def test_printing(self):
        net = nestnet.create_model("resnet20", "resnet32", num_classes=10)
        assert "layer1.2.conv1.weight" in str(net.weights_map)
        assert "blocks layer1.2 -> layer1.4, layer2.2 -> layer2.4, layer3.2 -> layer3.4" in repr(net)
        assert repr(net.subnet("base")).startswith("Subnet(resnet20, mode=base, ")
        assert "resnet20 in resnet32: 272,474 of 466,906 parameters\n" in repr(net)
        separate = nestnet.create_model("resnet20", "resnet32", num_classes=10, batch_norm="separate")
        assert "270,906 of 466,906 parameters, and 1,568 of the base's own\n" in repr(separate)
        vit = nestnet.create_model("vit_tiny_patch16_224", "vit_small_patch16_224", img_size=32)
        assert "Linear(in_features=192 -> 384, out_features=576 -> 1152, bias=True, groups=3)" in repr(vit)
        assert "NestedParameter([1, 1, 192] -> [1, 1, 384])" in repr(vit)


def test_subnets_share_the_very_parameters():
    net = nestnet.create_model("efficientnet_b1", "efficientnet_b2")
    own = {id(p) for p in net.parameters()}
    for mode in Mode:
        assert {id(p) for p in net.subnet(mode).parameters()} <= own
    assert {id(p) for p in net.subnet("motivated").parameters()} == own
    assert not any(name.endswith((".right", ".below")) for name, _ in net.subnet("base").named_parameters())
    names = [name for name, _ in net.subnet("base").named_parameters()]
    assert names == [name for name, _ in net.skeleton("base").named_parameters()]
    buffers = [name for name, _ in net.subnet("base").named_buffers()]
    assert buffers == [name for name, _ in net.skeleton("base").named_buffers()]


def test_standalone_has_memory_of_its_own_and_leaves_random_numbers_alone():
    net = nestnet.create_model("resnet20", "resnet32")
    net.fc.requires_grad_(False)
    state = torch.get_rng_state()
    alone = net.standalone("motivated")
    assert torch.equal(torch.get_rng_state(), state)
    assert {t.data_ptr() for t in alone.state_dict().values()}.isdisjoint(
        t.data_ptr() for t in net.state_dict().values()
    )
    assert not alone.fc.weight.requires_grad
    assert alone.conv1.weight.requires_grad
    assert not net.eval().standalone("base").training


def test_equal_networks_nest():
    net = nestnet.create_model("resnet20", "resnet20", num_classes=5).eval()
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(net(images, "base"), net(images, "motivated"))
    assert not any(isinstance(module, NestedParameter) for module in net.modules())


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("resnet21", "resnet32"), {}, "base = 'resnet21' is not a network of timm's; did you mean resnet"),
        (("resnet20", "vit"), {}, "motivated = 'vit' is not a network of timm's; "),
        (
            ("resnet20", "vit_tiny_patch16_224"),
            {},
            "does not fit inside .* resnet20 fits inside resnet20, resnet32, resnet44",
        ),
        (
            ("resnet32", "resnet20"),
            {},
            "inside resnet20 fit resnet8, resnet14, resnet20; resnet32 fits inside resnet32, resnet44, resnet56",
        ),
        (("resnet20", "resnet34"), {}, r"base = 'resnet20' \(ResNet\) does not fit inside motivated = 'resnet34'"),
        (("resnet34", "resnet50"), {}, "inside resnet50 fit resnet50; resnet34 fits inside resnet34"),
        (("resnet20", "resnet32"), {"img_size": 32}, "img_size = 32: ResNet has no such option"),
        (("resnet20", "resnet32"), {"batchnorm": "shared"}, "did you mean batch_norm"),
        (
            ("resnet20", "resnet32"),
            {"batch_norm": "both"},
            "batch_norm = 'both': it must be one of private, shared, separate",
        ),
        (
            ("resnet20", "resnet32"),
            {"depth_map": "middle"},
            "depth_map = 'middle': it must be one of last, first, uniform",
        ),
        (("resnet20", "resnet32"), {"drop_rate": 1.0}, "drop_rate = 1.0: it must be a number from 0 to below 1"),
        (("resnet20", "resnet32"), {"drop_path_rate": [0.1]}, "or a pair"),
        (("resnet20", "resnet32"), {"num_classes": 0}, "num_classes = 0: it must be a whole number of at least 1"),
        (("resnet20", "resnet32"), {"in_chans": True}, "in_chans = True"),
        (
            ("vit_tiny_patch16_224", "vit_small_patch16_224"),
            {"qkv_map": "x"},
            "qkv_map = 'x': it must be one of heads, prefix",
        ),
        (("vit_tiny_patch16_224", "vit_small_patch16_224"), {"img_size": 8}, "img_size = 8: .* at least one patch"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line(arguments, options, message):
    with pytest.raises(ValueError, match=message) as raised:
        nestnet.create_model(*arguments, **options)
    assert "\n" not in str(raised.value)


def test_images_of_another_size_are_refused_by_a_vit():
    net = nestnet.create_model("vit_tiny_patch16_224", "vit_tiny_patch16_224", img_size=32)
    with pytest.raises(
        ValueError, match=r"images of \(48, 48\) pixels: the network was made for img_size = \(32, 32\)"
    ):
        net(torch.zeros(1, 3, 48, 48), "base")


class TestCifarResNets:
    """The standalone ones are ours, so they need an oracle of their own."""

    @pytest.mark.parametrize(
        ("name", "parameters"),
        [
            ("resnet8", 78_042),
            ("resnet14", 175_258),
            ("resnet20", 272_474),
            ("resnet32", 466_906),
            ("resnet44", 661_338),
            ("resnet56", 855_770),
        ],
    )
    def test_parameters_by_hand(self, name, parameters):
        """Per stage of width w with n blocks: 2n convolutions 9w^2 (the first from half of w), 2n BatchNorms, a projection."""
        depth, width_in, total = (int(name[6:]) - 2) // 6, 16, 3 * 16 * 9 + 2 * 16
        for width in (16, 32, 64):
            total += 9 * width_in * width + (2 * depth - 1) * 9 * width * width + 2 * depth * 2 * width
            total += width_in * width + 2 * width if width != width_in else 0
            width_in = width
        total += 64 * 10 + 10
        assert total == parameters
        assert sum(p.numel() for p in timm.create_model(name, num_classes=10).parameters()) == parameters

    def test_they_are_timm_models(self):
        model = timm.create_model("resnet20", num_classes=7, in_chans=1, drop_rate=0.1, drop_path_rate=0.1)
        assert isinstance(model, CifarResNet)
        assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 7)
        assert model.forward_features(torch.zeros(2, 1, 32, 32)).shape == (2, 64, 8, 8)
        assert model.pretrained_cfg["input_size"] == (3, 32, 32)
        assert "resnet20" in timm.list_models("resnet2*")
        model.reset_classifier(3)
        assert isinstance(model.get_classifier(), nn.Linear)
        assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 3)
        assert timm.create_model("resnet20", num_classes=0)(torch.zeros(2, 3, 32, 32)).shape == (2, 64)
        features = timm.create_model("resnet20", features_only=True)(torch.zeros(2, 3, 32, 32))
        assert [tuple(f.shape[1:]) for f in features] == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
        assert all(feature.min() >= 0 for feature in features)


@pytest.mark.parametrize("family", ["resnet", "vit", "efficientnet"])
def test_features_and_head_are_timm_s(family):
    net, images = randomised(make(family)).eval(), torch.randn(2, 3, 32, 32)
    for mode in ("base", "motivated"):
        alone = net.standalone(mode)
        features = net.forward_features(images, mode)
        torch.testing.assert_close(features, alone.forward_features(images))
        pooled = net.forward_head(features, mode, pre_logits=True)
        torch.testing.assert_close(pooled, alone.forward_head(features, pre_logits=True))
    with pytest.raises(ValueError, match="mode = 'Base': it must be 'base' or 'motivated'"):
        net.forward_features(images, "Base")
    assert net.double().standalone("base")(images.double()).dtype is torch.float64
