"""Plain networks that are nested against the elastic network of the same names: the same bits."""

import itertools

import pytest
import torch
from helpers import FAMILIES
from test_pair_reference import OPTIMIZERS, modes_with_switches
from timm.optim import create_optimizer_v2
from torch import nn

import nestnet
from nestnet import Mode, fill_momentum, share_step_counts

SIZES = {"resnet20": 8, "resnet18": 16}
"""Height and width of the images of a base, where it is not 32."""


def make(base, motivated, **options):
    """An elastic network, and its two networks nested as plain ones."""
    elastic = nestnet.create_model(base, motivated, num_classes=5, **options)
    nesting = {name: options[name] for name in ("depth_map", "batch_norm") if name in options}
    plain = [elastic.standalone(mode) for mode in Mode]
    return elastic, nestnet.nest(*plain, check=False, **nesting)


def train(net, optimizer_name, modes, size, *, literal=False):
    """The losses of training, and the optimizer's state of each parameter by its name in each mode."""
    optimizer = create_optimizer_v2(net, **OPTIMIZERS[optimizer_name])
    fill_momentum(optimizer)
    if literal:
        share_step_counts(optimizer, net)
    torch.manual_seed(1)
    losses = []
    for mode in modes:
        images, labels = torch.randn(2, 3, size, size), torch.randint(5, (2,))
        loss = nn.functional.cross_entropy(net(images, mode), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    state = {}
    for mode in Mode:
        for name, parameter in net.subnet(mode).named_parameters():
            for key, value in optimizer.state[parameter].items():
                state[f"{mode} {name} {key}"] = torch.as_tensor(value)
    return losses, state


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


CASES = [
    ("resnet20", "resnet32", "sgd", {"batch_norm": "private"}),
    ("resnet20", "resnet32", "rmsprop", {"batch_norm": "shared", "depth_map": "first"}),
    ("resnet20", "resnet32", "adamw", {"batch_norm": "separate", "drop_rate": 0.1}),
    ("vit_one_head", "vit_two_heads", "adamw", {"img_size": 32, "drop_path_rate": 0.1}),
    ("vit_one_head", "vit_two_heads", "sgd", {"img_size": 32}),
]

FEWER = 12
"""Steps of the larger pairs, with switches to both modes."""

LARGER = [
    ("resnet18", "resnet34", "sgd", {"batch_norm": "shared"}),
    (
        "efficientnet_thin",
        "efficientnet_wide",
        "rmsprop",
        {"depth_map": "last", "drop_rate": 0.2, "drop_path_rate": 0.1},
    ),
]


@pytest.mark.parametrize(
    ("base", "motivated", "optimizer", "options"),
    [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in LARGER)],
)
def test_nested_plain_networks_train_as_the_elastic_one_does(base, motivated, optimizer, options):
    elastic, pair = make(base, motivated, **options)
    modes = modes_with_switches()
    if (base, motivated, optimizer, options) in LARGER:
        modes = modes[:FEWER]
    assert len(set(itertools.pairwise(modes))) == 4, "each mode after each"
    size = SIZES.get(base, 32)
    expected_losses, expected_state = train(elastic.train(), optimizer, modes, size, literal=optimizer == "adamw")
    losses, state = train(pair.train(), optimizer, modes, size, literal=optimizer == "adamw")
    assert losses == expected_losses
    assert_same(pair.state_dict(), elastic.state_dict())
    assert_same(state, expected_state)


@pytest.mark.parametrize(
    ("family", "batch_norm"),
    [
        *(("resnet", batch_norm) for batch_norm in nestnet.nn.batch_norm.STATISTICS),
        ("efficientnet", "shared"),
        ("efficientnet", "separate"),
        ("vit", "private"),
    ],
)
def test_the_weights_map_and_the_names_are_the_elastic_ones(family, batch_norm):
    base, motivated, own = FAMILIES[family]
    elastic = nestnet.create_model(base, motivated, num_classes=5, batch_norm=batch_norm, **own)
    # An elastic EfficientNet has the base's blocks first.
    depth_map = "first" if family == "efficientnet" else "last"
    plain = [elastic.standalone(mode) for mode in Mode]
    pair = nestnet.nest(*plain, check=False, batch_norm=batch_norm, depth_map=depth_map)
    assert pair.state_dict().keys() == elastic.state_dict().keys()
    assert pair.weights_map.keys() == elastic.weights_map.keys()
    for name, placement in elastic.weights_map.items():
        assert pair.weights_map[name].is_same_as(placement), name
    assert list(pair.skipped_blocks()) == list(elastic.skipped_blocks())
    for mode in Mode:
        ours, theirs = pair.subnet(mode), elastic.subnet(mode)
        assert {name for name, _ in ours.named_parameters()} == {name for name, _ in theirs.named_parameters()}
        assert ours.state_dict().keys() == theirs.state_dict().keys()
    differential = {name for name, _ in elastic.differential_parameters()}
    assert {name for name, _ in pair.differential_parameters()} == differential
    # Either loads the state of the other.
    before = {name: tensor.clone() for name, tensor in elastic.state_dict().items()}
    with torch.no_grad():
        for parameter in pair.parameters():
            parameter.add_(1)
    pair.load_state_dict(elastic.state_dict())
    elastic.load_state_dict(pair.state_dict())
    assert_same(elastic.state_dict(), before)
    assert pair.num_classes == elastic.num_classes
    assert pair.in_chans == elastic.in_chans
