"""Temperatures against a search by hand, and calibration errors against counting."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from nestnet.training.calibration import calibration_error, confidence, fit_temperature


def draw(count, temperature, seed=0):
    """Logits of a classifier that is too sure of itself by a factor, and labels as its true probabilities say."""
    generator = torch.Generator().manual_seed(seed)
    true_logits = 2 * torch.randn(count, 4, generator=generator)
    labels = torch.multinomial(true_logits.softmax(1), 1, generator=generator).squeeze(1)
    return true_logits * temperature, labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_is_found(temperature):
    logits, labels = draw(5_000, temperature)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(temperature, rel=0.08)
    grid = np.geomspace(temperature / 2, temperature * 2, 140)
    losses = [F.cross_entropy(logits.double() / value, labels).item() for value in grid]
    assert found == pytest.approx(grid[int(np.argmin(losses))], rel=0.01)
    # Calibrated probabilities are true: their error is that of the sample.
    correct = logits.argmax(1) == labels
    assert calibration_error(confidence(logits / found), correct) < 2.5
    if temperature != 1:
        assert calibration_error(confidence(logits), correct) > 5


def test_a_network_without_errors_gets_the_lowest_temperature():
    logits, _ = draw(100, 1.0)
    assert fit_temperature(logits, logits.argmax(1)) == pytest.approx(0.05, rel=0.01)


@settings(deadline=None, max_examples=50)
@given(
    data=st.lists(st.tuples(st.floats(0.01, 1), st.booleans()), min_size=1, max_size=40),
    bins=st.integers(1, 20),
)
def test_the_calibration_error_by_counting(data, bins):
    total = 0.0
    for number in range(bins):
        inside = []
        for value, is_correct in data:
            if number < value * bins <= number + 1:
                inside.append((value, is_correct))
        if inside:
            mean = sum(value for value, _ in inside) / len(inside)
            accuracy = sum(is_correct for _, is_correct in inside) / len(inside)
            total += len(inside) / len(data) * abs(mean - accuracy)
    confidences = torch.tensor([value for value, _ in data], dtype=torch.double)
    correct = torch.tensor([is_correct for _, is_correct in data])
    assert calibration_error(confidences, correct, bins) == pytest.approx(100 * total, abs=1e-6)


def test_the_confidence_is_the_largest_probability():
    assert confidence(torch.tensor([[0.0, math.log(3.0)]])).item() == pytest.approx(0.75)
