"""Each condition against its definition, written out by brute force over the whole sequence."""

import math
import random
import re
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestnet import (
    Always,
    Bandit,
    Condition,
    EMADecrease,
    GradientAgreement,
    GradientNormIncrease,
    HeldOutLossDecrease,
    LossDecrease,
    Mode,
    Never,
    Periodic,
    RandomBatches,
    RandomLike,
    register_condition,
)
from nestnet.conditions.base import can_motivate, chosen_mode, expected_fraction, watched_quantity
from nestnet.conditions.registry import CONDITIONS, create_condition
from nestnet.runs.history import Steps, motivated_counts

values = st.lists(
    st.one_of(st.sampled_from([0.0, 1.0, 1.5, math.nan, math.inf, -math.inf]), st.floats(0, 3)), max_size=40
)
"""Random ones, ties, and such as are not finite."""


def streak(sequence: list[float], k: int, counts) -> Mode:
    """Motivated exactly when there are k last differences, all between finite values and all of the wanted kind."""
    window = sequence[-k - 1 :]
    wanted = [counts(a, b) for a, b in pairwise(window)]
    return Mode.MOTIVATED if len(wanted) == k and all(map(math.isfinite, window)) and all(wanted) else Mode.BASE


def averages(sequence: list[float], decay: float) -> list[float]:
    """Each moving average, by its sum over all values since the last one that was not finite."""
    result, since = [], []
    for value in sequence:
        if not math.isfinite(value):
            result, since = [*result, value], []
            continue
        since.append(value)
        weights = [decay ** (len(since) - 1) if i == 0 else (1 - decay) * decay ** (len(since) - 1 - i)
                   for i in range(len(since))]  # fmt: skip
        result.append(sum(w * v for w, v in zip(weights, since, strict=True)))
    return result


@given(values, st.integers(1, 5))
def test_loss_decrease(sequence, k):
    for condition in (LossDecrease(k), HeldOutLossDecrease(k)):
        assert condition.mode is Mode.BASE
        for count, loss in enumerate(sequence, start=1):
            condition.update(loss)
            assert condition.mode is streak(sequence[:count], k, lambda a, b: b - a < 0)


@given(values, st.integers(1, 5))
def test_gradient_norm_increase(sequence, k):
    condition = GradientNormIncrease(k)
    for count, norm in enumerate(sequence, start=1):
        condition.update(norm)
        assert condition.mode is streak(sequence[:count], k, lambda a, b: b - a > 0)


@given(
    st.lists(st.one_of(st.sampled_from([1.0, math.nan, math.inf, -math.inf]), st.floats(-3, 3)), max_size=40),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.5, 0.9]),
    st.sampled_from([0.0, 0.002, 0.1]),
)
def test_ema_decrease(sequence, k, decay, min_drop):
    def falls(a: float, b: float) -> bool:
        return b < a and a - b >= min_drop * abs(a)

    expected, condition = averages(sequence, decay), EMADecrease(k, decay=decay, min_drop=min_drop)
    seen = []
    for average, loss in zip(expected, sequence, strict=True):
        condition.update(loss)
        assert condition.last == pytest.approx(average, nan_ok=True, abs=1e-12)
        seen.append(condition.last)  # the sum above is rounded in another order: a tie may fall to either side
        assert condition.mode is streak(seen, k, falls)


def test_ema_counts_falls_of_a_fifth_of_a_percent():
    condition = EMADecrease(1, decay=0.0)
    for loss, mode in ((1.0, "base"), (0.9981, "base"), (0.9961, "motivated"), (0.9961, "base"), (0.5, "motivated")):
        condition.update(loss)
        assert condition.mode == mode


@given(st.integers(1, 40), st.integers(0, 5), st.integers(0, 1000))
def test_random_batches_are_as_many_as_drawn_and_anywhere(batches, epochs, seed):
    condition, again = RandomBatches(batches, seed=seed), RandomBatches(batches, seed=seed)
    chosen = []
    for _ in range(epochs):
        condition.reset()
        chosen.append(run(condition, batches))
        again.reset()
        assert run(again, batches) == chosen[-1], "a seed gives the same draw"
        assert condition.mode is Mode.BASE, "past the epoch's end nothing is drawn"
    if epochs == 5 and batches == 40:
        assert len({tuple(modes) for modes in chosen}) > 1


def test_random_counts_cover_everything():
    condition, counts, places = RandomBatches(4), set(), [0] * 4
    for _ in range(400):
        modes = run(condition, 4)
        counts.add(modes.count(Mode.MOTIVATED))
        places = [place + (mode is Mode.MOTIVATED) for place, mode in zip(places, modes, strict=True)]
        condition.reset()
    assert counts == {0, 1, 2, 3, 4}
    assert min(places) > 150, "half of the batches each, at every place alike"
    assert max(places) < 250


@given(st.lists(st.integers(0, 20), min_size=1, max_size=6), st.integers(0, 100))
def test_random_like_has_the_given_counts(counts, seed):
    condition = RandomLike(counts, 20, seed=seed)
    for count in counts:
        condition.reset()
        assert run(condition, 20).count(Mode.MOTIVATED) == count
    condition.reset()
    with pytest.raises(ValueError, match=f"counts: there is none for epoch {len(counts) + 1}, only {len(counts)}"):
        _ = condition.mode


@given(st.integers(1, 12), st.integers(1, 40))
def test_periodic(period, batches):
    condition = Periodic(period)
    for _ in range(2):
        condition.reset()
        modes = run(condition, batches)
        assert [i for i, mode in enumerate(modes, 1) if mode is Mode.MOTIVATED] == list(
            range(period, batches + 1, period)
        )


@given(values)
def test_always_and_never(sequence):
    for condition, mode in ((Always(), Mode.MOTIVATED), (Never(), Mode.BASE)):
        assert all(mode is found for found in run(condition, len(sequence), sequence))


def run(condition, batches: int, losses: list[float] | None = None) -> list[Mode]:
    modes = []
    for index in range(batches):
        modes.append(condition.mode)
        condition.update(losses[index] if losses else math.nan)
    return modes


MAKERS = {
    "loss_decrease": lambda: LossDecrease(2),
    "ema_decrease": lambda: EMADecrease(2, decay=0.5),
    "held_out_loss_decrease": lambda: HeldOutLossDecrease(1),
    "gradient_norm_increase": lambda: GradientNormIncrease(3),
    "random": lambda: RandomBatches(30, seed=3),
    "random_like": lambda: RandomLike([9, 3, 20, 7], 30),
    "periodic": lambda: Periodic(3),
    "bandit": lambda: Bandit(seed=3, max_rate=0.9),
    "gradient_agreement": lambda: GradientAgreement(seed=3, max_rate=0.9),
    "always": Always,
    "never": Never,
}


def test_every_condition_is_tested():
    assert set(MAKERS) == set(CONDITIONS)


LEARNS_OR_DRAWS = {"random", "random_like", "bandit", "gradient_agreement"}


@pytest.mark.parametrize("name", [name for name in MAKERS if name not in LEARNS_OR_DRAWS])
@given(before=values, after=values)
def test_reset_forgets_everything(name, before, after):
    used, new = MAKERS[name](), MAKERS[name]()
    run(used, len(before), before)
    used.reset()
    assert run(used, len(after), after) == run(new, len(after), after)


@pytest.mark.parametrize("name", MAKERS)
@given(before=values, after=values)
def test_a_saved_state_goes_on_exactly(name, before, after):
    first, second = MAKERS[name](), MAKERS[name]()
    first.reset()
    run(first, len(before), before)
    second.load_state_dict(first.state_dict())
    assert run(first, len(after), after) == run(second, len(after), after)
    first.reset()
    second.reset()
    assert run(first, 30) == run(second, 30)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_independent_losses_motivate_one_batch_in_k_plus_one_factorial(k):
    """The standard deviation of the fraction is below sqrt(3 p / n): neighbours overlap, so more than a coin's."""
    draw, n, p = random.Random(k), 200_000, 1 / math.factorial(k + 1)
    condition, motivated = LossDecrease(k), 0
    for _ in range(n):
        condition.update(draw.random())
        motivated += condition.mode is Mode.MOTIVATED
    assert condition.expected_fraction() == p
    assert abs(motivated / n - p) < 4 * math.sqrt(3 * p / n)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [(RandomBatches(10), 0.5), (RandomLike([1, 3], 10), 0.2), (Periodic(4), 0.25), (Always(), 1.0), (Never(), 0.0),
     (EMADecrease(2), None), (GradientNormIncrease(2), 1 / 6)],
)  # fmt: skip
def test_expected_fractions(condition, expected):
    assert condition.expected_fraction() == expected


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("batches", range(1, 8))
@pytest.mark.parametrize("kind", [LossDecrease, GradientNormIncrease])
def test_the_forecast_of_an_epoch_is_the_mean_over_all_orders_of_its_losses(kind, k, batches):
    condition, motivated, orders = kind(k), 0, 0
    for losses in permutations(range(batches)):
        condition.reset()
        motivated += run(condition, batches, losses).count(Mode.MOTIVATED)
        orders += 1
    assert expected_fraction(condition, batches) == pytest.approx(motivated / orders / batches, abs=1e-12)


@pytest.mark.parametrize(
    "make",
    [lambda batches: Periodic(3), lambda batches: RandomBatches(batches), lambda batches: RandomLike([1, 0] * 1000, batches),
     lambda batches: Always(), lambda batches: Never()],
    ids=["periodic", "random", "random_like", "always", "never"],
)  # fmt: skip
@pytest.mark.parametrize("batches", [1, 2, 5, 6])
def test_the_forecast_of_conditions_that_losses_do_not_matter_to(make, batches):
    condition, motivated, epochs = make(batches), 0, 2000
    for _ in range(epochs):
        condition.reset()
        motivated += run(condition, batches).count(Mode.MOTIVATED)
    # of random counts alone it is not exact: the standard deviation of an epoch's share is at most a half
    tolerance = 4 * 0.5 / math.sqrt(epochs) if isinstance(condition, RandomBatches) else 1e-12
    assert expected_fraction(condition, batches) == pytest.approx(motivated / epochs / batches, abs=tolerance)


def test_an_average_has_a_forecast_where_none_can_be_motivated():
    assert [expected_fraction(EMADecrease(2), batches) for batches in (1, 3, 4)] == [0.0, 0.0, None]


class Own(Condition):
    """A condition of a user's own, with some attributes of its own."""

    mode = Mode.BASE

    def __init__(self, **attributes):
        vars(self).update(attributes)

    def update(self, loss):
        pass


def test_what_a_condition_need_not_define():
    own = Own()
    own.reset()
    own.load_state_dict(own.state_dict())
    assert (own.state_dict(), own.expected_fraction(), own.expected_fraction(5), own.watches) == (
        {},
        None,
        None,
        "loss",
    )


@pytest.mark.parametrize(
    ("answer", "forecast", "possible"),
    [
        (lambda batches=None: None, None, True),
        (lambda batches=None: 0.25, 0.25, True),
        (lambda batches=None: 0, 0.0, True),
        (lambda batches=None: 0.25 if batches is None else 1 / batches, 0.2, True),
        (lambda batches=None: 0.25 if batches is None else 0, 0.0, False),
    ],
)
def test_forecasts_of_a_condition_of_ones_own(answer, forecast, possible):
    assert expected_fraction(Own(expected_fraction=answer), 5) == forecast
    assert can_motivate(Own(expected_fraction=answer), 5) is possible


@pytest.mark.parametrize(
    ("ask", "attributes", "message"),
    [
        (watched_quantity, {"watches": "held_out_los"}, "watches = 'held_out_los': it must be one of loss, held_out_loss, "
         "held_out_base_loss, gradient_norm, gradient_agreement; did you mean held_out_loss?"),
        (watched_quantity, {"watches": None}, "watches = None: it must be one of loss, held_out_loss, "
         "held_out_base_loss, gradient_norm"),
        (expected_fraction, {"expected_fraction": lambda batches: 25}, "expected_fraction() = 25: it must be from 0 to 1"),
        (lambda own: expected_fraction(own, 5), {"expected_fraction": lambda batches: math.nan},
         "expected_fraction(5) = nan: it must be from 0 to 1"),
        (lambda own: can_motivate(own, 5), {"expected_fraction": lambda batches: "few"}, "expected_fraction() = 'few'"),
        (expected_fraction, {"expected_fraction": 0.5}, "expected_fraction = 0.5: it must be a method"),
    ],
)  # fmt: skip
def test_what_a_condition_says_of_itself_is_checked(ask, attributes, message):
    with pytest.raises(ValueError, match=re.escape(f"condition Own: {message}")):
        ask(Own(**attributes))
    assert watched_quantity(Own()) == "loss"


@pytest.mark.parametrize("mode", ["base", "motivated"])
def test_a_mode_may_be_a_word(mode):
    assert chosen_mode(Own(mode=mode)) is Mode(mode)


@pytest.mark.parametrize("mode", ["motivate", None, True])
def test_a_mode_that_is_none_is_refused(mode):
    with pytest.raises(ValueError, match=f"condition Own: mode = {mode!r}: it must be 'base' or 'motivated'"):
        chosen_mode(Own(mode=mode))


class Duck:
    """It has what a condition must have, and is none."""

    mode = Mode.BASE

    def update(self, loss):
        pass


class Unfinished(Condition):
    """It does not say what it decides."""

    def update(self, loss):
        pass


@pytest.mark.parametrize("ask", [watched_quantity, expected_fraction, lambda duck: can_motivate(duck, 5)])
def test_what_is_no_condition_is_refused(ask):
    with pytest.raises(
        ValueError, match=r"^condition = .*: it must be a nestnet\.Condition; derive Duck from that class$"
    ):
        ask(Duck())


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        (Duck, "<class '.*Duck'> must be a subclass of nestnet.Condition"),
        (lambda: Never(), "<function .*> must be a subclass of nestnet.Condition"),
        (Never(), "Never\\(\\) must be a subclass of nestnet.Condition"),
        (Unfinished, "Unfinished must define mode"),
    ],
)
def test_what_is_no_condition_is_not_registered(candidate, message):
    with pytest.raises(ValueError, match=f"^condition 'mine': {message}$"):
        register_condition("mine")(candidate)
    assert "mine" not in CONDITIONS


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "2", None])
@pytest.mark.parametrize("kind", [LossDecrease, EMADecrease, GradientNormIncrease])
def test_k_is_a_whole_number_of_at_least_one(kind, k):
    with pytest.raises(ValueError, match=r"k = .*: it must be a whole number of at least 1"):
        kind(k)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EMADecrease(1, decay=1.0), "decay = 1.0: it must be a number from 0 to below 1"),
        (lambda: EMADecrease(1, min_drop="2"), "min_drop = '2': it must be a number from 0 to below 1"),
        (lambda: Periodic(0), "period = 0: it must be a whole number of at least 1"),
        (lambda: RandomBatches(0), "batches = 0: it must be a whole number of at least 1"),
        (lambda: RandomLike([2, 11], 10), "counts: 11 of 10 batches in epoch 2"),
        (lambda: create_condition("luck"), "motivation.name = 'luck': no such condition; known are loss_decrease"),
        (lambda: create_condition("alway"), "motivation.name = 'alway': no such condition; did you mean always?"),
        (lambda: create_condition("never", {"period": 3}), "motivation.period = 3: never has no such setting; leave it out"),
        (lambda: create_condition("periodic", {"decay": 3}), "motivation.decay = 3: periodic has no such setting; it has per"),
        (lambda: create_condition("random_like", batches=3), "motivation.counts: random_like needs it"),
        (lambda: register_condition("always"), "condition 'always': there is one of this name already"),
    ],
)  # fmt: skip
def test_wrong_settings(make, message):
    with pytest.raises(ValueError, match="^" + message.replace("?", r"\?")):
        make()


def test_infinite_losses_never_motivate():
    condition = LossDecrease(1)
    for loss in (math.inf, 1.0, -math.inf, math.nan, 0.5):
        condition.update(loss)
        assert condition.mode is Mode.BASE
    condition.update(0.4)
    assert condition.mode is Mode.MOTIVATED


@given(st.lists(st.lists(st.sampled_from(list(Mode)), min_size=1, max_size=9), max_size=5))
def test_motivated_counts(epochs):
    rows = [(number, str(mode)) for number, modes in enumerate(epochs, 1) for mode in modes]
    epoch = np.array([number for number, _ in rows], dtype=int)
    unused = np.zeros(len(rows))
    steps = Steps(unused, epoch, np.array([mode for _, mode in rows], dtype=str), unused, unused)
    assert motivated_counts(steps) == [modes.count(Mode.MOTIVATED) for modes in epochs]
