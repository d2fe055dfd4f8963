"""What trackers show of a run: names and values of its measurements, and its configuration as a flat table."""

from collections.abc import Mapping
from typing import Any

from nestnet.nn.mode import Mode


def batch_measurements(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the measurements of a batch by name.

    Args:
        row: row of `steps.csv`, by column.

    Returns:
        The loss, the learning rate, and whether the batch trained the motivated network, as 0 or 1.
    """
    return {
        "batch/loss": row["loss"],
        "batch/lr": row["lr"],
        "batch/motivated": int(row["mode"] != Mode.BASE),
    }


def epoch_measurements(metrics: Mapping[str, Any], prefix: str = "epoch") -> dict[str, float]:
    """Return the measurements of an epoch by name.

    Args:
        metrics: row of `metrics.csv`, or some columns of it.
        prefix: first part of each name; `test` for accuracies on the test images.

    Returns:
        All numbers of the row.
    """
    measurements: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, int | float):
            measurements[f"{prefix}/{name}"] = value
    return measurements


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a configuration by their dotted names.

    Args:
        config: configuration, as nested dictionaries.

    Returns:
        Each field's value by `section.key` or `key`. Dictionaries of arguments are flattened too.
    """
    fields: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict) and value:
            for key, entry in flatten(value).items():
                fields[f"{name}.{key}"] = entry
        else:
            fields[name] = value
    return fields
