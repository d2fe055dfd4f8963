"""Which point is chosen for which target, and where no cascade is recommended."""

from dataclasses import replace

import numpy as np
import pytest

from nestnet.cascade.curve import CascadeCurve
from nestnet.cascade.recommendation import recommend
from nestnet.cascade.targets import AccuracyTarget, CostTarget, TimeTarget
from nestnet.cost import forward_cost
from nestnet.cost.cascade import CascadeCosts

SHARES = np.linspace(0, 1, 11)
MACS = CascadeCosts(10, 40)
SECONDS = CascadeCosts(0.001, 0.004)


def curve(*accuracy):
    assert len(accuracy) == 11
    return CascadeCurve(SHARES, SHARES, np.array(accuracy), np.zeros(11), images=1000)


RISING = curve(80, 82, 84, 86, 88, 89.5, 89.95, 90, 90, 90, 90)
WITH_A_PEAK = curve(80, 90, 84, 86, 88, 89.5, 89.95, 90, 90, 90, 90)
ABOVE_BOTH = curve(80, 84, 88, 90, 91, 91.5, 91, 90.5, 90, 89, 88)


@pytest.mark.parametrize(
    ("of", "target", "point"),
    [
        (RISING, AccuracyTarget(within=0.1), 6),
        (RISING, AccuracyTarget(within=0.0), 7),
        (RISING, AccuracyTarget(within=2.0), 4),
        (RISING, AccuracyTarget(within=None, percent=86), 3),
        # A chance peak on few images is not taken, because more images passed on would lose what it promises.
        (WITH_A_PEAK, AccuracyTarget(within=0.1), 6),
        # Two networks can be right more often than the better one: 91 % is only reached by passing on a part.
        (ABOVE_BOTH, AccuracyTarget(within=None, percent=91), 4),
        (RISING, CostTarget(2.0), 2),
        (RISING, CostTarget(3.0), 5),
        (ABOVE_BOTH, CostTarget(3.5), 5),
        (RISING, TimeTarget(2.7), 4),
    ],
)
def test_the_chosen_point(of, target, point):
    found = recommend(of, target, MACS, SECONDS)
    assert found.point == point
    assert found.refusal is None


@pytest.mark.parametrize(
    ("of", "target", "macs", "seconds", "reason"),
    [
        (RISING, AccuracyTarget(within=15), MACS, SECONDS, "the base alone reaches an accuracy within 15 points"),
        (
            curve(90, *[89] * 10),
            AccuracyTarget(),
            MACS,
            SECONDS,
            "the motivated network is no better than the base on the held-out images (89.00 % and 90.00 %)",
        ),
        (
            RISING,
            AccuracyTarget(),
            CascadeCosts(68, 100),
            SECONDS,
            "60.0% of the images would be passed on, and from 32.0% on a cascade costs at least as many multiply-accumulates",
        ),
        (RISING, AccuracyTarget(), MACS, CascadeCosts(2, 3), "from 33.3% on a cascade costs at least as many seconds"),
        (
            RISING,
            AccuracyTarget(within=None, percent=95),
            MACS,
            SECONDS,
            "no cascade reaches 95.00 % on the held-out images; the most is 90.00 %",
        ),
        (RISING, TimeTarget(0.5), MACS, SECONDS, "milliseconds = 0.5: the base alone takes 1 ms per image here"),
        (
            curve(*range(11)),
            AccuracyTarget(),
            MACS,
            SECONDS,
            "every image would be passed on; deploy the motivated network alone",
        ),
    ],
)
def test_where_no_cascade_is_recommended(of, target, macs, seconds, reason):
    assert reason in recommend(of, target, macs, seconds).refusal


@pytest.mark.parametrize(
    ("base", "motivated", "img_size", "share"),
    [
        ("efficientnet_b0", "efficientnet_b1", 224, 0.32),
        ("vit_tiny_patch16_224", "vit_small_patch16_224", 224, 0.73),
        ("resnet8", "resnet20", 32, 0.69),
    ],
)
def test_the_break_even_share(base, motivated, img_size, share):
    costs = CascadeCosts(forward_cost(base, img_size=img_size), forward_cost(motivated, img_size=img_size))
    assert costs.break_even == pytest.approx(share, abs=0.006)
    assert costs.of_share(costs.break_even) == pytest.approx(costs.motivated)
    assert costs.pays(share - 0.01)
    assert not costs.pays(share + 0.01)


def test_a_loss_counts_a_standard_error_more():
    """At point 6 the curve is 0.05 points below the motivated network: with an error of 0.06 that may be 0.11."""
    for error, point in [(0.04, 6), (0.06, 7)]:
        errors = np.full(11, error)
        errors[7:] = 0
        found = recommend(replace(RISING, standard_error=errors), AccuracyTarget(within=0.1), MACS, SECONDS)
        assert found.point == point
        # What would do without it is found only where it makes a difference.
        assert found.point_without_margin == (6 if point == 7 else None)


@pytest.mark.parametrize(
    ("target", "top1", "is_missed"),
    [
        (AccuracyTarget(within=0.1), 89.9, False),
        (AccuracyTarget(within=0.1), 89.8, True),
        (AccuracyTarget(within=None, percent=89), 89.0, False),
        (AccuracyTarget(within=None, percent=89), 88.9, True),
        (CostTarget(1.5), 10.0, False),
    ],
)
def test_whether_the_test_images_miss_the_target(target, top1, is_missed):
    assert target.is_missed(top1, 90.0) == is_missed


def test_a_base_that_costs_as_much_never_pays():
    assert CascadeCosts(3, 3).break_even == 0
    assert not CascadeCosts(4, 3).pays(0)
