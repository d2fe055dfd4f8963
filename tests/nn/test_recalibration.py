"""Recalibrated statistics against the mean and variance of activations that a timm model shows."""

import pytest
import torch
from helpers import FAMILIES, make, randomised

from nestnet import Mode, recalibrate
from nestnet.nn.batch_norm import STATISTICS

BATCHES = [torch.randn(8, 3, 32, 32) * scale + shift for scale, shift in ((1.0, 0.5), (2.0, -1.0), (0.5, 0.0))]


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("statistics", STATISTICS)
def test_the_first_norm_s_statistics_are_those_of_its_inputs(mode, statistics):
    net = randomised(make("resnet", batch_norm=statistics))
    state = recalibrate(net, mode, BATCHES).subnet(mode).state_dict()
    convolved = [torch.nn.functional.conv2d(x, net.conv1.weight, padding=1) for x in BATCHES]
    mean = torch.stack([x.mean((0, 2, 3)) for x in convolved]).mean(0)
    var = torch.stack([x.var((0, 2, 3)) for x in convolved]).mean(0)
    torch.testing.assert_close(state["bn1.running_mean"], mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state["bn1.running_var"], var, rtol=1e-4, atol=1e-5)
    assert state["bn1.num_batches_tracked"] == len(BATCHES)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("statistics", STATISTICS)
def test_only_the_mode_s_statistics_change_and_only_in_the_copy(family, statistics):
    net = randomised(make(family, batch_norm=statistics, drop_rate=0.5))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    generator = torch.get_rng_state()
    pairs = [(x, torch.zeros(8)) for x in BATCHES]
    ready = recalibrate(net, "base", pairs)
    assert torch.equal(torch.get_rng_state(), generator), "training goes on as if nothing had been"
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    own = {placement.name for placement in net.weights_map.values()}
    for name, tensor in ready.state_dict().items():
        changed = not torch.equal(tensor, before[name])
        is_statistic = "running" in name or "num_batches" in name
        assert changed == (is_statistic and name in own), name
    if statistics != "shared" or family == "vit":
        ours, theirs = (n.eval().subnet("motivated")(BATCHES[0]) for n in (ready, net))
        assert torch.equal(ours, theirs)


def test_recalibrated_shared_statistics_evaluate_as_private_ones():
    """After training of the same weights, the two differ in statistics alone."""
    shared, private = make("resnet", batch_norm="shared"), make("resnet", batch_norm="private")
    private.load_state_dict(randomised(shared).state_dict())
    for mode in Mode:
        ours, theirs = (recalibrate(net, mode, BATCHES).eval()(BATCHES[0], mode) for net in (shared, private))
        assert torch.equal(ours, theirs)
