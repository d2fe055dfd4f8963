"""A run that is trained further: for more epochs than it was planned for, or after it has ended early."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from nestnet.config.schema import Config
from nestnet.nn.mode import Mode
from nestnet.runs.parts import RunPart
from nestnet.runtime.log import log_notice
from nestnet.storage.atomic import write_atomically
from nestnet.storage.opening import open_regular
from nestnet.storage.state_codec import State
from nestnet.text.units import format_count
from nestnet.training.finish_phase import set_learning_rate, start_schedule
from nestnet.training.stopping import Stopping

if TYPE_CHECKING:
    from nestnet.training.trainer import Trainer

LENGTH_DECIDES = ("cosine", "tanh", "poly")
"""Schedules whose learning rate depends on the number of epochs."""


def check_epochs(stored: Config, epochs: int) -> None:
    """Check that a run may be resumed for another number of epochs.

    Args:
        stored: configuration of the run.
        epochs: number of `epochs` for which it is to be resumed.

    Raises:
        ValueError: If the run would be shorter, or cannot be longer.
    """
    if epochs == stored.epochs:
        return
    if epochs < stored.epochs:
        raise ValueError(
            f"epochs = {epochs}: the run has {stored.epochs}, and can only be resumed for more; raise it, or leave it out"
        )
    if stored.extends_given_base:
        raise ValueError(
            f"epochs = {epochs}: the run extends a finished base, which is not trained; leave it out, or start a new run"
        )
    if stored.motivation.name == "random_like":
        raise ValueError(
            f"epochs = {epochs}: motivation.counts has the motivated batches of {stored.epochs} epochs only; start a new run"
        )


def is_longer(config: Config, state: State) -> bool:
    """Return whether a run is resumed for more epochs than it had when a checkpoint was written.

    Args:
        config: present configuration of the run.
        state: content of the checkpoint.
    """
    return config.epochs > state["config"]["epochs"]


def begins_part(config: Config, state: State) -> bool:
    """Return whether a resumed run begins another part: it becomes longer, or had ended early and trains further.

    Args:
        config: present configuration of the run.
        state: content of its newest checkpoint.
    """
    if is_longer(config, state):
        return True
    before = state["config"]
    had_ended = _end_reason(state, before["early_stopping"]["patience"], before["max_hours"])
    ends = _end_reason(state, config.early_stopping.patience, config.max_hours)
    return had_ended is not None and ends is None


def _end_reason(state: State, patience: int | None, max_hours: float | None) -> str | None:
    """Return what had ended a run early when a checkpoint was written; `None` if nothing had."""
    # An epoch that has begun is trained to its end.
    if (
        state["epoch"]["batches"]
        or state["epochs_done"] >= state["config"]["epochs"] + state["config"]["finish_epochs"]
    ):
        return None
    return Stopping(**state["stopping"]).reason(patience, max_hours)


def check_ends_later(config: Config, state: State) -> None:
    """Check that a run that becomes longer does not end where it is.

    Args:
        config: present configuration of the run, with more epochs than before.
        state: content of its newest checkpoint.

    Raises:
        ValueError: If early stopping or the time ends it at once.
    """
    early = config.early_stopping.patience
    if state["epoch"]["batches"]:
        return
    reason = Stopping(**state["stopping"]).reason(early, config.max_hours)
    ended = f"epochs = {config.epochs}: the run ends after epoch {state['epochs_done']}, because of"
    if reason == "early_stopping":
        raise ValueError(f"{ended} early_stopping.patience = {early}; raise it or set it to null too")
    if reason == "max_hours":
        raise ValueError(f"{ended} max_hours = {config.max_hours:g}; raise it or set it to null too")


def check_base_unfinished(config: Config, state: State) -> None:
    """Check that a longer run has not yet begun to extend its base.

    Args:
        config: present configuration of the run, with more epochs than before.
        state: content of its newest checkpoint.

    Raises:
        ValueError: If it has.
    """
    before = state["config"]["epochs"]
    if config.finish_epochs > 0 and state["epochs_done"] >= before:
        raise ValueError(
            f"epochs = {config.epochs}: the base was finished after {before} epochs, and finish_epochs trained the rest on top "
            "of it; leave epochs out, or start a new run"
        )


def begin_part(trainer: "Trainer", before: int) -> None:
    """Begin another part of a run, whose state has been restored: its schedule is another one from here on.

    Args:
        trainer: trainer of the run, with its new configuration.
        before: number of `epochs` that the run had.
    """
    config = trainer.config
    groups = trainer.optimizer.param_groups
    lr_before = float(groups[0]["lr"])
    # A part in which no batch was trained never began.
    earlier = [part for part in trainer.parts if part.start_step < trainer.steps_done]
    if len(earlier) < len(trainer.parts) and trainer.parts[-1].lr_before is not None:
        lr_before = trainer.parts[-1].lr_before
    part = RunPart(trainer.epochs_done, trainer.steps_done, config.epochs, config.schedule.further_epochs)
    if config.epochs == before:
        # The schedule of the part before continues.
        part = RunPart(part.start_epoch, part.start_step, part.epochs, trainer.parts[-1].schedule)
    if not earlier:
        part = RunPart(0, 0, config.epochs)
    trainer.parts = [*earlier, part]
    trainer.schedule = start_schedule(
        config, trainer.optimizer, len(trainer.train_batches), trainer.epochs_done, trainer.parts
    )
    set_learning_rate(trainer)
    if not earlier:
        return
    lr_after = float(groups[0]["lr"])
    trainer.parts[-1] = RunPart(**(asdict(part) | {"lr_before": lr_before, "lr_after": lr_after}))
    log_notice(_describe(config, trainer.parts[-1], before))


def keep_exports(run_dir: Path, epochs: int) -> None:
    """Keep copies of the exports of a finished run, which those of the longer run will replace.

    Args:
        run_dir: run directory.
        epochs: number of epochs after which they were written, for the names of the copies.

    Raises:
        OSError: If a copy cannot be written.
    """
    kept = []
    for mode in Mode:
        path = run_dir / f"{mode}.safetensors"
        copy = run_dir / earlier_export(mode, epochs)
        # A copy is there already if the run was killed after this point.
        if path.exists() and not copy.exists():
            with open_regular(path) as file:
                write_atomically(copy, file.read())
            kept.append(copy.name)
    if kept:
        log_notice(
            f"the exports of {format_count(epochs, 'epoch', 'epochs')} stay in place until the run ends, and are kept as "
            f"{' and '.join(kept)}"
        )


def earlier_export(mode: Mode, epochs: int) -> str:
    """Return the name under which the export of an earlier part is kept.

    Args:
        mode: mode of the subnet.
        epochs: number of epochs after which it was written.
    """
    return f"{mode}-epoch-{epochs}.safetensors"


def _describe(config: Config, part: RunPart, before: int) -> str:
    """Return the notice about what changes with the further epochs."""
    schedule = config.schedule
    trained = format_count(part.start_epoch, "epoch", "epochs")
    if config.epochs == before:
        return f"the run had ended after {trained}, and trains up to {config.total_epochs}; its schedule continues as planned"
    change = f"{part.lr_before:g} to {part.lr_after:g}"
    if schedule.further_epochs == "restart":
        further = config.epochs - part.start_epoch
        text = (
            f"the {format_count(further, 'further epoch', 'further epochs')} have a {schedule.name} schedule of their own, so "
            f"the learning rate goes from {change} here"
        )
    elif schedule.name in LENGTH_DECIDES:
        text = (
            f"the {schedule.name} schedule is recomputed as if the run had had {config.epochs} epochs from the start, so the "
            f"learning rate goes from {change} here; with schedule.further_epochs = restart the further epochs have a schedule "
            "of their own"
        )
    else:
        text = f"the learning rate continues at {part.lr_after:g}, because the schedule does not depend on the number of epochs"
    motivation = config.motivation
    if motivation.start > 0 or motivation.until < 1:
        text += (
            f"; motivation.start = {motivation.start:g} and motivation.until = {motivation.until:g} are parts of all "
            f"{config.epochs} epochs from here on"
        )
    return f"epochs = {config.epochs} instead of {before}, after {trained}: {text}"
