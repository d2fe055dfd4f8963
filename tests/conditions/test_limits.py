"""The limits on motivated batches against counts by hand, and against runs of batches."""

import itertools
import math
import random
import statistics
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestnet import Always, EMADecrease, LossDecrease, MotivationLimits, Never, Periodic, RandomLike
from nestnet.nn.mode import Mode, PerMode


def run(limits, condition, losses=None):
    """The modes of a run's batches, by default of losses that fall for ever."""
    losses = losses or (1 / step for step in itertools.count(1))
    modes, spent, step = [], 0, 0
    for _ in range(limits.epochs):
        condition.reset()
        for _ in range(limits.epoch_length):
            mode = condition.mode
            if mode is Mode.MOTIVATED and not limits.allow(step, spent=spent, counted=step):
                mode = Mode.BASE
            modes.append(mode)
            spent += limits.batch_costs.of(mode)
            step += 1
            condition.update(next(losses))
            if limits.budget is not None:
                assert spent <= Fraction(str(limits.budget)) * limits.batch_costs.base * step, "at every batch"
    return modes


parts = st.decimals(0, 1, places=2).map(float)


@given(
    st.integers(1, 12),
    st.integers(1, 5),
    st.tuples(parts, parts).filter(lambda pair: pair[0] < pair[1]),
    st.none() | st.decimals(1, 4, places=2).map(float),
    st.integers(1, 4),
    st.integers(101, 400),
)
def test_a_run_stays_within_its_limits_and_expects_what_happens(length, epochs, window, budget, period, motivated):
    limits = MotivationLimits(length, epochs, PerMode(100, motivated), *window, budget)
    modes = run(limits, Periodic(period))
    chosen = {number for number, mode in enumerate(modes) if mode is Mode.MOTIVATED}
    assert chosen <= set(limits.window)
    if budget is None:
        wanted = {number for number in limits.window if (number % length + 1) % period == 0}
        assert chosen == wanted
        assert limits.expected_fraction(Periodic(period)) == pytest.approx(len(wanted) / len(modes))
    else:
        # With a budget the forecast is an upper bound: a batch that the budget refuses is not made up for.
        assert len(chosen) <= limits.expected_fraction(Periodic(period)) * len(modes) + 1e-9
    if period == 1:
        assert len(chosen) == pytest.approx(limits.expected_fraction(Always()) * len(modes)), "exact for every batch"


def test_counts_by_hand():
    limits = MotivationLimits(10, 30, PerMode(100, 428), start=0.1, until=0.7, budget=1.64)
    assert limits.window == range(30, 210)
    assert limits.affordable() == math.floor(0.64 * 210 * 100 / 328) == 40
    assert limits.expected_fraction(LossDecrease(k=2)) == pytest.approx(18 * (7 / 6) / 300)
    assert limits.expected_fraction(Always()) == 40 / 300
    assert limits.expected_fraction(Never()) == 0
    assert limits.expected_fraction(EMADecrease(k=1)) is None
    # The window begins in the middle of an epoch, after the batches that a streak of 3 losses takes.
    assert MotivationLimits(12, 1, PerMode(1, 2), start=0.5).expected_fraction(LossDecrease(k=2)) == 6 / 6 / 12


@pytest.mark.parametrize(
    ("condition", "settings", "possible"),
    [
        (Always(), {}, True),
        (Never(), {"start": 0.999}, True),
        (Always(), {"start": 0.999}, False),
        (Always(), {"budget": 1.001}, False),
        (EMADecrease(k=2), {"budget": 1.001}, False),
        (EMADecrease(k=2), {"start": 0.5}, True),
        (Periodic(period=10), {"until": 0.4}, False),
        (Periodic(period=10), {"until": 0.5}, True),
        (LossDecrease(k=2), {"until": 0.15}, False),
        (LossDecrease(k=2), {"until": 0.2}, True),
    ],
)
def test_limits_that_leave_no_batch(condition, settings, possible):
    assert MotivationLimits(10, 2, PerMode(100, 300), **settings).can_motivate(condition) == possible


@given(st.lists(st.integers(0, 10), min_size=2, max_size=5), st.data())
def test_epochs_with_other_numbers_count_where_the_window_lies(counts, data):
    epochs = len(counts)
    first = data.draw(st.integers(0, epochs - 1))
    end = data.draw(st.integers(first + 1, epochs))
    # Decimal fractions that are just below the whole epochs, so that the window begins and ends with them.
    window = [math.floor(1e6 * epoch / epochs) / 1e6 for epoch in (first, end)]
    limits = MotivationLimits(10, epochs, PerMode(100, 300), *window)
    assert limits.window == range(10 * first, 10 * end)
    condition = RandomLike(counts, 10)
    assert limits.expected_fraction(condition) * limits.steps == pytest.approx(sum(counts[first:end]))
    assert run(limits, condition).count(Mode.MOTIVATED) == sum(counts[first:end])
    assert limits.can_motivate(condition) == (sum(counts[first:end]) > 0 or sum(counts) == 0)


def test_part_of_an_epoch_has_its_part_of_the_numbers():
    limits = MotivationLimits(10, 2, PerMode(100, 300), start=0.25, until=0.6)
    assert limits.expected_fraction(RandomLike([8, 5], 10)) == pytest.approx((4 + 1) / 20)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": 0.8, "until": 0.2}, "start = 0.8: it must be a number from 0 to below until = 0.2"),
        ({"start": -1}, "start = -1: it must be a number from 0"),
        ({"start": None}, "start = None: it must be a number"),
        ({"until": 2.0}, "until = 2.0: it must be a number above 0 and at most 1"),
        ({"budget": 0.5}, "budget = 0.5: it must be a finite number of at least 1, or None"),
        ({"budget": math.nan}, "budget = nan: it must be a finite number"),
        ({"epochs": 1.5}, "epochs = 1.5: it must be a whole number"),
        ({"batch_costs": PerMode(0, 3)}, "batch_costs.base = 0: it must be a finite number above 0"),
    ],
)
def test_limits_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        MotivationLimits(**{"epoch_length": 10, "epochs": 2, "batch_costs": PerMode(100, 300), **settings})


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize(
    "settings",
    [{}, {"start": 0.3}, {"start": 0.2, "until": 0.75}, {"start": 0.1, "budget": 1.15}],
    ids=["the whole run", "from within an epoch", "to within an epoch", "budget"],
)
def test_the_forecast_holds_for_independent_losses(k, settings):
    """One batch in (k+1)!, but for the first k + 1 of each epoch, and for what the limits leave out."""
    limits = MotivationLimits(9, 3, PerMode(100, 250), **settings)
    draw = random.Random(f"{k} {settings}")
    losses = iter(draw.random, None)
    counts = []
    for _ in range(1500):
        counts.append(run(limits, LossDecrease(k), losses).count(Mode.MOTIVATED))
    expected = limits.expected_fraction(LossDecrease(k)) * limits.steps
    error = statistics.stdev(counts) / len(counts) ** 0.5
    difference = statistics.mean(counts) - expected
    # With a budget the forecast is an upper bound: a batch that it refuses is not made up for.
    assert difference <= 4 * error
    assert difference >= -4 * error or "budget" in settings
    if not settings:
        assert expected == pytest.approx(3 * (9 - k - 1) / math.factorial(k + 1))
