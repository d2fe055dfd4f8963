"""The end of a run before its last epoch: by a signal, or by a known failure."""

import signal
from typing import TYPE_CHECKING

from nestnet.runs.run_stopped import RunStopped
from nestnet.runtime.interrupts import Interrupted
from nestnet.runtime.log import log_notice
from nestnet.text.escape import for_shell
from nestnet.text.messages import message_of
from nestnet.training.failures import explain_failure

if TYPE_CHECKING:
    from nestnet.training.trainer import Trainer


def check_interrupts(trainer: "Trainer") -> None:
    """End all processes together if one of them has received a signal.

    All processes must call this function at the same points, where a checkpoint can be written or training has
    finished.

    Args:
        trainer: trainer of the run.

    Raises:
        KeyboardInterrupt: If one of the processes has received a signal.
    """
    interrupts = trainer.interrupts
    # 0 means no signal. If there were several signals, all processes choose the same one.
    numbers = trainer.process_group.all_gather_object(interrupts.number or 0)
    interrupts.agreed_number = max(numbers) or None
    if interrupts.agreed_number is not None:
        raise KeyboardInterrupt


def end_early(trainer: "Trainer", error: BaseException) -> None:
    """Replace an error that ended the run by a one-line explanation, after a checkpoint if one can be written.

    Args:
        trainer: trainer of the run.
        error: error that ended the run. The caller raises it again if this function returns.

    Raises:
        Interrupted: If the run was ended by a signal.
        RunStopped: If it was ended by a known failure from outside, such as a full disk.
    """
    number = _signal_number(trainer)
    # KeyboardInterrupt is not an Exception, and its only reason is the signal.
    reason: str | None = None
    if isinstance(error, Exception):
        reason = explain_failure(error, trainer.config)
    # FloatingPointError explains itself, and an unknown error keeps its traceback.
    if isinstance(error, FloatingPointError) or (reason is None and number is None):
        return

    # Save the training since the last checkpoint if possible.
    if _can_save(trainer, error):
        _save_last(trainer)
    config = trainer.config
    epoch = min(trainer.epochs_done + 1, config.total_epochs)
    where = f"at step {trainer.steps_done} (epoch {epoch})"
    remedy = f"`nestnet resume {for_shell(config.run_dir)}` continues from the last checkpoint"
    if number is not None:
        message = f"interrupted by {signal.Signals(number).name} {where}; {remedy}"
        raise Interrupted(message, number, is_agreed=trainer.interrupts.agreed_number is not None) from None
    raise RunStopped(f"{reason} ({where}); {remedy}") from error


def _signal_number(trainer: "Trainer") -> int | None:
    """Return the signal that ended the run, if one did."""
    interrupts = trainer.interrupts
    if interrupts.agreed_number is not None:
        return interrupts.agreed_number
    # torchrun sends a signal to the remaining processes after one has failed, but it is the failure that ended
    # the run.
    if trainer.process_group.size == 1 or interrupts.ends_at_once:
        return interrupts.number
    return None


def _can_save(trainer: "Trainer", error: BaseException) -> bool:
    """Return whether a consistent state can be saved that is newer than the last epoch's checkpoint."""
    interrupts = trainer.interrupts
    # In the middle of a step weights and counters do not match. After a second signal the user wants an immediate
    # end. After an OSError the disk may be full.
    if trainer.is_stepping or interrupts.ends_at_once or isinstance(error, OSError):
        return False
    # The end of the previous epoch has a checkpoint already.
    if trainer.totals.batches == 0:
        return False
    # The state is gathered from all processes, which is possible only if all of them end here.
    return trainer.process_group.size == 1 or bool(interrupts.agreed_number)


def _save_last(trainer: "Trainer") -> None:
    """Write a checkpoint if possible; the previous one stays intact if this fails."""
    try:
        trainer.checkpointer.save()
    except KeyboardInterrupt:
        pass  # a second Ctrl-C does not wait for the checkpoint
    except OSError as error:
        log_notice(f"there is no checkpoint of step {trainer.steps_done}: {message_of(error)}")
