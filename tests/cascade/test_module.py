"""A cascade against asking both networks about every single image."""

import pytest
import torch
from helpers import batch, make, randomised
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nestnet import Cascade


class Counting(nn.Module):
    """A linear classifier that notes the size of each batch that it sees."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.head = nn.Linear(4, 3)
        self.sizes = []

    def forward(self, images):
        self.sizes.append(len(images))
        return self.head(images.flatten(1))


def images(count, seed=0):
    return torch.randn(count, 1, 2, 2, generator=torch.Generator().manual_seed(seed)) * 3


@torch.no_grad()
def decide_one_by_one(cascade, image):
    """The logits of an image, and whether it was passed on: the definition of a cascade."""
    logits = cascade.base.head(image.flatten()) / cascade.base_temperature
    if logits.softmax(0).max() < cascade.threshold:
        return cascade.motivated.head(image.flatten()) / cascade.motivated_temperature, True
    return logits, False


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    batch_size=st.integers(1, 12),
    threshold=st.sampled_from([0.0, 0.4, 0.6, 0.9, 1.0, 2.0]),
    temperatures=st.tuples(st.sampled_from([0.5, 1.0, 2.0]), st.sampled_from([0.5, 1.0, 2.0])),
    seed=st.integers(0, 5),
)
def test_every_image_is_decided_as_if_it_were_alone(sizes, batch_size, threshold, temperatures, seed):
    cascade = Cascade(
        Counting(seed),
        Counting(seed + 1),
        threshold,
        base_temperature=temperatures[0],
        motivated_temperature=temperatures[1],
    ).eval()
    batches = images(sum(sizes), seed).split(sizes)
    with torch.no_grad():
        outputs = list(cascade.stream(batches, batch_size))
    assert [len(output.logits) for output in outputs] == sizes
    logits = torch.cat([output.logits for output in outputs])
    passed_on = torch.cat([output.passed_on for output in outputs])
    for image, image_logits, is_passed_on in zip(torch.cat(batches), logits, passed_on, strict=True):
        expected, is_expected = decide_one_by_one(cascade, image)
        torch.testing.assert_close(image_logits, expected)
        assert bool(is_passed_on) == is_expected
    # The motivated network runs on whole batches, but for the last one.
    count = int(passed_on.sum())
    whole = [batch_size] * (count // batch_size)
    rest = [count % batch_size] if count % batch_size else []
    assert cascade.motivated.sizes == whole + rest
    for images_of_batch, output in zip(batches, outputs, strict=True):
        with torch.no_grad():
            alone = cascade.decide(images_of_batch)
        torch.testing.assert_close(alone.logits, output.logits)
        assert torch.equal(alone.passed_on, output.passed_on)


def test_outputs_come_as_soon_as_their_images_are_decided():
    cascade = Cascade(Counting(0), Counting(1), threshold=0.0)
    batches = iter([images(2), images(3)])
    outputs = cascade.stream(batches, batch_size=100)
    assert len(next(outputs).logits) == 2
    assert len(next(batches)) == 3, "the second batch has not been asked for yet"


def test_the_forward_pass_is_that_of_a_classifier():
    cascade = Cascade(Counting(0), Counting(1), threshold=0.7)
    assert torch.equal(cascade(images(5)), cascade.decide(images(5)).logits)
    assert "threshold=0.7" in repr(cascade)


def test_a_cascade_of_a_nested_network_shares_its_weights():
    net = randomised(make("resnet")).eval()
    pictures, _ = batch(6)
    with torch.no_grad():
        base = Cascade.of(net, threshold=0.0)(pictures)
        motivated = Cascade.of(net, threshold=2.0)(pictures)
        assert torch.equal(base, net(pictures, "base"))
        assert torch.equal(motivated, net(pictures, "motivated"))
    held = {id(parameter) for parameter in Cascade.of(net, 0.5).parameters()}
    assert held == {id(parameter) for parameter in net.parameters()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": -0.1}, "threshold = -0.1: it must be at least 0, such as 0.9"),
        ({"threshold": float("nan")}, "threshold = nan: it must be at least 0, such as 0.9"),
        (
            {"threshold": 0.5, "base_temperature": 0.0},
            "base_temperature = 0.0: it must be above 0; 1 leaves the logits as they are",
        ),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match="must be") as caught:
        Cascade(Counting(0), Counting(1), **arguments)
    assert str(caught.value) == message


def test_a_batch_size_below_one():
    with pytest.raises(ValueError, match="batch_size = 0: it must be at least 1"):
        next(Cascade(Counting(0), Counting(1), 0.5).stream([images(2)], batch_size=0))
