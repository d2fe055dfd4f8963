"""The curve of a cascade against a brute-force evaluation of both networks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestnet.cascade.curve import trace_curve

IMAGES = st.lists(
    st.tuples(
        st.sampled_from([0.3, 0.5, 0.75, 0.9, 1.0]) | st.floats(0.125, 1, width=32), st.booleans(), st.booleans()
    ),
    min_size=1,
    max_size=60,
)
"""The base's confidence, and whether each network is right: with ties, and with neighbours in float32."""


@settings(deadline=None, max_examples=100)
@given(data=IMAGES)
def test_every_point_is_what_counting_says(data):
    confidences = np.array([each[0] for each in data], np.float32)
    base_correct = np.array([each[1] for each in data])
    motivated_correct = np.array([each[2] for each in data])
    curve = trace_curve(confidences, base_correct, motivated_correct)
    for threshold, passed_on, accuracy in zip(curve.thresholds, curve.passed_on, curve.accuracy, strict=True):
        number = 0
        correct = 0
        for value, base_is_correct, motivated_is_correct in zip(
            confidences, base_correct, motivated_correct, strict=True
        ):
            # A cascade compares a tensor in float32 with the threshold.
            is_passed_on = value < np.float32(threshold)
            number += is_passed_on
            correct += motivated_is_correct if is_passed_on else base_is_correct
        assert passed_on == number / len(data)
        assert accuracy == pytest.approx(100 * correct / len(data))
        differences = np.where(confidences < np.float32(threshold), 0.0, base_correct * 1.0 - motivated_correct)
        error = 100 * differences.std() / len(data) ** 0.5
        assert curve.standard_error[list(curve.thresholds).index(threshold)] == pytest.approx(error, abs=1e-9)
    assert len(curve) == len(set(confidences.tolist())) + 1, "a point for every set of images that can be passed on"
    assert (np.diff(curve.passed_on) > 0).all()
    assert (curve.passed_on[0], curve.passed_on[-1]) == (0, 1)
    assert curve.base_accuracy == pytest.approx(100 * base_correct.mean())
    assert curve.motivated_accuracy == pytest.approx(100 * motivated_correct.mean())


def test_neighbours_in_float32_have_a_threshold_between_them():
    low = np.float32(0.5)
    high = np.nextafter(low, np.float32(1))
    curve = trace_curve(np.array([low, high]), np.array([True, True]), np.array([True, True]))
    assert curve.passed_on.tolist() == [0, 0.5, 1]
    assert low < np.float32(curve.thresholds[1]) <= high


def test_no_images():
    with pytest.raises(ValueError, match="at least one image"):
        trace_curve(np.array([]), np.array([]), np.array([]))
