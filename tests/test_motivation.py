import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestnet import LossDecrease, Mode

losses = st.lists(
    st.one_of(st.sampled_from([0.0, 1.0, 1.5, math.nan, math.inf, -math.inf]), st.floats(0, 3)), max_size=40
)


def by_definition(sequence: list[float], k: int) -> Mode:
    """Motivated exactly when there are k last differences, all of finite losses and all negative."""
    window = sequence[-k - 1 :]
    falls = [b - a < 0 for a, b in pairwise(window)]
    return Mode.MOTIVATED if len(falls) == k and all(map(math.isfinite, window)) and all(falls) else Mode.BASE


@given(losses, st.integers(1, 5))
def test_it_is_its_definition(sequence, k):
    condition = LossDecrease(k)
    assert condition.mode is Mode.BASE
    for count, loss in enumerate(sequence, start=1):
        condition.update(loss)
        assert condition.mode is by_definition(sequence[:count], k)


@given(losses, losses, st.integers(1, 4))
def test_reset_forgets_everything(before, after, k):
    used, new = LossDecrease(k), LossDecrease(k)
    for loss in before:
        used.update(loss)
    used.reset()
    assert used.mode is Mode.BASE
    for loss in after:
        used.update(loss)
        new.update(loss)
        assert used.mode is new.mode


@given(losses, losses, st.integers(1, 4))
def test_a_saved_state_goes_on_exactly(before, after, k):
    first, second = LossDecrease(k), LossDecrease(k)
    for loss in before:
        first.update(loss)
    second.load_state_dict(first.state_dict())
    for loss in after:
        assert first.mode is second.mode
        first.update(loss)
        second.update(loss)
    assert first.mode is second.mode


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "2", None])
def test_k_is_a_whole_number_of_at_least_one(k):
    with pytest.raises(ValueError, match=r"k = .*: it must be a whole number of at least 1"):
        LossDecrease(k)


def test_infinite_losses_never_motivate():
    condition = LossDecrease(1)
    for loss in (math.inf, 1.0, -math.inf, math.nan, 0.5):
        condition.update(loss)
        assert condition.mode is Mode.BASE
    condition.update(0.4)
    assert condition.mode is Mode.MOTIVATED
