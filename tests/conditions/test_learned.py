"""Conditions that learn their rate, in simulated runs whose better choice is known."""

import copy
import math
import random
import re
import statistics
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestnet import Bandit, GradientAgreement, Mode, MotivationLimits
from nestnet.conditions.base import can_motivate
from nestnet.conditions.discounted_mean import DiscountedMean
from nestnet.conditions.registry import create_condition
from nestnet.nn.mode import PerMode

BOUNDS = {"min_rate": 0.05, "max_rate": 0.6}


def simulate(condition, falls, batches, *, noise=0.01, seed=0):
    """The rates of a run, and its modes: a batch lowers the base's loss by what its mode does then, with noise."""
    generator = random.Random(f"noise {seed}")
    loss, rates, modes = 100.0, [], []
    for number in range(batches):
        if number % 100 == 0:
            condition.reset()
        modes.append(condition.mode)
        loss -= generator.gauss(falls(number).of(condition.mode), noise)
        condition.update(loss)
        rates.append(condition.rate)
    return rates, modes


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bounds", [BOUNDS, {"min_rate": 0.01, "max_rate": 1.0}])
@pytest.mark.parametrize(("motivated", "bound"), [(0.03, "max_rate"), (-0.01, "min_rate")], ids=["helps", "hurts"])
def test_the_rate_goes_to_the_bound_that_is_better(motivated, bound, bounds, seed):
    condition = Bandit(seed=seed, **bounds)
    rates, modes = simulate(condition, lambda _: PerMode(0.01, motivated), 1500, seed=seed)
    low, high = bounds.values()
    assert rates[0] == pytest.approx((low + high) / 2)
    assert all(low <= rate <= high for rate in rates)
    # With bounds near 0 and 1 the other arm is forgotten now and then, and tried again.
    assert statistics.median(rates[500:]) == pytest.approx(bounds[bound], abs=0.02)
    assert statistics.mean(rates[500:]) == pytest.approx(bounds[bound], abs=0.15)
    share = sum(mode is Mode.MOTIVATED for mode in modes[500:]) / 1000
    assert share == pytest.approx(statistics.mean(rates[500:]), abs=0.05), "four standard deviations at most"


def test_the_rate_follows_a_change():
    """Motivated batches help, then hurt, then help again."""

    def falls(number):
        return PerMode(0.01, -0.01 if 1000 <= number < 2000 else 0.03)

    rates, _ = simulate(Bandit(**BOUNDS), falls, 3000)
    means = [statistics.mean(rates[start + 500 : start + 1000]) for start in (0, 1000, 2000)]
    assert means == pytest.approx([0.6, 0.05, 0.6], abs=0.05)


def test_falls_that_become_smaller_favour_neither_mode():
    """The falls of a run become smaller. That must not speak against the mode that was tried last."""
    means = []
    for seed in range(20):
        rates, _ = simulate(
            Bandit(seed=seed, **BOUNDS), lambda number: PerMode(0.1 / (1 + number), 0.1 / (1 + number)), 600
        )
        means.append(statistics.mean(rates[100:]))
    assert statistics.mean(means) == pytest.approx(0.325, abs=0.08)


def test_without_noise_one_more_bit_of_a_fall_decides():
    condition = Bandit(**BOUNDS)
    simulate(condition, lambda _: PerMode(0.25, 0.5), 50, noise=0)
    assert condition.rate == 0.6
    equal = Bandit(**BOUNDS)
    simulate(equal, lambda _: PerMode(0.25, 0.25), 50, noise=0)
    assert equal.rate == pytest.approx(0.325)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=20), st.sampled_from([0.5, 0.9, 0.99]))
def test_a_discounted_mean_is_the_weighted_one(numbers, decay):
    found = DiscountedMean()
    assert found.variance() == math.inf
    for number in numbers:
        found.discount(decay)
        found.add(number)
    weights = [decay**age for age in reversed(range(len(numbers)))]
    total = sum(weights)
    mean = sum(weight * number for weight, number in zip(weights, numbers, strict=True)) / total
    squares = sum(weight * (number - mean) ** 2 for weight, number in zip(weights, numbers, strict=True))
    assert found.weight == pytest.approx(total)
    assert found.mean == pytest.approx(mean, abs=1e-9)
    assert found.squares == pytest.approx(squares, abs=1e-9)
    if len(numbers) > 1:
        assert found.variance() == pytest.approx(squares / (total - 1) / total, abs=1e-9)


def test_rewards_by_hand():
    """Which falls count, and for which mode: not those across an epoch's start, nor from or to a loss that is not finite."""
    condition = Bandit(decay=0.9)
    condition.mode = Mode.MOTIVATED
    condition.update(5.0)  # the first of an epoch
    condition.mode = Mode.MOTIVATED
    condition.update(4.0)
    condition.mode = Mode.MOTIVATED
    condition.overrule()
    condition.update(3.5)
    for value in (math.nan, 2.0, math.inf, math.inf, 2.0):
        condition.update(value)
    condition.reset()
    condition.mode = Mode.BASE
    condition.update(1.0)
    condition.mode = Mode.BASE
    condition.update(1.25)
    base, motivated = condition.falls.base, condition.falls.motivated
    assert motivated.mean == 1
    assert motivated.weight == pytest.approx(0.9**8)
    assert base.mean == pytest.approx((0.5 * 0.9**7 - 0.25) / (0.9**7 + 1))


def test_a_loss_that_is_never_finite_leaves_the_rate_in_the_middle():
    condition = Bandit(**BOUNDS)
    for _ in range(100):
        condition.update(math.nan)
    assert condition.rate == pytest.approx(0.325)


@given(st.lists(st.none() | st.floats(-1, 1), min_size=1, max_size=30), st.sampled_from([0.0, 0.5, 0.9]))
def test_the_rate_rises_with_the_average_agreement(agreements, decay):
    condition, average = GradientAgreement(decay=decay, **BOUNDS), None
    for agreement in agreements:
        condition.update(math.nan if agreement is None else agreement)
        if agreement is not None:
            average = agreement if average is None else decay * average + (1 - decay) * agreement
        expected = 0.325 if average is None else 0.05 + 0.55 * max(average, 0)
        assert condition.rate == pytest.approx(expected)
        condition.reset()


@pytest.mark.parametrize(("agreement", "rate"), [(0.9, 0.545), (-0.5, 0.05), (1.0000001, 0.6), (0.0, 0.05)])
def test_batches_are_motivated_at_the_rate_of_the_agreement(agreement, rate):
    """Only motivated batches measure it, and the smallest rate keeps them coming."""
    condition, motivated = GradientAgreement(**BOUNDS), 0
    for number in range(2000):
        is_motivated = condition.mode is Mode.MOTIVATED
        motivated += is_motivated and number >= 1000
        condition.update(agreement if is_motivated else math.nan)
    assert condition.rate == pytest.approx(rate)
    assert motivated / 1000 == pytest.approx(rate, abs=4 * math.sqrt(rate / 1000))


MAKERS = {
    "bandit": lambda seed: Bandit(seed=seed, **BOUNDS),
    "gradient_agreement": lambda seed: GradientAgreement(seed=seed, **BOUNDS),
}
values = st.lists(st.sampled_from([math.nan, math.inf, 0.5]) | st.floats(-1, 3), max_size=40)


def run(condition, sequence):
    """The modes and rates of a run whose every eleventh batch begins an epoch, and whose every fifth is overruled."""
    found = []
    for number, value in enumerate(sequence):
        if number % 11 == 0:
            condition.reset()
        if number % 5 == 0 and condition.mode is Mode.MOTIVATED:
            condition.overrule()
        found.append((condition.mode, condition.rate))
        condition.update(value)
    return found


@pytest.mark.parametrize("name", MAKERS)
@given(before=values, after=values, seed=st.integers(0, 9))
def test_a_saved_state_continues_exactly_and_processes_decide_alike(name, before, after, seed):
    ours, theirs, resumed = (MAKERS[name](seed) for _ in range(3))
    assert run(ours, before) == run(theirs, before)
    resumed.load_state_dict(copy.deepcopy(ours.state_dict()))
    assert run(ours, after) == run(theirs, after) == run(resumed, after)
    assert repr(resumed.state_dict()) == repr(ours.state_dict())


def test_a_state_is_a_copy():
    condition = Bandit()
    run(condition, [3.0, 2.0, 1.0])
    state = condition.state_dict()
    before = copy.deepcopy(state)
    run(condition, [3.0, 2.0, 1.0])
    assert state == before


@pytest.mark.parametrize("name", MAKERS)
def test_another_seed_chooses_other_batches(name):
    modes = {tuple(mode for mode, _ in run(MAKERS[name](seed), [1.0] * 60)) for seed in range(5)}
    assert len(modes) == 5


@pytest.mark.parametrize("name", MAKERS)
@given(
    budget=st.decimals(1, 2, places=2).map(float),
    cost=st.integers(101, 500),
    start=st.sampled_from([0.0, 0.3]),
    seed=st.integers(0, 99),
)
def test_the_budget_holds_at_every_batch(name, budget, cost, start, seed):
    limits = MotivationLimits(20, 10, PerMode(100, cost), start=start, budget=budget)
    condition, noise, spent, step = MAKERS[name](seed), random.Random(seed), 0, 0
    for _ in range(limits.epochs):
        condition.reset()
        for _ in range(limits.epoch_length):
            mode = condition.mode
            if mode is Mode.MOTIVATED and not limits.allow(step, spent=spent, counted=step):
                condition.overrule()
                mode = Mode.BASE
            assert condition.mode is mode, "so that the reward belongs to the mode that was trained"
            spent += limits.batch_costs.of(mode)
            step += 1
            assert spent <= Fraction(str(budget)) * 100 * step
            condition.update(noise.random())


@pytest.mark.parametrize("name", MAKERS)
def test_their_share_is_not_known_in_advance(name):
    condition = create_condition(name, {"min_rate": 0.1}, k=2, batches=5, seed=3, period=6)
    assert condition.seed == 3
    assert (condition.expected_fraction(), condition.expected_fraction(5)) == (None, None)
    assert can_motivate(condition, 1)
    assert condition.mode is Mode.BASE


def test_they_say_how_they_are_set():
    assert repr(Bandit(seed=3)) == "Bandit(decay=0.99, min_rate=0.05, max_rate=0.5, seed=3)"
    assert repr(GradientAgreement()) == "GradientAgreement(decay=0.9, min_rate=0.05, max_rate=0.5, seed=0)"


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (
            Bandit,
            {"min_rate": 0},
            "min_rate = 0: it must be a number above 0 and below max_rate = 0.5; lower it, or raise max_rate",
        ),
        (
            Bandit,
            {"min_rate": 0.5},
            "min_rate = 0.5: it must be a number above 0 and below max_rate = 0.5; lower it, or raise max_rate",
        ),
        (
            Bandit,
            {"max_rate": 0.05},
            "min_rate = 0.05: it must be a number above 0 and below max_rate = 0.05; lower it, or raise max_rate",
        ),
        (Bandit, {"max_rate": 1.1}, "max_rate = 1.1: it must be a number above 0 and at most 1"),
        (Bandit, {"max_rate": math.nan}, "max_rate = nan: it must be a number above 0 and at most 1"),
        (GradientAgreement, {"max_rate": "1"}, "max_rate = '1': it must be a number above 0 and at most 1"),
        (Bandit, {"decay": 0.5}, "decay = 0.5: it must be at least 0.9 for a bandit, so that 10 batches or more count"),
        (Bandit, {"decay": 1.0}, "decay = 1.0: it must be a number from 0 to below 1"),
        (GradientAgreement, {"decay": -0.1}, "decay = -0.1: it must be a number from 0 to below 1"),
    ],
)
def test_settings_out_of_range(kind, settings, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        kind(**settings)
