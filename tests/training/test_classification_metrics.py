"""Metrics of classes against scikit-learn's own averages, and by hand."""

import warnings

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, precision_score

from nestnet.training.classification_metrics import compute_metrics


def test_by_hand():
    """Four cats, of which one is taken for a dog; two dogs, of which one is taken for a cat; no fox."""
    metrics = compute_metrics([0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 0], ["cat", "dog", "fox"])
    assert metrics.confusion.tolist() == [[3, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert metrics.images_per_class.tolist() == [4, 2, 0]
    np.testing.assert_allclose(metrics.precision, [75, 50, np.nan])
    np.testing.assert_allclose(metrics.recall, [75, 50, np.nan])
    np.testing.assert_allclose(metrics.f1, [75, 50, np.nan])
    assert metrics.images == 6
    assert (metrics.top1, metrics.balanced_accuracy) == (400 / 6, 62.5)


@settings(max_examples=30)
@given(st.integers(2, 30), st.data())
def test_means_are_scikit_learn_s_over_the_classes_that_have_images(num_classes, data):
    classes = st.integers(0, num_classes - 1)
    pairs = data.draw(st.lists(st.tuples(classes, classes), min_size=1, max_size=60))
    labels, predictions = zip(*pairs, strict=True)
    metrics = compute_metrics(labels, predictions, [f"class {number}" for number in range(num_classes)])
    present = sorted(set(labels))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about classes that are predicted, but have no images
        expected = (
            accuracy_score(labels, predictions),
            balanced_accuracy_score(labels, predictions),
            precision_score(labels, predictions, labels=present, average="macro", zero_division=0),
            f1_score(labels, predictions, labels=present, average="macro", zero_division=0),
        )
    found = (metrics.top1, metrics.balanced_accuracy, metrics.macro_precision, metrics.macro_f1)
    np.testing.assert_allclose(found, 100 * np.array(expected))
