"""What a pair of any two modules must do like any other module, against plain modules with the same weights."""

import copy
import io
import operator
import pickle
import weakref

import pytest
import timm.optim
import torch
import torchvision
from pairs import CLASSES, MLP, PAIRS, OwnCNN, Pair
from timm.utils import ModelEmaV3
from torch import nn
from torchvision.models.resnet import BasicBlock

import nestnet
from nestnet import Mode
from nestnet.nn.parameter import state_dict_name
from nestnet.nn.recalibration import count_insufficient_updates, has_running_statistics
from nestnet.verification.comparison import check_against_reference

cross_entropy = nn.functional.cross_entropy


class Recurrent(nn.Module):
    """A classifier of sequences."""

    def __init__(self, kind, width, layers=2):
        super().__init__()
        self.rnn = kind(6, width, layers, batch_first=True)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x):
        features, _ = self.rnn(x)
        return self.head(features[:, -1])


class Attention(nn.Module):
    """A transformer of torch's own layers, with packed projections."""

    def __init__(self, heads, layers):
        super().__init__()
        width = 4 * heads
        self.embed = nn.Linear(6, width)
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, batch_first=True)
        self.blocks = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x):
        return self.head(self.blocks(self.embed(x)).mean(1))


class Signal(nn.Module):
    """A network of one dimension, with a transposed convolution."""

    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv1d(6, width, 3, padding=1)
        self.norm = nn.BatchNorm1d(width)
        self.up = nn.ConvTranspose1d(width, width, 2, stride=2)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x):
        x = self.norm(self.conv(x.transpose(1, 2))).relu()
        return self.head(self.up(x).mean(2))


def sequences(count=4):
    return torch.randn(count, 5, 6), torch.randint(CLASSES, (count,))


class SequencePair(Pair):
    def batch(self, count=4):
        return sequences(count)


KINDS = {
    **{name: PAIRS[name] for name in ("own cnn", "deit3", "swin", "convnextv2")},
    "lstm": SequencePair(lambda: Recurrent(nn.LSTM, 4), lambda: Recurrent(nn.LSTM, 6)),
    "gru": SequencePair(lambda: Recurrent(nn.GRU, 4), lambda: Recurrent(nn.GRU, 6)),
    "attention": SequencePair(lambda: Attention(1, 1), lambda: Attention(2, 2)),
    "signal": SequencePair(lambda: Signal(4), lambda: Signal(6)),
}


def nested(kind, **options):
    """A pair, and copies of both networks from before; the base's weights are those of the motivated network."""
    base, motivated = KINDS[kind].make()
    randomise(base)
    randomise(motivated)
    net = nestnet.nest(base, motivated, check=False, **options)
    return net, KINDS[kind].batch()


@torch.no_grad()
def randomise(network):
    """Values of usual size at random: zeros and ones would hide a wrong index."""
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.uniform_(-1, 1).mul_((3 / parameter[0].numel()) ** 0.5)
        else:
            parameter.uniform_(0.5, 1.0)
    for name, buffer in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.8, 1.2)


def outputs(net, x):
    """Logits of both modes in evaluation, with the mode of the network as it was."""
    was_training = net.training
    net.eval()
    with torch.no_grad():
        found = [net(x, mode) for mode in Mode]
    net.train(was_training)
    return found


def same(net, other, x):
    return all(map(torch.equal, outputs(net, x), outputs(other, x)))


def train(net, data, modes=(Mode.MOTIVATED, Mode.BASE, Mode.MOTIVATED)):
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    x, labels = data
    for mode in modes:
        loss = cross_entropy(net(x, mode), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def trains(net, data):
    """Whether a step in each mode changes every weight."""
    before = [parameter.detach().clone() for parameter in net.parameters()]
    train(net.train(), data)
    return not any(map(torch.equal, net.parameters(), before))


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def test_the_two_networks_are_the_author_s_modules_over_one_memory(kind):
    base, motivated = KINDS[kind].make()
    state = {name: tensor.clone() for name, tensor in motivated.state_dict().items()}
    classes = [type(module) for module in base.modules()]
    net = nestnet.nest(base, motivated)
    assert net.base is base
    assert net.motivated is motivated
    assert [type(module) for module in base.modules()] == classes, "nothing is between the caller and the base"
    blocks = {id(parameter) for parameter in motivated.parameters()}
    assert all(id(parameter) in blocks for parameter in base.parameters())
    x, _ = KINDS[kind].batch()
    net.eval()
    for mode, alone in ((Mode.BASE, base), (Mode.MOTIVATED, motivated)):
        assert net.network(mode) is alone
        assert torch.equal(net(x, mode), alone(x))
        assert torch.equal(net.subnet(mode)(x), alone(x))
    # The values are those of the motivated network.
    for name, tensor in state.items():
        assert torch.equal(net.state_dict()[name], tensor), name
    for name, tensor in net.weights_map.take(net.state_dict()).items():
        assert torch.equal(base.state_dict()[name], tensor), name
    with pytest.raises(ValueError, match="mode"):
        net(x, "both")


def test_standalone_networks_are_of_the_author_s_classes_and_independent(kind):
    net, (x, _) = nested(kind)
    for mode in Mode:
        alone = net.standalone(mode)
        fresh = KINDS[kind].make()[mode is Mode.MOTIVATED]
        assert [type(module) for module in alone.modules()] == [type(module) for module in fresh.modules()]
        assert list(alone.state_dict()) == list(fresh.state_dict())
        assert [name for name, _ in alone.named_parameters()] == [name for name, _ in fresh.named_parameters()]
        fresh.load_state_dict(net.subnet(mode).state_dict())
        assert torch.equal(fresh.eval()(x), alone.eval()(x))
        assert torch.equal(net.eval()(x, mode), alone(x))
        assert alone.training is False
        memory = {tensor.untyped_storage().data_ptr() for tensor in net.state_dict().values()}
        memory |= {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}
        assert memory.isdisjoint(parameter.data_ptr() for parameter in alone.parameters())
        pickle.loads(pickle.dumps(alone))


def test_states_have_the_motivated_names_and_what_the_base_has_of_its_own(kind):
    net, _ = nested(kind)
    alone = net.standalone("motivated").state_dict()
    own = {placement.name for placement in net.weights_map.values() if placement.private}
    assert set(net.state_dict()) == set(alone) | own
    assert list(net.subnet("motivated").state_dict()) == list(alone)
    assert list(net.subnet("base").state_dict()) == list(net.standalone("base").state_dict())
    assert [tuple(t.shape) for t in net.subnet("motivated").state_dict().values()] == [
        tuple(t.shape) for t in alone.values()
    ]


def test_gradients_reach_the_blocks_as_they_reach_plain_weights(kind):
    net, (x, labels) = nested(kind)
    for mode in Mode:
        alone = net.standalone(mode).eval()
        cross_entropy(alone(x), labels).backward()
        net.zero_grad()
        cross_entropy(net.eval()(x, mode), labels).backward()
        stored = dict(net.stored_tensors())
        for name, parameter in alone.named_parameters():
            if mode is Mode.BASE:
                gradient = net.base.get_parameter(name).grad
            elif isinstance(stored[name], nn.Parameter):
                gradient = stored[name].grad
            else:
                gradient = stored[name].join(**{key: block.grad for key, block in stored[name].named_parameters()})
            assert torch.equal(gradient, parameter.grad), name
        differential = [parameter for _, parameter in net.differential_parameters()]
        assert differential
        assert all((parameter.grad is None) == (mode is Mode.BASE) for parameter in differential)


@pytest.fixture(params=["own cnn", "shared", "separate", "swin", "lstm", "attention"])
def example(request):
    if request.param in ("shared", "separate"):
        return nested("own cnn", batch_norm=request.param)
    return nested(request.param)


class TestLikeAnyModule:
    def test_to_another_type_and_back(self, example):
        net, data = example
        net.to(torch.float64)
        assert all(t.dtype is torch.float64 for t in net.state_dict().values() if t.is_floating_point())
        net.eval()
        assert all(net(data[0].double(), mode).dtype is torch.float64 for mode in Mode)
        net.to(torch.float32)
        assert trains(net, data)

    def test_the_meta_device_and_back(self, example):
        net, data = example
        state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        others = {name: b.clone() for name, b in net.named_buffers() if b.numel()}
        expected = outputs(net, data[0])
        net.to("meta")
        for mode in Mode:
            assert net(data[0].to("meta"), mode).shape == (4, CLASSES)
        net.to_empty(device="cpu")
        net.load_state_dict(state)
        # Buffers that are in no state are made anew by whoever empties them.
        for name, buffer in net.named_buffers():
            buffer.copy_(others[name])
        assert all(map(torch.equal, outputs(net, data[0]), expected))
        assert trains(net, data)

    def test_deepcopy(self, example):
        net, data = example
        other = copy.deepcopy(net)
        assert same(net, other, data[0])
        assert {p.data_ptr() for p in net.parameters()}.isdisjoint(p.data_ptr() for p in other.parameters())
        assert trains(other, data)
        assert not same(net, other, data[0])
        assert [type(m).__name__ for m in other.modules()] == [type(m).__name__ for m in net.modules()]

    def test_pickling(self, example):
        net, data = example
        other = pickle.loads(pickle.dumps(net))
        assert same(net, other, data[0])
        assert trains(other, data)

    def test_saving_the_whole_network(self, example):
        net, data = example
        file = io.BytesIO()
        torch.save(net, file)
        file.seek(0)
        assert same(net, torch.load(file, weights_only=False), data[0])

    @pytest.mark.parametrize("assign", [False, True])
    def test_saving_and_loading_a_state(self, example, assign):
        net, data = example
        file = io.BytesIO()
        torch.save(net.state_dict(), file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
        other = copy.deepcopy(net)
        assert trains(other, data)
        keys = other.load_state_dict(state, assign=assign)
        assert keys.missing_keys == keys.unexpected_keys == []
        assert same(net, other, data[0])
        assert trains(other, data)
        assert not same(net, other, data[0])

    def test_loading_by_assigning_takes_the_state_s_type(self, example):
        net, data = example
        expected = outputs(net, data[0])
        state = {name: t.double() if t.is_floating_point() else t for name, t in net.state_dict().items()}
        net.load_state_dict(state, assign=True)
        assert all(p.dtype is torch.float64 and p.is_contiguous() for p in net.parameters())
        addresses = {p.untyped_storage().data_ptr() for p in net.parameters()}
        assert len(addresses) == len(list(net.parameters()))
        assert all(map(torch.equal, outputs(net.float(), data[0]), expected))

    def test_loading_the_state_of_a_plain_network(self, example):
        net, data = example
        alone = net.standalone("motivated")
        randomise(alone)
        net.load_state_dict(alone.state_dict())
        assert torch.equal(net.eval()(data[0], "motivated"), alone.eval()(data[0]))
        # What the base has of its own are the first entries, and tables of another size are as they were.
        for name, placement in net.weights_map.items():
            if placement.private:
                tensor = net.base.state_dict()[name]
                whole = alone.state_dict()[placement.name.replace("base_", "")]
                assert torch.equal(tensor, whole[: len(tensor)] if tensor.ndim else whole), name

    def test_writes_to_states_reach_the_blocks(self, example):
        net, _ = example
        for mode in (None, *Mode):
            state = (net if mode is None else net.subnet(mode)).state_dict()
            with torch.no_grad():
                for tensor in state.values():
                    if tensor.is_floating_point():
                        tensor.fill_(0.25)
            module = net if mode is None else net.subnet(mode)
            assert all((p == 0.25).all() for p in module.parameters())
            with torch.no_grad():
                for parameter in net.parameters():
                    parameter.fill_(2.0)

    @pytest.mark.parametrize(
        "how", [{}, {"foreach": False}, {"exclude_buffers": True}], ids=["foreach", "plain", "no buffers"]
    )
    def test_timm_s_average(self, example, how):
        net, data = example
        ema = ModelEmaV3(net, decay=0.75, **how)
        average = [p.detach().clone() for p in net.parameters()]
        for mode in (Mode.BASE, Mode.MOTIVATED, Mode.BASE):
            train(net.train(), data, [mode])
            ema.update(net)
            average = [old.lerp(p.detach(), 0.25) for old, p in zip(average, net.parameters(), strict=True)]
        for ours, expected in zip(ema.module.parameters(), average, strict=True):
            torch.testing.assert_close(ours.detach(), expected)
        ema.set(net)
        assert same(net, ema.module, data[0])

    def test_torch_s_average_and_the_average_of_a_step(self, example):
        """Both average each buffer once, also where the base has a view of it."""
        net, data = example
        averaged = torch.optim.swa_utils.AveragedModel(net, use_buffers=True)
        step = nestnet.TrainStep(net.train(), torch.optim.SGD(net.parameters(), lr=0.1), cross_entropy, ema_decay=0.5)
        whole = {}
        for mode in Mode:
            averages = {name: tensor.clone() for name, tensor in step.averaged.state_dict().items()}
            decay = step.average.next_decay
            step(*data, mode)
            for name, tensor in net.state_dict().items():
                before = averages[name]
                whole[name] = before.lerp(tensor, 1 - decay) if tensor.is_floating_point() else tensor
            for name, tensor in step.averaged.state_dict().items():
                torch.testing.assert_close(tensor, whole[name])
        averaged.update_parameters(net)
        assert same(net, averaged.module, data[0])
        averaged.update_parameters(net)
        assert same(net, averaged.module, data[0])

    def test_printing(self, example):
        net, _ = example
        text = str(net)
        assert text.startswith(type(net.motivated).__name__)
        assert "parameters" in text.splitlines()[-2]
        assert f"weights map: {len(net.weights_map)} base tensors" in text.splitlines()[-1]
        for mode in Mode:
            assert f"mode={mode}" in str(net.subnet(mode))
        assert len(str(net.weights_map).splitlines()) == len(net.weights_map)

    def test_a_part_of_another_module(self, example):
        net, data = example
        whole = nn.ModuleDict({"net": net, "other": nn.Linear(2, 2)})
        expected = outputs(net, data[0])
        state = copy.deepcopy(whole.state_dict())
        assert {f"net.{name}" for name in net.state_dict()} < set(state)
        assert trains(net, data)
        whole.load_state_dict(state)
        assert all(map(torch.equal, outputs(net, data[0]), expected))
        other = copy.deepcopy(whole)
        assert same(other["net"], net, data[0])
        first, *_, last = net.state_dict()
        del state[f"net.{first}"], state[f"net.{last}"]
        state["net.further"] = state["x"] = torch.zeros(1)
        keys = whole.load_state_dict(state, strict=False)
        assert sorted(keys.missing_keys) == sorted([f"net.{first}", f"net.{last}"])
        assert sorted(keys.unexpected_keys) == ["net.further", "x"]

    def test_freezing(self, example):
        net, data = example
        net.subnet("base").requires_grad_(False)
        base = [p.detach().clone() for p in net.base.parameters()]
        assert {p.requires_grad for _, p in net.differential_parameters()} == {True}
        train(net, data, [Mode.MOTIVATED])
        assert all(map(torch.equal, net.base.parameters(), base))
        assert not any(p.requires_grad for p in net.standalone("base").parameters())
        # A whole weight is trained if one of its blocks is.
        alone = net.standalone("motivated")
        base = {placement.name: placement for placement in net.weights_map.values()}
        for name, parameter in alone.named_parameters():
            assert parameter.requires_grad == (name not in base or not base[name].is_whole), name

    def test_finishing_leaves_the_base_as_it_is(self, example):
        net, data = example
        step = nestnet.TrainStep(net.train(), torch.optim.AdamW(net.parameters(), lr=0.01), cross_entropy)
        if not nestnet.nn.differential.has_own_statistics(net):
            with pytest.raises(ValueError, match="finish_step: the base shares the running statistics"):
                step.finish_step(*data)
            return
        before = {name: tensor.clone() for name, tensor in net.base.state_dict().items()}
        step.finish_step(*data)
        assert all(torch.equal(tensor, before[name]) for name, tensor in net.base.state_dict().items())

    def test_functional_call(self, example):
        net, data = example
        net.eval()
        tensors = {name: p.detach() * 1.5 for name, p in net.named_parameters()}
        with torch.no_grad():
            found = [torch.func.functional_call(net, tensors, (data[0], mode)) for mode in Mode]
            for parameter in net.parameters():
                parameter.mul_(1.5)
        # torch's attention takes another way for parameters than for other tensors, also in a plain network.
        for ours, expected in zip(found, outputs(net, data[0]), strict=True):
            torch.testing.assert_close(ours, expected)


def test_train_and_eval_are_those_of_all_modules():
    net, _ = nested("own cnn")
    assert net.training
    for training in (False, True):
        assert net.train(training) is net
        assert {module.training for module in net.modules()} == {training}
        assert net.subnet("base").training is training
    base, motivated = KINDS["own cnn"].make()
    assert not nestnet.nest(base.eval(), motivated.eval()).training


def test_zero_gradients_are_refused():
    net, (x, labels) = nested("own cnn")
    cross_entropy(net(x, "motivated"), labels).backward()
    with pytest.raises(ValueError, match="zero_grad"):
        net.zero_grad(set_to_none=False)
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_channels_last_gives_the_same_logits():
    net, (x, _) = nested("own cnn")
    expected = outputs(net, x)
    net.to(memory_format=torch.channels_last)
    for ours, theirs in zip(outputs(net, x.to(memory_format=torch.channels_last)), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert trains(net, (x, torch.zeros(4, dtype=torch.long)))


# Wrong states


def test_wrong_states_are_reported_by_the_names_of_the_state():
    net = nestnet.nest(OwnCNN(4, 1), OwnCNN(6, 2))
    state = net.state_dict()
    lacking = {name: tensor for name, tensor in state.items() if name not in ("head.weight", "norm.base_running_var")}
    keys = net.load_state_dict(lacking, strict=False)
    assert sorted(keys.missing_keys) == ["head.weight", "norm.base_running_var"]
    with pytest.raises(RuntimeError) as caught:
        net.load_state_dict(lacking)
    (line,) = str(caught.value).splitlines()[1:]
    assert line.strip() == 'Missing key(s) in state_dict: "head.weight", "norm.base_running_var". '.strip()
    keys = net.load_state_dict({**state, "stem.scale": torch.ones(1), "base_y": torch.ones(1)}, strict=False)
    assert sorted(keys.unexpected_keys) == ["base_y", "stem.scale"]
    assert net.load_state_dict({}, strict=False).missing_keys


@pytest.mark.parametrize("prefix", ["", "net."])
@pytest.mark.parametrize(
    ("name", "shape"),
    [("head.weight", (5, 7)), ("head.bias", (4,)), ("norm.base_running_mean", (5,)), ("norm.running_mean", (4,))],
)
def test_tensors_of_another_shape_are_reported_once_and_by_name(name, shape, prefix):
    net = nestnet.nest(OwnCNN(4, 1), OwnCNN(6, 2))
    module = nn.ModuleDict({"net": net}) if prefix else net
    state = {**module.state_dict(), prefix + name: torch.zeros(shape)}
    with pytest.raises(RuntimeError) as caught:
        module.load_state_dict(state)
    lines = [line.strip() for line in str(caught.value).splitlines()[1:]]
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"size mismatch for {prefix}{name}: copying a param with shape")


def test_states_of_subnets_are_checked_before_anything_is_loaded():
    net = nestnet.nest(OwnCNN(4, 1), OwnCNN(6, 2))
    state = net.standalone("base").state_dict()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(
        RuntimeError, match=r"loading the base subnet: size mismatch for head.weight: \(5, 6\) in the state"
    ):
        net.subnet("base").load_state_dict({**state, "head.weight": torch.zeros(5, 6)})
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    doubled = {name: 2 * tensor for name, tensor in state.items()}
    net.subnet("base").load_state_dict(doubled)
    assert all(torch.equal(tensor, doubled[name]) for name, tensor in net.base.state_dict().items())


# What networks take and return


class Verbose(nn.Module):
    """A network with further arguments, which returns a dictionary or a tuple."""

    def __init__(self, width):
        super().__init__()
        self.embed = nn.Embedding(10, width, padding_idx=0)
        self.body = nn.Linear(width, width)
        self.head = nn.Linear(width, CLASSES)
        self.register_buffer("shift", torch.tensor(0.5))
        self.register_buffer("nothing", None)

    def forward(self, tokens, mask=None, *extra, as_tuple=False, **further):
        x = self.body(self.embed(tokens)) + self.shift
        if mask is not None:
            x = x * mask.unsqueeze(-1)
        for value in (*extra, *further.values()):
            x = x + value
        logits = self.head(x.mean(1))
        return (logits, x) if as_tuple else {"logits": logits, "features": x}


def test_further_arguments_and_any_outputs_pass_through():
    net = nestnet.nest(Verbose(4), Verbose(6), check=torch.randint(10, (2, 3)))
    tokens, mask = torch.randint(10, (2, 3)), torch.tensor([[1.0, 1, 0]] * 2)
    for mode in Mode:
        alone = net.standalone(mode)
        ours, theirs = net(tokens, mode), alone(tokens)
        assert ours.keys() == theirs.keys()
        assert torch.equal(ours["logits"], theirs["logits"])
        ours = net(tokens, mode, mask, 0.5, as_tuple=True, bias=2.0)
        theirs = alone(tokens, mask, 0.5, as_tuple=True, bias=2.0)
        assert all(map(torch.equal, ours, theirs))
        assert torch.equal(net.subnet(mode)(tokens, mask)["logits"], alone(tokens, mask)["logits"])
        assert torch.equal(net(tokens, mode=mode, mask=mask)["logits"], alone(tokens, mask=mask)["logits"])
    assert net.state_dict()["base_shift"] == 0.5


def test_states_that_are_part_of_the_graph_carry_gradients_to_the_blocks():
    net = nestnet.nest(MLP(4), MLP(6))
    net.state_dict(keep_vars=True)["fc1.weight"].sum().backward()
    blocks = dict(net.stored_tensors())["fc1.weight"].blocks()
    assert all(torch.equal(block.grad, torch.ones_like(block)) for block in blocks)


def test_inference_leaves_the_network_trainable(kind):
    net, data = nested(kind)
    with torch.inference_mode():
        for mode in Mode:
            net(data[0], mode)
    assert trains(net, data)


def test_buffers_of_the_base_s_own_are_kept_apart():
    net = nestnet.nest(Verbose(4), Verbose(6), check=False)
    net.base.shift.fill_(3.0)
    assert net.motivated.shift == 0.5
    assert net.standalone("base").shift == 3.0
    assert net.state_dict()["base_shift"] == 3.0
    other = nestnet.nest(Verbose(4), Verbose(6), check=False)
    other.load_state_dict(net.state_dict())
    assert other.base.shift == 3.0


def test_features_and_heads_of_timm_s_networks():
    net, (x, _) = nested("deit3")
    net.eval()
    for mode in Mode:
        alone = net.standalone(mode).eval()
        features = net.forward_features(x, mode)
        assert torch.equal(features, alone.forward_features(x))
        assert torch.equal(net.forward_head(features, mode), alone.forward_head(features))
        assert torch.equal(
            net.forward_head(features, mode, pre_logits=True), alone.forward_head(features, pre_logits=True)
        )
    with pytest.raises(ValueError, match="MLP has no method forward_features; call the network itself"):
        nestnet.nest(MLP(4), MLP(6)).forward_features(torch.zeros(1, 8), "base")


class Tied(nn.Module):
    """A network whose last layer has the weight of the first one, as in language models."""

    def __init__(self, width):
        super().__init__()
        self.embed = nn.Embedding(10, width)
        self.body = nn.Linear(width, width)
        self.head = nn.Linear(width, 10, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        return self.head(self.body(self.embed(tokens)).mean(1))


def test_tied_weights_stay_tied():
    tokens, labels = torch.randint(10, (4, 3)), torch.randint(10, (4,))
    net = nestnet.nest(Tied(4), Tied(6), check=tokens)
    for module in (net, copy.deepcopy(net), pickle.loads(pickle.dumps(net)), net.double().float()):
        assert module.base.head.weight is module.base.embed.weight
        assert module.motivated.head.weight_blocks is module.motivated.embed.weight_blocks
        assert len(list(module.parameters())) == 2 + 3 + 2, "the blocks of the table, of the body and of its bias"
    count = sum(p.numel() for p in net.parameters())
    assert count == sum(p.numel() for p in Tied(6).parameters())
    for mode in Mode:
        alone = net.standalone(mode)
        assert alone.head.weight is alone.embed.weight
        assert torch.equal(alone(tokens), net(tokens, mode))
        cross_entropy(alone(tokens), labels).backward()
        net.zero_grad()
        cross_entropy(net(tokens, mode), labels).backward()
        if mode is Mode.BASE:
            assert torch.equal(net.base.embed.weight.grad, alone.embed.weight.grad)
    assert torch.equal(net.state_dict()["head.weight"], net.state_dict()["embed.weight"])
    other = nestnet.nest(Tied(4), Tied(6), check=False)
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(tokens, "motivated"), net(tokens, "motivated"))


class Modulated(nn.Module):
    """A network with an activation that many layers share, and parameters of its own in lists."""

    def __init__(self, width):
        super().__init__()
        act = nn.GELU()
        self.layers = nn.Sequential(nn.Linear(8, width), act, nn.Linear(width, width), act)
        self.scales = nn.ParameterList([torch.rand(width), torch.rand(1), torch.rand(width)])
        self.temperature = nn.Parameter(torch.tensor(1.5))
        self.shifts = nn.ParameterDict({"a": torch.rand(width)})
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x):
        x = self.layers(x) * self.scales[0] + self.shifts["a"]
        for scale in self.scales[1:]:
            x = x * scale
        return self.head(x) * self.temperature


def test_lists_of_parameters_and_shared_activations_nest():
    net = nestnet.nest(Modulated(4), Modulated(6), check=False)
    x = torch.randn(3, 8)
    for module in (net, copy.deepcopy(net)):
        for mode in Mode:
            assert torch.equal(module(x, mode), net.standalone(mode)(x))
    again = type(net.motivated.layers[0])(2, 3)
    assert type(again) is nn.Linear, "what the author's code makes of the same class is plain"
    assert again.weight.shape == (3, 2)
    assert trains(net, (x, torch.tensor([0, 1, 2])))


class Normalised(nn.Module):
    """A network with norms of other kinds than BatchNorm, of which one has running statistics."""

    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.norm = nn.InstanceNorm2d(width, affine=True, track_running_stats=True)
        self.groups = nn.GroupNorm(2, width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x):
        return self.head(self.groups(self.norm(self.conv(x))).mean((2, 3)))


def test_a_weight_of_whole_numbers_and_what_is_noted_on_weights_are_kept():
    networks = [MLP(4), MLP(6)]
    for network, width in zip(networks, (4, 6), strict=True):
        network.table = nn.Parameter(torch.arange(width), requires_grad=False)
        network.fc1.weight.has_no_decay = True
    net = nestnet.nest(*networks)
    assert net.state_dict()["table"].tolist() == list(range(6))
    assert net.base.table.tolist() == list(range(4))
    noted = [name for name, parameter in net.named_parameters() if hasattr(parameter, "has_no_decay")]
    assert noted == ["motivated.fc1.weight_blocks.base", "motivated.fc1.weight_blocks.below"]


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_recurrent_layers_keep_no_weights_but_the_blocks(kind):
    base, motivated = KINDS[kind].make()
    whole = weakref.ref(motivated.rnn.weight_ih_l0)
    net = nestnet.nest(base, motivated, check=False)
    assert whole() is None
    assert not isinstance(vars(net.motivated.rnn).get("_flat_weights"), list)
    alone = net.standalone("motivated").rnn
    assert all(map(operator.is_, alone._flat_weights, alone.parameters()))
    assert all(map(operator.is_, net.base.rnn._flat_weights, net.base.rnn.parameters()))


@pytest.mark.parametrize(
    ("make", "batch"),
    [
        *((KINDS[kind].make, sequences) for kind in ("lstm", "gru", "attention", "signal")),
        (lambda: (Tied(4), Tied(6)), lambda: (torch.randint(10, (4, 3)), torch.randint(10, (4,)))),
        (lambda: (Modulated(4), Modulated(6)), lambda: (torch.randn(4, 8), torch.randint(CLASSES, (4,)))),
        (lambda: (Normalised(4), Normalised(6)), lambda: (torch.randn(4, 3, 8, 8), torch.randint(CLASSES, (4,)))),
    ],
    ids=["lstm", "gru", "attention", "signal", "tied", "lists", "instance norm"],
)
def test_networks_of_all_kinds_of_layers_train_as_two_models(make, batch):
    base, motivated = make()
    # The rows of a transposed convolution are its inputs, which the check does not know.
    is_transposed = any(isinstance(module, nn.ConvTranspose1d) for module in base.modules())
    net = nestnet.nest(base, motivated, check=False if is_transposed else batch()[0])
    modes = [Mode.BASE, Mode.MOTIVATED, Mode.MOTIVATED, Mode.BASE, Mode.MOTIVATED, Mode.BASE]
    comparison = check_against_reference(
        net.train(),
        lambda module: torch.optim.AdamW(module.parameters(), lr=1e-3),
        [batch() for _ in modes],
        modes,
    )
    assert comparison.identical, comparison


# torchvision


TORCHVISION = {
    "resnet": (
        lambda: torchvision.models.ResNet(BasicBlock, [1, 1, 1, 1], num_classes=CLASSES),
        lambda: torchvision.models.ResNet(BasicBlock, [1, 2, 1, 1], num_classes=CLASSES),
    ),
    "mobilenet": (
        lambda: torchvision.models.mobilenet_v2(width_mult=0.75, num_classes=CLASSES),
        lambda: torchvision.models.mobilenet_v2(width_mult=1.0, num_classes=CLASSES),
    ),
    "swin": tuple(
        lambda width=width, heads=heads, depth=depth: torchvision.models.SwinTransformer(
            [4, 4], width, [2, depth], [heads, 2 * heads], [4, 4], num_classes=CLASSES
        )
        for width, heads, depth in ((16, 2, 2), (24, 3, 4))
    ),
    "vit": tuple(
        lambda heads=heads, depth=depth: torchvision.models.VisionTransformer(
            32, 16, depth, heads, 8 * heads, 16 * heads, num_classes=CLASSES
        )
        for heads, depth in ((2, 2), (3, 3))
    ),
}


@pytest.mark.parametrize("family", TORCHVISION)
def test_torchvision_s_networks_nest(family):
    base, motivated = (make() for make in TORCHVISION[family])
    net = nestnet.nest(base, motivated)
    x, labels = torch.randn(2, 3, 32, 32), torch.randint(CLASSES, (2,))
    for mode in Mode:
        alone = net.standalone(mode)
        fresh = TORCHVISION[family][mode is Mode.MOTIVATED]()
        fresh.load_state_dict(alone.state_dict())
        assert torch.equal(fresh.eval()(x), net.eval()(x, mode))
    modes = [Mode.BASE, Mode.MOTIVATED, Mode.BASE]
    comparison = check_against_reference(
        net.train(),
        lambda module: torch.optim.SGD(module.parameters(), lr=1e-3, momentum=0.9),
        [(x, labels)] * 3,
        modes,
    )
    assert comparison.identical, comparison


# timm's optimizers and checkpointing


@pytest.mark.parametrize("family", PAIRS)
@pytest.mark.parametrize("options", [{}, {"layer_decay": 0.75}], ids=["weight decay", "layer decay"])
def test_parameter_groups_are_those_of_the_motivated_network(family, options):
    net = nestnet.nest(*PAIRS[family].make(), check=False, batch_norm="separate")
    arguments = {"opt": "adamw", "lr": 0.1, "weight_decay": 0.05, **options}
    alone = net.standalone("motivated")
    names = {id(p): state_dict_name(name).removeprefix("motivated.") for name, p in net.named_parameters()}
    alone_names = {id(p): name for name, p in alone.named_parameters()}
    found, expected = (
        {
            (frozenset(of[id(p)] for p in group["params"] if not of[id(p)].startswith("base.")), *settings(group))
            for group in timm.optim.create_optimizer_v2(module, **arguments).param_groups
        }
        for of, module in ((names, net), (alone_names, alone))
    )
    assert found == expected
    counts = [
        sorted((len(group["params"]), *settings(group)) for group in groups)
        for groups in (
            timm.optim.create_optimizer_v2(module, **arguments).param_groups
            for module in (net.subnet("base"), net.standalone("base"))
        )
    ]
    assert counts[0] == counts[1]


def test_layers_of_networks_that_have_no_patterns_are_timm_s_automatic_ones():
    networks = [OwnCNN(4, 1), OwnCNN(6, 3)]
    for network in networks:
        network.pretrained_cfg = {"classifier": "head", "architecture": "own"}
    net = nestnet.nest(*networks, batch_norm="separate")
    alone = net.standalone("motivated")
    expected = timm.optim._param_groups.auto_group_layers(alone)
    assert len(set(expected.values())) == 4
    layers = net.group_matcher()
    for name, _ in net.named_parameters():
        if name.startswith("motivated."):
            assert layers(name) == expected[state_dict_name(name).removeprefix("motivated.")]
    assert layers("base.norm.weight") == expected["norm.weight"]
    layers = net.subnet("base").group_matcher()
    assert {
        name: layers(name) for name, _ in net.base.named_parameters()
    } == timm.optim._param_groups.auto_group_layers(net.base)


def settings(group):
    return group["weight_decay"], group.get("lr_scale", 1.0)


def test_what_the_base_has_of_its_own_is_in_the_layer_of_its_counterpart():
    net = nestnet.nest(*PAIRS["repvit"].make(), check=False, batch_norm="separate")
    layers = net.group_matcher()
    names = dict(net.named_parameters())
    for base_name, placement in net.weights_map.items():
        if placement.private and f"base.{base_name}" in names:
            counterpart = "motivated." + placement.name.replace("base_", "")
            assert layers(f"base.{base_name}") == layers(counterpart), base_name


@pytest.mark.parametrize("family", ["deit3", "swin", "convnextv2"])
def test_checkpointing_gives_the_same_gradients(family):
    net, (x, labels) = nested(family)
    for mode in Mode:
        gradients = []
        for enable in (False, True):
            net.network(mode).set_grad_checkpointing(enable)
            torch.manual_seed(0)
            net.zero_grad()
            cross_entropy(net.train()(x, mode), labels).backward()
            gradients.append([None if p.grad is None else p.grad.clone() for p in net.parameters()])
        for ours, theirs in zip(*gradients, strict=True):
            assert (ours is None) == (theirs is None)
            assert ours is None or torch.equal(ours, theirs)


# Steps


@pytest.mark.parametrize("batch_norm", nestnet.nn.batch_norm.STATISTICS)
def test_a_batch_with_an_infinite_loss_leaves_everything_as_it_was(batch_norm):
    net, (x, labels) = nested("own cnn", batch_norm=batch_norm)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    step = nestnet.TrainStep(net.train(), optimizer, cross_entropy, skip_non_finite=True)
    for mode in Mode:
        step(x, labels, mode)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    for mode in Mode:
        assert step(x * float("inf"), labels, mode).skipped
        assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_the_agreement_of_both_networks_is_the_cosine_of_their_gradients():
    net, (x, labels) = nested("deit3")
    policy = nestnet.Policy(trains="both")
    step = nestnet.TrainStep(
        net.eval(),
        torch.optim.SGD(net.parameters(), lr=0.1),
        cross_entropy,
        policy=policy,
        gradient_agreement=True,
        gradient_norm=True,
    )
    shared = list(net.base.parameters())
    gradients = []
    for mode in Mode:
        net.zero_grad()
        cross_entropy(net(x, mode), labels).backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in shared]))
    net.zero_grad()
    outcome = step(x, labels, "motivated")
    expected = torch.cosine_similarity(*gradients, dim=0).item()
    assert outcome.gradient_agreement() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", ["own cnn", "swin", "attention"])
def test_steps_in_bfloat16_are_those_of_plain_networks(kind):
    net, (x, labels) = nested(kind)
    for mode in Mode:
        alone = net.standalone(mode).eval()
        losses = []
        for function in (lambda x, mode=mode: net.eval()(x, mode), alone):
            with torch.autocast("cpu", torch.bfloat16):
                losses.append(cross_entropy(function(x), labels))
            losses[-1].backward()
        assert torch.equal(*losses)
        assert all(parameter.grad.dtype is torch.float32 for parameter in alone.parameters())
        assert all(p.grad is None or p.grad.dtype is torch.float32 for p in net.parameters())


# Statistics


@pytest.mark.parametrize("batch_norm", nestnet.nn.batch_norm.STATISTICS)
@pytest.mark.parametrize("mode", list(Mode))
def test_recalibrated_statistics_are_those_of_the_batches(batch_norm, mode):
    net, (x, _) = nested("own cnn", batch_norm=batch_norm)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assert has_running_statistics(net)
    ready = nestnet.recalibrate(net, mode, [x, 2 * x])
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    alone = net.standalone(mode)
    torch.optim.swa_utils.update_bn([x, 2 * x], alone)
    for name, buffer in alone.state_dict().items():
        assert torch.equal(ready.subnet(mode).state_dict()[name], buffer), name
    own = {placement.name for placement in net.weights_map.values()}
    if mode is Mode.BASE and batch_norm != "shared":
        for name, tensor in ready.state_dict().items():
            changed = not torch.equal(tensor, before[name])
            assert changed == (name in own and ("running" in name or "num_batches" in name)), name


def test_too_few_updates_of_statistics_are_counted_for_each_mode():
    net, (x, _) = nested("own cnn")
    net.train()
    net(x, "base")
    assert count_insufficient_updates(net, "base") == 1
    assert count_insufficient_updates(net, "motivated") == 0
    for _ in range(44):
        net(x, "motivated")
    assert count_insufficient_updates(net, "motivated") is None
    assert count_insufficient_updates(nested("lstm")[0], "base") is None
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    assert count_insufficient_updates(net, "base") is None, "the first batch replaces the initial values"


class NormThatCounts(nn.Module):
    """A network with a buffer without elements, which has no memory."""

    def __init__(self, width):
        super().__init__()
        self.fc = nn.Linear(8, width)
        self.head = nn.Linear(width, CLASSES)
        self.register_buffer("empty", torch.empty(0))

    def forward(self, x):
        return self.head(self.fc(x))


def test_buffers_without_elements_are_not_shared():
    net = nestnet.nest(NormThatCounts(4), NormThatCounts(6))
    assert nestnet.nn.differential.has_own_statistics(net)


def test_a_pair_cannot_be_made_to_start_equal():
    net = nestnet.nest(OwnCNN(4, 1), OwnCNN(4, 2))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    message = "OwnCNN in OwnCNN: the blocks of plain modules do not tell which of their layers ends the branch"
    with pytest.raises(ValueError, match=message):
        nestnet.zero_differential_branches(net)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


# Exported programs


@pytest.mark.parametrize("family", ["own cnn", "deit3", "attention"])
def test_standalone_networks_export(family):
    net, (x, _) = nested(family)
    for mode in Mode:
        alone = net.standalone(mode).eval()
        program = torch.export.export(alone, (x,))
        torch.testing.assert_close(program.module()(x), net.eval()(x, mode), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_standalone_networks_export_to_onnx(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    net = nestnet.nest(MLP(4), MLP(6)).eval()
    x = torch.randn(2, 8)
    for mode in Mode:
        path = str(tmp_path / f"{mode}.onnx")
        torch.onnx.export(net.standalone(mode).eval(), (x,), path, dynamo=True, verbose=False, input_names=["x"])
        (found,) = onnxruntime.InferenceSession(path).run(None, {"x": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), net(x, mode).detach(), rtol=1e-4, atol=1e-5)


def test_the_nested_network_itself_exports():
    net, (x, _) = nested("own cnn")
    for mode in Mode:
        program = torch.export.export(net.eval().network(mode), (x,))
        torch.testing.assert_close(program.module()(x), net(x, mode), rtol=1e-4, atol=1e-5)


def test_a_switch_moves_no_memory_and_base_steps_copy_nothing():
    net, data = nested("deit3")
    where = {name: t.data_ptr() for name, t in (*net.named_parameters(), *net.named_buffers())}
    train(net, data)
    assert where == {name: t.data_ptr() for name, t in (*net.named_parameters(), *net.named_buffers())}


def test_the_writes_that_are_lost_are_the_documented_ones():
    net, _ = nested("own cnn")
    weight = net.motivated.head.weight
    weight.data.zero_()
    assert not (net.state_dict()["head.weight"] == 0).all()
    with pytest.raises(KeyError, match="attribute 'weight' already exists"):
        net.motivated.head.weight = nn.Parameter(torch.zeros(5, 12))
