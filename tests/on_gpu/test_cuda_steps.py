"""Training steps on a GPU, in every way there is, against ordinary ones in float32 on the same GPU."""

import copy
import math

import pytest
import timm.optim
import torch
from helpers import FAMILIES, batch
from steps import SEQUENCE, assert_same_weights, network, sgd, train

from nestnet import LossDecrease, Mode, Policy, TrainStep, share_step_counts
from nestnet.config.schema import Config, OptimizerConfig
from nestnet.optim.factory import create_optimizer
from nestnet.step.async_numbers import AsyncNumbers
from nestnet.step.capturable import CAPTURABLE
from nestnet.step.cuda_graphs import WARM_UP
from nestnet.training.failures import explain_failure, find_memory_error

cross_entropy = torch.nn.functional.cross_entropy
B, M = Mode.BASE, Mode.MOTIVATED
WAYS = [
    pytest.param(("cpu", False), id="cpu"),
    pytest.param(("cuda", False), id="cuda", marks=pytest.mark.cuda),
    pytest.param(("cuda", True), id="captured", marks=pytest.mark.cuda),
]
"""Devices, and whether steps are captured there."""


@pytest.fixture(params=WAYS)
def way(request):
    return request.param


@pytest.fixture
def where(way):
    return torch.device(way[0])


@pytest.fixture
def captured(way):
    return way[1]


# Every family and mode


@pytest.mark.cuda
@pytest.mark.parametrize("family", FAMILIES)
def test_captured_steps_are_the_ordinary_ones(family):
    net = network(family)
    ordinary = train(net, "cuda", clip_grad=1.0)
    captured = train(net, "cuda", clip_grad=1.0, cuda_graphs=True)
    assert captured.losses == pytest.approx(ordinary.losses, rel=1e-4)
    assert captured.norms == pytest.approx(ordinary.norms, rel=1e-3)
    assert_same_weights(captured.net, ordinary.net, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("way", [pytest.param(("cuda", True), marks=pytest.mark.cuda), ("cpu", False)], ids=str)
def test_each_network_sees_its_own_view_in_captured_steps_too(where, captured):
    """The motivated network sees what it sees alone, and the base does not."""
    net, both = network("resnet"), Policy("both")
    alike = train(net, where, policy=both)
    ordinary = train(net, where, policy=both, own_views=True)
    found = train(net, where, policy=both, own_views=True, cuda_graphs=captured)
    assert found.losses == pytest.approx(ordinary.losses, rel=1e-4)
    assert_same_weights(found.net, ordinary.net, rtol=1e-3, atol=1e-4)
    assert found.losses[0] != alike.losses[0]


COMPILED = [("cpu", "vit"), *(pytest.param("cuda", family, marks=pytest.mark.cuda) for family in FAMILIES)]
"""On a CPU one family is enough to know that the test works."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores")  # which full precision does without
@pytest.mark.parametrize(("device", "family"), COMPILED)
def test_compiled_steps_are_the_ordinary_ones(device, family):
    torch._dynamo.reset()
    net = network(family)
    # the real compiler takes minutes on a CPU; this one only traces
    compiler = "inductor" if device == "cuda" else "aot_eager"
    ordinary = train(net, device)
    compiled = train(net, device, compile=compiler)
    assert compiled.losses == pytest.approx(ordinary.losses, rel=1e-2)
    assert_same_weights(compiled.net, ordinary.net, rtol=1e-2, atol=1e-2)
    if device == "cuda":
        torch._dynamo.reset()
        both = train(net, device, compile="inductor", cuda_graphs=True)
        assert both.losses == pytest.approx(compiled.losses, rel=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_is_near_float32(family, device):
    net = network(family)
    sequence = (B, M, B, M) if device.type == "cpu" else SEQUENCE  # which emulates it
    wide = train(net, device, sequence=sequence)
    narrow = train(net, device, sequence=sequence, precision="bfloat16")
    assert narrow.losses == pytest.approx(wide.losses, rel=0.05)
    if device.type == "cuda":
        captured = train(net, device, sequence=sequence, precision="bfloat16", cuda_graphs=True)
        assert captured.losses == pytest.approx(narrow.losses, rel=1e-2)


FAST = {"precision": "bfloat16", "channels_last": True, "skip_non_finite": True, "ema_decay": 0.9}


@pytest.mark.parametrize("family", ["resnet", "efficientnet"])
def test_the_fast_configuration(family, device):
    """All that is fast at once: channels last, bfloat16, and on a GPU captured steps."""
    net = network(family)
    sequence = (B, M) if device.type == "cpu" else SEQUENCE
    plain = train(net, device, sequence=sequence)
    fast = train(net, device, sequence=sequence, **FAST)
    assert fast.losses == pytest.approx(plain.losses, rel=0.05)
    if device.type == "cuda":
        captured = train(net, device, sequence=sequence, cuda_graphs=True, **FAST)
        assert captured.losses == pytest.approx(fast.losses, rel=1e-2)
        assert_same_weights(captured.averaged, fast.averaged, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_forward_pass_is_that_of_the_cpu(family, device):
    net = network(family).eval()
    images, _ = batch()
    with torch.inference_mode():
        expected = {mode: net(images, mode) for mode in Mode}
        net.to(device)
        for mode in Mode:
            torch.testing.assert_close(net(images.to(device), mode).cpu(), expected[mode], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_agreement_of_both_networks_gradients(precision, where, captured):
    """Each is that of two backward passes on a copy of the network as it was before the step, without clipping."""
    net = network("resnet").to(where)
    policy = Policy("both", motivated_loss_weight=0.5)
    step = TrainStep(
        net,
        sgd(net.parameters()),
        cross_entropy,
        precision=precision,
        clip_grad=0.1,
        policy=policy,
        gradient_agreement=True,
        cuda_graphs=captured,
    )
    for mode in (B, M, B, M) if where.type == "cpu" else SEQUENCE:
        before = copy.deepcopy(net)
        images, labels = (tensor.to(where) for tensor in batch(16))
        agreement = step(images, labels, mode).gradient_agreement()
        if mode is B:
            assert math.isnan(agreement)
            continue
        gradients = []
        for each in (M, B):
            before.zero_grad()
            cross_entropy(before(images, each), labels).backward()
            gradients.append(torch.cat([p.grad.flatten() for p in before.subnet(B).parameters()]))
        expected = torch.cosine_similarity(*gradients, dim=0).item()
        assert agreement == pytest.approx(expected, abs=1e-2 if precision == "float32" else 0.1)


# Optimizers


def factory(name):
    return lambda parameters: timm.optim.create_optimizer_v2(list(parameters), opt=name, lr=1e-3, weight_decay=0.01)


TORCH = {kind.__name__: lambda p, kind=kind: kind(p, lr=1e-3) for kind in CAPTURABLE} | {"momentum": sgd}
TIMM = {name: factory(name) for name in ("lamb", "lion", "rmsproptf")}


def snapshot(optimizer, parameters):
    """Values and optimizer state of some parameters, as copies."""
    return [
        (p.detach().clone(), {name: torch.as_tensor(value).clone() for name, value in optimizer.state[p].items()})
        for p in parameters
    ]


@pytest.mark.parametrize("name", [*TORCH, *TIMM])
def test_a_base_step_leaves_the_differential_state_alone(name, where, captured):
    if captured and name in TIMM:
        pytest.skip(f"{name} cannot be captured, and is refused: see test_cuda_graphs.py")
    net = network("vit").to(where)
    own = {id(p) for p in net.subnet(B).parameters()}
    differential = [p for p in net.parameters() if id(p) not in own]
    optimizer = (TORCH | TIMM)[name](net.parameters())
    step = TrainStep(net, optimizer, cross_entropy, cuda_graphs=captured)
    moved = 0
    for mode in SEQUENCE:
        before = snapshot(optimizer, differential)
        step(*(tensor.to(where) for tensor in batch(8)), mode).loss()
        for (value, state), (value_now, state_now) in zip(before, snapshot(optimizer, differential), strict=True):
            moved += not torch.equal(value, value_now)
            if mode is B:
                assert torch.equal(value, value_now)
                assert all(torch.equal(tensor, state_now[key]) for key, tensor in state.items())
    assert moved >= SEQUENCE.count(M), "motivated steps do move them"


@pytest.mark.cuda
@pytest.mark.parametrize("name", TORCH)
def test_a_captured_optimizer_takes_the_ordinary_steps(name, monkeypatch):
    """With a learning rate that changes at every step: the captured kernels read it from a tensor.

    The weights are compared with those of steps that are prepared for a capture that never comes: with a tensor as the
    learning rate torch's optimizers round in another order.
    """
    net = network("vit")
    settings = {"schedule": lambda number: 1e-3 / (1 + number)}
    captured = train(net, "cuda", TORCH[name], cuda_graphs=True, **settings)
    ordinary = train(net, "cuda", TORCH[name], **settings)
    assert captured.losses == pytest.approx(ordinary.losses, rel=1e-3)
    monkeypatch.setattr("nestnet.step.cuda_graphs.WARM_UP", 1_000_000)
    prepared = train(net, "cuda", TORCH[name], cuda_graphs=True, **settings)
    assert captured.losses == pytest.approx(prepared.losses, rel=1e-5)
    assert_same_weights(captured.net, prepared.net, rtol=1e-5, atol=1e-6)


@pytest.mark.cuda
def test_an_optimizer_that_is_loaded_after_a_capture_is_captured_anew():
    net = network("vit").to("cuda")
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    step = TrainStep(net, optimizer, cross_entropy, cuda_graphs=True)
    batches = [tuple(tensor.to("cuda") for tensor in batch(8)) for _ in SEQUENCE]
    for (images, labels), mode in zip(batches, SEQUENCE, strict=True):
        step(images, labels, mode).loss()
    weights, state = copy.deepcopy(net.state_dict()), copy.deepcopy(optimizer.state_dict())
    losses = {}
    for time in ("first", "again"):
        net.load_state_dict(weights)
        optimizer.load_state_dict(copy.deepcopy(state))
        losses[time] = [step(*each, mode).loss() for each, mode in zip(batches, SEQUENCE, strict=True)]
    assert losses["again"] == pytest.approx(losses["first"], rel=1e-4)


def test_shared_step_counts(where, captured):
    """The differential blocks' counts are the base's, in captured steps as in others."""
    net = network("vit").to(where)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    share_step_counts(optimizer, net)
    step = TrainStep(net, optimizer, cross_entropy, cuda_graphs=captured)
    for mode in (*SEQUENCE, M):
        step(*(tensor.to(where) for tensor in batch(8)), mode).loss()
    nested = net.blocks[0].mlp.fc1.weight
    counts = [int(optimizer.state[block]["step"]) for block in (nested.base, nested.right, nested.below)]
    assert counts == [len(SEQUENCE) + 1] * 3


def test_differential_weights_with_a_learning_rate_of_their_own(where, captured):
    """Their groups have no gradient at all in base mode; the scales and shifts of separate norms are among them."""
    net = network("resnet", batch_norm="separate").to(where)
    plain = copy.deepcopy(net)
    optimizer = create_optimizer(net, Config(optimizer=OptimizerConfig(lr=1e-3, differential_lr_scale=3.0)))
    step = TrainStep(net, optimizer, cross_entropy, cuda_graphs=captured)
    differential = [p for _, p in plain.differential_parameters()]
    groups = [{"params": list(plain.subnet(B).parameters())}, {"params": differential, "lr": 3e-3}]
    for group in list(groups):
        # timm's groups: vectors have no weight decay
        groups.append({**group, "params": [p for p in group["params"] if p.ndim > 1], "weight_decay": 5e-4})
        group["params"] = [p for p in group["params"] if p.ndim == 1]
    expected = torch.optim.SGD(groups, lr=1e-3, momentum=0.9)
    for mode in SEQUENCE:
        images, labels = (tensor.to(where) for tensor in batch(16))
        loss = cross_entropy(plain(images, mode), labels)
        expected.zero_grad()
        loss.backward()
        expected.step()
        assert step(images, labels, mode).loss() == pytest.approx(loss.item(), rel=1e-4)
    assert_same_weights(net, plain, rtol=1e-3, atol=1e-4)


# What surrounds the forward pass


def plain_loop(net, device):
    """Losses, gradient norms and moving average of a loop that has nothing of nestnet's but the network."""
    net = copy.deepcopy(net).to(device)
    optimizer = sgd(net.parameters())
    torch.manual_seed(1)
    losses, norms, average = [], [], None
    for mode in SEQUENCE:
        images, labels = (tensor.to(device) for tensor in batch(16))
        optimizer.zero_grad()
        parts = []
        for part, part_labels in zip(images.chunk(2), labels.chunk(2), strict=True):
            loss = cross_entropy(net(part, mode), part_labels)
            (loss / 2).backward()
            parts.append(loss.item())
        losses.append(sum(parts) / 2)
        norms.append(torch.nn.utils.clip_grad_norm_(net.parameters(), 0.5).item())
        optimizer.step()
        now = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        average = now if average is None else {name: 0.8 * average[name] + 0.2 * now[name] for name in now}
    return losses, norms, average


def test_average_parts_and_clipping_all_at_once(where, captured):
    net = network("vit")
    found = train(net, where, accumulate=2, clip_grad=0.5, ema_decay=0.8, cuda_graphs=captured)
    losses, norms, average = plain_loop(net, where)
    assert found.losses == pytest.approx(losses, rel=1e-4)
    assert found.norms == pytest.approx(norms, rel=1e-3)
    for name, tensor in found.averaged.state_dict().items():
        torch.testing.assert_close(tensor, average[name], rtol=1e-3, atol=1e-4, msg=name)


DROPPING = {
    "dropout": ("resnet", {"drop_rate": 0.5}),
    "stochastic depth": ("efficientnet", {"drop_path_rate": 0.5}),
}


@pytest.mark.parametrize("kind", DROPPING)
def test_what_is_dropped_differs_from_step_to_step(kind, where, captured):
    """A replay that drew the same numbers each time would drop the same units for ever."""
    family, options = DROPPING[kind]
    net = network(family, **options)
    images = torch.randn(16, 3, 32, 32)
    labels = torch.randint(5, (16,))
    optimizer = torch.optim.SGD(net.to(where).parameters(), lr=0.0)
    step = TrainStep(net, optimizer, cross_entropy, cuda_graphs=captured)
    losses = {mode: [] for mode in Mode}
    for mode in (*SEQUENCE, *SEQUENCE):
        losses[mode].append(step(images.to(where), labels.to(where), mode).loss())
    for mode, found in losses.items():
        replayed = found[WARM_UP:]
        assert len(set(replayed)) == len(replayed), mode


@pytest.mark.cuda
@pytest.mark.parametrize("kind", DROPPING)
def test_captured_steps_draw_the_numbers_of_ordinary_ones(kind):
    """A run that is resumed takes ordinary steps where the whole run took captured ones, and must end alike."""
    family, options = DROPPING[kind]
    net = network(family, **options)
    ordinary = train(net, "cuda")
    captured = train(net, "cuda", cuda_graphs=True)
    assert captured.losses == pytest.approx(ordinary.losses, rel=1e-3)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_batch_whose_loss_is_not_finite_leaves_no_trace(poison, where, captured):
    net = network("resnet", drop_rate=0.2).to(where)
    whole = copy.deepcopy(net)
    settings = {"ema_decay": 0.5, "skip_non_finite": True, "cuda_graphs": captured}
    ours = TrainStep(net, sgd(net.parameters()), cross_entropy, **settings)
    theirs = TrainStep(whole, sgd(whole.parameters()), cross_entropy, **settings)
    generator = torch.cuda if where.type == "cuda" else torch
    for number, mode in enumerate(SEQUENCE):
        images, labels = (tensor.to(where) for tensor in batch(8))
        state = generator.get_rng_state()
        expected = theirs(images, labels, mode).loss()
        generator.set_rng_state(state)
        if number % 3 == 1:
            assert ours(images * poison, labels, mode).skipped
        assert ours(images, labels, mode).loss() == expected
    assert_same_weights(net, whole)
    assert_same_weights(ours.averaged, theirs.averaged)


# The loss's way to the host


def test_decisions_do_not_depend_on_the_overlap(where, captured):
    found = {}
    for overlap in (True, False):
        torch.manual_seed(0)
        net = network("resnet").to(where)
        step = TrainStep(net, sgd(net.parameters()), cross_entropy, overlap=overlap, cuda_graphs=captured)
        condition = LossDecrease(1)
        rows = []
        for _ in range(24):
            outcome = step(*(tensor.to(where) for tensor in batch(16)), condition.mode)
            rows.append((condition.mode, outcome.loss()))
            condition.update(outcome.loss())
        found[overlap] = rows
    assert found[True] == found[False]
    assert {mode for mode, _ in found[True]} == set(Mode)


@pytest.mark.parametrize("overlap", [True, False])
def test_a_loss_may_be_read_after_later_steps(overlap, where, captured):
    """A captured step writes its loss where the one before it did."""
    net = network("resnet").to(where)
    outcomes, losses = [], []
    step = TrainStep(net, sgd(net.parameters()), cross_entropy, overlap=overlap, cuda_graphs=captured)
    for mode in SEQUENCE:
        outcomes.append(step(*(tensor.to(where) for tensor in batch(8)), mode))
        losses.append(outcomes[-1].loss())
    assert [outcome.loss() for outcome in outcomes] == losses
    assert len(set(losses)) == len(losses)


@pytest.mark.cuda
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("captured", [False, True])
def test_the_host_waits_for_nothing_but_the_loss(captured):
    """torch raises an error at each call that stops the host until the device has done all its work."""
    net = network("resnet").to("cuda")
    settings = {"clip_grad": 1.0, "ema_decay": 0.9, "skip_non_finite": True, "cuda_graphs": captured}
    settings |= {"policy": Policy("both"), "gradient_agreement": True}
    step = TrainStep(net, sgd(net.parameters()), cross_entropy, **settings)
    batches = [tuple(tensor.to("cuda") for tensor in batch(16)) for _ in SEQUENCE]
    for mode in SEQUENCE:
        step(*batches[0], mode).loss()
    try:
        torch.cuda.set_sync_debug_mode("error")
        for mode, (images, labels) in zip(SEQUENCE, batches, strict=True):
            outcome = step(images, labels, mode)
            outcome.loss()
            outcome.gradient_norm()
            outcome.gradient_agreement()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.cuda
def test_a_number_is_read_before_later_work_is_done():
    value = torch.ones(1, device="cuda") * 2
    reading = AsyncNumbers(value, overlap=True)
    torch.cuda._sleep(2_000_000_000)  # about a second of the device's time
    later = torch.cuda.Event()
    later.record()
    assert reading() == [2]
    assert not later.query(), "the device is still asleep"


@pytest.mark.cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA GPUs")
def test_a_gpu_that_is_not_the_current_one():
    net = network("resnet")
    first = train(net, "cuda:0", cuda_graphs=True)
    second = train(net, "cuda:1", cuda_graphs=True)
    assert torch.cuda.current_device() == 0
    assert second.losses == pytest.approx(first.losses, rel=1e-4)


# Memory


@pytest.mark.cuda
@pytest.mark.filterwarnings("ignore:The CUDA Graph is empty")
def test_memory_that_is_short_during_a_capture_is_told():
    """The end of the capture may fail too, and its error must not hide the reason."""
    net = network("resnet").to("cuda")
    step = TrainStep(net, sgd(net.parameters()), cross_entropy, cuda_graphs=True)
    images, labels = (tensor.to("cuda") for tensor in batch(64))
    for _ in range(WARM_UP):
        step(images, labels, B).loss()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    # torch takes memory in pieces of 20 MiB: the first one can be had, and the next cannot
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 30 * 2**20) / total)
    try:
        with pytest.raises(RuntimeError) as caught:
            step(images, labels, B)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    assert find_memory_error(caught.value) is not None
    assert explain_failure(caught.value, Config()).startswith("out of memory (CUDA out of memory")


@pytest.mark.parametrize("mode", Mode)
def test_statistics_count_batches_in_captured_steps_too(mode, where, captured):
    net = network("resnet").to(where)
    step = TrainStep(net, sgd(net.parameters()), cross_entropy, skip_non_finite=True, cuda_graphs=captured)
    for _ in range(WARM_UP + 3):
        step(*(tensor.to(where) for tensor in batch(8)), mode)
    assert net.subnet(mode).state_dict()["bn1.num_batches_tracked"] == WARM_UP + 3
