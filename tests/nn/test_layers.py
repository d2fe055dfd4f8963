import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import DropPath as TimmDropPath
from torch import nn

from nestnet.nn.batch_norm import STATISTICS, BatchNorm2d
from nestnet.nn.layers import Conv2d, Dropout, DropPath, LayerNorm, Linear
from nestnet.nn.mode import Mode, PerMode, Rate, Width
from nestnet.nn.stage import Stage, depth_map, drop_path_rates


@st.composite
def sizes(draw, most=6):
    motivated = draw(st.integers(1, most))
    return Width(draw(st.integers(1, motivated)), motivated)


def filled(layer):
    """The layer with random weights."""
    layer.load_state_dict({name: torch.randn(tensor.shape) for name, tensor in layer.state_dict().items()})
    return layer


def twins(layer, make):
    """For each mode torch's own layer with that mode's part of the weights, by the layer's own placements."""
    state, models = layer.state_dict(), {}
    for mode in Mode:
        models[mode] = make(mode)
        if mode is Mode.BASE:
            state_of_mode = {name: state[p.name][p.index] for name, p in layer.placements()}
        else:
            private = {p.name for _, p in layer.placements() if p.private}
            state_of_mode = {name: tensor for name, tensor in state.items() if name not in private}
        models[mode].load_state_dict(state_of_mode)
    return models.items()


@given(sizes(), sizes(), st.booleans(), st.sampled_from([1, 3]))
def test_linear_is_torch_s_in_both_modes(inputs, outputs, bias, groups):
    outputs = Width(groups * outputs.base, groups * outputs.motivated)
    layer = filled(Linear(inputs, outputs, bias=bias, groups=groups))
    for mode, twin in twins(layer, lambda m: nn.Linear(inputs.of(m), outputs.of(m), bias=bias)):
        x = torch.randn(2, inputs.of(mode))
        assert torch.equal(layer(x, mode), twin(x))


def test_packed_qkv_takes_part_of_each_of_q_k_and_v():
    layer = Linear(Width(2, 4), Width(6, 12), groups=3)
    layer.load_state_dict({"weight": torch.arange(12.0).unsqueeze(1).expand(12, 4), "bias": torch.arange(12.0)})
    assert layer.bias(Mode.BASE).tolist() == [0, 1, 4, 5, 8, 9]
    assert layer.weight(Mode.BASE)[:, 0].tolist() == [0, 1, 4, 5, 8, 9]


@given(sizes(), sizes(), st.booleans(), st.sampled_from([1, 3]), st.sampled_from([1, 2]))
def test_conv_is_torch_s_in_both_modes(inputs, outputs, bias, kernel, stride):
    layer = filled(Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=bias))

    def make(m):
        return nn.Conv2d(inputs.of(m), outputs.of(m), kernel, stride, kernel // 2, bias=bias)

    for mode, twin in twins(layer, make):
        x = torch.randn(2, inputs.of(mode), 5, 5)
        torch.testing.assert_close(layer(x, mode), twin(x))


@given(sizes(), st.integers(1, 3))
def test_depthwise_conv_and_more_groups_of_the_same_width(groups, width):
    channels = Width(width * groups.base, width * groups.motivated)
    layer = filled(Conv2d(channels, channels, 3, padding=1, groups=groups))

    def make(m):
        return nn.Conv2d(channels.of(m), channels.of(m), 3, padding=1, groups=groups.of(m))

    for mode, twin in twins(layer, make):
        x = torch.randn(2, channels.of(mode), 4, 4)
        torch.testing.assert_close(layer(x, mode), twin(x))


@given(sizes(3), sizes(3), st.integers(2, 3))
def test_conv_with_the_same_number_of_wider_groups(inputs, outputs, groups):
    inputs, outputs = (Width(groups * s.base, groups * s.motivated) for s in (inputs, outputs))
    layer = filled(Conv2d(inputs, outputs, 1, groups=Width(groups, groups)))
    for mode, twin in twins(layer, lambda m: nn.Conv2d(inputs.of(m), outputs.of(m), 1, groups=groups)):
        x = torch.randn(2, inputs.of(mode), 2, 2)
        torch.testing.assert_close(layer(x, mode), twin(x))


def test_groups_that_cannot_nest_are_refused():
    with pytest.raises(ValueError, match="same width"):
        Conv2d(Width(8, 16), Width(8, 8), 1, groups=Width(2, 4))
    with pytest.raises(ValueError, match="multiples"):
        Conv2d(Width(8, 16), Width(8, 16), 1, groups=Width(3, 3))


@given(sizes())
def test_layer_norm_is_torch_s_in_both_modes(width):
    layer = filled(LayerNorm(width))
    for mode, twin in twins(layer, lambda m: nn.LayerNorm(width.of(m), eps=1e-6)):
        x = torch.randn(2, 3, width.of(mode))
        assert torch.equal(layer(x, mode), twin(x))


class TestBatchNorm:
    @given(sizes(), st.lists(st.sampled_from(list(Mode)), max_size=6))
    def test_private_statistics_are_those_of_two_layers(self, channels, modes):
        """Each mode's running statistics see that mode's batches and no others."""
        layer = BatchNorm2d(channels)
        nn.init.ones_(layer.state_dict()["weight"])
        nn.init.zeros_(layer.state_dict()["bias"])
        alone = {mode: nn.BatchNorm2d(channels.of(mode)) for mode in Mode}
        for mode in modes:
            x = torch.randn(3, channels.of(mode), 2, 2)
            assert torch.equal(layer(x, mode), alone[mode](x))
        for mode in Mode:
            theirs = (alone[mode].running_mean, alone[mode].running_var, alone[mode].num_batches_tracked)
            assert all(torch.equal(a, b) for a, b in zip(layer.running_statistics(mode), theirs, strict=True))

    @given(sizes(), st.lists(st.sampled_from(list(Mode)), max_size=6))
    def test_separate_layers_are_two(self, channels, modes):
        """Each mode's scale, shift and statistics, and their gradients, are those of a layer of its own."""
        layer = filled(BatchNorm2d(channels, statistics="separate"))
        alone = dict(twins(layer, lambda mode: nn.BatchNorm2d(channels.of(mode))))
        own = {
            Mode.BASE: (layer.base_weight, layer.base_bias),
            Mode.MOTIVATED: (layer.weight, layer.bias),
        }
        for mode in modes:
            x = torch.randn(3, channels.of(mode), 2, 2)
            y, expected = layer(x, mode), alone[mode](x)
            assert torch.equal(y, expected)
            for module, output in ((layer, y), (alone[mode], expected)):
                module.zero_grad()
                output.square().mean().backward()
            for mine, theirs in zip(own[mode], alone[mode].parameters(), strict=True):
                assert torch.equal(mine.grad, theirs.grad)
            trained = {id(p) for p in layer.parameters() if p.grad is not None}
            assert trained == set(map(id, own[mode]))
        for mode in Mode:
            theirs = (alone[mode].running_mean, alone[mode].running_var, alone[mode].num_batches_tracked)
            assert all(torch.equal(a, b) for a, b in zip(layer.running_statistics(mode), theirs, strict=True))

    @given(sizes(), st.lists(st.sampled_from(list(Mode)), max_size=6))
    def test_shared_statistics_are_the_first_entries_of_one_set(self, channels, modes):
        layer = BatchNorm2d(channels, statistics="shared")
        nn.init.ones_(layer.state_dict()["weight"])
        nn.init.zeros_(layer.state_dict()["bias"])
        mean, c = torch.zeros(channels.motivated), channels.base
        for mode in modes:
            x = torch.randn(3, channels.of(mode), 2, 2)
            layer(x, mode)
            mean[: channels.of(mode)].lerp_(x.mean((0, 2, 3)), 0.1)
        torch.testing.assert_close(layer.running_mean, mean)
        torch.testing.assert_close(layer.running_statistics(Mode.BASE)[0], mean[:c])
        assert layer.num_batches_tracked == len(modes)

    def test_evaluation_uses_the_mode_s_own_statistics(self):
        layer = filled(BatchNorm2d(Width(2, 3)))
        for buffer in (layer.running_var, layer.base_running_var):
            buffer.abs_().add_(0.5)
        layer.eval()
        for mode, twin in twins(layer, lambda m: nn.BatchNorm2d(Width(2, 3).of(m))):
            x = torch.randn(2, Width(2, 3).of(mode), 2, 2)
            torch.testing.assert_close(layer(x, mode), twin.eval()(x))

    @pytest.mark.parametrize("assign", [False, True])
    def test_timm_s_state_fills_what_the_base_has_of_its_own(self, assign):
        timm_s = filled(nn.BatchNorm2d(3))
        layer = BatchNorm2d(Width(2, 3), statistics="separate")
        layer.load_state_dict(timm_s.state_dict(), assign=assign)
        for name, tensor in timm_s.state_dict().items():
            base = layer.state_dict()[f"base_{name}"]
            assert torch.equal(base, tensor[:2] if tensor.ndim else tensor)
            base.zero_()
            assert torch.equal(layer.state_dict()[name], tensor), "a copy, not a view"
        assert isinstance(layer.base_weight, nn.Parameter)

    def test_timm_s_state_fills_the_private_statistics(self):
        layer, timm_s = BatchNorm2d(Width(2, 3)), nn.BatchNorm2d(3)
        timm_s.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
        layer.load_state_dict(timm_s.state_dict())
        assert layer.base_running_mean.tolist() == [1.0, 2.0]
        layer.base_running_mean.zero_()
        assert layer.running_mean.tolist() == [1.0, 2.0, 3.0], "a copy, not a view"

    @pytest.mark.parametrize("statistics", STATISTICS)
    def test_a_differential_layer_has_one_set(self, statistics):
        layer = BatchNorm2d(Width(0, 3), statistics=statistics)
        assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]
        assert [name for name, _ in layer.named_buffers()] == ["running_mean", "running_var", "num_batches_tracked"]


def test_dropout_and_drop_path_have_a_rate_per_mode():
    x, rate = torch.ones(64, 8), Rate(0.0, 0.5)
    for ours, theirs in ((Dropout(rate), nn.Dropout(0.5)), (DropPath(rate), TimmDropPath(0.5))):
        assert torch.equal(ours(x, Mode.BASE), x)
        torch.manual_seed(1)
        dropped = ours(x, Mode.MOTIVATED)
        torch.manual_seed(1)
        assert torch.equal(dropped, theirs(x))
        assert torch.equal(ours.eval()(x, Mode.MOTIVATED), x)


@given(sizes(12), st.sampled_from(["last", "first"]))
def test_depth_map_keeps_order_and_ends(depth, kind):
    positions = depth_map(depth, kind)
    taken = [i for i, position in enumerate(positions) if position is not None]
    assert [positions[i] for i in taken] == list(range(depth.base))
    assert taken[: depth.base - 1] == list(range(depth.base - 1))
    last = depth.motivated - 1 if kind == "last" and depth.base > 1 else depth.base - 1
    assert taken[-1] == last
    assert taken[0] == 0, "the first block changes the resolution"


@given(sizes(12))
def test_the_uniform_depth_map_spaces_blocks_evenly_from_the_first_to_the_last(depth):
    positions = depth_map(depth, "uniform")
    taken = [i for i, position in enumerate(positions) if position is not None]
    assert [positions[i] for i in taken] == list(range(depth.base))
    assert taken[0] == 0, "the first block changes the resolution"
    if depth.base > 1:
        assert taken[-1] == depth.motivated - 1
        gaps = [later - earlier for earlier, later in itertools.pairwise(taken)]
        assert max(gaps) - min(gaps) <= 1


def test_stage_skips_differential_blocks_in_base_mode():
    class Tag(nn.Module):
        def __init__(self, tag):
            super().__init__()
            self.tag = tag

        def forward(self, x, mode):
            return [*x, self.tag]

    stage = Stage([Tag(i) for i in range(4)], [0, None, None, 1])
    assert stage([], Mode.MOTIVATED) == [0, 1, 2, 3]
    assert stage([], Mode.BASE) == [0, 3]


def test_drop_path_rates_follow_each_network_s_own_depth():
    positions = [[0, None, 1], [0, 1]]
    rates = drop_path_rates(Rate(0.3, 0.4), positions, last=True)
    flat = [rate for stage in rates for rate in stage]
    assert [r.motivated for r in flat] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert [flat[i].base for i in (0, 2, 3, 4)] == pytest.approx([0.0, 0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    ("layer", "printed"),
    [
        (Linear(Width(192, 384), Width(10, 10)), "Linear(in_features=192 -> 384, out_features=10, bias=True)"),
        (Conv2d(Width(3, 3), Width(32, 40), 3, stride=2, bias=False), "Conv2d(3, 32 -> 40, kernel_size=3, stride=2"),
        (BatchNorm2d(Width(32, 40)), "BatchNorm2d(32 -> 40, eps=1e-05, statistics=private)"),
        (LayerNorm(Width(192, 384)), "LayerNorm(192 -> 384, eps=1e-06)"),
        (Dropout(Rate(0.2, 0.3)), "Dropout(p=0.2 -> 0.3)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_layer_prints_both_its_sizes(layer, printed):
    assert repr(layer).startswith(printed)


def test_a_mode_is_base_or_motivated():
    assert Mode("base") is Mode.BASE
    with pytest.raises(ValueError, match="mode = 'big': it must be 'base' or 'motivated'"):
        Mode("big")
    assert str(PerMode(1, 2)) == "1 -> 2"
