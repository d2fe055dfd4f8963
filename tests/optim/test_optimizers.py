"""Every optimizer that timm's factory offers: what the page of them says, what each starts with, and what is refused."""

import copy
import importlib
import re
from pathlib import Path

import pytest
import timm
import torch
from registries import forgotten
from timm.optim import create_optimizer_v2, list_optimizers
from torch import nn

from nestnet import Mode, fill_momentum, share_step_counts
from nestnet.cli.main import main
from nestnet.config.optimizer_checks import explain_refusal
from nestnet.optim.initial_state import make_initial_state
from nestnet.optim.state_loading import load_optimizer_state
from nestnet.optim.trials import check_trainable
from nestnet.optim.whole_tensor_updates import (
    WHOLE_TENSOR_COMPUTATIONS,
    describe_whole_tensor_update,
    updates_whole_tensors,
)
from nestnet.verification.comparison import check_against_reference

ROOT = Path(__file__).parents[2]
OPTIMIZERS = [str(name) for name in list_optimizers()]
TRAINED = [name for name in OPTIMIZERS if explain_refusal(name) is None]

pytestmark = pytest.mark.filterwarnings("ignore:It is highly recommended to have 'opt_einsum'")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_the_page_says(name, page):
    """The program holds each against the copy-based reference, and looks at what base steps leave alone."""
    found = page.make_row(name)
    version, rows = page.read_table()
    if version == timm.__version__:
        assert rows.get(name) == found, "run docs/optimizers_table.py"


def test_every_optimizer_that_updates_whole_tensors_has_its_reason():
    for name in TRAINED:
        optimizer = create_optimizer_v2(nn.Linear(2, 2), opt=name, lr=0.01, weight_decay=0.01)
        if type(optimizer).__name__ in WHOLE_TENSOR_COMPUTATIONS or updates_whole_tensors(optimizer):
            assert "something of all entries" not in describe_whole_tensor_update(optimizer), name


# What an optimizer starts with


@pytest.mark.parametrize(
    ("name", "key", "start"),
    [
        ("adamw", "exp_avg_sq", 0.0),
        ("adamw", "step", 0.0),
        ("nadam", "mu_product", 1.0),
        ("nadamlegacy", "m_schedule", 1.0),
        ("rmsprop", "square_avg", 0.0),
        ("rmsproptf", "square_avg", 1.0),
        ("adagrad", "sum", 0.0),
        ("madgrad", "x0", 5.0),  # the weight
        ("laprop", "exp_avg_lr_1", 0.0),
        ("kron", "update_counter", 0),
    ],
)
def test_initial_state(name, key, start):
    weights = [nn.Parameter(torch.full((3, 2), 5.0)) for _ in range(2)]
    optimizer = create_optimizer_v2(weights, opt=name, lr=0.1, weight_decay=0.1, momentum=0.9)
    before = copy.deepcopy(optimizer.state_dict())
    found = torch.as_tensor(make_initial_state(optimizer, weights[1])[key], dtype=torch.float32)
    assert torch.equal(found, torch.full_like(found, start))
    assert torch.equal(weights[1], torch.full((3, 2), 5.0))
    assert repr(optimizer.state_dict()) == repr(before)


def test_what_comes_of_the_first_gradient_is_no_initial_state():
    weight = nn.Parameter(torch.ones(3))
    assert make_initial_state(torch.optim.SGD([weight], lr=0.1, momentum=0.9, weight_decay=0.1), weight) == {}


def test_the_first_differential_update_of_rmsproptf_with_shared_counts(page):
    """By hand: the mean of squares starts at 1, so that an update is lr * g / sqrt(1 + 0.1 (g^2 - 1) + eps)."""
    net = page.NestedNet()
    optimizer = timm.optim.RMSpropTF(net.parameters(), lr=0.1, alpha=0.9, eps=1e-10, momentum=0)
    share_step_counts(optimizer, net)
    head = net.head.weight
    for mode in (Mode.BASE, Mode.MOTIVATED):
        before = head.right.detach().clone()
        optimizer.zero_grad()
        net(torch.randn(2, 1, 6, 6), mode)[:, 0].sum().backward()
        optimizer.step()
    gradient = head.right.grad
    expected = before - 0.1 * gradient / (1 + 0.1 * (gradient**2 - 1) + 1e-10).sqrt()
    torch.testing.assert_close(head.right.detach(), expected)


@pytest.mark.parametrize("name", ["cadamw", "novograd", "adafactor", "mars"])
def test_step_counts_are_not_shared_where_copying_cannot_be_met(name, page):
    net = page.NestedNet()
    optimizer = create_optimizer_v2(net, opt=name, lr=0.01, weight_decay=0.1)
    with pytest.raises(ValueError, match=r"step_count = 'literal': .* computes .*; take 'own'"):
        share_step_counts(optimizer, net)


@pytest.mark.parametrize("step_count", ["own", "literal"])
@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (torch.optim.SGD, {"momentum": 0.9, "dampening": 0.5}),
        (torch.optim.Adam, {"amsgrad": True}),
        (torch.optim.AdamW, {"foreach": True}),
        (torch.optim.RMSprop, {"centered": True, "momentum": 0.9}),
        (torch.optim.Adagrad, {"initial_accumulator_value": 0.5, "lr_decay": 0.1}),
        (torch.optim.ASGD, {}),
        (torch.optim.Rprop, {}),
    ],
)
def test_torch_s_own_optimizers_train_as_copying_does(optimizer, options, step_count, page):
    for sequence in page.SEQUENCES:
        comparison = check_against_reference(
            page.NestedNet(),
            lambda module: optimizer(module.parameters(), lr=0.01, **options),
            page.draw_batches(len(sequence)),
            sequence,
            step_count=step_count,
        )
        assert comparison.identical, comparison


# What is refused before training


class NeedsClosure(torch.optim.SGD):
    def step(self, closure):
        return super().step(closure)


class Forgets(torch.optim.SGD):
    """Keeps in itself what is no part of its state."""

    def step(self, closure=None):
        self.steps = getattr(self, "steps", 0) + 1
        for group in self.param_groups:
            group["lr"] = 0.1 / self.steps
        super().step(closure)


class Odd(torch.optim.SGD):
    """Keeps what no checkpoint can hold."""

    def step(self, closure=None):
        super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["seen"] = {1, 2}


class Disturbing(torch.optim.SGD):
    """Computes the size of the n-th step of a tensor once, as timm's RAdamLegacy did, with the learning rate of that time."""

    def step(self, closure=None):
        for group in self.param_groups:
            sizes = group.setdefault("sizes", {})
            for parameter in group["params"]:
                if parameter.grad is not None:
                    state = self.state[parameter]
                    state["step"] = state.get("step", 0) + 1
                    parameter.data -= sizes.setdefault(state["step"], group["lr"] / state["step"]) * parameter.grad


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (torch.optim.LBFGS, "LBFGS cannot take a step"),
        (torch.optim.SparseAdam, "SparseAdam cannot take a step: SparseAdam does not support dense gradients"),
        (NeedsClosure, "NeedsClosure cannot take a step"),
        (Forgets, "Forgets does not continue exactly from the state that it saves"),
        (Odd, "the state of Odd cannot be saved and loaded: state.0.seen: set cannot be kept in a checkpoint"),
        (Disturbing, "Disturbing uses for one tensor what it computed for another at an earlier step"),
        (lambda p: torch.optim.Adam(p, lr=1e300), "Adam cannot take a step: value cannot be converted"),
        (lambda p: torch.optim.Adam(p, differentiable=True), "Adam cannot take a step"),
    ],
)
def test_what_cannot_be_trained_or_resumed_is_refused(optimizer, message):
    random_before = torch.get_rng_state()
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        check_trainable(optimizer([nn.Parameter(torch.ones(2))]))
    assert "\n" not in str(caught.value)
    assert torch.equal(torch.get_rng_state(), random_before)


@pytest.mark.parametrize(
    "options",
    [{"fused": True}, {"foreach": True}, {"amsgrad": True}, {"maximize": True}, {"betas": [0.9, 0.9]}],
    ids=str,
)
def test_ways_of_adam(options):
    check_trainable(create_optimizer_v2(nn.Linear(2, 2), opt="adamw", lr=0.01, **options))


def test_settings_are_tried_once_in_a_process():
    made = []

    class Counted(torch.optim.SGD):
        def __init__(self, params, lr=0.1):
            super().__init__(params, lr)
            made.append(lr)

    def count(optimizer):
        before = len(made)
        check_trainable(optimizer)
        return len(made) - before

    weights = [nn.Parameter(torch.ones(2))]
    optimizers = [
        Counted(weights),
        Counted(weights),
        Counted(weights, 0.2),
        Counted([{"params": weights, "momentum": 0.5}]),
    ]
    counts = [count(optimizer) for optimizer in optimizers]
    assert counts[1] == 0
    assert all(counts[index] > 0 for index in (0, 2, 3))
    for _ in range(2):
        with pytest.raises(ValueError, match="Forgets does not continue exactly"):
            check_trainable(Forgets(weights))


def test_a_fused_sgd_with_dampening_is_refused():
    """Its first step takes the whole gradient, and after a zero buffer it would be damped."""
    parameters = [nn.Parameter(torch.ones(2))]
    fill_momentum(torch.optim.SGD(parameters, lr=0.1, momentum=0.9, dampening=0.5))
    with pytest.raises(ValueError, match=r"dampening = 0\.5: a fused SGD, which cuda_graphs uses too"):
        fill_momentum(torch.optim.SGD(parameters, lr=0.1, momentum=0.9, dampening=0.5, fused=True))


@pytest.fixture
def check(monkeypatch, capsys):
    """What `nestnet check` prints for the small pair of docs/guide/own-network.md, whose weights are divided."""
    monkeypatch.syspath_prepend(ROOT / "examples")

    def check(name, *arguments):
        pair = ["--model.base", "plain8", "--model.motivated", "plain16"]
        settings = ["--optimizer.name", name, "--optimizer.lr", "1e-2", "--data.batch_size", "8", "--steps", "12"]
        with forgotten():
            importlib.import_module("plain_net")
            failed = main(["check", *pair, *settings, "--sequence", "random", *arguments])
        printed = capsys.readouterr()
        return printed.err if failed else printed.out

    return check


@pytest.mark.parametrize("name", ["rmsproptf", "adopt", "adan"])
def test_the_check_holds_for_optimizers_that_start_in_their_own_way(name, check):
    printed = check(name)
    assert "12 batches, 8 of them motivated" in printed
    assert "identical to the copy-based reference, bit for bit" in printed


@pytest.mark.parametrize("name", ["lamb", "adafactor", "kron"])
def test_the_check_refuses_what_is_not_as_copying(name, check):
    message = rf"optimizer\.name = '{name}': it computes .* not as copying does; check the other settings"
    assert re.search(message, check(name))


@pytest.mark.parametrize("name", ["lamb", "adafactor", "kron"])
def test_the_check_says_where_differences_come_from(name, check, monkeypatch):
    """No weight of these two is divided, but LAMB adds up gradients in another order, and Kron draws other numbers."""
    monkeypatch.setattr("timm.optim.kron.has_dynamo", False)
    printed = check(name, "--model.motivated", "plain8")
    assert "identical" in printed or f"{name} computes " in printed


# What is loaded


@pytest.fixture
def stepped():
    """Optimizers by name, and the state of one after two steps."""

    def stepped(name):
        optimizers = []
        for _ in range(2):
            weights = [nn.Parameter(torch.ones(20, 18)), nn.Parameter(torch.ones(3))]
            optimizers.append(create_optimizer_v2(weights, opt=name, lr=0.1, weight_decay=0.1))
        for _ in range(2):
            for weight in optimizers[0].param_groups[0]["params"]:
                weight.grad = torch.ones_like(weight)
            optimizers[0].step()
        return optimizers[1], copy.deepcopy(optimizers[0].state_dict())

    return stepped


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("adafactor", lambda s: s["state"][0].update(exp_avg_sq_row=torch.ones(3)),
         "exp_avg_sq_row of parameter 0 is (3,) of float32, and must be (20,) of float32"),
        ("adafactor", lambda s: s["state"][0].pop("RMS"), "RMS of parameter 0 is absent, and must be () of float32"),
        ("adafactor", lambda s: s["state"][1].update(more=1), "more of parameter 1 is int, and must be absent"),
        ("adamw", lambda s: s["state"][1].update(step=torch.ones(3)), "step of parameter 1 is (3,) of float32, and must be ()"),
        ("adamw", lambda s: s["state"][0].update(exp_avg=[1.0]), "exp_avg of parameter 0 is list, and must be (20, 18)"),
        ("adamw", lambda s: s["state"].update({7: {}}), "it has state of parameter 7, which does not exist"),
        ("adamw", lambda s: s["state"].update({0: 3}), "of parameter 0 is int, and must be dict"),
        ("adamw", lambda s: s["param_groups"][0].update(lr="fast"), "lr of a parameter group is str, and must be float"),
        ("adagrad", lambda s: s["state"].pop(1), "step of parameter 1 is absent, and must be () of float32"),
        ("lamb", lambda s: s["param_groups"][0].pop("step"), "its groups have other settings: step"),
        ("lamb", lambda s: s["param_groups"][0].update(speed=1), "its groups have other settings: speed"),
        ("lion", lambda s: s["state"][0].update(exp_avg=torch.ones(20, 18).half()), "is (20, 18) of float16, and must be"),
        ("momentum", lambda s: s.update(rng_state=(1,)), "rng_state of the optimizer is tuple, and must be absent"),
    ],
)  # fmt: skip
def test_state_that_is_another_is_refused(name, damage, message, stepped):
    optimizer, state = stepped(name)
    before = copy.deepcopy(optimizer.state_dict())
    damage(state)
    with pytest.raises(ValueError, match="the checkpoint is of another optimizer: .*" + re.escape(message)) as caught:
        load_optimizer_state(optimizer, state)
    assert "\n" not in str(caught.value)
    assert repr(optimizer.state_dict()) == repr(before)


@pytest.mark.parametrize("name", ["adafactor", "adafactorbv", "lamb", "laprop", "muon"])
def test_state_is_loaded_to_the_last_bit(name, stepped):
    """torch's own loading would cast it to the type of the weight."""
    optimizer, state = stepped(name)
    load_optimizer_state(optimizer, state)
    assert repr(optimizer.state_dict()) == repr(state)
    tensors = [
        value for entry in state["state"].values() for value in entry.values() if isinstance(value, torch.Tensor)
    ]
    own = {id(value) for entry in optimizer.state.values() for value in entry.values()}
    assert tensors
    assert not own & {id(tensor) for tensor in tensors}
