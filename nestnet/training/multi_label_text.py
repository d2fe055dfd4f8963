"""The formatting of an evaluation on images with several labels as text, CSV or JSON."""

import json
import math
from collections.abc import Callable, Iterator

from nestnet.text.escape import csv_row, for_data, for_terminal
from nestnet.text.tables import align_columns
from nestnet.training.multi_label_metrics import MultiLabelMetrics


def as_text(network: str, mode: str, metrics: MultiLabelMetrics) -> Iterator[str]:
    """Yield readable lines: the mean average precision, then a table of the classes.

    Args:
        network: name of the subnet's architecture.
        mode: mode of the subnet.
        metrics: metrics of its scores.

    Yields:
        The lines, without line breaks.
    """
    yield f"{network} ({mode}): mAP {metrics.mean_average_precision:.2f} % (mean average precision of the classes)"
    yield f"top-1 {metrics.top1:.2f} % (images with labels whose most probable class is one of them)"
    yield ""
    rows = [["class", "images", "average precision, %"]]
    for name, images, precision in zip(metrics.class_names, metrics.positives, metrics.average_precision, strict=True):
        rows.append([for_terminal(name), f"{images:,}", "-" if math.isnan(precision) else f"{precision:.2f}"])
    rows.append(["all images, mean of classes", f"{metrics.images:,}", f"{metrics.mean_average_precision:.2f}"])
    yield from align_columns(rows)


def as_csv(network: str, mode: str, metrics: MultiLabelMetrics) -> Iterator[str]:
    """Yield a header and a row per class. The cell of a class that no image has is empty.

    Args:
        network: name of the subnet's architecture.
        mode: mode of the subnet.
        metrics: metrics of its scores.

    Yields:
        The lines, without line breaks.
    """
    yield csv_row(["class", "images", "average_precision"])
    for name, images, precision in zip(metrics.class_names, metrics.positives, metrics.average_precision, strict=True):
        yield csv_row([name, images, "" if math.isnan(precision) else f"{precision:.4f}"])


def as_json(network: str, mode: str, metrics: MultiLabelMetrics) -> Iterator[str]:
    """Yield one object on one line. What a class that no image has does not have is null.

    Args:
        network: name of the subnet's architecture.
        mode: mode of the subnet.
        metrics: metrics of its scores.

    Yields:
        The line, without a line break.
    """
    classes = []
    for name, images, precision in zip(metrics.class_names, metrics.positives, metrics.average_precision, strict=True):
        average_precision = None if math.isnan(precision) else round(float(precision), 4)
        classes.append({"name": for_data(name), "images": int(images), "average_precision": average_precision})
    document = {
        "network": network,
        "mode": mode,
        "images": metrics.images,
        "mean_average_precision": round(metrics.mean_average_precision, 4),
        "top1": round(metrics.top1, 4),
        "classes": classes,
    }
    yield json.dumps(document)


LAYOUTS: dict[str, Callable[[str, str, MultiLabelMetrics], Iterator[str]]] = {
    "text": as_text,
    "csv": as_csv,
    "json": as_json,
}
"""Functions from metrics to lines, by the name of the layout."""
