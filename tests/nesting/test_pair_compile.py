"""Compilation of a pair: one whole graph for each network, and nothing compiled anew when the modes alternate."""

import copy

import pytest
import torch
from pairs import MLP, PAIRS
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.functional import cross_entropy

import nestnet
from nestnet import Mode, TrainStep

STEPS = 200


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def make(family, **options):
    return nestnet.nest(*PAIRS[family].make(), check=False, **options)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("own cnn", {"batch_norm": "private"}),
        ("own cnn", {"batch_norm": "shared"}),
        ("mixer", {}),
        pytest.param("own cnn", {"batch_norm": "separate"}, marks=pytest.mark.slow),
        pytest.param("deit3", {}, marks=pytest.mark.slow),
    ],
)
def test_two_hundred_alternating_steps_compile_two_whole_graphs(family, options):
    net = make(family, **options)
    images, labels = PAIRS[family].batch(2)
    step = TrainStep(net, torch.optim.SGD(net.parameters(), lr=1e-3), cross_entropy, compile="eager")
    counts = torch._dynamo.utils.counters["stats"]
    before = counts["unique_graphs"]
    for mode in Mode:
        step(images, labels, mode)
    assert counts["unique_graphs"] == before + 2
    with torch.compiler.set_stance("fail_on_recompile"):
        for number in range(STEPS):
            outcome = step(images, labels, list(Mode)[number % 2])
    assert counts["unique_graphs"] == before + 2
    assert outcome.loss() < 5


def test_the_module_itself_compiles_to_a_graph_for_each_mode():
    """With the mode as an argument, and under gradients, as a user would write it."""
    net = make("own cnn").train()
    images, labels = PAIRS["own cnn"].batch(2)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(net, backend=counter, fullgraph=True)
    for number in range(20):
        mode = list(Mode)[number % 2]
        net.zero_grad()
        cross_entropy(compiled(images, mode), labels).backward()
        differential = [parameter for _, parameter in net.differential_parameters()]
        assert all((parameter.grad is None) == (mode is Mode.BASE) for parameter in differential)
    assert counter.frame_count == 2


def test_compiled_steps_train_as_ordinary_ones():
    net = make("own cnn", batch_norm="separate").train()
    plain = copy.deepcopy(net)
    images, labels = PAIRS["own cnn"].batch(4)
    ours, eager = (
        TrainStep(model, torch.optim.SGD(model.parameters(), lr=1e-3), cross_entropy, compile=backend)
        for model, backend in ((net, "aot_eager"), (plain, None))
    )
    for number in range(4):
        loss = ours(images, labels, list(Mode)[number % 2]).loss()
        assert loss == pytest.approx(eager(images, labels, list(Mode)[number % 2]).loss(), rel=1e-4)
    for tensor, expected in zip(net.state_dict().values(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(tensor, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_pair_compiles_with_inductor():
    net = nestnet.nest(MLP(4), MLP(6)).eval()
    x = torch.randn(4, 8)
    for mode in Mode:
        compiled = torch.compile(net.subnet(mode), fullgraph=True)
        torch.testing.assert_close(compiled(x), net(x, mode), rtol=1e-4, atol=1e-5)
