"""The training step against plain loops written out."""

import copy

import pytest
import torch
from helpers import FAMILIES, batch, make, randomised
from timm.utils import ModelEmaV3
from torch import nn

import nestnet
from nestnet import LossDecrease, Mode, PerMode, TrainStep
from nestnet.step.async_numbers import AsyncNumbers
from nestnet.step.policy import Policy

cross_entropy = nn.functional.cross_entropy
MODES = (Mode.BASE, Mode.MOTIVATED, Mode.BASE, Mode.MOTIVATED)


def sgd(net, lr=0.05):
    return torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9, weight_decay=1e-3)


def same(net, other, **tolerance):
    for (name, ours), theirs in zip(net.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=name, **({"rtol": 0, "atol": 0} | tolerance))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_is_the_plain_loop(family, precision):
    net = make(family)
    plain = copy.deepcopy(net)
    optimizer, own = sgd(plain), sgd(net)
    step = TrainStep(net, own, cross_entropy, precision=precision, clip_grad=1.0)
    for number, mode in enumerate(MODES):
        images, labels = batch()
        torch.manual_seed(number)
        outcome = step(images, labels, mode)
        torch.manual_seed(number)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            logits = plain(images, mode)
        loss = cross_entropy(logits, labels)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
        assert outcome.loss() == loss.item()
        assert outcome.gradient_norm() == norm.item()
    same(net, plain)


@pytest.mark.parametrize("parts", [2, 3, 6])
def test_parts_of_a_batch_add_up(parts):
    """A network without BatchNorm does not see that its batch came in parts."""
    net = make("vit")
    whole = copy.deepcopy(net)
    in_parts, at_once = (
        TrainStep(net, sgd(net), cross_entropy, accumulate=parts),
        TrainStep(whole, sgd(whole), cross_entropy),
    )
    for mode in MODES[:3]:
        images, labels = batch(6)
        assert in_parts(images, labels, mode).loss() == pytest.approx(at_once(images, labels, mode).loss(), abs=1e-5)
    same(net, whole, rtol=1e-4, atol=1e-5)


def test_all_parts_are_in_one_mode_and_make_one_step():
    net = make("resnet")
    before = copy.deepcopy(net.state_dict())
    TrainStep(net, sgd(net), cross_entropy, accumulate=2)(*batch(8), "base")
    for name, tensor in net.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert tensor == (2 if "base_" in name else 0), "each part is a batch to BatchNorm"
    base = {net.weights_map[name].name for name in net.subnet("base").state_dict()}
    for name in before.keys() - base:
        assert torch.equal(net.state_dict()[name], before[name]), name


def test_a_batch_that_has_no_such_parts():
    net = make("resnet")
    with pytest.raises(ValueError, match="accumulate = 3: a batch of 4 has no such number of equal parts"):
        TrainStep(net, sgd(net), cross_entropy, accumulate=3)(*batch(4), "base")


@pytest.mark.parametrize("family", ["resnet", "vit"])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(
    "policy",
    [
        Policy("both"),
        Policy("both", distillation=0.5, temperature=2.0),
        Policy("both", distillation=1.0, motivated_loss_weight=0.3),
    ],
)
def test_a_batch_of_both_networks_is_a_hand_written_step_bit_for_bit(policy, accumulate, family):
    net = make(family, drop_rate=0.1)
    plain = copy.deepcopy(net)
    optimizer, step = sgd(plain), TrainStep(net, sgd(net), cross_entropy, policy=policy, accumulate=accumulate)
    for mode in MODES:
        images, labels = batch(8)
        state = torch.get_rng_state()
        outcome = step(images, labels, mode)
        torch.set_rng_state(state)
        optimizer.zero_grad()
        found = {"motivated": [], "base": []}
        for part, answers in zip(images.chunk(accumulate), labels.chunk(accumulate), strict=True):
            teacher = None
            if mode == "motivated":
                teacher = plain(part, "motivated")
                found["motivated"].append(cross_entropy(teacher, answers))
                (policy.motivated_loss_weight * found["motivated"][-1] / accumulate).backward()
            logits = plain(part, "base")
            found["base"].append(loss := cross_entropy(logits, answers))
            if teacher is not None and policy.distillation:
                heat = policy.temperature
                soft = cross_entropy(logits / heat, (teacher.detach() / heat).softmax(1)) * heat**2
                share = policy.distillation
                loss = soft if share == 1 else (1 - share) * loss + share * soft
            (loss / accumulate).backward()
        optimizer.step()
        means = {name: torch.stack(losses).mean().item() for name, losses in found.items() if losses}
        assert outcome.losses() == means
        assert outcome.loss() == sum(means.values()) / len(means)
    same(net, plain)


@pytest.mark.parametrize("policy", [Policy(), Policy("both"), Policy("both", motivated_loss_weight=0.3)])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_each_network_learns_from_its_own_view_bit_for_bit(policy, accumulate):
    net = nestnet.create_model("resnet8", "resnet14", num_classes=5)
    plain = copy.deepcopy(net)
    losses = PerMode(cross_entropy, nn.CrossEntropyLoss(label_smoothing=0.2))
    optimizer, step = sgd(plain), TrainStep(net, sgd(net), losses, policy=policy, accumulate=accumulate)
    for mode in MODES:
        (base_images, base_labels), (motivated_images, motivated_labels) = batch(4, pixels=8), batch(4, pixels=8)
        images, labels = PerMode(base_images, motivated_images), PerMode(base_labels, motivated_labels)
        outcome = step(images, labels, mode)
        optimizer.zero_grad()
        trained = policy.modes(mode)
        found = {trained_mode: [] for trained_mode in trained}
        for number in range(accumulate):
            for one in trained:
                part, answers = (pair.of(one).chunk(accumulate)[number] for pair in (images, labels))
                found[one].append(loss := losses.of(one)(plain(part, one), answers))
                (policy.weight(one, trained) * loss / accumulate).backward()
        optimizer.step()
        assert outcome.losses() == {one: torch.stack(parts).mean().item() for one, parts in found.items()}
    same(net, plain)


def test_one_tensor_twice_is_one_batch_for_both():
    nets = [nestnet.create_model("resnet8", "resnet14", num_classes=5)]
    nets.append(copy.deepcopy(nets[0]))
    images, labels = batch(pixels=8)
    policy = Policy("both", distillation=0.5)
    steps = [TrainStep(net, sgd(net), cross_entropy, policy=policy) for net in nets]
    first = steps[0](images, labels, "motivated").losses()
    assert first == steps[1](PerMode(images, images), PerMode(labels, labels.clone()), "motivated").losses()
    same(*nets)


def test_views_that_cannot_be_trained_together():
    net = nestnet.create_model("resnet8", "resnet14", num_classes=5)
    images, labels = batch(4, pixels=8)
    step = TrainStep(net, sgd(net), cross_entropy, policy=Policy("both", distillation=0.5))
    with pytest.raises(ValueError, match=r"each network has its own, and with distillation = 0\.5 the base learns"):
        step(PerMode(images, images.clone()), labels, "motivated")
    step(PerMode(images, images.clone()), labels, "base")
    step = TrainStep(net, sgd(net), cross_entropy, policy=Policy("both"))
    with pytest.raises(
        ValueError, match="images: 2 for the base and 4 for the motivated network; both must see the same"
    ):
        step(PerMode(images[:2], images), labels, "motivated")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trains": "joint"}, "trains = 'joint': it must be one of motivated, both"),
        ({"distillation": 0.5}, "distillation = 0.5: it is for trains = 'both'; leave it out, or train both"),
        ({"motivated_loss_weight": 2}, "motivated_loss_weight = 2: it is for trains = 'both'"),
        ({"trains": "both", "distillation": 1.5}, "distillation = 1.5: it must be from 0 to 1"),
        ({"trains": "both", "distillation": float("nan")}, "distillation = nan: it must be from 0 to 1"),
        ({"trains": "both", "temperature": 2.0}, "temperature = 2.0: it is for distillation"),
        ({"trains": "both", "temperature": 0}, "temperature = 0: it must be a finite number above 0"),
        ({"trains": "both", "motivated_loss_weight": float("inf")}, "must be a finite number above 0"),
        ({"trains": "both", "distillation": "0.5"}, "distillation = '0.5': it must be from 0 to 1"),
        ({"distillation": None}, "distillation = None: it must be from 0 to 1"),
        ({"trains": "both", "temperature": "2"}, "temperature = '2': it must be a finite number above 0"),
        ({"activation": "relu"}, "activation = 'relu': it must be one of softmax, sigmoid"),
    ],
)
def test_a_policy_that_makes_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        Policy(**settings)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_sigmoids_are_distilled_as_targets_of_each_class(share):
    """As the policy says: a share of the other network's output is in the targets."""
    labels, logits, teacher = torch.rand(3, 8, 5).unbind()
    policy = Policy("both", distillation=share, activation="sigmoid")
    bce = nn.functional.binary_cross_entropy_with_logits
    targets = (1 - share) * labels + share * teacher.sigmoid()
    torch.testing.assert_close(policy.base_loss(bce(logits, labels), logits, teacher), bce(logits, targets))
    heated = Policy("both", distillation=1.0, activation="sigmoid", temperature=2.0)
    expected = 4 * bce(logits / 2, (teacher / 2).sigmoid())
    torch.testing.assert_close(heated.base_loss(bce(logits, labels), logits, teacher), expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"accumulate": 0}, "accumulate = 0: it must be a whole number of at least 1"),
        ({"accumulate": 2.0}, "accumulate = 2.0: it must be a whole number"),
        ({"clip_grad": -1.0}, "clip_grad = -1.0: it must be a finite number above 0, or None"),
        ({"clip_grad": 0}, "clip_grad = 0: it must be a finite number above 0"),
        ({"ema_decay": 1.5}, "ema_decay = 1.5: it must be a number from 0 to below 1, or None"),
        ({"policy": "both"}, "policy = 'both': it must be a nestnet.Policy, such as"),
    ],
)
def test_a_step_that_makes_no_sense(settings, message):
    net = make("resnet")
    with pytest.raises(ValueError, match=message):
        TrainStep(net, sgd(net), cross_entropy, **settings)


def test_the_gradient_norm_is_told_where_it_is_wanted():
    net = make("resnet")
    with pytest.raises(ValueError, match="gradient_norm: this step does not compute it"):
        TrainStep(net, sgd(net), cross_entropy)(*batch(), "base").gradient_norm()
    outcome = TrainStep(net, sgd(net), cross_entropy, gradient_norm=True)(*batch(), "base")
    norms = [p.grad.norm() for p in net.parameters() if p.grad is not None]
    assert outcome.gradient_norm() == pytest.approx(torch.stack(norms).norm().item())


@pytest.mark.parametrize("family", ["resnet", "vit"])
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_batch_whose_loss_is_not_finite_leaves_no_trace(family, poison):
    net = make(family, drop_rate=0.2)
    whole = copy.deepcopy(net)
    ours, theirs = (
        TrainStep(module, sgd(module), cross_entropy, ema_decay=0.5, skip_non_finite=True) for module in (net, whole)
    )
    for number, mode in enumerate((*MODES, *MODES)):
        images, labels = batch()
        state = torch.get_rng_state()
        outcome = theirs(images, labels, mode)
        torch.set_rng_state(state)
        if number % 3 == 1:
            assert ours(images * poison, labels, mode).skipped
        again = ours(images, labels, mode)  # the same dropout, though another forward pass came before
        assert not again.skipped
        assert again.loss() == outcome.loss()
    same(net, whole)
    same(ours.averaged, theirs.averaged)


@pytest.mark.parametrize("family", ["resnet", "vit"])
def test_the_moving_average(family):
    """Against timm's with its warm-up, of timm's models: the same bits, and counters of batches are the network's."""
    net = randomised(make(family))
    step = TrainStep(net, sgd(net), cross_entropy, ema_decay=0.6)
    averages = {mode: ModelEmaV3(net.standalone(mode), decay=0.6, use_warmup=True) for mode in Mode}
    for number, trained in enumerate(MODES, start=1):
        step(*batch(), trained)
        for mode, average in averages.items():
            average.update(net.standalone(mode), step=number)
    assert step.average.next_decay == 0.6, "the warm-up has ended"
    for mode, average in averages.items():
        found = step.averaged.subnet(mode).state_dict()
        for name, tensor in average.module.state_dict().items():
            assert torch.equal(found[name], tensor), name
    assert step.averaged is not net
    assert TrainStep(net, sgd(net), cross_entropy).averaged is net


@pytest.mark.slow
@pytest.mark.parametrize(("networks", "pixels"), [(("resnet8", "resnet14", {}), 8), (FAMILIES["vit"], 32)])
def test_many_steps_in_turns_compile_nothing_anew(networks, pixels):
    """One graph a mode, compiled at its first step; the losses are those of the eager network."""
    torch._dynamo.reset()
    base, motivated, options = networks
    net = nestnet.create_model(base, motivated, num_classes=5, **options)
    plain = copy.deepcopy(net)
    images, labels = batch(2, pixels=pixels)
    ours, eager = (
        TrainStep(model, torch.optim.SGD(model.parameters(), lr=1e-3), cross_entropy, compile=backend)
        for model, backend in ((net, "aot_eager"), (plain, None))
    )
    counts = torch._dynamo.utils.counters["stats"]
    before = counts["unique_graphs"]
    for mode in Mode:
        assert ours(images, labels, mode).loss() == pytest.approx(eager(images, labels, mode).loss(), abs=1e-4)
    assert counts["unique_graphs"] == before + 2
    with torch.compiler.set_stance("fail_on_recompile"):
        for number in range(40):
            outcome = ours(images, labels, list(Mode)[number % 2])
    assert counts["unique_graphs"] == before + 2
    assert outcome.loss() < 5
    torch._dynamo.reset()


def test_the_decisions_do_not_depend_on_the_overlap():
    found = []
    for overlap in (True, False):
        torch.manual_seed(0)
        net, condition, modes = make("resnet"), LossDecrease(1), []
        step = TrainStep(net, sgd(net), cross_entropy, overlap=overlap)
        for _ in range(6):
            modes.append(condition.mode)
            condition.update(step(*batch(), condition.mode).loss())
        found.append(modes)
    assert found[0] == found[1]


def test_a_reading_on_the_cpu_is_the_number():
    assert AsyncNumbers(torch.tensor([2.5, 1]), overlap=True)() == [2.5, 1]


def test_graphs_are_for_cuda():
    net = make("resnet")
    with pytest.raises(ValueError, match="cuda_graphs: it is for one process on CUDA"):
        TrainStep(net, sgd(net), cross_entropy, cuda_graphs=True)
