"""Any two networks of timm, as `create_model` nests them, and the list of those that nest."""

import pytest
import timm
import torch
from registries import forgotten
from safetensors.torch import save_file

import nestnet
from nestnet.cli.main import main
from nestnet.models.pairs import complete_pair, find_pairs, nests
from nestnet.models.registry import find_architecture
from nestnet.models.timm_architecture import TimmArchitecture
from nestnet.models.timm_options import split_options, structural_options
from nestnet.nesting.nested_pair import NestedPair
from nestnet.weights.metadata import Metadata

OPTIONS = {
    "base": {"depths": [1, 1, 1, 1], "dims": [4, 8, 8, 12]},
    "motivated": {"depths": [1, 1, 2, 1], "dims": [8, 8, 12, 16]},
}


def small_convnext(**options):
    return nestnet.create_model("convnextv2_atto", "convnextv2_femto", num_classes=5, options=OPTIONS, **options)


def test_a_pair_starts_with_timm_s_weights_of_the_motivated_network():
    torch.manual_seed(0)
    net = small_convnext()
    torch.manual_seed(0)
    alone = timm.create_model("convnextv2_femto", num_classes=5, **OPTIONS["motivated"])
    assert isinstance(net, NestedPair)
    assert list(net.state_dict()) == list(alone.state_dict())
    assert all(torch.equal(tensor, alone.state_dict()[name]) for name, tensor in net.state_dict().items())


def test_the_options_of_each_network_reach_it():
    net = small_convnext(drop_path_rate=[0.0, 0.2], in_chans=1, batch_norm="private", depth_map="first")
    assert net.architectures.base == "convnextv2_atto"
    assert net.timm_options.base["drop_path_rate"] == 0.0
    assert net.timm_options.motivated["drop_path_rate"] == 0.2
    assert net.weights_map["stages.2.blocks.0.conv_dw.weight"].name == "stages.2.blocks.0.conv_dw.weight"
    for mode in nestnet.Mode:
        alone = timm.create_model(net.architectures.of(mode), num_classes=5, in_chans=1, **net.timm_options.of(mode))
        alone.load_state_dict(net.subnet(mode).state_dict())
        images = torch.randn(2, 1, 32, 32)
        assert torch.equal(alone.eval()(images), net.eval()(images, mode))


def test_a_transformer_is_built_for_the_image_size():
    options = {"depth": 2, "base": {"embed_dim": 128, "num_heads": 2}, "motivated": {"embed_dim": 192, "num_heads": 3}}
    net = nestnet.create_model(
        "deit3_small_patch16_224", "deit3_base_patch16_224", num_classes=5, img_size=32, options=options
    )
    assert net(torch.randn(1, 3, 32, 32), "base").shape == (1, 5)
    assert Metadata.from_network(net, nestnet.Mode.BASE).input_size == (3, 32, 32)


@pytest.mark.parametrize(
    ("name", "kind", "takes_img_size", "has_batch_norm", "divisor"),
    [
        ("convnextv2_atto", "convolutional", False, False, 1),
        ("mobilenetv3_small_050", "convolutional", False, True, 1),
        ("resnest14d", "convolutional", False, True, 1),
        ("ecaresnet50d", "convolutional", False, True, 1),
        ("swin_tiny_patch4_window7_224", "transformer", True, False, 4),
        ("vit_small_patch14_dinov2", "transformer", True, False, 14),
        ("pvt_v2_b0", "transformer", False, False, 1),
        ("levit_128s", "transformer", True, True, 1),
    ],
)
def test_the_facts_are_read_from_the_network(name, kind, takes_img_size, has_batch_norm, divisor):
    architecture = find_architecture("base", name)
    assert isinstance(architecture, TimmArchitecture)
    assert architecture.kind == kind
    assert architecture.takes_img_size is takes_img_size
    assert architecture.has_batch_norm is has_batch_norm
    assert architecture.img_size_divisor == divisor


def test_names_and_shapes_tell_what_nests():
    assert nests("convnextv2_atto", "convnextv2_femto")
    assert not nests("convnextv2_femto", "convnextv2_atto")
    assert not nests("convnextv2_atto", "swin_tiny_patch4_window7_224")
    assert nests("resnet20", "resnet32")
    found = [(pair.base, pair.motivated, pair.is_elastic) for pair in find_pairs("resnet[123]?")]
    assert ("resnet18", "resnet34", True) in found
    assert ("resnet26", "resnet50", False) not in found
    assert found == [pair for pair in found if pair[0] != pair[1]]


@pytest.mark.parametrize(
    ("given", "pair"),
    [
        (("convnextv2_atto", None), ("convnextv2_atto", "convnextv2_femto")),
        ((None, "convnextv2_pico"), ("convnextv2_femto", "convnextv2_pico")),
        (("no_such_network", None), ("no_such_network", "no_such_network")),
    ],
)
def test_a_network_that_is_not_named_is_the_next_in_size(given, pair):
    assert complete_pair(*given) == pair


def test_the_command_lists_pairs_with_sizes_and_weights(capsys):
    assert main(["models", "convnextv2_[af]*", "--img_size", "64"]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["pair", "parameters", "MACs", "pixels", "weights", "nested", "by"]
    macs = [nestnet.cost.forward_cost(name, img_size=64) for name in ("convnextv2_atto", "convnextv2_femto")]
    assert line.startswith("convnextv2_atto in convnextv2_femto")
    assert f"{macs[0] / 1e6:.2f} M -> {macs[1] / 1e6:.2f} M" in line
    assert line.endswith("64     both       nest")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["models", "nothing_*"], "PATTERN = 'nothing_*': no network of timm's has such a name"),
        (["models", "convnextv2_atto"], "none of these networks nests in another"),
        (["models", "convnextv2_*", "--img_size", "0"], "img_size 0: it must be at least 1"),
    ],
)
def test_a_list_of_nothing_is_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_without_a_pattern_the_own_families_are_listed(capsys):
    assert main(["models"]) == 0
    assert "resnet20, resnet32" in capsys.readouterr().out


def test_the_base_starts_as_its_slice_of_trained_weights(tmp_path):
    net = small_convnext()
    alone = timm.create_model("convnextv2_femto", num_classes=5, **OPTIONS["motivated"])
    save_file(alone.state_dict(), tmp_path / "trained.safetensors")
    nestnet.load_weights(net, "motivated", tmp_path / "trained.safetensors")
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(net.eval()(images, "motivated"), alone.eval()(images))
    for name, placement in net.weights_map.items():
        assert torch.equal(net.subnet("base").state_dict()[name], alone.state_dict()[placement.name][placement.index])


def test_options_are_for_both_networks_or_for_one():
    options = split_options("options", {"a": 1, "b": 2, "motivated": {"b": 3}, "base": {}})
    assert (options.base, options.motivated) == ({"a": 1, "b": 2}, {"a": 1, "b": 3})
    assert structural_options({"window_size": 4, "drop_path_rate": 0.1, "img_size": 32, "zero_init_last": False}) == {
        "window_size": 4
    }


class TestOwnNetworks:
    @pytest.fixture(autouse=True)
    def forgotten(self):
        with forgotten():
            yield

    def test_a_registered_function_is_a_network_of_timm_s(self, tmp_path):
        for name, width in {"mine_small": 4, "mine_big": 6}.items():

            @nestnet.register_network(name)
            def build(num_classes, in_chans, width=width):
                pool = torch.nn.AdaptiveAvgPool2d(1)
                convolution = torch.nn.Conv2d(in_chans, width, 3)
                return torch.nn.Sequential(convolution, pool, torch.nn.Flatten(), torch.nn.Linear(width, num_classes))

        net = nestnet.create_model("mine_small", "mine_big", num_classes=3, in_chans=1)
        nestnet.export(net, "base", tmp_path / "mine.safetensors", input_size=(1, 8, 8))
        path = str(tmp_path / "mine.safetensors")
        model = timm.create_model("mine_small", num_classes=3, in_chans=1, checkpoint_path=path)
        images = torch.randn(2, 1, 8, 8)
        assert torch.equal(model(images), net(images, "base"))
        # A head for other classes is left out, and the first convolution adapted, as for timm's networks.
        other = nestnet.create_model("mine_small", "mine_big", num_classes=5, in_chans=3)
        nestnet.load_weights(other, "base", path)
        assert other.subnet("base").state_dict()["0.weight"].shape == (4, 3, 3, 3)

    @pytest.mark.parametrize(
        ("name", "function", "message"),
        [
            ("resnet18", lambda num_classes, in_chans: None, "timm knows one of this name already"),
            ("mine", lambda num_classes: None, "its function must take the keyword argument in_chans"),
        ],
    )
    def test_what_cannot_be_registered_is_said(self, name, function, message):
        with pytest.raises(ValueError, match=message):
            nestnet.register_network(name)(function)


def test_an_unregistered_network_is_exported_and_named_when_it_is_read(tmp_path):
    """Its class cannot be found by name, which the reader says."""

    class Mine(torch.nn.Module):
        def __init__(self, width):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, width, 3)
            self.head = torch.nn.Linear(width, 2)

        def forward(self, x):
            return self.head(self.conv(x).mean((2, 3)))

    net = nestnet.nest(Mine(4), Mine(6))
    with pytest.raises(ValueError, match="Mine does not say for which images it is; give input_size"):
        nestnet.export(net, "base", tmp_path / "mine.safetensors")
    nestnet.export(net, "base", tmp_path / "mine.safetensors", input_size=(3, 8, 8))
    from safetensors.torch import load_file

    alone = Mine(4)
    alone.load_state_dict(load_file(tmp_path / "mine.safetensors"))
    images = torch.randn(1, 3, 8, 8)
    assert torch.equal(alone(images), net(images, "base"))
