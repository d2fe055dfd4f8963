"""What base steps must leave alone, for any optimizer, and what a nested network must do like any other module."""

import copy
import inspect
import io
import pickle

import pytest
import timm.optim
import torch
from helpers import batch, make, randomised, train_step
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.utils import ModelEmaV3
from torch import nn

import nestnet
from nestnet import Mode, fill_momentum
from nestnet.nn.batch_norm import STATISTICS, BatchNorm2d
from nestnet.nn.layers import Conv2d, LayerNorm, Linear
from nestnet.nn.mode import Width
from nestnet.nn.module import NestedModule
from nestnet.nn.parameter import create_weight, select_weight, state_dict_name
from nestnet.nn.stage import Stage, depth_map

OPTIMIZERS = {
    f"{name} {kind}": (cls, {**own, kind: True} if kind != "plain" else own)
    for name, cls, own in [
        ("SGD", torch.optim.SGD, {"lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-2}),
        ("AdamW", torch.optim.AdamW, {"lr": 1e-3, "weight_decay": 0.05}),
        ("RMSprop", torch.optim.RMSprop, {"lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-4}),
        ("LAMB", timm.optim.Lamb, {"lr": 1e-3, "weight_decay": 0.02}),
    ]
    for kind in ("plain", "foreach", "fused")
    if kind == "plain"
    or kind in inspect.signature(cls).parameters  # no RMSprop or LAMB is fused, old LAMBs have no foreach
}


def snapshot(net, optimizer):
    """Copies of all differential weights, the motivated network's own buffers, and their optimizer state."""
    base = {id(p) for p in net.subnet("base").parameters()}
    parameters = {name: p for name, p in net.named_parameters() if id(p) not in base}
    state = {name: copy.deepcopy(dict(optimizer.state.get(p, {}))) for name, p in parameters.items()}
    of_base = {p.name for p in net.weights_map.values()}
    buffers = {name: b.clone() for name, b in net.named_buffers() if name not in of_base}
    return {name: p.detach().clone() for name, p in parameters.items()}, buffers, state


def assert_same(before, after):
    assert len(before) == len(after)
    for kind_before, kind_after in zip(before, after, strict=True):
        assert kind_before.keys() == kind_after.keys()
        for name, value in kind_before.items():
            if isinstance(value, dict):
                assert value.keys() == kind_after[name].keys(), name
                pairs = [(value[key], kind_after[name][key]) for key in value]
            else:
                pairs = [(value, kind_after[name])]
            for ours, theirs in pairs:
                assert torch.equal(torch.as_tensor(ours), torch.as_tensor(theirs)), name


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("family", ["resnet", "vit", "efficientnet"])
def test_base_steps_leave_what_is_differential_bit_for_bit(family, optimizer):
    net = make(family).train()
    cls, arguments = OPTIMIZERS[optimizer]
    optimizer = cls(net.parameters(), **arguments)
    fill_momentum(optimizer)
    for mode in (Mode.BASE, Mode.MOTIVATED, Mode.MOTIVATED):
        train_step(net, optimizer, mode)
    before = snapshot(net, optimizer)
    assert before[0], "there are differential weights"
    weights = {name: p.detach().clone() for name, p in net.subnet("base").named_parameters()}
    for _ in range(3):
        train_step(net, optimizer, Mode.BASE)
    assert_same(before, snapshot(net, optimizer))
    assert not any(torch.equal(p, weights[name]) for name, p in net.subnet("base").named_parameters() if p.ndim > 1)


def test_fused_sgd_needs_its_momentum_filled():
    """The trap that `fill_momentum` is for; when torch mends it, the function can go."""
    for remedy in (False, True):
        net = make("vit")
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, fused=True)
        if remedy:
            fill_momentum(optimizer)
        train_step(net, optimizer, Mode.BASE)
        if remedy:
            train_step(net, optimizer, Mode.MOTIVATED)
        else:
            with pytest.raises(TypeError):
                train_step(net, optimizer, Mode.MOTIVATED)


class Small(NestedModule):
    """A network with every kind of layer, of any widths and depth."""

    def __init__(self, width: Width, depth: Width, statistics: str) -> None:
        super().__init__()
        three = Width(3 * width.base, 3 * width.motivated)
        self.conv = Conv2d(Width(2, 2), width, 3, padding=1)
        positions = depth_map(depth, "last")
        self.blocks = Stage(
            [Residual(width if p is not None else Width(0, width.motivated), statistics) for p in positions], positions
        )
        self.token = create_weight((1, 1, width.motivated), (1, 1, width.base))
        self.packed = Linear(width, three, groups=3)
        self.norm = LayerNorm(three)
        self.head = Linear(three, Width(3, 3))
        for name, tensor in self.state_dict().items():
            nn.init.normal_(tensor, std=0.3) if tensor.is_floating_point() and "running" not in name else None

    def forward(self, x: torch.Tensor, mode: Mode) -> torch.Tensor:
        x = self.blocks(self.conv(x, mode), mode).mean((2, 3), keepdim=True).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.packed(x + select_weight(self.token, mode), mode), mode), mode)[:, 0]


class Residual(nn.Module):
    def __init__(self, width: Width, statistics: str) -> None:
        super().__init__()
        self.depthwise = Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.norm = BatchNorm2d(width, statistics=statistics)

    def forward(self, x: torch.Tensor, mode: Mode) -> torch.Tensor:
        return x + self.norm(self.depthwise(x, mode), mode)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 4).flatmap(lambda m: st.tuples(st.integers(1, m), st.just(m))),
    st.integers(1, 3).flatmap(lambda m: st.tuples(st.integers(1, m), st.just(m))),
    st.sampled_from(STATISTICS),
    st.sampled_from(list(OPTIMIZERS)),
    st.lists(st.sampled_from(list(Mode)), min_size=1, max_size=8),
)
def test_any_widths_depths_optimizers_and_mode_sequences(width, depth, statistics, optimizer, modes):
    net = Small(Width(*width), Width(*depth), statistics)
    cls, arguments = OPTIMIZERS[optimizer]
    optimizer = cls(net.parameters(), **arguments)
    fill_momentum(optimizer)
    blocks = list(net.blocks.children())
    skipped = [
        p
        for block, position in zip(blocks, net.blocks.base_positions, strict=True)
        if position is None
        for p in block.parameters()
    ]
    differential = [p for name, p in net.named_parameters() if name.endswith((".right", ".below"))] + skipped
    of_base = []  # and of no other mode
    if statistics == "separate":
        of_base = [p for name, p in net.named_parameters() if ".base_" in name]
        kept = [
            block for block, position in zip(blocks, net.blocks.base_positions, strict=True) if position is not None
        ]
        differential += [p for block in kept for p in (block.norm.weight, block.norm.bias)]
    for mode in modes:
        before = [(p.detach().clone(), copy.deepcopy(dict(optimizer.state.get(p, {})))) for p in differential]
        images, labels = torch.randn(3, 2, 4, 4), torch.randint(3, (3,))
        loss = nn.functional.cross_entropy(net(images, mode), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if mode is Mode.BASE:
            after = [(p.detach(), dict(optimizer.state.get(p, {}))) for p in differential]
            for (p, state), (q, other) in zip(before, after, strict=True):
                assert torch.equal(p, q)
                assert state.keys() == other.keys()
                assert all(torch.equal(torch.as_tensor(state[k]), torch.as_tensor(other[k])) for k in state)
        else:
            assert all(p.grad is not None for p in differential)
        assert all((p.grad is None) == (mode is Mode.MOTIVATED) for p in of_base)


def test_gradients_and_weights_take_exactly_the_networks_bytes():
    for family in ("resnet", "vit", "efficientnet"):
        net = make(family)
        optimizer = torch.optim.AdamW(net.parameters())
        count = {mode: sum(p.numel() for p in net.skeleton(mode).parameters()) for mode in Mode}
        for mode in (Mode.BASE, Mode.MOTIVATED, Mode.BASE):
            train_step(net, optimizer, mode)
            assert sum(p.grad.numel() for p in net.parameters() if p.grad is not None) == count[mode]
        assert sum(p.numel() for p in net.parameters()) == count[Mode.MOTIVATED]
        moments = sum(state["exp_avg"].numel() for state in optimizer.state.values())
        assert moments == count[Mode.MOTIVATED]
        private = sum(b.numel() for name, b in net.named_buffers() if "base_" in name)
        buffers = sum(b.numel() for b in net.skeleton("motivated").buffers())
        assert sum(b.numel() for b in net.buffers()) == buffers + private


def test_a_switch_moves_no_memory():
    net = make("efficientnet").train()
    where = {name: t.data_ptr() for name, t in (*net.named_parameters(), *net.named_buffers())}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for mode in (Mode.BASE, Mode.MOTIVATED, Mode.BASE):
        train_step(net, optimizer, mode)
    assert where == {name: t.data_ptr() for name, t in (*net.named_parameters(), *net.named_buffers())}


@pytest.mark.parametrize(
    ("family", "name", "options"),
    [
        ("resnet", "adamw", {}),
        ("resnet", "momentum", {}),
        ("resnet", "lamb", {}),
        ("vit", "adamw", {}),
        ("vit", "lamb", {"layer_decay": 0.75}),
        ("efficientnet", "momentum", {}),
    ],
)
def test_parameter_groups_are_timm_s(family, name, options):
    net = make(family)
    arguments = {"opt": name, "lr": 0.1, "weight_decay": 0.05, **options}
    ours = timm.optim.create_optimizer_v2(net, **arguments)
    alone = net.standalone("motivated")
    theirs = timm.optim.create_optimizer_v2(alone, **arguments)
    names = {id(p): state_dict_name(name) for name, p in net.named_parameters()}
    their_names = {id(p): name for name, p in alone.named_parameters()}
    assert len(ours.param_groups) == len(theirs.param_groups) > 1
    found, expected = (
        {
            (frozenset(of[id(p)] for p in group["params"]), group["weight_decay"], group.get("lr_scale"))
            for group in groups
        }
        for of, groups in ((names, ours.param_groups), (their_names, theirs.param_groups))
    )
    assert found == expected
    subnet, alone = net.subnet("base"), net.standalone("base")
    base_groups = [timm.optim.create_optimizer_v2(module, **arguments).param_groups for module in (subnet, alone)]
    counts = [
        sorted((len(g["params"]), g["weight_decay"], g.get("lr_scale", 1)) for g in groups) for groups in base_groups
    ]
    assert counts[0] == counts[1]


class TestLikeAnyModule:
    @pytest.fixture(params=["resnet", "vit", "efficientnet", "separate"])
    def net(self, request):
        if request.param == "separate":
            return randomised(make("resnet", batch_norm="separate"))
        return randomised(make(request.param))

    def same(self, net, other, images=None):
        images = torch.randn(2, 3, 32, 32) if images is None else images
        net.eval()
        other.eval()
        return all(torch.equal(net(images, mode), other(images, mode)) for mode in Mode)

    def trains(self, net):
        """One step in each mode works and changes every weight."""
        before = {name: p.detach().clone() for name, p in net.named_parameters()}
        net.train()
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
        for mode in (Mode.MOTIVATED, Mode.BASE):
            train_step(net, optimizer, mode)
        return all(not torch.equal(p, before[name]) for name, p in net.named_parameters())

    def test_to(self, net):
        net.to(torch.float64)
        assert all(t.dtype is torch.float64 for t in net.state_dict().values() if t.is_floating_point())
        net.to(torch.float32).to(memory_format=torch.channels_last)
        assert self.trains(net)
        meta = net.to("meta")
        assert meta(torch.zeros(2, 3, 32, 32, device="meta"), "motivated").shape == (2, 5)

    def test_channels_last_gives_the_same_logits(self, net):
        images = torch.randn(2, 3, 32, 32)
        expected = [net.eval()(images, mode) for mode in Mode]
        net.to(memory_format=torch.channels_last)
        for mode, logits in zip(Mode, expected, strict=True):
            torch.testing.assert_close(net(images.to(memory_format=torch.channels_last), mode), logits)

    def test_deepcopy(self, net):
        other = copy.deepcopy(net)
        assert self.same(net, other)
        assert {p.data_ptr() for p in net.parameters()}.isdisjoint(p.data_ptr() for p in other.parameters())
        assert self.trains(other)
        assert not self.same(net, other)

    def test_pickling(self, net):
        other = pickle.loads(pickle.dumps(net))
        assert self.same(net, other)
        assert self.trains(other)

    def test_save_and_load(self, net):
        file = io.BytesIO()
        torch.save(net.state_dict(), file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
        other = copy.deepcopy(net)
        assert self.trains(other)
        other.load_state_dict(state)
        assert self.same(net, other)

    def test_load_state_dict_assign(self, net):
        other = copy.deepcopy(net)
        assert self.trains(other)
        state = {
            name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in net.state_dict().items()
        }
        other.load_state_dict(state, assign=True)
        assert all(p.dtype is torch.float64 and p.is_contiguous() for p in other.parameters())
        assert len({p.untyped_storage().data_ptr() for p in other.parameters()}) == len(list(other.parameters()))
        assert self.same(net, other.float())
        assert self.trains(other)

    @pytest.mark.parametrize(
        "how", [{}, {"foreach": False}, {"exclude_buffers": True}], ids=["foreach", "plain", "no buffers"]
    )
    def test_ema(self, net, how):
        ema = ModelEmaV3(net, decay=0.75, **how)
        average = [p.detach().clone() for p in net.parameters()]
        for mode in (Mode.BASE, Mode.MOTIVATED, Mode.BASE):
            optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
            train_step(net, optimizer, mode)
            ema.update(net)
            average = [old.lerp(p.detach(), 0.25) for old, p in zip(average, net.parameters(), strict=True)]
        for ours, expected in zip(ema.module.parameters(), average, strict=True):
            torch.testing.assert_close(ours.detach(), expected)
        ema.set(net)
        assert self.same(net, ema.module)

    def test_averaged_model(self, net):
        averaged = torch.optim.swa_utils.AveragedModel(net, use_buffers=True)
        averaged.update_parameters(net)
        assert self.same(net, averaged)

    def test_gradient_clipping(self, net):
        for mode in Mode:
            images, labels = batch()
            net.zero_grad()
            nn.functional.cross_entropy(net(images, mode), labels).backward()
            gradients = [p.grad for p in net.parameters() if p.grad is not None]
            norm = torch.linalg.vector_norm(torch.cat([g.flatten() for g in gradients]).double())
            assert nn.utils.clip_grad_norm_(net.parameters(), 1e-3).item() == pytest.approx(norm.item(), rel=1e-4)
            clipped = torch.linalg.vector_norm(torch.cat([g.flatten() for g in gradients]).double())
            assert clipped.item() == pytest.approx(1e-3, rel=1e-3)

    def test_requires_grad(self, net):
        head = next(reversed(dict(net.named_children()).values()))
        net.requires_grad_(False)
        head.requires_grad_(True)
        before = {name: p.detach().clone() for name, p in net.named_parameters()}
        optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
        for mode in Mode:
            train_step(net, optimizer, mode)
        moved = {name for name, p in net.named_parameters() if not torch.equal(p, before[name])}
        assert moved == {name for name, p in net.named_parameters() if p.requires_grad}
        assert moved

    def test_a_frozen_base_leaves_only_the_rest_to_train(self, net):
        net.subnet("base").requires_grad_(False)
        images, labels = batch()
        nn.functional.cross_entropy(net(images, "motivated"), labels).backward()
        base = {id(p) for p in net.subnet("base").parameters()}
        assert all((p.grad is None) == (id(p) in base) for p in net.parameters())

    def test_zero_grad_refuses_zeros(self, net):
        with pytest.raises(ValueError, match=r"zero_grad\(set_to_none=False\): .* call zero_grad\(\) without"):
            net.zero_grad(set_to_none=False)
        images, labels = batch()
        nn.functional.cross_entropy(net(images, "motivated"), labels).backward()
        net.zero_grad()
        assert all(p.grad is None for p in net.parameters())

    @pytest.mark.slow
    @pytest.mark.parametrize("mode", list(Mode))
    def test_compile(self, net, mode):
        images, labels = batch(4)
        expected = copy.deepcopy(net).train()
        losses = []
        for module in (
            expected.subnet(mode),
            torch.compile(net.train().subnet(mode), backend="aot_eager", fullgraph=True),
        ):
            loss = nn.functional.cross_entropy(module(images), labels)
            loss.backward()
            losses.append(loss.item())
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
        for (name, p), q in zip(net.named_parameters(), expected.parameters(), strict=True):
            assert (p.grad is None) == (q.grad is None), name
            if p.grad is not None:
                torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-5)
        for ours, theirs in zip(net.buffers(), expected.buffers(), strict=True):
            torch.testing.assert_close(ours, theirs)

    def test_subnet_follows_the_network(self, net):
        subnet = net.subnet("base")
        images = torch.randn(2, 3, 32, 32)
        net.to(torch.float64)
        assert subnet.eval()(images.double()).dtype is torch.float64
        assert not net.training


@pytest.mark.slow
def test_compile_with_inductor():
    net = nestnet.create_model("resnet8", "resnet14", num_classes=5).eval()
    images = torch.randn(4, 3, 32, 32)
    for mode in Mode:
        torch.testing.assert_close(
            torch.compile(net.subnet(mode), fullgraph=True)(images), net(images, mode), rtol=1e-4, atol=1e-5
        )
