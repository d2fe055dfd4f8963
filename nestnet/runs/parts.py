"""The parts of a run: a run that is resumed for more epochs begins another one, which `parts.json` records."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nestnet.config.schema import Config
from nestnet.runs.contents import PARTS
from nestnet.storage.atomic import write_atomically
from nestnet.storage.read_back import check_present, damaged, read_json
from nestnet.storage.rules import Rule, of_type, or_null, whole, word
from nestnet.storage.rules import number as any_finite_number

PARTS_REMEDY = "put back a copy of it, or resume the run, which writes it again"

PART_FIELDS = {
    "start_epoch": whole(),
    "start_step": whole(),
    "epochs": whole(),
    "schedule": word("stretch", "restart"),
    "lr_before": or_null(any_finite_number(0)),
    "lr_after": or_null(any_finite_number(0)),
    "began": or_null(of_type(str, "a time")),
}
"""Fields of a part in the record."""


@dataclass(frozen=True)
class RunPart:
    """A part of a run.

    Attributes:
        start_epoch: number of epochs that were trained before it.
        start_step: number of batches that were trained before it.
        epochs: number of `epochs` of the whole run, as they were planned from then on.
        schedule: what its learning rate schedule did: `schedule.further_epochs` of the configuration.
        lr_before: learning rate at the end of the part before; `None` for the first part.
        lr_after: learning rate with which it began; `None` for the first part.
    """

    start_epoch: int
    start_step: int
    epochs: int
    schedule: str = "stretch"
    lr_before: float | None = None
    lr_after: float | None = None


def restart_epoch(parts: Sequence[RunPart]) -> int:
    """Return the number of epochs before the present schedule, 0 unless a part has restarted it.

    Args:
        parts: parts of a run, at least one.
    """
    index = len(parts) - 1
    # A part that continues where a run had ended early has the schedule of the part before.
    while index > 0 and parts[index].epochs == parts[index - 1].epochs:
        index -= 1
    if parts[index].schedule == "restart":
        return parts[index].start_epoch
    return 0


def describe_parts(parts: Sequence[RunPart]) -> str:
    """Return the later parts of a run in words.

    Args:
        parts: parts of a run, at least one.

    Returns:
        A clause for each part but the first; empty for a run of one part.

    Example:
        >>> describe_parts([RunPart(0, 0, 20), RunPart(20, 7800, 60, "stretch", 0.0, 0.075)])
        'resumed for 60 instead of 20 after epoch 20, the schedule recomputed for all: learning rate 0 to 0.075'
    """
    clauses = []
    for before, part in itertools.pairwise(parts):
        schedule = "the schedule recomputed for all"
        if part.schedule == "restart":
            schedule = "with a schedule of their own"
        if part.epochs == before.epochs:
            clauses.append(f"trained further after epoch {part.start_epoch}, where it had ended early")
            continue
        clauses.append(
            f"resumed for {part.epochs} instead of {before.epochs} after epoch {part.start_epoch}, {schedule}: learning rate "
            f"{part.lr_before:g} to {part.lr_after:g}"
        )
    return "; ".join(clauses)


def write_parts(run_dir: Path, parts: Sequence[RunPart]) -> None:
    """Write the record of a run's parts. A part that the record has already keeps the time when it began.

    Args:
        run_dir: run directory.
        parts: parts of the run.

    Raises:
        ValueError: If there is a damaged record.
        OSError: If it cannot be written.
    """
    began: dict[int, Any] = {}
    path = run_dir / PARTS
    if path.exists():
        began = {entry["start_step"]: entry["began"] for entry in _read_entries(path)}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    entries = []
    for part in parts:
        # The first part began when the run did, which its files show.
        time = None
        if part.start_step > 0:
            time = began.get(part.start_step, now)
        entries.append({**asdict(part), "began": time})
    write_atomically(path, json.dumps({"parts": entries}, indent=1) + "\n")


def read_parts(run_dir: Path, config: Config) -> list[RunPart]:
    """Read the parts of a run.

    Args:
        run_dir: run directory.
        config: configuration of the run.

    Returns:
        The parts; a single one if the run has no record.

    Raises:
        ValueError: If the record is damaged.
    """
    path = run_dir / PARTS
    if not path.exists():
        return [RunPart(0, 0, config.epochs)]
    parts = []
    for entry in _read_entries(path):
        fields = {name: value for name, value in entry.items() if name != "began"}
        parts.append(RunPart(**fields))
    return parts


def _read_entries(path: Path) -> list[dict[str, Any]]:
    fields = {"parts": Rule("a list of at least one part", lambda value: isinstance(value, list) and bool(value))}
    entries = read_json(path, fields, PARTS_REMEDY)["parts"]
    for entry in entries:
        if not isinstance(entry, dict) or set(entry) != set(PART_FIELDS):
            raise damaged(path, f"a part does not have the fields {', '.join(PART_FIELDS)}", PARTS_REMEDY)
        check_present(path, entry, PART_FIELDS, PARTS_REMEDY)
    return entries
