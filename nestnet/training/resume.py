"""Going on with a run that was killed, interrupted, or stopped by a fault."""

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from nestnet.conditions.base import Condition
from nestnet.config import parsing
from nestnet.config.schema import Config
from nestnet.data.image_data import ImageData
from nestnet.runs.checkpoints import Checkpoints
from nestnet.runs.directory import NullRunDirectory, RunDirectory
from nestnet.runs.reading import read_config, read_record
from nestnet.runs.resumable import check_config
from nestnet.runtime.notices import log_notice
from nestnet.runtime.torchrun import is_first_process
from nestnet.storage.state_codec import State
from nestnet.text.escape import quoted
from nestnet.training.trainer import Trainer


def resume(
    run_dir: str | os.PathLike[str],
    changes: Sequence[str] = (),
    *,
    images: ImageData | None = None,
    condition: Condition | None = None,
) -> Path:
    """Go on with a run in its folder, from its last whole checkpoint; returns the folder.

    On a CPU the run ends with the very bits that it would have had without the interruption: the same weights, exports and
    tables, but for the seconds in them. A finished run only gets its exports written once more.

    Args:
        changes: options as on the command line, such as `["--data.root", "elsewhere"]`, of fields that do not change what is
            trained.
        images: as the run's `Trainer` had them, where they were not those of the configuration.
        condition: likewise.

    Raises:
        ValueError: if the folder is no run, another process trains in it, or its checkpoints are damaged or of another run;
            nothing has changed then.
        FloatingPointError, Stopped, Interrupted: as `Trainer.fit`.
    """
    path = Path(run_dir)
    config = _changed(path, changes)
    with RunDirectory(path) if is_first_process() else NullRunDirectory() as run:
        state = run.checkpoints.newest() if isinstance(run, RunDirectory) else None
        begun = bool(Checkpoints(path / "checkpoints").paths())
        record = read_record(path) if begun else None
        trainer = Trainer(config, images=images, record=record, condition=condition, initial_weights=not begun)
        state = trainer.process_group.broadcast_object(state)
        if state is not None:
            try:
                trainer.load_state(state)
            except ValueError as error:
                where = run.checkpoints.last if isinstance(run, RunDirectory) else path
                raise ValueError(f"{where}: {error}") from error
            _notice_other_bits(state, trainer)
        elif (path / "steps.csv").exists():
            log_notice(f"{path} has no checkpoint: it is trained from its first batch again")
        return trainer.fit(run)


def _notice_other_bits(state: State, trainer: Trainer) -> None:
    """Say so where the run will not end with the bits that it would have had without the interruption."""
    before = len(state["processes"])
    now = trainer.process_group.size
    if before != now:
        log_notice(f"{before} processes trained this run before, and {now} do now: it will not end with the same bits")
        return
    # the order in which a CPU's sums are taken depends on the number of threads
    threads = state["processes"][trainer.process_group.rank]["threads"]
    if trainer.device.type == "cpu" and threads != torch.get_num_threads():
        log_notice(
            f"{threads} threads trained this run before, and {torch.get_num_threads()} do now: it will not end with the same "
            f"bits; with OMP_NUM_THREADS={threads} it does"
        )


def _changed(path: Path, changes: Sequence[str]) -> Config:
    """The run's configuration with the changes, all of which must be free.

    Raises:
        ValueError: if one is not, or the folder is no run.
    """
    stored = read_config(path)
    arguments = [parsing.option_of(path / "config.yaml"), *changes]
    changed = parsing.parse(arguments, prog="nestnet resume", literal=parsing.paths_of(stored))
    named = any(change.partition("=")[0] == "--run_dir" for change in changes)
    if named or changed.run_dir != stored.run_dir:
        raise ValueError(
            f"run_dir = {quoted(changed.run_dir)}: a run is resumed where it lies, in {path}; leave it out, or move the "
            "folder and resume it there"
        )
    check_config(asdict(stored), asdict(changed), f"the run in {path}")
    return replace(changed, run_dir=str(path))
