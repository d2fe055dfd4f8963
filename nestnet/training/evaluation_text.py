"""The formatting of an evaluation as text, CSV or JSON."""

import json
import math
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np

from nestnet.text.escape import csv_row, for_data, for_terminal
from nestnet.text.tables import align_columns
from nestnet.training import multi_label_text
from nestnet.training.classification_metrics import ClassificationMetrics
from nestnet.training.multi_label_metrics import MultiLabelMetrics
from nestnet.training.run_evaluation import RunEvaluation

Layout = Literal["text", "csv", "json"]

MAX_MATRIX_CLASSES = 20
"""Number of classes up to which a text shows the confusion matrix; it lists confusions of more classes."""

LISTED_CONFUSIONS = 10
"""Largest number of confusions in this list."""


def as_text(evaluation: RunEvaluation) -> Iterator[str]:
    """Yield readable lines: the top-1, then a table of the classes and their confusions.

    Args:
        evaluation: evaluation of a run.

    Yields:
        The lines, without line breaks.
    """
    metrics = _classification_metrics(evaluation)
    yield f"{evaluation.network} ({evaluation.mode}): top-1 {metrics.top1:.2f} %"
    if evaluation.root is not None:
        yield f"on {metrics.images:,} images of {for_terminal(evaluation.root)}"
    yield f"balanced accuracy {metrics.balanced_accuracy:.2f} % (mean recall of the classes)"
    yield ""
    rows = [["class", "images", "precision, %", "recall, %", "F1, %"]]
    columns = (metrics.class_names, metrics.images_per_class, metrics.precision, metrics.recall, metrics.f1)
    for name, images, *percentages in zip(*columns, strict=True):
        rows.append([for_terminal(name), f"{images:,}", *map(_percentage, percentages)])
    means = (metrics.macro_precision, metrics.balanced_accuracy, metrics.macro_f1)
    rows.append(["all images, mean of classes", f"{metrics.images:,}", *map(_percentage, means)])
    yield from align_columns(rows)
    yield ""
    if len(metrics.class_names) <= MAX_MATRIX_CLASSES:
        yield from _matrix_lines(metrics)
    else:
        yield from _confusion_lines(metrics)


def as_csv(evaluation: RunEvaluation) -> Iterator[str]:
    """Yield a header and a row per class, with a column for each class that may be predicted.

    The mean of the column `recall` is the balanced accuracy. Cells of what a class without images does not have are
    empty. Names are written by `nestnet.text.escape.for_data`.

    Args:
        evaluation: evaluation of a run.

    Yields:
        The lines, without line breaks.
    """
    metrics = _classification_metrics(evaluation)
    predicted = [f"predicted {name}" for name in metrics.class_names]
    yield csv_row(["class", "images", "precision", "recall", "f1", *predicted])
    for label, name in enumerate(metrics.class_names):
        percentages = []
        for values in (metrics.precision, metrics.recall, metrics.f1):
            value = values[label]
            percentages.append("" if math.isnan(value) else f"{value:.4f}")
        yield csv_row([name, metrics.images_per_class[label], *percentages, *metrics.confusion[label]])


def as_json(evaluation: RunEvaluation) -> Iterator[str]:
    """Yield one object on one line. What a class without images does not have is null.

    Names are written by `nestnet.text.escape.for_data`.

    Args:
        evaluation: evaluation of a run.

    Yields:
        The line, without a line break.
    """
    metrics = _classification_metrics(evaluation)
    classes = []
    for label, name in enumerate(metrics.class_names):
        classes.append(
            {
                "name": for_data(name),
                "images": int(metrics.images_per_class[label]),
                "precision": _number(metrics.precision[label]),
                "recall": _number(metrics.recall[label]),
                "f1": _number(metrics.f1[label]),
            }
        )
    document = {
        "network": evaluation.network,
        "mode": str(evaluation.mode),
        "root": None if evaluation.root is None else for_data(evaluation.root),
        "images": metrics.images,
        "top1": _number(metrics.top1),
        "balanced_accuracy": _number(metrics.balanced_accuracy),
        "macro_precision": _number(metrics.macro_precision),
        "macro_f1": _number(metrics.macro_f1),
        "classes": classes,
        "confusion": metrics.confusion.tolist(),
    }
    yield json.dumps(document)


def format_evaluation(evaluation: RunEvaluation, layout: Layout) -> Iterator[str]:
    """Return the lines of an evaluation, whether images have one label or several.

    Args:
        evaluation: evaluation of a run.
        layout: format of the lines.

    Returns:
        An iterator over the lines, without line breaks.
    """
    if isinstance(evaluation.metrics, MultiLabelMetrics):
        return multi_label_text.LAYOUTS[layout](evaluation.network, evaluation.mode, evaluation.metrics)
    return LAYOUTS[layout](evaluation)


def _classification_metrics(evaluation: RunEvaluation) -> ClassificationMetrics:
    assert isinstance(evaluation.metrics, ClassificationMetrics)
    return evaluation.metrics


def _matrix_lines(metrics: ClassificationMetrics) -> Iterator[str]:
    """Yield the confusion matrix. Its columns have numbers, because names would make it wide."""
    yield "images by true class (rows) and predicted class (columns, by the number of the class)"
    numbers = [str(label) for label in range(len(metrics.class_names))]
    rows = [["", *numbers]]
    for number, name, counts in zip(numbers, metrics.class_names, metrics.confusion, strict=True):
        rows.append([f"{number} {for_terminal(name)}", *map(str, counts)])
    yield from align_columns(rows)


def _confusion_lines(metrics: ClassificationMetrics) -> Iterator[str]:
    """Yield the confusions that occur most often."""
    counts = metrics.confusion.copy()
    np.fill_diagonal(counts, 0)
    rows = [["most frequent confusions", "images"]]
    for cell in np.argsort(-counts, axis=None, kind="stable")[:LISTED_CONFUSIONS]:
        label, predicted = divmod(int(cell), len(counts))
        if counts[label, predicted]:
            names = f"{for_terminal(metrics.class_names[label])} predicted as {for_terminal(metrics.class_names[predicted])}"
            rows.append([names, f"{counts[label, predicted]:,}"])
    yield from align_columns(rows)
    yield "The formats csv and json hold the whole confusion matrix."


def _percentage(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 4)


LAYOUTS: dict[Layout, Callable[[RunEvaluation], Iterator[str]]] = {
    "text": as_text,
    "csv": as_csv,
    "json": as_json,
}
"""Functions from an evaluation on images with one label to lines, by the name of the layout."""
