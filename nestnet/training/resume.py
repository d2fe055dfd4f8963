"""The resumption of a run that was killed, interrupted, or stopped by a failure, or that is to train more epochs."""

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from nestnet.conditions.base import Condition
from nestnet.config import parsing
from nestnet.config.names import names_of_options
from nestnet.config.schema import Config
from nestnet.data.image_data import ImageData
from nestnet.runs.checkpoints import Checkpoints
from nestnet.runs.directory import RunDirectory
from nestnet.runs.null_directory import NullRunDirectory
from nestnet.runs.reading import read_config, read_record
from nestnet.runs.resumable import check_same_config
from nestnet.runtime.log import log_notice
from nestnet.runtime.torchrun import is_first_process
from nestnet.storage.state_codec import State
from nestnet.text.escape import quoted
from nestnet.trackers.callback import Callback
from nestnet.training.longer_run import (
    begins_part,
    check_base_unfinished,
    check_ends_later,
    check_epochs,
    is_longer,
    keep_exports,
)
from nestnet.training.trainer import Trainer


def resume(
    run_dir: str | os.PathLike[str],
    changes: Sequence[str] = (),
    *,
    images: ImageData | None = None,
    condition: Condition | None = None,
    callbacks: Sequence[Callback] = (),
) -> Path:
    """Resume a run in its folder, from its last complete checkpoint.

    On a CPU the run ends with the same bits as without the interruption: the same weights, exports and tables,
    except for the times in them. For a finished run, only the exports are written again, unless it is resumed for more
    `epochs`: then it trains further, and `parts.json` records both parts.

    Args:
        run_dir: folder of the run.
        changes: command-line arguments for fields that do not change what is trained, and for more `epochs`.
        images: images in place of those that the configuration names, if the run's `Trainer` was given them.
        condition: condition in place of the one that the configuration names, if the run's `Trainer` was given it.
        callbacks: callbacks that follow the run: see `Trainer`.

    Returns:
        The folder of the run.

    Raises:
        ValueError: If the folder is not a run directory, another process trains in it, or its checkpoints are damaged or
            of another run. In these cases nothing is changed.
        FloatingPointError: See `Trainer.fit`.
        RunStopped: See `Trainer.fit`.
        Interrupted: See `Trainer.fit`.
    """
    path = Path(run_dir)
    config = _change_config(path, changes)
    # Only the first process reads and writes; it sends the checkpoint to the others.
    with RunDirectory(path) if is_first_process() else NullRunDirectory() as run:
        state: State | None = None
        if isinstance(run, RunDirectory):
            state = run.checkpoints.newest()
        has_checkpoints = bool(Checkpoints(path / "checkpoints").paths())
        record = None
        if has_checkpoints:
            record = read_record(path)
        trainer = Trainer(
            config,
            images=images,
            record=record,
            condition=condition,
            initial_weights=not has_checkpoints,
            callbacks=callbacks,
        )
        state = trainer.process_group.broadcast_object(state)
        if state is not None:
            if is_longer(config, state):
                check_base_unfinished(config, state)
                check_ends_later(config, state)
            _load_state(trainer, state, run, path)
            if begins_part(config, state) and isinstance(run, RunDirectory):
                keep_exports(path, state["epochs_done"])
            _notice_other_bits(state, trainer)
        elif (path / "steps.csv").exists():
            log_notice(f"{path} has no checkpoint: it is trained from its first batch again")
        return trainer.fit(run)


def _load_state(trainer: Trainer, state: State, run: RunDirectory | NullRunDirectory, path: Path) -> None:
    """Restore a trainer from a checkpoint, and name the file in the error if it is of another run."""
    try:
        trainer.load_state(state)
    except ValueError as error:
        source: Path | None = path
        if isinstance(run, RunDirectory):
            source = run.checkpoints.last
        raise ValueError(f"{source}: {error}") from error


def _notice_other_bits(state: State, trainer: Trainer) -> None:
    """Log a notice if the run will not end with the same bits as without the interruption."""
    before = len(state["processes"])
    now = trainer.process_group.size
    if before != now:
        log_notice(f"{before} processes trained this run before, and {now} do now: it will not end with the same bits")
        return
    # On a CPU the order of summation depends on the number of threads.
    threads = state["processes"][trainer.process_group.rank]["threads"]
    if trainer.device.type == "cpu" and threads != torch.get_num_threads():
        log_notice(
            f"{threads} threads trained this run before, and {torch.get_num_threads()} do now: it will not end with the "
            f"same bits; with OMP_NUM_THREADS={threads} it will"
        )


def _change_config(path: Path, changes: Sequence[str]) -> Config:
    """Return the configuration of the run with the changes.

    Raises:
        ValueError: If a change would alter what is trained, or the folder is not a run directory.
    """
    stored = read_config(path)
    if not changes:
        return replace(stored, run_dir=str(path))
    epochs = parsing.read_given(changes, prog="nestnet resume").get("epochs")
    if epochs is not None:
        check_epochs(stored, epochs)
    arguments = [parsing.option_of(path / "config.yaml"), *changes]
    changed = parsing.parse(arguments, prog="nestnet resume", literal=parsing.paths_of(stored), run_dirs=[path])
    # Refuse it even if it names the folder of the run, because the folder may have been moved.
    if "run_dir" in names_of_options(changes) or changed.run_dir != stored.run_dir:
        raise ValueError(
            f"run_dir = {quoted(changed.run_dir)}: a run is resumed where it lies, in {path}; leave it out, or move the "
            "folder and resume it there"
        )
    check_same_config(asdict(stored), asdict(changed), f"the run in {path}")
    return replace(changed, run_dir=str(path))
