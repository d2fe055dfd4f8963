"""The result of a run that has ended: why it ended, what was exported, and the measurement on the test images."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nestnet.config.schema import Config
from nestnet.nn.mode import Mode
from nestnet.runs.contents import MAP_COLUMNS, METRIC_COLUMNS, RESULT, TABLE_REMEDY
from nestnet.runs.parts import read_parts
from nestnet.storage.atomic import write_atomically
from nestnet.storage.read_back import read_json
from nestnet.storage.rules import Rule, or_null, whole, word


@dataclass(frozen=True)
class RunResult:
    """The result of a run.

    Attributes:
        ended_by: what ended it: all `epochs` were trained, or `early_stopping` or `max_hours` came before.
        epochs: number of epochs that were trained.
        parts: number of parts of the run.
        exported_epochs: for each mode the epoch whose weights its export has.
        test: accuracies of the exports on the test images in percent, by column of `metrics.csv`; `None` if there are
            no validation images, because the test images were then evaluated after every epoch.
    """

    ended_by: str
    epochs: int
    parts: int
    exported_epochs: Mapping[str, int]
    test: Mapping[str, float] | None


def write_result(run_dir: Path, result: RunResult) -> None:
    """Write `result.json`.

    Args:
        run_dir: run directory.
        result: result of the run.

    Raises:
        OSError: If it cannot be written.
    """
    write_atomically(run_dir / RESULT, json.dumps(asdict(result), indent=1) + "\n")


def read_result(run_dir: Path, config: Config, finished_epochs: int) -> RunResult | None:
    """Read the result of a run.

    Args:
        run_dir: run directory.
        config: configuration of the run.
        finished_epochs: number of epochs that the run has finished.

    Returns:
        The result; `None` if the run has not ended, or trains further since.

    Raises:
        ValueError: If the file is damaged.
    """
    path = run_dir / RESULT
    if not path.exists():
        return None
    fields = read_json(path, RESULT_FIELDS, TABLE_REMEDY)
    result = RunResult(**{name: fields[name] for name in RESULT_FIELDS})
    is_short = result.ended_by == "epochs" and result.epochs < config.total_epochs
    has_further_part = result.parts < len(read_parts(run_dir, config))
    if is_short or has_further_part or result.epochs != finished_epochs:
        return None
    return result


def _are_epochs(value: Any) -> bool:
    modes = {str(mode) for mode in Mode}
    return isinstance(value, dict) and set(value) == modes and all(map(whole().fits, value.values()))


def _are_accuracies(value: Any) -> bool:
    columns = METRIC_COLUMNS | MAP_COLUMNS
    if not isinstance(value, dict) or not {f"{mode}_top1" for mode in Mode} <= set(value) <= set(columns):
        return False
    return all(columns[name].fits(accuracy) for name, accuracy in value.items())


RESULT_FIELDS = {
    "ended_by": word("epochs", "early_stopping", "max_hours"),
    "epochs": whole(1),
    "parts": whole(1),
    "exported_epochs": Rule("an epoch for each mode", _are_epochs),
    "test": or_null(Rule("accuracies in percent by column", _are_accuracies)),
}
"""Rules for the fields of the result."""
