"""The result of one run of a study, and its file `result.json`."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from nestnet.storage.atomic import write_atomically
from nestnet.storage.read_back import read_json
from nestnet.storage.rules import number, or_null, whole
from nestnet.text.units import format_duration
from nestnet.tuning.study_run import StudyRun

RESULT_FILE = "fold.json"

# Rule of each field of the file.
RESULT_FIELDS = {
    "k": or_null(whole(1)),
    "fold": whole(1),
    "base_top1": number(0, 100),
    "motivated_top1": number(0, 100),
    "motivated_fraction": number(0, 1),
    "expected_fraction": or_null(number(0, 1)),
    "average_cost": number(0),
    "base_cost": whole(1),
    "motivated_cost": whole(1),
    "seconds": number(0),
}

# Remedy for a damaged file.
RESULT_REMEDY = "remove it, and the same command trains this run again"


@dataclass(frozen=True, order=True)
class FoldResult:
    """Result of a run that was tested on one fold.

    Attributes:
        k: k of the condition; `None` if the study does not compare several.
        fold: number of the fold, from 1.
        base_top1: top-1 of the base on the fold after the last epoch, in percent.
        motivated_top1: the same of the motivated network.
        motivated_fraction: share of motivated batches over all epochs, from 0 to 1.
        expected_fraction: forecast of this share for epochs of this length, assuming independent losses; `None`
            if the condition has no forecast.
        average_cost: multiply-accumulates of a forward pass of one training image, averaged over all batches.
        base_cost: the same of the base network alone.
        motivated_cost: the same of the motivated network alone.
        seconds: duration of the run.
    """

    k: int | None
    fold: int
    base_top1: float
    motivated_top1: float
    motivated_fraction: float
    expected_fraction: float | None
    average_cost: float
    base_cost: int
    motivated_cost: int
    seconds: float

    def __str__(self) -> str:
        # This is one line of a study's progress.
        return (
            f"{StudyRun(self.fold, self.k)}: top-1 base {self.base_top1:.2f} %, "
            f"motivated {self.motivated_top1:.2f} %; "
            f"motivated batches {self.motivated_fraction:.1%}; {format_duration(self.seconds)}"
        )


def write_fold_result(result: FoldResult, path: Path) -> None:
    """Write a result to its file.

    Args:
        result: result of a run.
        path: file to write.
    """
    write_atomically(path, json.dumps(asdict(result), indent=1) + "\n")


def read_fold_result(path: Path) -> FoldResult:
    """Read a result from its file.

    Args:
        path: file that `write_fold_result` wrote.

    Returns:
        The result.

    Raises:
        ValueError: If the file is damaged.
    """
    return FoldResult(**read_json(path, RESULT_FIELDS, RESULT_REMEDY))
